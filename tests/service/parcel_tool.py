"""A tool that a user of the service might bring; the service knows nothing of it."""

from typing import Annotated

from pydantic import Field


async def track_parcel(
    tracking_no: Annotated[str, Field(pattern=r"^PX-\d{6}$", description="The tracking number, e.g. PX-123456")],
) -> str:
    """Track a parcel by its tracking number. 查询包裹的物流位置。"""
    return f"Parcel {tracking_no} is in Hangzhou"

"""The tool `order_query`: looks up the state of an order in a file or at a backend."""

import asyncio
import json
import re
import unicodedata
from typing import Annotated
from urllib.parse import quote

import httpx
from pydantic import BeforeValidator, Field

from serve_app.config import OrdersSettings
from serve_app.tools.egress import certificates

NO_SUCH_ORDER = "订单不存在 (no such order)"

_HYPHENS = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣ー", "-"))
"""Marks that input methods and word processors put for a hyphen, and NFKC leaves as they are."""


def _number(value: object) -> object:
    """An order number in one form, as people type it: full-width, in small letters, with spaces or without hyphen."""
    if not isinstance(value, str):
        return value
    plain = "".join(unicodedata.normalize("NFKC", value).translate(_HYPHENS).split()).upper()
    return re.sub(r"^OD-*(?=[0-9])", "OD-", plain)


OrderId = Annotated[
    str,
    BeforeValidator(_number),
    Field(
        pattern=r"^[Oo][Dd]-[0-9]+$",
        description="The order number, e.g. OD-20240501. 订单号,例如 OD-20240501。",
        examples=["OD-20240501"],
    ),
]


async def order_query(order_id: OrderId, *, orders: OrdersSettings) -> str:
    """Look up the state of an order by its number: paid, shipped, delivered. 按订单号查询订单状态:付款、发货、物流。"""
    number = str(_number(order_id))
    state = await (_from_backend(orders.url, number) if orders.url else _from_file(orders, number))
    return f"{number}: {state or NO_SUCH_ORDER}"


async def _from_file(orders: OrdersSettings, number: str) -> str | None:
    states: dict[str, str] = json.loads(await asyncio.to_thread(orders.file.read_text, "utf-8"))
    return states.get(number)


async def _from_backend(url: str, number: str) -> str | None:
    """GET `{url}/{number}`: 200 with `{"status": str}`, or 404."""
    async with httpx.AsyncClient(timeout=None, verify=certificates()) as client:  # noqa: S113 - the runner bounds it
        response = await client.get(f"{url.rstrip('/')}/{quote(number)}")
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    return str(response.raise_for_status().json()["status"])

"""The tool `order_query`: looks up an order's state in a file or backend."""

import asyncio
import json
import re
import unicodedata
from typing import Annotated
from urllib.parse import quote

import httpx
from pydantic import BeforeValidator, Field

from serve_app.config import OrdersSettings
from serve_app.tools.egress import tls_context

NO_SUCH_ORDER = "订单不存在 (no such order)"

_HYPHENS = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣ー", "-"))
"""Characters that input methods and word processors write for a hyphen and that NFKC does not change."""


def _normalize_order_number(value: object) -> object:
    """The order number in one form; people type it in many."""
    if not isinstance(value, str):
        return value
    plain = "".join(unicodedata.normalize("NFKC", value).translate(_HYPHENS).split()).upper()
    return re.sub(r"^OD-*(?=[0-9])", "OD-", plain)


OrderId = Annotated[
    str,
    BeforeValidator(_normalize_order_number),
    Field(
        pattern=r"^[Oo][Dd]-[0-9]+$",
        description="The order number, e.g. OD-20240501. 订单号,例如 OD-20240501。",
        examples=["OD-20240501"],
    ),
]


async def order_query(order_id: OrderId, *, orders: OrdersSettings) -> str:
    """Look up the state of an order by its number: paid, shipped, delivered. 按订单号查询订单状态:付款、发货、物流。"""
    number = str(_normalize_order_number(order_id))
    state = await (_from_backend(orders.url, number) if orders.url else _from_file(orders, number))
    return f"{number}: {state or NO_SUCH_ORDER}"


async def _from_file(orders: OrdersSettings, number: str) -> str | None:
    states: dict[str, str] = json.loads(await asyncio.to_thread(orders.file.read_text, "utf-8"))
    return states.get(number)


async def _from_backend(url: str, number: str) -> str | None:
    """GET `{url}/{number}`: 200 with `{"status": str}`, or 404."""
    async with httpx.AsyncClient(timeout=None, verify=tls_context()) as client:  # noqa: S113 - each attempt has one
        response = await client.get(f"{url.rstrip('/')}/{quote(number)}")
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    return str(response.raise_for_status().json()["status"])

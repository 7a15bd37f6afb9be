"""The state of an order, from the file and from the backend."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serve_app.config import OrdersSettings, ToolSettings
from serve_app.tools.function_tool import function_tool
from serve_app.tools.orders import order_query
from serve_app.values import IdempotencyKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ORDER_QUERY = "serve_app.tools.orders:order_query"
DATA = Path(__file__).parent.parent.parent / "configs" / "orders.json"


@pytest.mark.parametrize(
    ("number", "state"),
    [("OD-20240501", "已付款"), ("OD-20240502", "已发货"), ("od-20240502", "已发货"), ("OD-99999999", "订单不存在")],
)
async def test_the_missions_orders_are_in_the_data_file(number: str, state: str) -> None:
    answer = await order_query(number, orders=OrdersSettings(file=DATA))
    assert state in answer
    assert number.upper() in answer


@pytest.mark.parametrize(
    "typed",
    [
        "ＯＤ－２０２４０５０２",
        "od‑20240502",
        " OD- 2024 0502\u3000",
        "OD—20240502",
        "od20240502",
        "ＯＤ２０２４０５０２",
    ],
)
async def test_an_order_number_is_taken_as_people_type_it(typed: str) -> None:
    orders = OrdersSettings(file=DATA)
    tool = function_tool("order_query", ORDER_QUERY, ToolSettings(function=ORDER_QUERY), {OrdersSettings: orders})
    answer = await tool.call(tool.read_arguments({"order_id": typed}), IdempotencyKey("k"))
    assert answer.content.startswith("OD-20240502: 已发货")


@pytest.fixture
async def backend() -> AsyncIterator[str]:
    """A server that speaks just enough HTTP: one order is known."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        known = path == "/orders/OD-1"
        body = json.dumps({"status": "delivered"} if known else {"detail": "?"}).encode()
        head = f"HTTP/1.1 {'200 OK' if known else '404 Not Found'}\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/orders"


async def test_a_backend_is_asked_in_place_of_the_file(backend: str) -> None:
    orders = OrdersSettings(file=DATA, url=backend)
    assert await order_query("od-1", orders=orders) == "OD-1: delivered"
    assert "订单不存在" in await order_query("OD-20240501", orders=orders)

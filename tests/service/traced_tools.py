"""Tools of each kind, whose results and traces tell which turn called them and how often."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

from serve_app.values import IdempotencyKey

WATCH_EVERY_S = 0.05


def trace(name: str) -> Path:
    """The file in which the tool `name` leaves a line for each call."""
    return Path(os.environ["SERVE_APP_DATA_DIR"]) / f"trace-{name}"


def result_of(tool: str, item: str) -> str:
    """What a tool says of an item: the same each time, and of no other."""
    return f"{tool} {item} {hashlib.sha256(f'{tool} {item}'.encode()).hexdigest()[:8]}"


def _leave(name: str, line: str) -> None:
    """One write to the end of the file: lines of several processes do not mix."""
    file = os.open(trace(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


async def price_of(item: str) -> str:
    """Look up the price of an item."""
    await asyncio.sleep(0.05)
    return result_of("price_of", item)


async def stock_of(item: str) -> str:
    """Look up how many of an item there are."""
    await asyncio.sleep(0.08)
    return result_of("stock_of", item)


async def notify(item: str, *, key: IdempotencyKey) -> str:
    """Tell the customer about an item; the same key tells once."""
    _leave("notify", f"{item} {key}")
    await asyncio.sleep(0.1)
    return result_of("notify", item)


async def book(item: str) -> str:
    """Book an item. Each call books one more."""
    await asyncio.sleep(0.15)
    _leave("book", item)
    await asyncio.sleep(0.15)
    return result_of("book", item)


async def watch(item: str) -> str:
    """Watch an item until told to stop."""
    while True:
        _leave("watch", f"{item} {time.time()}")
        await asyncio.sleep(WATCH_EVERY_S)

"""HTTP connections to the endpoints, one pool for each event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

CONNECT_S = 10.0
"""For a connection: a provider that takes longer is out of reach."""
KEEP_ALIVE_S = 30.0
"""For an idle connection: less than the idle limits of the usual load balancers."""

_POOLS: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, object]] = WeakKeyDictionary()


@asynccontextmanager
async def posted(
    url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response to a POST, within `timeout_s` to its last byte; leaving the block early closes the connection.

    Proxies are those of the environment. There are no redirects, cookies and repetitions.

    Raises:
        ConnectionError: there was no connection, or it broke.
        TimeoutError: it took too long.
    """
    session = await _session()
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s))
    try:
        async with session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as response:
            yield response
    except (TimeoutError, OSError):
        raise
    except aiohttp.ClientError as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


async def _session() -> aiohttp.ClientSession:
    loop = asyncio.get_running_loop()
    if loop not in _POOLS:
        keeping = _kept()
        _POOLS[loop] = (await anext(keeping), keeping)
    return _POOLS[loop][0]


async def _kept() -> AsyncGenerator[aiohttp.ClientSession, None]:
    """A pool that is closed when its loop shuts its generators down."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True)
    try:
        yield session
    finally:
        await session.close()

"""HTTP to one endpoint: pools of connections, and a parser of server-sent events."""

from __future__ import annotations

import asyncio
import codecs
import urllib.request
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from serve_app.llm.openai_compatible.provider_error import (
    ConnectionFailed,
    ReplyUnreadable,
    TimedOut,
    make_status_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

CONNECT_TIMEOUT_S = 10.0
"""A host that takes longer to accept a connection is down; the rest of the time is left to a fallback."""
KEEP_ALIVE_S = 15.0
"""Below the idle time after which common servers close a connection, so that few calls meet a closed one."""
MAX_ERROR_BYTES = 256 * 1024
MAX_LINE_CHARACTERS = 8 * 1024 * 1024

LINGER_S = 0.5
"""Sessions outlive their model by this: a loop that ends at the same time closes them itself."""
_DRAIN_S = 0.2
_CLOSING: set[asyncio.Task[None]] = set()
"""Keeps the tasks that close sessions alive: a loop refers to its tasks only weakly."""


@dataclass(frozen=True, slots=True)
class _Pool:
    session: aiohttp.ClientSession
    owner: AsyncGenerator[aiohttp.ClientSession, None]
    """Closes the session when its event loop ends: `asyncio.run` closes the generators of its loop."""


class Transport:
    """Posts JSON to one URL.

    It has no retries, cookies, redirects or netrc; proxies are those of the environment.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self._made_of = (url, dict(headers), timeout_s)
        self._url = URL(url)
        self._headers = {"Content-Type": "application/json", **headers}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s))
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
        self._proxy, self._proxy_auth = find_proxy(self._url)
        weakref.finalize(self, _close_all, self._pools).atexit = False

    def __reduce__(self) -> tuple[type[Transport], tuple[str, dict[str, str], float]]:
        return type(self), self._made_of

    def __deepcopy__(self, memo: dict[int, object]) -> Transport:
        return type(self)(*self._made_of)

    @asynccontextmanager
    async def post(self, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """Post a body and yield the response; an early exit closes its connection.

        Raises:
            ProviderError: the status is not 2xx, with the status, code, words and Retry-After.
            ConnectionFailed, TimedOut: also while the answer is read.
        """
        session = await self._session()
        response: aiohttp.ClientResponse | None = None
        try:
            response = await session.post(
                self._url, data=body, allow_redirects=False, proxy=self._proxy, proxy_auth=self._proxy_auth
            )
            if response.status // 100 != 2:  # noqa: PLR2004
                raise make_status_error(response.status, response.headers, await read_start(response))
            yield response
        except TimeoutError:
            raise TimedOut(f"no reply within {self._timeout.total} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionFailed(f"{type(error).__name__}: {error}") from None
        finally:
            if response is not None:
                response.release()  # closes the connection of an answer that was not read to its end

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or pool.session.closed:
            for each in [each for each in self._pools if each.is_closed()]:
                del self._pools[each]
            owner = _opened(self._headers, self._timeout)
            pool = self._pools[loop] = _Pool(await anext(owner), owner)
        return pool.session


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read the rest of a response, so that its connection can be reused."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            while not response.content.at_eof():
                await response.content.readany()
    except (TimeoutError, aiohttp.ClientError):
        response.close()


async def _opened(
    headers: Mapping[str, str], limit: aiohttp.ClientTimeout
) -> AsyncGenerator[aiohttp.ClientSession, None]:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=limit,
        trust_env=False,  # it would read the whole environment with each call, and netrc
    )
    try:
        yield session
    finally:
        await session.close()


def _close_all(pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool]) -> None:
    """Close the sessions of an unused transport; closed loops have closed theirs."""
    for loop, pool in list(pools.items()):
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.call_later, LINGER_S, _close_soon, loop, pool)


def _close_soon(loop: asyncio.AbstractEventLoop, pool: _Pool) -> None:
    closing = loop.create_task(_close(pool))
    _CLOSING.add(closing)
    closing.add_done_callback(_CLOSING.discard)


async def _close(pool: _Pool) -> None:
    await pool.owner.aclose()


async def read_start(response: aiohttp.ClientResponse) -> bytes:
    """Return the first part of an error body, as far as it can be read."""
    read = bytearray()
    try:
        async for data in response.content.iter_any():
            read += data
            if len(read) > MAX_ERROR_BYTES:
                break
    except aiohttp.ClientError:
        return bytes(read)
    return bytes(read)


def find_proxy(url: URL) -> tuple[URL | None, aiohttp.BasicAuth | None]:
    """Return the proxy for the URL by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or not url.host or urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None, None
    proxy = URL(named if "://" in named else f"http://{named}")
    if not proxy.user:
        return proxy, None
    return proxy.with_user(None), aiohttp.BasicAuth(proxy.user, proxy.password or "")


class StreamEvent(NamedTuple):
    """One event: its name ("" for the usual one) and the lines of its data."""

    name: str
    data: tuple[str, ...]


class EventParser:
    """Parses bytes that are split anywhere into events, by the WHATWG standard."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line: list[str] = []
        self._line_characters = 0
        self._name = ""
        self._data: list[str] = []
        self._started = False
        self._return = False

    def feed(self, data: bytes, *, final: bool = False) -> list[StreamEvent]:
        """Take the next bytes; return the events that they complete."""
        text = self._decoder.decode(data, final)
        if not text:
            return []
        if not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")
        if self._return and text.startswith("\n"):  # the other half of a CRLF
            text = text[1:]
        self._return = text.endswith("\r") if text else False
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return self._lines(text)

    def close(self) -> list[StreamEvent]:
        """End the stream. An event without its empty line counts too: some providers end so."""
        return self.feed(b"", final=True) + self._lines("\n\n")

    def _lines(self, text: str) -> list[StreamEvent]:
        first, *rest = text.split("\n")
        self._line.append(first)
        self._line_characters += len(first)
        if self._line_characters > MAX_LINE_CHARACTERS:
            raise ReplyUnreadable("a line of the stream is too long")
        if not rest:
            return []
        events: list[StreamEvent] = []
        lines = ["".join(self._line), *rest]
        self._line = [lines.pop()]
        self._line_characters = len(self._line[0])
        for line in lines:
            if line:
                self._field(line)
            else:
                if self._data:
                    events.append(StreamEvent(self._name, tuple(self._data)))
                    self._data = []
                self._name = ""
        return events

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        elif name == "event":
            self._name = value.removeprefix(" ")

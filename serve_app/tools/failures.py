"""Which failures of a tool may pass by themselves?

Those are retried where the tool's `retry_on` says so, count against its breaker, and send the call to its standby. Any
other is the tool's own answer.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve_app.config import RetryOn

TOO_MANY, SERVER_ERROR = 429, 500


class Transient(Exception):
    """The root; `what` is for the model."""

    what: ClassVar[str] = "failed"


class Late(Transient):
    """It took longer than it may."""

    what = "did not answer in time"


class Unreachable(Transient):
    """There was no connection, so that nothing was asked."""

    what = "cannot be reached"


class Lost(Transient):
    """The connection broke: whether the call was taken is not known."""

    what = "broke the connection"


class BrokenOff(Transient):
    """Its code ended as no call ends: whether the deed was done is not known."""

    what = "was broken off"


class ServerFault(Transient):
    """It answered 429 or 5xx."""

    what = "has a problem of its own"


KINDS: dict[RetryOn, tuple[type[Transient], ...]] = {
    "timeout": (Late,),
    "connection": (Unreachable, Lost),
    "server_error": (ServerFault,),
}


def named(kinds: Iterable[RetryOn]) -> tuple[type[Transient], ...]:
    """The failures that `kinds` name."""
    return tuple(each for kind in kinds for each in KINDS[kind])


def is_server_fault(status: int) -> bool:
    """Whether an HTTP status says that the server does not manage."""
    return status == TOO_MANY or status >= SERVER_ERROR


@contextmanager
def translated() -> Iterator[None]:
    """What may pass, raised as `Transient`; anything else goes through."""
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Late from error
    except (ConnectionRefusedError, httpx.ConnectError) as error:
        raise Unreachable from error
    except (ConnectionError, httpx.NetworkError, httpx.ProtocolError) as error:
        raise Lost from error
    except httpx.HTTPStatusError as error:
        if is_server_fault(error.response.status_code):
            raise ServerFault from error
        raise

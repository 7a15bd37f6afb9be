"""Was a header that can mean one thing only sent once?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve_app.errors import InvalidRequest

if TYPE_CHECKING:
    from starlette.requests import Request


def once(request: Request, name: str) -> None:
    """Refuse a header that came twice: whichever of the two was taken, the other one was meant as well.

    Raises:
        InvalidRequest: it came more than once.
    """
    if len(request.headers.getlist(name)) > 1:
        raise InvalidRequest(f"Header {name!r} came more than once; send it once")

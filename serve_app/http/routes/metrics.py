"""How is the service's one metrics page served?"""

import asyncio
import time

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from serve_app.http.responses import refusals
from serve_app.http.services import ReadNodePages
from serve_app.observability.metrics_page import merge_pages

FRESH_S = 5.0
"""How long a page is given to whoever asks: making one takes a tenth of a second, and Ray writes every 10 s."""
_EXAMPLE = 'ray_serve_app_turns_total{application="serve_app",deployment="Agent",status="success",…} 42.0\n'


class Pages:
    """The page of all nodes, made once for all who ask within `FRESH_S`."""

    def __init__(self, read: ReadNodePages) -> None:
        self._read = read
        self._page = b""
        self._fresh_until = float("-inf")
        self._making = asyncio.Lock()

    async def page(self) -> bytes:
        """The page, no older than `FRESH_S`."""
        async with self._making:
            if time.monotonic() >= self._fresh_until:
                self._page = await asyncio.to_thread(merge_pages, await self._read())
                self._fresh_until = time.monotonic() + FRESH_S
        return self._page


def add_metrics(api: FastAPI, read: ReadNodePages) -> None:
    """`GET /metrics`."""
    pages = Pages(read)

    @api.get(
        "/metrics",
        tags=["Health"],
        summary="Read the metrics of the whole service",
        response_class=Response,
        response_description="Prometheus's text format.",
        responses={200: {"content": {"text/plain": {"example": _EXAMPLE}}}, **refusals()},
    )
    async def metrics() -> Response:
        """The series of all nodes: the service's own begin with `ray_serve_app_`, Ray Serve's with `ray_serve_`.

        One target is enough: any ingress gives the whole page. `serve_app_scrape_up` is 0 of a node that is not in it.
        """
        return Response(await pages.page(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

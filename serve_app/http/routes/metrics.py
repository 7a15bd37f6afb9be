"""`GET /metrics`: the metrics of all nodes on one page."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from serve_app.http.dependencies import ServicesDep
from serve_app.http.json_body import JsonRoute
from serve_app.http.openapi import error_responses

_EXAMPLE = 'ray_serve_app_turns_total{application="serve_app",deployment="Agent",status="success",…} 42.0\n'

router = APIRouter(route_class=JsonRoute, tags=["Health"])


@router.get(
    "/metrics",
    summary="Read the metrics of the whole service",
    response_class=Response,
    response_description="Prometheus's text format.",
    responses={200: {"content": {"text/plain": {"example": _EXAMPLE}}}, **error_responses()},
)
async def read_metrics(services: ServicesDep) -> Response:
    """Read the metrics of all nodes.

    Any ingress gives the whole page, so one target is enough. The service's own series begin with `ray_serve_app_`, Ray
    Serve's with `ray_serve_`. `serve_app_scrape_up` is 0 for a node that is not in the page.
    """
    return Response(await services.metrics_page.read(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

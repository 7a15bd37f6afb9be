"""`POST /agent/feedback` and `GET /admin/feedback`: rate an answer, and list the ratings."""

import logging
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from serve_app.http.dependencies import ContextDep, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import body_error_responses, error_responses
from serve_app.observability.metric_catalogue import FEEDBACK
from serve_app.values import FeedbackList, FeedbackRequest, Rating, Value

logger = logging.getLogger(__name__)

router = APIRouter(route_class=JsonRoute)


class FeedbackQuery(Value):
    """The query of `GET /admin/feedback`."""

    rating: Rating | None = Field(default=None, description="Those of this rating; without it, of both.")
    limit: int = Field(default=20, ge=1, le=100, description="How many of the latest ratings to list.")


@router.post(
    "/agent/feedback",
    tags=["Conversations"],
    summary="Rate an answer",
    response_model=FeedbackRequest,
    response_description="The vote as it is kept.",
    responses=body_error_responses(404, 409),
)
async def rate_answer(services: ServicesDep, context: ContextDep, body: FeedbackRequest) -> Response:
    """Rate the answer of a run; a second rating replaces the first.

    The operator reads it beside question and answer. A run that has not ended cannot be rated yet.
    """
    previous = await services.feedback.vote(context, body)
    if previous != body.rating:
        services.metrics.count(FEEDBACK, rating=body.rating)
        logger.info("feedback_received", extra={"run_id": body.run_id, "rating": body.rating, "comment": body.comment})
    return json_response(body)


@router.get(
    "/admin/feedback",
    tags=["Admin"],
    summary="List what users thought of answers",
    response_model=FeedbackList,
    response_description="Latest first, each with question and answer; `up` and `down` count all.",
    responses=error_responses(),
)
async def list_feedback(
    services: ServicesDep, context: ContextDep, query: Annotated[FeedbackQuery, Query()]
) -> Response:
    """List ratings with question and answer, for improving prompts and documents."""
    return json_response(await services.feedback.list_votes(context, query.rating, query.limit))

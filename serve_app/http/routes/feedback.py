"""How does a user rate an answer, and how does the operator read what users thought?"""

import logging
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.request_context import RequestContexts, answer_timeout_s, time_limit
from serve_app.http.responses import body_refusals, json_response, refusals
from serve_app.observability.metric_catalogue import FEEDBACK
from serve_app.ports import Metrics
from serve_app.runs.feedback import FeedbackStore
from serve_app.values import FeedbackList, FeedbackRequest, Rating, Value

log = logging.getLogger(__name__)


class Wanted(Value):
    """Which votes are wanted."""

    rating: Rating | None = Field(default=None, description="Those of this rating; without it, of both.")
    limit: int = Field(default=20, ge=1, le=100, description="The latest so many.")


def add_feedback(api: FastAPI, feedback: FeedbackStore, contexts: RequestContexts, metrics: Metrics) -> None:
    """`POST /agent/feedback` and `GET /admin/feedback`."""

    @api.post(
        "/agent/feedback",
        tags=["Conversations"],
        summary="Rate an answer",
        response_model=FeedbackRequest,
        response_description="The vote as it is kept.",
        responses=body_refusals(404, 409),
    )
    async def vote(request: Request, body: FeedbackRequest) -> Response:
        """One vote a run: a second one takes the first one's place. The operator reads it beside question and answer.

        A run that has not ended cannot be rated yet.
        """
        context = contexts.of(request, run_id=body.run_id)
        async with time_limit(answer_timeout_s(context)):
            before = await feedback.vote(context, body)
        if before != body.rating:
            metrics.count(FEEDBACK, rating=body.rating)
            log.info("feedback", extra={"run_id": body.run_id, "rating": body.rating, "comment": body.comment})
        return json_response(body)

    @api.get(
        "/admin/feedback",
        tags=["Admin"],
        summary="List what users thought of answers",
        response_model=FeedbackList,
        response_description="Latest first, each with question and answer; `up` and `down` count all.",
        responses=refusals(),
    )
    async def listed(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """For improving prompts and documents."""
        context = contexts.of(request)
        async with time_limit(answer_timeout_s(context)):
            return json_response(await feedback.listed(context, wanted.rating, wanted.limit))

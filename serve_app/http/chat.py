"""How is a turn asked for over HTTP?"""

from contextlib import AsyncExitStack, aclosing
from typing import Annotated

from fastapi import Body, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import DeadlineExceeded, Internal
from serve_app.http import examples
from serve_app.http.contexts import Contexts, patience_s, within
from serve_app.http.errors import refusal
from serve_app.http.following import Following
from serve_app.http.responses import body_refusals, json_response
from serve_app.http.sse import EventStream, frames
from serve_app.ports import Agent
from serve_app.values import Answer, ChatRequest, Context, Failed

FIRST_EVENT_S = 10.0
"""A turn that waits for another one of its session longer than this begins its stream with a keep-alive."""


def add_chat(api: FastAPI, agent: Agent, contexts: Contexts) -> None:
    """`POST /agent/chat`."""

    @api.post(
        "/agent/chat",
        tags=["Conversations"],
        summary="Say something and get the answer",
        response_model=Answer,
        response_description="The answer; with `stream: true`, the run's events as they happen.",
        responses={200: examples.STREAM, **body_refusals(409)},
    )
    async def chat(
        request: Request, body: Annotated[ChatRequest, Body(openapi_examples=examples.REQUESTS)]
    ) -> Response:
        """Run one turn of a conversation: the model answers, with the help of tools and documents where it needs them.

        `session_id` names the conversation; the same name again continues it, and one conversation runs one turn at a
        time. `status` is `degraded` when the answer was made without something that it should have had; `degraded` then
        names what was missing: `model`, `tool:NAME`, `retriever` or `memory`.

        With `stream: true` the answer comes as server-sent events: `run`, then `token`, `tool_call` and `tool_result`
        as they happen, and as the last one `answer`, with the same JSON as without a stream, or `error`. A failure
        before the first event is an ordinary error response.
        """
        context = contexts.of(request, body.session_id)
        if body.stream:
            return await _stream(agent, context, body)
        return await _answer(agent, context, body)


async def _answer(agent: Agent, context: Context, body: ChatRequest) -> Response:
    async with within(patience_s(context)), aclosing(agent.turn(context, body)) as events:
        async for event in events:
            if isinstance(event.data, Failed):
                return refusal(event.data.error)
            if isinstance(event.data, Answer):
                return json_response(event.data)
    raise Internal("The run ended without its last event")


async def _stream(agent: Agent, context: Context, body: ChatRequest) -> Response:
    """The first event is awaited here for a while, where a failure can still become a status."""
    async with AsyncExitStack() as undo:
        following = Following(agent.turn(context, body))
        undo.push_async_callback(following.close)
        left_s = patience_s(context)
        first = await following.next(min(left_s, FIRST_EVENT_S))
        if first is None and left_s <= FIRST_EVENT_S:
            raise DeadlineExceeded("The request's time ran out")
        if first is not None and isinstance(first.data, Failed):
            return refusal(first.data.error)
        undo.pop_all()
    return EventStream(frames(following, first, context), following)

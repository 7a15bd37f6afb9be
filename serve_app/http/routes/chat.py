"""How is a turn asked for over HTTP?"""

from typing import Annotated

from fastapi import Body, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http import examples
from serve_app.http.background import begun
from serve_app.http.idempotency import Key, events_of
from serve_app.http.preferences import RespondsAsync
from serve_app.http.request_context import RequestContexts
from serve_app.http.responses import body_refusals
from serve_app.http.routes.fault_injection import rehearsed
from serve_app.http.run_responses import answer_of, stream_of
from serve_app.http.services import Services
from serve_app.values import Answer, ChatRequest, RunRecord


def add_chat(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    """`POST /agent/chat`."""

    @api.post(
        "/agent/chat",
        tags=["Conversations"],
        summary="Say something and get the answer",
        response_model=Answer,
        response_description="The answer; with `stream: true`, the run's events as they happen.",
        responses={200: examples.CHAT, 202: {"model": RunRecord, **examples.ACCEPTED}, **body_refusals(409, 429)},
    )
    async def chat(
        request: Request,
        body: Annotated[ChatRequest, Body(openapi_examples=examples.REQUESTS)],
        key: Key,
        *,
        in_background: RespondsAsync,
    ) -> Response:
        """Run one turn of a conversation: the model answers, with the help of tools and documents where it needs them.

        `session_id` names the conversation; the same name again continues it, and one conversation runs one turn at a
        time. `status` is `degraded` when the answer was made without something that it should have had; `degraded` then
        names what was missing: `model`, `tool:NAME`, `retriever`, `memory`, or the rest of an answer that was
        `truncated`. `finish_reason` says why the model stopped.

        With `stream: true` the answer comes as server-sent events: `run`, then `token`, `tool_call` and `tool_result`
        as they happen, `reasoning` too where `reasoning: true` asks for it, and as the last one `answer`, with the same
        JSON as without a stream, `error` or `cancelled`. A failure before the first event is an ordinary error
        response. A stream that broke off goes on at `/agent/runs/{run_id}/events`.

        Where the operator keeps answers, the same question in the same situation may be answered by one that was given
        before: `cached` says so, `usage` is 0, and `tool_calls` are those by which it was made. `Cache-Control:
        no-cache` wants it made anew, `no-store` has nothing kept of it.

        A turn goes on when its client leaves. Send an `Idempotency-Key` to be able to ask again, and `Prefer:
        respond-async` not to wait at all: the run is then read at `/agent/runs/{run_id}`.
        """
        context = await rehearsed(contexts.of(request, body.session_id), services.faults)
        if in_background:
            return await begun(services, context, body, key)
        events = events_of(services, context, body, key)
        return await (stream_of if body.stream else answer_of)(events, context)

"""`POST /agent/chat`: one turn, as JSON, as a stream, or in the background."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.dependencies import NewContextDep, ServicesDep
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openapi import CHAT_REQUESTS, CHAT_RESPONSE, RUN_ACCEPTED, body_error_responses
from serve_app.http.run_responses import answer_response, stream_response
from serve_app.http.run_start import IdempotencyKeyHeader, add_injected_faults, run_in_background, run_turn
from serve_app.values import Answer, ChatRequest, RunRecord

PREFER = "Prefer"
RESPOND_ASYNC = "respond-async"
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
"""One preference of a `Prefer` header: commas within a quoted string do not end it."""

router = APIRouter(route_class=JsonRoute, tags=["Conversations"])

_PreferHeader = Annotated[
    str,
    Header(
        alias=PREFER,
        default_factory=str,
        description="`respond-async` begins the run and does not wait for it: the response is a 202 with the run. "
        "Other preferences are ignored.",
    ),
]


def prefers_async(values: Iterable[str]) -> bool:
    """Whether the first `respond-async` of the `Prefer` headers (RFC 7240) has no value."""
    for preference in _PREFERENCE.findall(",".join(values)):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == RESPOND_ASYNC:
            return value.strip() in {"", '""'}
    return False


async def _in_background(request: Request, _first: _PreferHeader) -> bool:
    return prefers_async(request.headers.getlist(PREFER))


@router.post(
    "/agent/chat",
    summary="Say something and get the answer",
    response_model=Answer,
    response_description="The answer; with `stream: true`, the run's events as they happen.",
    responses={200: CHAT_RESPONSE, 202: {"model": RunRecord, **RUN_ACCEPTED}, **body_error_responses(409, 429)},
)
async def chat(
    body: Annotated[ChatRequest, Body(openapi_examples=CHAT_REQUESTS)],
    key: IdempotencyKeyHeader,
    *,
    in_background: Annotated[bool, Depends(_in_background)],
    services: ServicesDep,
    new_context: NewContextDep,
) -> Response:
    """Run one turn of a conversation: the model answers, with tools and documents.

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
    context = await add_injected_faults(new_context(body.session_id), services.faults)
    if in_background:
        return _accepted(await run_in_background(services, context, body, key))
    events = run_turn(services, context, body, key)
    return await (stream_response if body.stream else answer_response)(events, context)


def _accepted(run: RunRecord) -> Response:
    response = json_response(run, HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"/agent/runs/{run.run_id}"
    response.headers["Preference-Applied"] = RESPOND_ASYNC
    return response

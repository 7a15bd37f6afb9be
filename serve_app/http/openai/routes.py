"""`POST /v1/chat/completions`, `GET /v1/models` and `GET /v1/models/{model}`: OpenAI's API."""

import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Body, Path
from starlette.responses import Response

from serve_app.http.dependencies import NewContextDep, Services, ServicesDep
from serve_app.http.errors import openai_failure_response
from serve_app.http.json_body import JsonRoute, json_response
from serve_app.http.openai.body import CompletionRequest, require_model, to_turn_request
from serve_app.http.openai.completion import ChunkEncoder, Completion, ModelList, OpenAIModel, stream_completion
from serve_app.http.openapi import COMPLETION_REQUESTS, COMPLETION_RESPONSE, openai_error_responses
from serve_app.http.run_responses import add_degraded_header, read_last
from serve_app.http.run_start import IdempotencyKeyHeader, add_injected_faults, run_turn
from serve_app.values import Failed

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])


@router.post(
    "/v1/chat/completions",
    summary="Ask for a chat completion",
    response_model=Completion,
    response_description="The completion; with `stream: true`, its chunks as they come.",
    responses={200: COMPLETION_RESPONSE, **openai_error_responses(404, 409, body=True)},
)
async def create_completion(
    body: Annotated[CompletionRequest, Body(openapi_examples=COMPLETION_REQUESTS)],
    key: IdempotencyKeyHeader,
    services: ServicesDep,
    new_context: NewContextDep,
) -> Response:
    """Run one turn of the agent: the service calls its tools and answers with text.

    `metadata.session_id`, or else `user`, names the conversation, as `session_id` of `POST /agent/chat` does: it
    remembers, and of `messages` the system messages and the last one are read. Without either the messages are the
    history, and nothing is remembered.

    A field that the service cannot honour is refused by name, unless it is null or its default. `serve_app` in the
    answer, and in the last chunk that has a choice, holds what OpenAI's fields cannot say. `Idempotency-Key` is
    honoured, `Prefer: respond-async` is not; a stream that broke off goes on at `/agent/runs/{run_id}/events`,
    with the `id` less its `chatcmpl-`.
    """
    turn = to_turn_request(body)
    context = await add_injected_faults(new_context(turn.session_id), services.faults)
    events = run_turn(services, context, turn, key)
    created = int(time.time())
    # A client that sends the same idempotency key again gets the same error, so it should not retry.
    to_error_response = partial(openai_failure_response, retry=False if key else None)
    if turn.stream:
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream_completion(events, ChunkEncoder(turn, context, created, include_usage), to_error_response)
    last, _ = await read_last(events, context)
    if isinstance(last, Failed):
        return to_error_response(last.error)
    return add_degraded_header(json_response(Completion.of(last, turn, created)), last)


def _agent_model(services: Services) -> OpenAIModel:
    return OpenAIModel(serve_app={"model": services.model_name})


@router.get(
    "/v1/models",
    summary="List the models",
    response_model=ModelList,
    response_description="The agent.",
    responses=openai_error_responses(),
)
async def list_models(services: ServicesDep) -> Response:
    """The agent is the one model that there is; `serve_app.model` names the one behind it."""
    return json_response(ModelList(data=(_agent_model(services),)))


@router.get(
    "/v1/models/{model}",
    summary="Read a model",
    response_model=OpenAIModel,
    response_description="The agent.",
    responses=openai_error_responses(404),
)
async def read_model(
    name: Annotated[
        str, Path(alias="model", pattern="^[A-Za-z0-9._:@-]{1,128}$", description="The model's id: `serve_app`.")
    ],
    services: ServicesDep,
) -> Response:
    """404 for any other than the agent."""
    require_model(name)
    return json_response(_agent_model(services))

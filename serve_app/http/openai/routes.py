"""How is the agent asked in OpenAI's language?"""

import time
from functools import partial
from typing import Annotated

from fastapi import Body, FastAPI, Path
from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.errors import failure_response
from serve_app.http.idempotency import Key, events_of
from serve_app.http.openai import examples
from serve_app.http.openai.body import CompletionRequest
from serve_app.http.openai.errors import described, refused
from serve_app.http.openai.reading import find, turn_of
from serve_app.http.openai.response import Completion, Model, Models
from serve_app.http.openai.streaming import Chunks, streamed
from serve_app.http.request_context import RequestContexts
from serve_app.http.responses import json_response
from serve_app.http.routes.fault_injection import rehearsed
from serve_app.http.run_responses import end_of, marked
from serve_app.http.services import Services
from serve_app.values import Failed, Failure

_Name = Annotated[
    str, Path(alias="model", pattern="^[A-Za-z0-9._:@-]{1,128}$", description="The model's id: `serve_app`.")
]


def add_openai(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    """`POST /v1/chat/completions`, `GET /v1/models` and `GET /v1/models/{model}`."""
    _add_completions(api, services, contexts)
    _add_models(api, Model(serve_app={"model": services.model_name}))


def _add_completions(api: FastAPI, services: Services, contexts: RequestContexts) -> None:
    @api.post(
        "/v1/chat/completions",
        tags=["OpenAI"],
        summary="Ask for a chat completion",
        response_model=Completion,
        response_description="The completion; with `stream: true`, its chunks as they come.",
        responses={200: examples.COMPLETION, **described(404, 409, body=True)},
    )
    async def complete(
        request: Request, body: Annotated[CompletionRequest, Body(openapi_examples=examples.REQUESTS)], key: Key
    ) -> Response:
        """Run one turn of the agent; the service calls its own tools, and answers with text.

        `metadata.session_id`, or else `user`, names the conversation, as `session_id` of `POST /agent/chat` does: it
        remembers, and of `messages` the system messages and the last one are read. Without either the messages are the
        history, and nothing is remembered.

        A field that the service cannot honour is refused by name, unless it is null or its default. `serve_app` in the
        answer, and in the last chunk that has a choice, holds what OpenAI's fields cannot say. `Idempotency-Key` is
        honoured, `Prefer: respond-async` is not; a stream that broke off goes on at `/agent/runs/{run_id}/events`,
        with the `id` less its `chatcmpl-`.
        """
        turn = turn_of(body)
        context = await rehearsed(contexts.of(request, turn.session_id), services.faults)
        events = events_of(services, context, turn, key)
        created = int(time.time())
        refuse = partial(_refuse, key)
        if turn.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return await streamed(events, Chunks(turn, context, created, include_usage), refuse)
        last = await end_of(events, context)
        if isinstance(last, Failed):
            return refuse(last.error)
        return marked(json_response(Completion.of(last, turn, created)), last)


def _refuse(key: str | None, failure: Failure) -> Response:
    """A run that failed; under the key that came with it a client would be told the same again."""
    return failure_response(failure, partial(refused, again=False if key else None))


def _add_models(api: FastAPI, model: Model) -> None:
    @api.get(
        "/v1/models",
        tags=["OpenAI"],
        summary="List the models",
        response_model=Models,
        response_description="The agent.",
        responses=described(),
    )
    async def listed() -> Response:
        """The agent is the one model that there is; `serve_app.model` names the one behind it."""
        return json_response(Models(data=(model,)))

    @api.get(
        "/v1/models/{model}",
        tags=["OpenAI"],
        summary="Read a model",
        response_model=Model,
        response_description="The agent.",
        responses=described(404),
    )
    async def read(name: _Name) -> Response:
        """404 for any other than the agent."""
        find(name)
        return json_response(model)

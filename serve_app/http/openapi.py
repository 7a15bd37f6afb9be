"""The OpenAPI document: descriptions, error responses, keys, and examples in English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serve_app.http.auth import PUBLIC_PATHS, scope_of
from serve_app.http.errors import OpenAIErrorBody
from serve_app.values import Failed

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.openapi.models import Example

DESCRIPTION = """\
An agent that answers questions with the help of tools and of your documents, in the language of the question.

* Bodies are JSON in UTF-8, with `Content-Type: application/json`; an unknown field is refused, not ignored.
* Every response has an `X-Request-Id`: the one you sent (letters, digits, `.`, `_` and `-`, at most 64) or a new one.
* Every error has the same body: `{"error": {"code", "message", "retryable", "request_id", "reason"}}`. Act on `code`
  and `retryable`; `message` is for people, `reason` for the operator. Below `/v1/` it is OpenAI's, with the same codes
  and reasons. A 429 or 503 says in `Retry-After` after how many seconds to come back.
* A turn that was sent with an `Idempotency-Key` may be sent again: the service runs it once. A client that leaves stops
  nothing; a stream that broke off goes on at `/agent/runs/{run_id}/events`, after the frame named by `Last-Event-ID`.
"""
TAGS = [
    {"name": "Conversations", "description": "Turns, and what is remembered of them."},
    {"name": "OpenAI", "description": "The same agent, for whatever speaks OpenAI's chat completions."},
    {"name": "Runs", "description": "Each turn is one run; its events are kept, and outlive the connection."},
    {"name": "Knowledge", "description": "The documents that answers may cite."},
    {"name": "Admin", "description": "For those who run the service."},
    {"name": "Health", "description": "For load balancers and operators."},
]
_ERROR_DESCRIPTIONS = {
    400: "The body is not JSON in UTF-8.",
    401: "No key was shown, or none that is known.",
    403: "The key does not open this route.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "Another turn of the session runs, the run was cancelled or has not ended, or others are changing the key.",
    413: "The body is too large.",
    415: "The Content-Type is not application/json.",
    422: "A field, parameter or header is unknown, missing or wrong; the message names it.",
    429: "Too much was asked for, or too many wrong keys came from this address; Retry-After says when to come back.",
    431: "The headers are too many or too long.",
    500: "A fault of the service; its log has the request id.",
    503: "A dependency is down, or the service is full; Retry-After says when to come back.",
    504: "The request's time ran out.",
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_SECURITY_SCHEME_NAME = "Key"
_SECURITY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key as `serve-app keys create` prints it. Its scopes say which routes it opens.",
}
_FAILED = {"application/json": {"schema": {"$ref": "#/components/schemas/Failed"}}}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these statuses and of those that every route has.

    Every route has 422, 431, 500, 503 and 504.
    """
    entries: dict[int | str, dict[str, Any]] = {
        status: {"model": Failed, "description": _ERROR_DESCRIPTIONS[status]}
        for status in sorted({*statuses, 422, 431, 500, 503, 504})
    }
    for status in {429, 503} & entries.keys():
        entries[status]["headers"] = _RETRY_AFTER
    return entries


def body_error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`error_responses`, with those of a route that takes a body."""
    return error_responses(400, 408, 413, 415, *statuses)


def openai_error_responses(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's error responses."""
    entries = body_error_responses(*statuses) if body else error_responses(*statuses)
    del entries[422]
    any_other = {"4XX": {"description": "Another refusal."}}  # or FastAPI describes a 422 that is never sent
    return {status: {**entry, "model": OpenAIErrorBody} for status, entry in (entries | any_other).items()}


def describe_authentication(api: FastAPI) -> None:
    """Add to the OpenAPI document which key each route needs."""
    make_document = api.openapi

    def with_security() -> dict[str, Any]:
        first = api.openapi_schema is None
        document = make_document()
        if first:
            document.setdefault("components", {})["securitySchemes"] = {_SECURITY_SCHEME_NAME: _SECURITY_SCHEME}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _describe_operation(path, operation)
        return document

    api.openapi = with_security  # type: ignore[method-assign]


def _describe_operation(path: str, operation: dict[str, Any]) -> None:
    if path in PUBLIC_PATHS:
        operation["security"] = []
        return
    operation["security"] = [{_SECURITY_SCHEME_NAME: [scope] if (scope := scope_of(path)) else []}]
    for status, entry in error_responses(401, 403, 429).items():
        rest = {name: value for name, value in entry.items() if name != "model"}
        operation["responses"].setdefault(str(status), {**rest, "content": _FAILED})


CHAT_REQUESTS: dict[str, Example] = {
    "order": {
        "summary": "An order, in English",
        "value": {"user_input": "Where is order OD-20240502?", "session_id": "s1"},
    },
    "订单": {"summary": "查询订单", "value": {"user_input": "订单OD-20240502到哪了?", "session_id": "s2"}},
    "streamed": {
        "summary": "A question on a document, streamed",
        "value": {"user_input": "How do I reset the device?", "session_id": "s3", "stream": True},
    },
}

DOCUMENT_BATCHES: dict[str, Example] = {
    "manual": {
        "summary": "A manual, in English",
        "value": {
            "documents": [
                {"source": "manual.md", "text": "# Reset\n\nHold the power button for ten seconds to reset the device."}
            ]
        },
    },
    "手册": {
        "summary": "中文手册",
        "value": {"documents": [{"source": "手册.md", "text": "# 重置\n\n按住电源键十秒钟即可重置设备。"}]},
    },
}

_TOOL_CALL = {
    "name": "order_query",
    "arguments": {"order_id": "OD-20240502"},
    "status": "ok",
    "attempts": 1,
    "elapsed_ms": 3.2,
}
_ANSWER = {
    "result": "The order OD-20240502 has been shipped (已发货).",
    "session_id": "s1",
    "status": "success",
    "run_id": "5a7f0c1e9d3b4c6f8a2e4d6c8b0a1f3e",
    "degraded": [],
    "citations": [],
    "tool_calls": [_TOOL_CALL],
    "usage": {"input_tokens": 212, "output_tokens": 18},
    "model": "offline",
}

_FRAMES = """\
id: 1
event: run
data: {"run_id":"5a7f0c1e9d3b4c6f8a2e4d6c8b0a1f3e","recovered":false}

id: 2
event: tool_call
data: {"id":"call_1","name":"order_query","arguments":{"order_id":"OD-20240502"}}

id: 3
event: tool_result
data: {"name":"order_query","arguments":{"order_id":"OD-20240502"},"status":"ok","attempts":1,"elapsed_ms":3.2}

id: 4
event: token
data: {"text":"The order OD-20240502 has been shipped","restart":false}

: keep-alive

id: 5
event: answer
data: {"result":"The order OD-20240502 has been shipped", ... as without a stream}

"""

_DATA = (
    "One line of JSON. `run`: {run_id, recovered}, sent again where another process goes on with the run; `token`: "
    "{text, restart}, where restart says that the text so far is to be discarded; `tool_call`: {id, name, arguments}; "
    "`tool_result`: an entry of the answer's tool_calls; `answer`: the JSON answer; `error`: the error body; "
    "`cancelled`: {run_id}."
)

_EVENT_STREAM = {
    "itemSchema": {
        "type": "object",
        "properties": {
            "id": {
                "type": "string",
                "description": "Rises by one. An `error` without it is the stream's, not the run's: resume.",
            },
            "event": {
                "enum": ["run", "token", "tool_call", "tool_result", "answer", "error", "cancelled"],
                "description": "The last frame is `answer`, `error` or `cancelled`.",
            },
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "description": _DATA,
            },
        },
        "required": ["event", "data"],
    },
    "example": _FRAMES,
}

CHAT_RESPONSE: dict[str, Any] = {
    "content": {"application/json": {"example": _ANSWER}, "text/event-stream": _EVENT_STREAM},
}

RUN_EVENTS: dict[str, Any] = {"content": {"text/event-stream": _EVENT_STREAM}}

RUN_OVER: dict[str, Any] = {"description": "The run is over, and no event comes after `Last-Event-ID`."}

RUN_ACCEPTED: dict[str, Any] = {
    "description": "With `Prefer: respond-async`: the run, which goes on without the client.",
    "headers": {
        "Location": {"description": "Where the run is read.", "schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"const": "respond-async"}},
    },
}

COMPLETION_REQUESTS: dict[str, Example] = {
    "order": {
        "summary": "An order, in English",
        "value": {"model": "serve_app", "messages": [{"role": "user", "content": "Where is order OD-20240502?"}]},
    },
    "订单": {
        "summary": "查询订单",
        "value": {
            "model": "serve_app",
            "messages": [{"role": "user", "content": "订单OD-20240502到哪了?"}],
            "metadata": {"session_id": "s2"},
        },
    },
}

_COMPLETION = {
    "id": "chatcmpl-5a7f0c1e9d3b4c6f8a2e4d6c8b0a1f3e",
    "object": "chat.completion",
    "created": 1714642000,
    "model": "serve_app",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "The order OD-20240502 has been shipped (已发货).",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 212, "completion_tokens": 18, "total_tokens": 230},
    "serve_app": {
        "session_id": None,
        "status": "success",
        "run_id": "5a7f0c1e9d3b4c6f8a2e4d6c8b0a1f3e",
        "degraded": [],
        "citations": [],
        "tool_calls": [_TOOL_CALL],
        "model": "offline",
        "history": "messages",
    },
}

_CHUNKS = """\
data: {"id":"chatcmpl-5a7f…","object":"chat.completion.chunk","created":1714642000,"model":"serve_app",\
"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}

data: { … "choices":[{"index":0,"delta":{"content":"The order "},"logprobs":null,"finish_reason":null}]}

: keep-alive

data: { … "choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"serve_app":{ … }}

data: [DONE]

"""

_CHUNK_STREAM = {
    "itemSchema": {
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "description": "A chunk, `[DONE]`, or the error body, with which a stream ends that fails.",
            }
        },
        "required": ["data"],
    },
    "example": _CHUNKS,
}

COMPLETION_RESPONSE: dict[str, Any] = {
    "content": {"application/json": {"example": _COMPLETION}, "text/event-stream": _CHUNK_STREAM},
}

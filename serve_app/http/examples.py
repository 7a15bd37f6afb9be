"""Examples of requests and responses in OpenAPI, in English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.openapi.models import Example

REQUESTS: dict[str, Example] = {
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

BATCHES: dict[str, Example] = {
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

_ANSWER = {
    "result": "The order OD-20240502 has been shipped (已发货).",
    "session_id": "s1",
    "status": "success",
    "run_id": "5a7f0c1e9d3b4c6f8a2e4d6c8b0a1f3e",
    "degraded": [],
    "citations": [],
    "tool_calls": [
        {
            "name": "order_query",
            "arguments": {"order_id": "OD-20240502"},
            "status": "ok",
            "attempts": 1,
            "elapsed_ms": 3.2,
        }
    ],
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

CHAT: dict[str, Any] = {
    "content": {"application/json": {"example": _ANSWER}, "text/event-stream": _EVENT_STREAM},
}

EVENTS: dict[str, Any] = {"content": {"text/event-stream": _EVENT_STREAM}}

OVER: dict[str, Any] = {"description": "The run is over, and no event comes after `Last-Event-ID`."}

ACCEPTED: dict[str, Any] = {
    "description": "With `Prefer: respond-async`: the run, which goes on without the client.",
    "headers": {
        "Location": {"description": "Where the run is read.", "schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"const": "respond-async"}},
    },
}

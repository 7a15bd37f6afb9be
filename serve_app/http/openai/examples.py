"""Examples of requests and completions in OpenAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.openapi.models import Example

REQUESTS: dict[str, Example] = {
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
        "tool_calls": [
            {
                "name": "order_query",
                "arguments": {"order_id": "OD-20240502"},
                "status": "ok",
                "attempts": 1,
                "elapsed_ms": 3.2,
            }
        ],
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

_STREAM = {
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

COMPLETION: dict[str, Any] = {
    "content": {"application/json": {"example": _COMPLETION}, "text/event-stream": _STREAM},
}

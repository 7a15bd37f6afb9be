"""The cheapest service there is: FastAPI and a loop over plain dicts, without LangChain.

MODEL_URL=http://127.0.0.1:9000/v1 uvicorn tests.benchmarks.fastapi_loop:app --workers 2
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from fastapi import FastAPI
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TOOL = {
    "type": "function",
    "function": {
        "name": "order_query",
        "description": "Return the state of an order.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}
SYSTEM = {"role": "system", "content": "You are a helpful assistant. Use your tools where they help."}


class ChatRequest(BaseModel):
    """The body of a turn, as the service takes it."""

    user_input: str
    session_id: str
    stream: bool = False


async def order_query(order_id: str) -> str:
    """Return the state of an order."""
    return f"{order_id}: sent"


class ModelClient:
    """Calls the model on kept connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def call(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the model's next message."""
        self._session = self._session or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(60)
        )
        body = orjson.dumps({"model": "stub", "messages": messages, "tools": [TOOL]})
        headers = {"content-type": "application/json"}
        url = f"{os.environ['MODEL_URL']}/chat/completions"
        async with self._session.post(url, data=body, headers=headers) as response:
            message: dict[str, Any] = orjson.loads(await response.read())["choices"][0]["message"]
        return message


async def run_turn(user_input: str, client: ModelClient, call_tool: Callable[[str], Awaitable[str]]) -> str:
    """Call the model and the tool in turn until the model answers."""
    messages = [SYSTEM, {"role": "user", "content": user_input}]
    while True:
        message = await client.call(messages)
        messages.append(message)
        if not message.get("tool_calls"):
            return str(message["content"])
        for call in message["tool_calls"]:
            arguments = orjson.loads(call["function"]["arguments"])
            result = await call_tool(arguments["order_id"])
            messages.append({"role": "tool", "content": result, "tool_call_id": call["id"]})


app = FastAPI()
model = ModelClient()


@app.post("/agent/chat")
async def chat(request: ChatRequest) -> dict[str, Any]:
    answer = await run_turn(request.user_input, model, order_query)
    return {"result": answer, "session_id": request.session_id}

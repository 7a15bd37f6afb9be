"""The cheapest graph of three Ray Serve deployments: the loop of `fastapi_loop`, with its tool in a deployment.

    MODEL_URL=http://127.0.0.1:9000/v1 serve run tests.benchmarks.ray_graph:build

A streamed turn sends every token as a Serve message and a frame of its own.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from ray import serve
from ray.serve.handle import DeploymentHandle

from tests.benchmarks.fastapi_loop import ChatRequest, ModelClient, order_query, run_turn

MANY = {"max_ongoing_requests": 2000, "ray_actor_options": {"num_cpus": 0.1}}


@serve.deployment(**MANY)
class LoopTools:
    """Runs the tool."""

    async def call(self, order_id: str) -> str:
        return await order_query(order_id)


@serve.deployment(**MANY)
class LoopAgent:
    """Runs the loop."""

    def __init__(self, tools: DeploymentHandle) -> None:
        self._tools = tools
        self._model = ModelClient()

    async def turn(self, user_input: str) -> str:
        return await run_turn(user_input, self._model, self._tools.call.remote)

    async def tokens(self, user_input: str) -> AsyncIterator[str]:
        """Yield the tokens of one model call without tools, each by itself."""
        body = orjson.dumps({"stream": True, "messages": [{"role": "user", "content": user_input}]})
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{os.environ['MODEL_URL']}/chat/completions", data=body) as response,
        ):
            async for line in response.content:
                if line.startswith(b"data: {") and (
                    text := orjson.loads(line[6:])["choices"][0]["delta"].get("content")
                ):
                    yield text


@serve.deployment(**MANY)
@serve.ingress()
class LoopIngress:
    """Takes the requests."""

    def __init__(self, agent: DeploymentHandle) -> None:
        self._agent = agent
        self._streaming = agent.options(stream=True)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()
        app.post("/agent/chat")(self.chat)
        return app

    async def chat(self, request: ChatRequest) -> Any:
        if request.stream:
            return StreamingResponse(self._frames(request.user_input), media_type="text/event-stream")
        return {"result": await self._agent.turn.remote(request.user_input), "session_id": request.session_id}

    async def _frames(self, user_input: str) -> AsyncIterator[bytes]:
        async for text in self._streaming.tokens.remote(user_input):
            yield b"event: token\ndata: " + orjson.dumps({"text": text}) + b"\n\n"
        yield b"event: answer\ndata: {}\n\n"


def build(_arguments: dict[str, str]) -> serve.Application:
    """Build the graph."""
    return LoopIngress.bind(LoopAgent.bind(LoopTools.bind()))

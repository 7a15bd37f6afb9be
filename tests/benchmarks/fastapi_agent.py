"""The baseline: FastAPI and LangChain's `create_agent` in one process, as a careful user writes it.

    MODEL_URL=http://127.0.0.1:9000/v1 uvicorn tests.benchmarks.fastapi_agent:app --workers 2

Everything is asynchronous, the graph and the model's client are made once, and each call has a time-out. It keeps no
conversation, no journal, no metrics and no keys: all of these are what the service does besides.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

TURN_TIMEOUT_S = 60


class ChatRequest(BaseModel):
    """The body of a turn, as the service takes it."""

    user_input: str
    session_id: str
    stream: bool = False


@tool
async def order_query(order_id: str) -> str:
    """Return the state of an order."""
    return f"{order_id}: sent"


app = FastAPI()
graph: Any = create_agent(
    ChatOpenAI(model="stub", base_url=os.environ["MODEL_URL"], api_key="k", max_retries=0, timeout=30),
    tools=[order_query],
    system_prompt="You are a helpful assistant. Use your tools where they help.",
)


@app.post("/agent/chat")
async def chat(request: ChatRequest) -> dict[str, Any]:
    async with asyncio.timeout(TURN_TIMEOUT_S):
        state = await graph.ainvoke({"messages": [{"role": "user", "content": request.user_input}]})
    return {"result": state["messages"][-1].text, "session_id": request.session_id}

"""Prints the CPU time of a model call: the lean client, `ChatOpenAI` and a bare POST, against one provider on loopback.

    python tests/benchmarks/model_client.py [CALLS]

The provider is a process of its own that writes fixed bytes. CPU is that of this process only, garbage collection
included, per call, one call after another on one kept connection. Run it on an idle
machine, and compare only within one run.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import aiohttp
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TOKENS = 2000
ROUNDS = 5
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
PROVIDER = """
import asyncio, sys
OK = b"HTTP/1.1 200 OK\\r\\n"
WHOLE, STREAM = sys.argv[1].encode(), sys.argv[2].encode()
def chunk(line): return b"%x\\r\\n%s\\r\\n" % (len(line), line)
async def handle(reader, writer):
    while True:
        try: head = await reader.readuntil(b"\\r\\n\\r\\n")
        except asyncio.IncompleteReadError: break
        length = next(int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length"))
        body = await reader.readexactly(length)
        if b'"stream": true' in body or b'"stream":true' in body:
            writer.write(OK + b"content-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n")
            event = b"data: " + STREAM + b"\\n\\n"
            for _ in range(TOKENS // 20):
                writer.write(chunk(event) * 20)
                await writer.drain()
            end = STREAM.replace(b'"finish_reason": null', b'"finish_reason": "stop"')
            writer.write(chunk(b"data: " + end + b"\\n\\ndata: [DONE]\\n\\n") + b"0\\r\\n\\r\\n")
        else:
            writer.write(OK + b"content-type: application/json\\r\\n")
            writer.write(b"content-length: %d\\r\\n\\r\\n" % len(WHOLE) + WHOLE)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
""".replace("TOKENS", str(TOKENS))

CALL = {"id": "call_a", "type": "function", "function": {"name": "order_query", "arguments": '{"order_id": "OD-1"}'}}
TOOL = {
    "type": "function",
    "function": {
        "name": "order_query",
        "description": "Looks an order up.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}
MESSAGES = [
    SystemMessage("You are a helpful assistant of a shop. " * 10),
    HumanMessage("Where is my order OD-1?"),
    AIMessage("", tool_calls=[{"name": "order_query", "args": {"order_id": "OD-1"}, "id": "call_a"}]),
    ToolMessage("It was sent yesterday.", tool_call_id="call_a"),
    HumanMessage("And OD-2?"),
]


async def cpu_ms(ask: Callable[[], Awaitable[object]], calls: int) -> float:
    """The least CPU time of a call over some rounds, in milliseconds."""
    for _ in range(20):
        await ask()
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(calls):
            await ask()
        best = min(best, (time.process_time() - started) / calls)
    return best * 1000


async def compare(port: int, calls: int) -> None:
    url = f"http://127.0.0.1:{port}/v1"
    lean = OpenAICompatibleModel(model="m", base_url=url, api_key="k")
    vendor = ChatOpenAI(model="m", base_url=url, api_key="k", max_retries=0)
    body = {"model": "m", "messages": [{"role": "user", "content": "Where is my order?" * 30}], "tools": [TOOL]}

    async with aiohttp.ClientSession() as session:

        async def bare() -> object:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return await response.json()

        clients: dict[str, Any] = {"lean client": lean.bind_tools([TOOL]), "ChatOpenAI": vendor.bind_tools([TOOL])}
        print(f"one call, not streamed, {calls} calls:")
        print(f"  {'bare aiohttp POST':20}{await cpu_ms(bare, calls):8.2f} ms of CPU")
        for name, model in clients.items():
            print(f"  {name:20}{await cpu_ms(lambda model=model: model.ainvoke(MESSAGES), calls):8.2f} ms of CPU")
    print(f"one call, streamed, {TOKENS} tokens:")
    for name, model in {"lean client": lean, "ChatOpenAI": vendor}.items():
        rounds = [await stream_seconds(model) for _ in range(ROUNDS)]
        print(f"  {name:20}{TOKENS / min(rounds):8.0f} tokens per second of CPU")


async def stream_seconds(model: Any) -> float:
    started = time.process_time()
    pieces = [piece async for piece in model.astream(MESSAGES)]
    assert len(pieces) >= TOKENS
    return time.process_time() - started


def main() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    frame = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    whole = json.dumps({**frame, "choices": [choice], "usage": USAGE})
    piece = {"index": 0, "delta": {"content": " word"}, "finish_reason": None}
    streamed = json.dumps({**frame, "object": "chat.completion.chunk", "choices": [piece]})
    arguments = [sys.executable, "-c", PROVIDER, whole, streamed]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as provider:
        try:
            assert provider.stdout is not None
            asyncio.run(compare(int(provider.stdout.readline()), int(sys.argv[1]) if len(sys.argv) > 1 else 300))
        finally:
            provider.terminate()


if __name__ == "__main__":
    main()

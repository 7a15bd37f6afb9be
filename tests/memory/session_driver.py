"""Test harness: begins and ends turns of sessions, with something for memory to keep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

from serve_app.config import MemorySettings, RunSettings
from serve_app.memory import ConversationMemory
from serve_app.runs.store import RunAppend, RunLease, RunStore
from serve_app.values import ChatRequest, Context, Exchange, Message

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.runs.store import WriteResult


def context(session: str = "s", tenant: str = "default", run: str | None = None) -> Context:
    run_id = run or uuid4().hex
    return Context(request_id="q", run_id=run_id, session_id=session, tenant=tenant, deadline=time.time() + 5)


def exchange(text: str, *more: Message) -> str:
    """A turn in which `text` was said and answered in capitals, as Redis holds it."""
    messages = [Message(role="user", content=text), *more, Message(role="assistant", content=text.upper())]
    return Exchange(run_id=uuid4().hex, at=time.time(), messages=messages).model_dump_json()


class SessionDriver:
    """The sessions as a process that runs turns has them."""

    def __init__(self, redis: Redis, **settings: int) -> None:
        self._store = RunStore(
            redis, RunSettings(), ConversationMemory(redis, MemorySettings(**settings)), owner=uuid4().hex
        )

    async def hold(self, turn_context: Context) -> RunLease:
        """The turn of the session, which must be free."""
        request = ChatRequest(user_input="hello", session_id=turn_context.session_id)
        held = await self._store.begin(turn_context, request, after=-1)
        assert isinstance(held, RunLease), held
        return held

    async def end(self, turn_context: Context, held: RunLease, exchanges: str) -> WriteResult:
        """Leave the session, and have `exchanges` remembered."""
        return (await self._store.append([RunAppend(turn_context, held.epoch, [], "success", exchanges)]))[0]

    async def say(self, turn_context: Context, *exchanges: str) -> None:
        """Turns of the session of `turn_context`, one after another, each with what is remembered of it."""
        for each in exchanges:
            turn = turn_context.model_copy(update={"run_id": uuid4().hex})
            assert await self.end(turn, await self.hold(turn), each) == "ok"

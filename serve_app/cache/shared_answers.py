"""How do the agents share answers: those that are there, and those that one of them is making?

One run at a time leads: it has the right to answer a question, as long as its process says so, and the equal ones wait
for it. A process waits for all that its runs wait for by one blocking read, of the stream that is its own inbox.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.cache import scripts
from serve_app.cache.kept import KeptAnswer
from serve_app.errors import StoreUnavailable
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import AnswerKeys, inbox_stream
from serve_app.stores.stream_reader import StreamReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

LIFE_MS = 2_000
"""How long a run leads whose process is not heard of: longer than a healthy process pauses, and no more than those wait
who would be quicker by themselves."""
RENEW_EVERY_S = LIFE_MS / 4000
ALONE_MS = 10_000
"""For how long equal questions are answered each by itself, once one had an answer that is not for others."""
LISTEN_S = 1.0
CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and the run that asks it."""

    keys: AnswerKeys
    run_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """An answer that is there; `waited` says that another run was making it."""

    kept: KeptAnswer
    waited: bool


@dataclass(frozen=True, slots=True)
class Lead:
    """The right to answer, and the version of the documents under which it was given."""

    asked: Asked
    version: str
    begun_us: int = field(compare=False)
    """When it was given: Unix time in microseconds, by Redis's clock."""


class SharedAnswers:
    """The answers in Redis, for the process `owner`; made where an event loop runs.

    Every method but `close` raises `StoreUnavailable` when Redis does not answer.
    """

    def __init__(self, redis: Redis, owner: str, ttl_s: float) -> None:
        self._redis: Any = redis
        self._owner = owner
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._tail = StreamReader(redis, LISTEN_S)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._leads: set[Lead] = set()
        self._telling: set[asyncio.Task[None]] = set()
        going_on = (self._tail.read_forever(), self._listen(), self._renew())
        self._background = [asyncio.create_task(each, context=contextvars.Context()) for each in going_on]

    async def find(self, asked: Asked, *, afresh: bool = False) -> Found | Lead | None:
        """The answer, as soon as whoever is making it has made it; or the right to make it.

        None where the run answers by itself, and for itself only. `afresh` takes no answer that was made before, and
        waits for none. How long it waits at most is the caller's to say.
        """
        with self._woken(asked) as woken:
            waited = False
            while True:
                woken.clear()
                match await self._eval(scripts.FIND, *_finding(asked, self._owner, afresh=afresh)):
                    case ["kept", answer]:
                        kept = _read(answer or "")
                        return Found(kept, waited) if kept else None
                    case ["lead", version, begun_us]:
                        return Lead(asked, version, begun_us)
                    case ["joined", left_ms]:
                        waited = True
                        with suppress(TimeoutError):
                            async with asyncio.timeout(max(0, left_ms) / 1000 + RENEW_EVERY_S / 2):
                                await woken.wait()
                    case _:
                        return None

    @contextmanager
    def leading(self, lead: Lead) -> Iterator[None]:
        """Have the right renewed while the block makes the answer."""
        self._leads.add(lead)
        try:
            yield
        finally:
            self._leads.discard(lead)

    async def keep(self, lead: Lead, answer: KeptAnswer) -> bool:
        """Keep the answer that the lead has made, and say whether it is kept.

        It is not where a document has changed meanwhile, or where another run leads that was given the right later, or
        has kept its answer.
        """
        asked = lead.asked
        given = (asked.run_id, lead.version, lead.begun_us, self._ttl_ms, answer.model_dump_json())
        return bool(await self._eval(scripts.KEEP, asked.keys.all, given))

    def release(self, lead: Lead, *, alone: bool) -> None:
        """Lead no longer: another one does, or with `alone` each answers by itself. It never waits."""
        given = (lead.asked.run_id, ALONE_MS if alone else 0)
        task = asyncio.create_task(self._tell(lead.asked.keys.all[:3], given), context=contextvars.Context())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Tell what is still to be told; the connection is the caller's."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=CLOSE_S)
        await cancel_and_wait(*self._background, *self._telling)

    @contextmanager
    def _woken(self, asked: Asked) -> Iterator[asyncio.Event]:
        """Set where the inbox names the answer. It listens before it asks: what comes in between is not missed."""
        woken, key = asyncio.Event(), asked.keys.answer
        self._waiting.setdefault(key, set()).add(woken)
        try:
            yield woken
        finally:
            self._waiting[key].discard(woken)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _listen(self) -> None:
        async for _, fields in self._tail.follow_forever(inbox_stream(self._owner)):
            for woken in self._waiting.get(fields.get("answer", ""), ()):
                woken.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            if not self._leads:
                continue
            try:
                with translate_redis_errors():
                    async with self._redis.pipeline(transaction=False) as pipe:
                        for lead in list(self._leads):
                            pipe.eval(scripts.RENEW, 1, lead.asked.keys.lead, lead.asked.run_id, LIFE_MS)
                        await pipe.execute(raise_on_error=False)  # a right that cannot be renewed lapses
            except StoreUnavailable as error:
                logger.debug("answers_not_renewed", extra={"error": error.message})
            except Exception:
                logger.exception("answers_not_renewed")

    async def _tell(self, keys: tuple[str, ...], given: tuple[Any, ...]) -> None:
        """Where it fails, the right lapses by itself."""
        try:
            await self._eval(scripts.RELEASE, keys, given)
        except StoreUnavailable as error:
            logger.debug("answer_not_released", extra={"error": error.message})
        except Exception:
            logger.exception("answer_not_released")

    async def _eval(self, script: str, keys: tuple[str, ...], given: tuple[Any, ...]) -> Any:
        with translate_redis_errors():
            return await self._redis.eval(script, len(keys), *keys, *given)


def _finding(asked: Asked, owner: str, *, afresh: bool) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    return asked.keys.all, (asked.run_id, owner, LIFE_MS, "afresh" if afresh else "")


def _read(answer: str) -> KeptAnswer | None:
    try:
        return KeptAnswer.model_validate_json(answer)
    except ValidationError as error:
        logger.warning("answer_unreadable", extra={"problems": error.error_count()})
        return None

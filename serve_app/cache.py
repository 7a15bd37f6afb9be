"""The answer cache of all agents: question keys, single-flight, and the answers in Redis.

Two questions have the same key if they differ only in what depends on the keyboard: the width of characters, how
accented letters are encoded, and spaces. A wrong hit is worse than a miss, so these differences stay: upper and lower
case ("US" is not "us"), superscript digits (NFKC would turn 10² into 102), and spaces in a text that has several lines
or quotation marks, because it may be code or a quotation.

Single-flight: one run, the leader, makes the answer to a question; equal questions wait for it. Its process renews this
right, the lead. A process waits for all its runs by one blocking read of its inbox stream.

A question reads the version of the documents in the same step as the answer. An answer made under another version is
never returned, and is not stored where the version has changed meanwhile. Nor does an answer replace one that was begun
later, by Redis's clock. A script may run twice, because the client repeats one whose reply was lost; the second time
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import logging
import re
import unicodedata
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import StoreUnavailable
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.stores.availability import RedisAvailability
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import AnswerKeys, inbox_stream
from serve_app.stores.stream_reader import StreamReader
from serve_app.values import Citation, Message, ToolCall, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel
    from redis.asyncio import Redis

    from serve_app.values import Answer

logger = logging.getLogger(__name__)

FORMAT = "1"
"""Of the stored values. It is part of their keys, so that a process never reads those of another version."""
_WIDTHS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (0x3000, *range(0xFF01, 0xFFEF))
    if unicodedata.decomposition(chr(code)).startswith(("<wide>", "<narrow>"))
}
_LITERAL = re.compile(r"[\n\"'`‘’“”«»「」『』]")
_SPACES = re.compile(r"\s+")
LEAD_MS = 2_000
"""How long a lead lasts without a renewal. A healthy process never pauses for so long, and if the leader has died, the
waiting runs lose little more time than this."""
RENEW_EVERY_S = LEAD_MS / 4000
UNCACHED_MS = 10_000
"""After an answer that must not be shared: how long equal questions do not wait for one another."""
LISTEN_S = 1.0
CLOSE_S = 1.0

GET = """
-- KEYS answer lead waiting version
-- ARGV run owner lead_ms afresh
local version = redis.call('GET', KEYS[4]) or ''
if ARGV[4] == '' then
  local stored = redis.call('HMGET', KEYS[1], 'version', 'answer')
  if stored[1] == version then return {'found', stored[2]} end
  local lead = redis.call('HMGET', KEYS[2], 'run', 'version')
  if lead[2] == version and lead[1] == '' then return {'uncached'} end
  if lead[2] == version and lead[1] ~= ARGV[1] then
    redis.call('SADD', KEYS[3], ARGV[2])
    redis.call('PEXPIRE', KEYS[3], 5 * ARGV[3])
    return {'joined', redis.call('PTTL', KEYS[2])}
  end
end
redis.call('HSET', KEYS[2], 'run', ARGV[1], 'version', version)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local now = redis.call('TIME')
return {'lead', version, now[1] * 1000000 + now[2]}
"""
"""The replies:

    found ANSWER      a stored answer
    lead VERSION US   the run leads since US (Unix time in microseconds), under this version of the documents
    joined MS         another run leads; its lead ends in MS unless it is renewed
    uncached          the last leader's answer must not be shared: the run makes its own, and nobody waits for it

With `afresh` the run leads at once, whatever is stored and whoever else leads."""

_WAKE = """
local function wake()
  for _, owner in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local inbox = 'serve_app:inbox:' .. owner
    redis.call('XADD', inbox, 'MAXLEN', '~', 1000, '*', 'answer', KEYS[1])
    redis.call('EXPIRE', inbox, 60)
  end
  redis.call('DEL', KEYS[3])
end
"""

PUT = (
    _WAKE
    + """
-- KEYS answer lead waiting version
-- ARGV run version begun_us ttl_ms answer
local holder = redis.call('HGET', KEYS[2], 'run')
if holder and holder ~= ARGV[1] then return 0 end
local stored = redis.call('HMGET', KEYS[1], 'version', 'begun_us')
if not holder and stored[1] == ARGV[2] and tonumber(stored[2] or 0) > tonumber(ARGV[3]) then return 0 end
local current = (redis.call('GET', KEYS[4]) or '') == ARGV[2]
if current then
  redis.call('HSET', KEYS[1], 'version', ARGV[2], 'begun_us', ARGV[3], 'answer', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
redis.call('DEL', KEYS[2])
wake()
return current and 1 or 0
"""
)
"""Stores an answer. A lead that has expired is still good where nobody has taken it, or stored a later answer."""

RELEASE_LEAD = (
    _WAKE
    + """
-- KEYS answer lead waiting
-- ARGV run uncached_ms
if redis.call('HGET', KEYS[2], 'run') ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[2])
else
  redis.call('HSET', KEYS[2], 'run', '')
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
wake()
return 1
"""
)
"""Gives the lead up; for `uncached_ms`, equal questions do not wait for one another."""

RENEW_LEAD = """
-- KEYS lead
-- ARGV run lead_ms
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


def normalize_question(question: str) -> str:
    """Return the one wording that stands for all that are the same."""
    text = unicodedata.normalize("NFC", question.translate(_WIDTHS)).replace("\r\n", "\n").strip()
    return text if _LITERAL.search(text) else _SPACES.sub(" ", text)


def hash_settings(*parts: BaseModel | str) -> str:
    """Hash the settings and the like that an answer depends on."""
    return _hash([FORMAT, *(part if isinstance(part, str) else part.model_dump_json() for part in parts)])


def hash_question(question: str, context: Any, *parts: BaseModel | str) -> str:
    """Hash a question, the conversation before it, and what else the answer depends on."""
    return _hash([normalize_question(question), context, hash_settings(*parts)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class CachedAnswer(Value):
    """An answer without session, run and user, and without the wording of its question."""

    result: str
    citations: list[Citation]
    tool_calls: list[ToolCall]
    model: str
    messages: list[Message]
    """What a session remembers of the turn, after the user's message."""

    @classmethod
    def of(cls, answer: Answer, messages: Sequence[Message]) -> CachedAnswer:
        """Return what is stored of `answer`; `messages` are those of the turn after the user's."""
        return cls(
            result=answer.result,
            citations=answer.citations,
            tool_calls=answer.tool_calls,
            model=answer.model,
            messages=list(messages),
        )


@dataclass(frozen=True, slots=True)
class CacheLookup:
    """The keys of a question, and the run that asks it."""

    keys: AnswerKeys
    run_id: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer; `waited` says that another run was making it."""

    answer: CachedAnswer
    waited: bool


@dataclass(frozen=True, slots=True)
class Lead:
    """The right to make an answer, under one version of the documents."""

    question: CacheLookup
    version: str
    begun_us: int = field(compare=False)
    """When it was given: Unix time in microseconds, by Redis's clock."""


class SharedAnswers:
    """The answers in Redis, for the process `owner`; made where an event loop runs.

    `get` and `put` raise `StoreUnavailable` when Redis does not answer.
    """

    def __init__(self, redis: Redis, owner: str, ttl_s: float, availability: RedisAvailability | None = None) -> None:
        self._redis: Any = redis
        self._owner = owner
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self.availability = availability or RedisAvailability()
        self._reader = StreamReader(redis, LISTEN_S)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._leads: set[Lead] = set()
        self._releases: set[asyncio.Task[None]] = set()
        loops = (self._reader.read_forever(), self._listen(), self._renew_leads())
        self._background = [asyncio.create_task(each, context=contextvars.Context()) for each in loops]

    async def get(self, question: CacheLookup, *, afresh: bool = False) -> Hit | Lead | None:
        """Return the answer, waiting while another run makes it; or the right to make it.

        The right is renewed until `put` or `release`. Returns None where the run makes its answer for itself only.
        `afresh` takes no answer that was made before, and waits for none. The caller limits how long it waits.
        """
        arguments = (question.run_id, self._owner, LEAD_MS, "afresh" if afresh else "")
        with self._subscribe(question) as woken:
            waited = False
            while True:
                woken.clear()
                match await self._eval(GET, question.keys.all, arguments):
                    case ["found", stored]:
                        answer = _parse_answer(stored or "")
                        return Hit(answer, waited) if answer else None
                    case ["lead", version, begun_us]:
                        lead = Lead(question, version, begun_us)
                        self._leads.add(lead)
                        return lead
                    case ["joined", left_ms]:
                        waited = True
                        with suppress(TimeoutError):
                            async with asyncio.timeout(max(0, left_ms) / 1000 + RENEW_EVERY_S / 2):
                                await woken.wait()
                    case _:
                        return None

    async def put(self, lead: Lead, answer: CachedAnswer) -> bool:
        """Store the answer for all who wait for it, and return whether it is stored.

        It is not stored where a document has changed meanwhile, or where another run was given the lead later, or has
        stored its answer.
        """
        self._leads.discard(lead)
        arguments = (lead.question.run_id, lead.version, lead.begun_us, self._ttl_ms, answer.model_dump_json())
        return bool(await self._eval(PUT, lead.question.keys.all, arguments))

    def release(self, lead: Lead, *, uncached: bool) -> None:
        """Give the lead up: another run takes it, or with `uncached` each answers for itself.

        It never waits.
        """
        self._leads.discard(lead)
        arguments = (lead.question.run_id, UNCACHED_MS if uncached else 0)
        task = asyncio.create_task(self._release(lead.question.keys.all[:3], arguments), context=contextvars.Context())
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    def stop_renewing(self, lead: Lead) -> None:
        """Let the lead expire."""
        self._leads.discard(lead)

    async def close(self) -> None:
        """Release what is still to be released; the caller closes the connection."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=CLOSE_S)
        await cancel_and_wait(*self._background, *self._releases)

    @contextmanager
    def _subscribe(self, question: CacheLookup) -> Iterator[asyncio.Event]:
        """Set the event when the inbox names the answer.

        It listens before the first read, so nothing is missed.
        """
        woken, key = asyncio.Event(), question.keys.answer
        self._waiting.setdefault(key, set()).add(woken)
        try:
            yield woken
        finally:
            self._waiting[key].discard(woken)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _listen(self) -> None:
        async for _, fields in self._reader.follow_forever(inbox_stream(self._owner)):
            for woken in self._waiting.get(fields.get("answer", ""), ()):
                woken.set()

    async def _renew_leads(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            if not self._leads:
                continue
            try:
                with translate_redis_errors():
                    async with self._redis.pipeline(transaction=False) as pipe:
                        for lead in list(self._leads):
                            pipe.eval(RENEW_LEAD, 1, lead.question.keys.lead, lead.question.run_id, LEAD_MS)
                        await pipe.execute(raise_on_error=False)  # a lead that cannot be renewed expires
            except StoreUnavailable as error:
                logger.debug("answers_not_renewed", extra={"error": error.message})
            except Exception:
                logger.exception("answers_not_renewed")

    async def _release(self, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> None:
        """Where it fails, the lead expires by itself."""
        try:
            await self._eval(RELEASE_LEAD, keys, arguments)
        except StoreUnavailable as error:
            logger.debug("answer_not_released", extra={"error": error.message})
        except Exception:
            logger.exception("answer_not_released")

    async def _eval(self, script: str, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> Any:
        with self.availability.observe_call(), translate_redis_errors():
            return await self._redis.eval(script, len(keys), *keys, *arguments)


def _parse_answer(stored: str) -> CachedAnswer | None:
    try:
        return CachedAnswer.model_validate_json(stored)
    except ValidationError as error:
        logger.warning("answer_unreadable", extra={"problems": error.error_count()})
        return None

"""One corrupt key, field or row in Redis costs what it belongs to, and nothing else that is read or written with it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from captured_logs import PROCESS

from serve_app.config import FeedbackSettings, LimitSettings
from serve_app.errors import NotFound, RateLimited, StoreCorrupt, StoreUnavailable
from serve_app.memory import largest_sessions
from serve_app.observability.logs import JsonLogFormatter, RedactingFilter, RunLogHandler
from serve_app.observability.redaction import Redactor
from serve_app.resilience.tasks import cancel_and_wait
from serve_app.runs.feedback import FeedbackStore
from serve_app.stores import log_store
from serve_app.stores.api_keys import ApiKeyCache, ApiKeyStore
from serve_app.stores.fault_store import FaultStore
from serve_app.stores.log_store import RequestLogStore, RunLogStore
from serve_app.stores.rate_limiter import RateLimiter, TokenMeter
from serve_app.stores.redis import translate_redis_errors
from serve_app.stores.redis_keys import (
    API_KEYS,
    FAULTS,
    TENANTS,
    FeedbackKeys,
    RunKeys,
    SessionKeys,
    rate_limit_key,
    refusals_key,
    request_key,
)
from serve_app.stores.stream_reader import StreamReader
from serve_app.values import (
    ApiKeyRequest,
    Caller,
    Context,
    Fault,
    Feedback,
    Metering,
    RateLimits,
    RunLogLine,
    TenantLimits,
)

if TYPE_CHECKING:
    from captured_logs import CapturedLogs
    from redis.asyncio import Redis

ORDER = ApiKeyRequest(tenant="acme", scopes=frozenset({"chat"}))
HALF = "\ud83d"


def context(tenant: str = "default", run_id: str = "r", **more: Any) -> Context:
    return Context(request_id="q", run_id=run_id, session_id="s", tenant=tenant, deadline=time.time() + 5, **more)


async def test_bytes_that_are_no_text_are_read_and_half_a_character_is_written(redis: Any) -> None:
    await redis.set("bad", b"a\xffb")
    async with redis.pipeline(transaction=False) as pipe:
        pipe.get("bad")
        pipe.set("half", f"a{HALF}b")
        pipe.set("good", "订单")
        pipe.get("good")
        read = await pipe.execute()
    assert (read[0], read[-1]) == ("a\N{REPLACEMENT CHARACTER}b", "订单")
    assert await redis.get("half") == "a?b"


async def test_a_failure_says_whether_redis_is_away_or_one_key_is_corrupt(redis: Any) -> None:
    await redis.set("text", "x")
    commands: list[Any] = [
        lambda: redis.hget("text", "f"),
        lambda: redis.incr("text"),
        lambda: redis.xread({"text": "0"}),
        lambda: redis.eval("return redis.call('HGET', KEYS[1], 'f')", 1, "text"),
        lambda: redis.eval("return nil + 1", 0),
        lambda: redis.set("key", object()),
    ]
    for command in commands:
        with pytest.raises(StoreCorrupt), translate_redis_errors():
            await command()
    for command in (lambda: redis.execute_command("NOSUCH"), lambda: redis.evalsha("0" * 40, 0)):
        with pytest.raises(StoreUnavailable) as caught, translate_redis_errors():
            await command()
        assert not isinstance(caught.value, StoreCorrupt)


async def test_one_key_of_access_that_is_corrupt_leaves_the_others_and_the_loop_going(
    redis: Any, captured_logs: CapturedLogs
) -> None:
    access = ApiKeyCache(redis)
    book = ApiKeyStore(redis, access)
    made = await book.create(ORDER)
    await redis.hset(API_KEYS, "garbage", "{")
    await redis.hset(API_KEYS, "no text", b"\xff")
    await redis.set(TENANTS, "no hash")
    going_on = asyncio.create_task(access.refresh_forever())
    async with asyncio.timeout(3):
        while not access._snapshot or access.find_caller(made.key) is None:  # noqa: ASYNC110 - another task is waited for
            await asyncio.sleep(0.05)
    another = await book.create(ORDER)
    assert access.find_caller(another.key)
    assert access.tenant_limits("acme") == TenantLimits()
    with pytest.raises(NotFound):
        await book.update_limits("garbage", {})
    assert not going_on.done()
    await cancel_and_wait(going_on)
    assert captured_logs.of("access_row_unreadable")


async def test_a_fault_that_cannot_be_read_is_none_and_the_others_are_in_force(redis: Any) -> None:
    board = FaultStore(redis)
    fault = Fault(target="model", mode="error", rate=1, delay_s=0, until=time.time() + 60)
    await board.put(fault)
    await redis.hset(FAULTS, "tool:a", "{")
    assert await board.active_faults() == await board.list_faults() == (fault,)


class Everybody:
    """Nobody has limits of his own."""

    def tenant_limits(self, tenant: str) -> TenantLimits:
        return TenantLimits()


async def test_an_allowance_that_is_corrupt_lets_its_own_turns_pass_and_nobody_elses(redis: Any) -> None:
    limiter = RateLimiter(redis, LimitSettings(tenant=RateLimits(turns_per_minute=1, turns_burst=1)), Everybody())
    await redis.set(rate_limit_key("poison", "", "turns", 1), "much")
    for _ in range(5):
        assert await limiter.take_turn(Caller(tenant="poison")) is None
    await limiter.take_turn(Caller(tenant="other"))
    with pytest.raises(RateLimited):
        await limiter.take_turn(Caller(tenant="other"))


async def test_tokens_that_cannot_be_charged_keep_no_others_from_it(redis: Any, captured_logs: CapturedLogs) -> None:
    metering = Metering(tenant_per_minute=1000)
    await redis.set(rate_limit_key("poison", "", "tokens", 1000), "much")
    await TokenMeter(redis).charge([(context(name, metering=metering), 100) for name in ("poison", "other")])
    assert float(await redis.get(rate_limit_key("other", "", "tokens", 1000))) > 0
    assert [line["tenant"] for line in captured_logs.of("tokens_not_charged")] == ["poison"]


class Raises:
    """Says nothing of itself."""

    def __str__(self) -> str:
        raise RuntimeError("poison")

    __repr__ = __str__


async def test_lines_that_cannot_be_told_or_written_cost_no_other(
    redis: Any, monkeypatch: pytest.MonkeyPatch, captured_logs: CapturedLogs
) -> None:
    monkeypatch.setattr(log_store, "WRITE_EVERY_S", 0.01)
    trail = RunLogHandler(JsonLogFormatter(PROCESS), RedactingFilter(Redactor()))
    writing = asyncio.create_task(RunLogStore(redis, 60).write_forever(trail))
    await redis.set(RunKeys("default", "poison").lines, "no stream")

    def tell(run_id: Any, event: Any, **fields: Any) -> None:
        made = {"name": "serve_app.x", "msg": event, "levelname": "INFO", "created": 1.0, "run_id": run_id, **fields}
        trail.handle(logging.makeLogRecord(made))

    for run_id in ("poison", "r", "poison"):
        tell(run_id, f"half_{HALF}", text=HALF)
        tell(run_id, "odd", value=Raises(), key={Raises(): 1})
        tell(run_id, "%d", args=(Raises(),))
        tell(run_id, "well")
    tell(Raises(), "of_no_run")
    async with asyncio.timeout(5):
        found: tuple[str, ...] = ()
        while "well" not in found:
            await asyncio.sleep(0.05)
            try:
                found = tuple(line.event for line in (await RunLogStore(redis, 60).read(context(), "r")).lines)
            except NotFound:
                continue
    assert len(found) == 4
    assert not writing.done()
    await cancel_and_wait(writing)
    dropped = captured_logs.of("run_lines_dropped")[0]["count"]
    assert dropped >= 8


async def test_a_corrupt_key_of_refusals_costs_no_other_entry_and_is_counted(
    redis: Any, monkeypatch: pytest.MonkeyPatch, captured_logs: CapturedLogs
) -> None:
    monkeypatch.setattr(log_store, "WRITE_EVERY_S", 0.01)
    await redis.set(refusals_key("poison"), "no stream")
    store = RequestLogStore(redis, RunLogStore(redis, 60), 60)
    line = RunLogLine(ts="1", level="INFO", process="Ingress", event="turn_refused", fields={})
    for tenant in ("other", "poison", "other", "poison"):
        store.add_line(tenant, "q", line)
    store.link_run(context("poison"))
    writing = asyncio.create_task(store.write_forever())
    async with asyncio.timeout(5):
        while not captured_logs.of("request_log_dropped"):  # noqa: ASYNC110 - for want of an event
            await asyncio.sleep(0.01)
    await cancel_and_wait(writing)
    assert [each["count"] for each in captured_logs.of("request_log_dropped")] == [2]
    assert (await store.read(context("other"), "q")).lines == (line, line)
    assert await redis.ttl(refusals_key("other")) > 0
    assert await redis.get(request_key("poison", "q")) == "r"


async def test_a_stored_line_that_is_garbage_costs_no_other_line(redis: Any) -> None:
    key = RunKeys("default", "r").lines
    good = '{"ts": "1", "level": "INFO", "event": "e"}'
    for line in ("{", "null", "[]", "{}", good):
        await redis.xadd(key, {"line": line})
    await redis.xadd(key, {"nothing": "x"})
    assert [line.event for line in (await RunLogStore(redis, 60).read(context(), "r")).lines] == ["e"]


async def test_a_vote_that_cannot_be_read_is_none_and_the_others_are_listed(redis: Any) -> None:
    keys, book = FeedbackKeys("default"), FeedbackStore(redis, FeedbackSettings())
    good = Feedback(run_id="g", session_id="s", rating="up", at=time.time(), question="?", status="success")
    for run_id, vote in (("poison", "{"), ("g", good.model_dump_json())):
        await redis.set(keys.vote(run_id), vote)
        await redis.zadd(keys.rated("up"), {run_id: time.time()})
    assert (await book.list_votes(context(), None, 10)).feedback == (good,)


async def test_a_session_whose_meta_is_garbage_is_listed_beside_the_others(redis: Any) -> None:
    for session, repairs in (("a", "many"), ("b", "2")):
        await redis.rpush(SessionKeys("default", session).exchanges, "{}")
        await redis.hset(SessionKeys("default", session).meta, "repairs", repairs)
    await redis.rpush(SessionKeys("default", "c").exchanges, "{}")
    await redis.set(SessionKeys("default", "c").meta, "no hash")
    await redis.rpush("serve_app:session:no-braces:exchanges", "{}")
    listed = await largest_sessions(redis, context(), 10)
    assert {each.session_id: each.repairs for each in listed.sessions} == {"a": 0, "b": 2, "c": 0}


async def test_a_stream_that_is_always_followed_is_found_again_once_it_is_one(redis: Redis) -> None:
    await redis.set("poison", "no stream")
    tail, found = StreamReader(redis, 0.05), asyncio.Queue[str]()

    async def follow(stream: str) -> None:
        async for _, fields in tail.follow_forever(stream):
            found.put_nowait(fields["f"])

    tasks = [asyncio.create_task(each) for each in (tail.read_forever(), follow("poison"), follow("good"))]
    await redis.xadd("good", {"f": "1"})
    async with asyncio.timeout(2):
        assert await found.get() == "1"
    await redis.delete("poison")
    await redis.xadd("poison", {"f": "2"})
    async with asyncio.timeout(4):
        assert await found.get() == "2"
    await cancel_and_wait(*tasks)

"""The load of `serve-app loadtest` is an open loop: slow answers neither delay turns nor hide."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rude_chat import rude_chat

from serve_app.cli.load_generator import LoadGenerator, LoadPlan, TokenGaps, open_turn_client
from serve_app.cli.load_summary import LoadResult
from serve_app.cli.load_table import warnings_of
from serve_app.cli.turn_client import TokenTimes, TurnOutcome, TurnResult

if TYPE_CHECKING:
    from serve_app.cli.load_generator import Measurements


def plan_of(url: str = "http://localhost", text: str = "hello", **changes: object) -> LoadPlan:
    values: dict[str, object] = {
        "url": url,
        "rate_per_s": 20.0,
        "duration_s": 1.0,
        "stream": False,
        "inputs": (text,),
        "sessions": None,
        "max_in_flight": 1000,
        "timeout_s": 30.0,
        "run_id": "test",
    }
    return LoadPlan(**(values | changes))


async def measure(plan: LoadPlan) -> Measurements:
    async with open_turn_client(plan) as client:
        return await LoadGenerator(plan, client, lambda _: None).run()


def test_the_same_options_give_the_same_random_arrivals() -> None:
    plan = plan_of(rate_per_s=50, duration_s=100)
    arrivals = plan.arrivals()
    assert arrivals == plan_of(rate_per_s=50, duration_s=100, text="another").arrivals()
    assert len(arrivals) == plan.turns == 5000
    assert arrivals == sorted(arrivals)
    assert 0 <= arrivals[0] < arrivals[-1] <= 100
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    twice_the_mean = sum(gap > 2 / 50 for gap in gaps) / len(gaps)
    assert 0.11 < twice_the_mean < 0.16  # 1/e², as of a Poisson process; a regular beat has none


async def test_answers_that_take_two_seconds_delay_no_arrival() -> None:
    with rude_chat() as (url, chat):
        plan = plan_of(url, "slow 2")
        started = time.monotonic()
        measurements = await measure(plan)
        came = sorted(at - started for at, _ in chat.seen)
    assert len(came) == 20
    delays = [at - planned_s for at, planned_s in zip(came, plan.arrivals(), strict=True)]
    assert max(delays) < 1.5  # on a busy machine; if turns waited for answers, the second would be 2 s late
    assert measurements.answered == 20
    assert min(turn.latency_s for turn in measurements.turns) >= 2


class BusyClient:
    """Blocks the whole client at its first turn, as a machine does that is too slow."""

    def __init__(self, blocks_s: float) -> None:
        self._blocks_s = blocks_s

    async def send(self, text: str, session_id: str) -> TurnResult:
        time.sleep(self._blocks_s)  # noqa: ASYNC251 - it blocks on purpose
        self._blocks_s = 0.0
        return TurnResult(TurnOutcome("success"), time.monotonic(), TokenTimes())


async def test_the_latency_counts_from_the_planned_start_and_the_lag_of_the_client_is_reported() -> None:
    plan = plan_of(rate_per_s=200, duration_s=0.2)
    result = LoadResult.of(plan, await LoadGenerator(plan, BusyClient(0.5), lambda _: None).run())
    summary = result.summary
    assert summary.latency
    assert summary.client_lag
    assert summary.answered == 40
    assert summary.latency.p50_ms > 300  # each answer is immediate, but half of the turns begin 0.4 s late
    assert summary.client_lag.p50_ms > 300
    assert "this machine, not the service, was the bottleneck" in "".join(warnings_of(result))


async def test_an_arrival_over_the_limit_is_an_error_of_the_client_and_is_not_sent() -> None:
    with rude_chat() as (url, chat):
        plan = plan_of(url, "slow 3", max_in_flight=5)
        result = LoadResult.of(plan, await measure(plan))
        assert len(chat.seen) == 5
    assert (result.summary.sent, result.summary.answered, result.summary.client_limit) == (5, 5, 15)
    assert [(error.label, error.count) for error in result.errors] == [("client limit: 5 turns in flight", 15)]
    assert "15 turns were not sent: 5 were in flight" in "".join(warnings_of(result))


async def test_the_time_to_the_first_token_counts_from_the_planned_start() -> None:
    with rude_chat() as (url, _):
        plan = plan_of(url, "slow 0.3", stream=True)
        summary = LoadResult.of(plan, await measure(plan)).summary
    assert summary.first_token
    assert summary.latency
    assert 300 <= summary.first_token.p50_ms < summary.latency.p50_ms - 40  # the second token comes 50 ms later


async def test_what_cannot_be_reached_is_counted_and_stops_nothing() -> None:
    with rude_chat() as (url, _):
        pass
    for address, label in ((url, "transport: connection refused"), ("http://", "malformed: no valid address")):
        result = LoadResult.of(plan_of(address), await measure(plan_of(address)))
        assert [(error.label, error.count) for error in result.errors] == [(label, 20)]
    with rude_chat() as (url, _):
        address = url.replace("http", "https")
        result = LoadResult.of(plan_of(address), await measure(plan_of(address)))
        assert [(error.label, error.count) for error in result.errors] == [("transport: TLS failed", 20)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_turns_and_the_report_is_written(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "in.txt").write_text("hello\nslow 60\n")
    program = str(Path(sys.executable).with_name("serve-app"))
    options = ["--rate", "40", "--seconds", "60", "--inputs", "in.txt"]
    with rude_chat() as (url, chat):
        command = [program, "loadtest", url, *options]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
            give_up = time.monotonic() + 30
            while len(chat.seen) < 20:
                assert time.monotonic() < give_up
                time.sleep(0.02)
            run.send_signal(number)
            output, _ = run.communicate(timeout=30)
    assert run.returncode == 130, output
    assert "Warning: The load test was interrupted after" in output
    summary = json.loads((tmp_path / "loadtest.json").read_text())["summary"]
    assert summary["interrupted"] is True
    assert summary["cut_off"] >= 5
    assert summary["answered"] >= 5
    assert summary["answered_per_s"] > 5
    assert summary["sent"] == summary["answered"] + summary["cut_off"]
    assert (tmp_path / "loadtest.html").stat().st_size > 5000


def test_of_many_gaps_between_tokens_a_fair_sample_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.cli.load_generator.MAX_GAPS", 1000)
    gaps = TokenGaps()
    for number in range(100_000):
        gaps.add(number)
    assert (gaps.count, len(gaps.sample_s)) == (100_000, 1000)
    assert 45_000 < sum(gaps.sample_s) / 1000 < 55_000  # the first or the last thousand would be far from it

"""The README's fault table, row by row, in JSON and in a stream."""

from __future__ import annotations

import itertools
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from breakable_dependencies import SECRET, Dependencies, Upstream, breakable
from listening import served
from running_service import ENVIRONMENT, Service, beside
from stub_server import SECRET_TEXT

from serve_app.deployments.embedded_stores import choose_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from breakable_dependencies import Mood
    from stub_server import Stub

NAME = "faulty"
MODEL_S, TOOL_S = 1.5, 1.0
"""How long one call of each may take."""
NOISE_S = 6.0
"""What a loaded machine may add to a bound."""
BACK_WITHIN_S = 2.0
"""After a fault has ended, turns lack nothing."""
WELL, PRIMARY, FALLBACK = "Hello from the stub.", "table-primary", "table-fallback"
MANUAL = "# The amberlock device\n\nThe amberlock device opens with the code word heron, said slowly and twice.\n"
NEVER = (
    "Traceback",
    "Error(",
    "Exception",
    "Errno",
    "127.0.0.1",
    "ray::",
    SECRET,
    SECRET_TEXT,
    ENVIRONMENT["STUB_KEY"],
)
MANY = 2000
SESSIONS, OUTAGE_S = 10, 20
numbers = itertools.count()


@dataclass(frozen=True)
class TurnResult:
    """What a client was told of one turn."""

    outcome: str
    """The answer's status, or the error's code."""
    body: str
    answer: dict[str, Any]
    """Or the error."""
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, and what a turn then has to be."""

    fault: str
    moods: dict[str, Mood] = field(default_factory=dict)
    models: tuple[str, str] = ("well", "well")
    """How the first model and its fallback answer."""
    tool: str = "well"
    outcome: str = "degraded"
    degraded: list[str] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=lambda: [("ok", 1)])
    """Status and attempts of each tool call."""
    requests: tuple[int, int, int] = (2, 0, 1)
    """What one turn asks of the first model, its fallback and the tool."""
    within_s: float = 0


ORDERS = ["tool:order_query"]
SEARCH: dict[str, Any] = {"models": ("searches", "well"), "requests": (2, 0, 0)}
TABLE = [
    Row(
        fault="tool slow", tool="slow",
        degraded=ORDERS, calls=[("timeout", 2)], requests=(2, 0, 2), within_s=2 * TOOL_S + 2,
    ),
    Row(
        fault="tool down", moods={"tool": "down"},
        degraded=ORDERS, calls=[("error", 2)], requests=(2, 0, 0), within_s=2,
    ),
    Row(fault="tool garbage", tool="garbage", degraded=ORDERS, calls=[("error", 1)]),
    Row(fault="model 429", models=("rate-limited@0", "well"), degraded=["model"], requests=(4, 2, 1)),
    Row(fault="model 500", models=("broken@", "well"), degraded=["model"], requests=(4, 2, 1), within_s=1),
    Row(fault="model slow", models=("silent", "well"), degraded=["model"], requests=(2, 2, 1), within_s=2 * MODEL_S),
    Row(fault="model cut", models=("cut", "well"), degraded=["model"], requests=(4, 2, 1), within_s=1),
    Row(
        fault="malformed tool call", models=("malformed", "well"),
        outcome="success", calls=[("error", 0)], requests=(2, 0, 0),
    ),
    Row(fault="endless loop", models=("loops", "well"), degraded=["model"], calls=[("ok", 1)] * 3, requests=(4, 0, 3)),
    Row(
        fault="Milvus down", moods={"milvus": "down"},
        degraded=["retriever"], calls=[("error", 1)], within_s=0.5, **SEARCH,
    ),
    Row(
        fault="Milvus slow", moods={"milvus": "slow"},
        degraded=["retriever"], calls=[("error", 1)], within_s=1, **SEARCH,
    ),
    Row(fault="embedding down", moods={"embedding": "down"}, degraded=["retriever"], within_s=0.5, **SEARCH),
    Row(fault="Redis down", moods={"redis": "down"}, degraded=["memory"], within_s=3),
    Row(fault="Redis slow", moods={"redis": "slow"}, degraded=["memory"], within_s=3),
    Row(
        fault="tool slow and model 500", tool="slow", models=("broken@", "well"),
        degraded=["model", *ORDERS], calls=[("timeout", 2)], requests=(4, 2, 2), within_s=2 * TOOL_S + 3,
    ),
    Row(
        fault="everything down", moods=dict.fromkeys(("tool", "model", "milvus", "embedding", "redis"), "down"),
        outcome="model_unavailable", requests=(0, 0, 0), within_s=4,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Table:
    """The service, and all that it depends on."""

    service: Service
    dependencies: Dependencies
    upstream: Upstream
    stub: Stub

    def break_(self, row: Row) -> None:
        """Have all that the row names fail, and nothing else."""
        self.upstream.slow, self.upstream.garbage = row.tool == "slow", row.tool == "garbage"
        self.stub.moods.update(
            {name: [mood] * MANY for name, mood in zip((PRIMARY, FALLBACK), row.models, strict=True)}
        )
        self.dependencies.are(**row.moods)

    def restore(self) -> float:
        """Seconds until turns lack nothing."""
        self.break_(Row(fault="none", models=("searches", "well")))
        begun = time.monotonic()
        while (result := self.turn(stream=False)).outcome != "success":
            assert time.monotonic() - begun < 30, result
            time.sleep(0.1)
        return time.monotonic() - begun

    def turn(self, *, stream: bool, text: str = "hello", session: str = "") -> TurnResult:
        body = {"user_input": text, "session_id": session or f"table-{next(numbers)}", "stream": stream}
        begun = time.monotonic()
        with self.service.client() as client:
            response = client.post("/agent/chat", json=body)
        took_s = time.monotonic() - begun
        frames = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
        content = json.loads(frames[-1] if frames else response.text)
        return TurnResult(
            content["status"] if "status" in content else content["error"]["code"], response.text, content, took_s
        )

    def remembered(self, session: str) -> list[str]:
        """What the user said in a session, as far as it is remembered."""
        with self.service.client() as client:
            exchanges = client.get(f"/agent/sessions/{session}", params={"limit": 100}).json()["exchanges"]
        return [exchange["messages"][0]["content"] for exchange in exchanges]

    def requests(self) -> tuple[int, int, int]:
        return self.stub.count_requests(PRIMARY), self.stub.count_requests(FALLBACK), self.upstream.looked_up

    def replicas(self) -> list[psutil.Process]:
        return self.service.processes(f"ServeReplica:{NAME}:Tools")


@pytest.fixture(scope="module")
def table(service: Service, stub: Stub) -> Iterator[Table]:
    ports, upstream = choose_ports(service.data_dir), Upstream()
    with served(upstream.app) as url:
        servers = {
            "redis": f"redis://127.0.0.1:{ports.redis}",
            "milvus": f"http://127.0.0.1:{ports.milvus}",
            "model": stub.url,
            "embedding": url,
            "tool": url,
        }
        with (
            breakable(servers) as dependencies,
            beside(service, NAME, _settings(dependencies), Tools=2) as running,
            running.client() as client,
        ):
            documents = {"documents": [{"source": "amberlock.md", "text": MANUAL}]}
            client.post("/knowledge/documents", json=documents).raise_for_status()
            table = Table(running, dependencies, upstream, stub)
            yield table
            table.restore()


def _settings(dependencies: Dependencies) -> dict[str, Any]:
    at = {name: f"http://127.0.0.1:{proxy.port}" for name, proxy in dependencies.proxies.items()}
    model = {"base_url": f"{at['model']}/v1", "timeout_s": MODEL_S}
    parameters = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
    endpoint = {
        "url": f"{at['tool']}/orders/{{order_id}}",
        "description": "Looks up an order.",
        "parameters": parameters,
    }
    never = {"failures": 1000}
    return {
        "redis": f"redis://127.0.0.1:{dependencies.proxies['redis'].port}/3",
        "milvus": at["milvus"],
        "model": {
            **model,
            "name": f"openai:{PRIMARY}",
            "fallbacks": [{**model, "name": f"openai:{FALLBACK}"}],
            "breaker_failures": 1000,
        },
        "tools": {"order_query": {"http": endpoint, "timeout_s": TOOL_S, "breaker": never}},
        "egress": {"private_hosts": ["127.0.0.1"]},
        "knowledge": {
            "collection": NAME,
            "mode": "hybrid",
            "embedding": {"model": "openai:hashing", "base_url": f"{at['embedding']}/v1", "api_key_env": "STUB_KEY"},
        },
    }


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.fault)
def test_a_fault_costs_an_answer_what_the_table_says(table: Table, row: Row) -> None:
    table.restore()
    table.break_(row)
    before = table.requests()
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda stream: table.turn(stream=stream), (False, True)))
    requests_made = tuple(now - then for now, then in zip(table.requests(), before, strict=True))
    for result in both:
        assert result.outcome == row.outcome, result
        if row.outcome in {"success", "degraded"}:
            assert result.answer["degraded"] == row.degraded
            assert result.answer["result"] == WELL
            assert [(call["status"], call["attempts"]) for call in result.answer["tool_calls"]] == row.calls
        assert result.took_s < row.within_s + NOISE_S
        assert [words for words in NEVER if words in result.body] == []
    assert requests_made == tuple(2 * each for each in row.requests)
    assert table.restore() < BACK_WITHIN_S + NOISE_S


def test_the_death_of_a_process_of_tools_costs_an_answer_nothing(table: Table) -> None:
    table.restore()
    table.break_(Row(fault="tool process killed", tool="slow"))
    before, replicas = table.requests(), table.replicas()
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(table.turn, stream=stream) for stream in (False, True)]
        killed = _kill_one_that_calls(replicas, table.dependencies.proxies["tool"].port)
        table.upstream.slow = False
        result = [each.result() for each in both]
    assert [each.outcome for each in result] == ["success", "success"]
    assert [[(call["status"], call["attempts"]) for call in each.answer["tool_calls"]] for each in result] == [
        [("ok", 1)]
    ] * 2
    assert max(each.took_s for each in result) < 2 + NOISE_S
    first, fallback, looked_up = (now - then for now, then in zip(table.requests(), before, strict=True))
    assert (first, fallback) == (4, 0)
    assert looked_up in {3, 4}, "the call of the process that died was made again, under the same attempt"
    assert killed.pid not in {each.pid for each in table.replicas()}


def _kill_one_that_calls(replicas: list[psutil.Process], port: int) -> psutil.Process:
    """Kill the first process that is found in a call of the tool."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        for each in replicas:
            if any(connection.raddr and connection.raddr.port == port for connection in each.net_connections("tcp")):
                each.send_signal(signal.SIGKILL)
                return each
    pytest.fail("no process called the tool")


@pytest.mark.long
@pytest.mark.parametrize("mood", ["down", "slow"])
def test_an_outage_of_redis_costs_turns_their_memory_and_memory_nothing(
    table: Table, mood: Mood, capsys: pytest.CaptureFixture[str]
) -> None:
    table.restore()
    table.break_(Row(fault="none"))
    begun, ended = [time.monotonic() + after for after in (3, 3 + OUTAGE_S)]
    until = ended + 10

    def converse(number: int) -> list[tuple[float, float, str, TurnResult]]:
        """One session's turns: when each began and ended, what was said, and what was told."""
        turns = []
        while (at := time.monotonic()) < until:
            text = f"turn {len(turns)}"
            result = table.turn(stream=number % 2 == 0, text=text, session=f"outage-{mood}-{number}")
            turns.append((at, time.monotonic(), text, result))
            time.sleep(0.3)
        return turns

    with ThreadPoolExecutor(SESSIONS) as pool:
        talking = [pool.submit(converse, number) for number in range(SESSIONS)]
        time.sleep(begun - time.monotonic())
        table.dependencies.are(redis=mood)
        time.sleep(ended - time.monotonic())
        table.dependencies.are()
        sessions = [each.result() for each in talking]

    turns = [turn for each in sessions for turn in each]
    meanwhile = [result for at, end, _, result in turns if begun < at and end < ended]
    afterwards = [result for at, _, _, result in turns if at > ended + BACK_WITHIN_S]
    with capsys.disabled():
        slowest_s = max(result.took_s for result in meanwhile)
        print(f"\nRedis {mood} for {OUTAGE_S} s: {len(turns)} turns, {len(meanwhile)} of them without it")
        print(f"the slowest of those took {slowest_s:.1f} s")
    assert {result.outcome for _, _, _, result in turns} == {"success", "degraded"}
    assert {(result.outcome, *result.answer["degraded"]) for result in meanwhile} == {("degraded", "memory")}
    assert {result.outcome for result in afterwards} == {"success"}
    assert len(meanwhile) > SESSIONS < len(afterwards)
    for number, each in enumerate(sessions):
        remembered = table.remembered(f"outage-{mood}-{number}")
        texts = [text for _, _, text, _ in each]
        assert remembered == [text for text in texts if text in remembered], "in order, and each once"
        assert {text for _, _, text, result in each if result.outcome == "success"} <= set(remembered)

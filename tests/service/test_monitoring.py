"""An operator learns of every incident by mail, dashboard and trace, and of no secret."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import ray
from collectors import Collector, ReceivedSpan, langsmith, otlp
from dashboard_files import RARE, unanswered
from debian_monitoring import Prometheus, alertmanager, hurried, prometheus, wait_until
from rule_files import RULES
from running_service import Service, beside
from smtp_sink import Sink, smtp_sink
from stub_server import PIN, Stub
from test_alert_mails import RUNBOOK, SETTINGS, impatient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NAME = "watched"
FIRST, SECOND = "watched-heeding", "watched-second"
MANUAL = "# The amberlock device\n\nThe amberlock device opens with the code word heron, said slowly and twice.\n"
EXPORTED_S = 180
EVERY = f'{{__name__=~"ray_serve_app_.*_total", application="{NAME}"}}'
AT_ONCE = 10
SECRETS = {
    "sk-proj-Ab12Cd34Ef56Gh78Ij90": "Ab12Cd34Ef56Gh78Ij90",
    "0123456789abcdef0123456789abcdef.AbCdEf0123456789": "AbCdEf0123456789",
    "AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "Authorization: Bearer 9f8e7d6c5b4a39281706f5e4": "9f8e7d6c5b4a39281706f5e4",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3": "eyJzdWIiOiIxMjM0NTY3ODkwIn0",
    "postgres://admin:hunter2swordfish@db.internal/app": "hunter2swordfish",
    "api_key=qwertz-4711-asdf-0815": "qwertz-4711-asdf-0815",
    "13912345678": "13912345678",
    "+49 170 1234567": "170 1234567",
    "wang.fang@example.com.cn": "wang.fang",
    "11010519491231002X": "11010519491231002X",
    "4111 1111 1111 1111": "4111 1111 1111 1111",
    "EMP-204815": "EMP-204815",  # six digits alone stand in times, too
}
"""As they are written, and what of it must not be told: eleven kinds of ours, one of the operator's, two of keys."""
numbers = itertools.count()


@dataclass(frozen=True)
class Watched:
    """The service, and all who watch it."""

    service: Service
    stub: Stub
    prometheus: Prometheus
    mails: Sink
    langsmith: Collector
    otlp: Collector
    sessions: list[str] = field(default_factory=list)
    """Of each turn that was asked for."""

    def turns(self, count: int, text: str = "Where is my order?", **fields: Any) -> list[dict[str, Any]]:
        """So many turns, ten at a time."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda _: self.turn(text, **fields), range(count)))

    def turn(self, text: str = "Where is my order?", **fields: Any) -> dict[str, Any]:
        body = {"user_input": text, "session_id": self._session(), **fields}
        with self.service.client() as client:
            response = client.post("/agent/chat", json=body)
        answer: dict[str, Any] = {} if fields.get("stream") else response.json()
        return answer

    def _session(self) -> str:
        self.sessions.append(f"watched-{next(numbers)}")
        return self.sessions[-1]

    def cancelled(self) -> None:
        """A turn that is cancelled while its model is silent."""
        requests_before = self.stub.count_requests(FIRST)
        body = {"user_input": "be silent", "session_id": self._session()}
        with self.service.client() as client:
            run_id = client.post("/agent/chat", json=body, headers={"Prefer": "respond-async"}).json()["run_id"]
            wait_until(lambda: self.stub.count_requests(FIRST) > requests_before, 10, "the model is asked")
            assert client.post(f"/agent/runs/{run_id}/cancel").json()["status"] == "cancelled"

    def counts(self, votes: int = 0) -> Counts:
        """What Prometheus has of each counter, as soon as it has every turn that was asked for, and so many votes."""
        while True:
            wait_until(lambda: bool(self.prometheus.query(EVERY)), EXPORTED_S, "there are counters")
            counts = Counts(self.prometheus.query(EVERY))
            turns, rated = (sum(counts.of(name).values()) for name in ("turns_total", "feedback_total"))
            if (turns, rated) == (len(self.sessions), votes):
                return counts
            assert turns <= len(self.sessions)
            time.sleep(1)


class Counts:
    """What counters have counted over all replicas, `since` earlier ones."""

    def __init__(self, series: list[dict[str, Any]], since: Counts | None = None) -> None:
        self._series = [(each["metric"], float(each["value"][1])) for each in series]
        self._since = since

    def of(self, name: str, *labels: str) -> dict[str, float]:
        """Those of one counter that are not 0, by the values of `labels`."""
        counted: Counter[str] = Counter()
        for metric, value in self._series:
            if metric["__name__"] == f"ray_serve_app_{name}":
                counted[" ".join(metric[label] for label in labels)] += value  # type: ignore[assignment]
        counted.subtract(self._since.of(name, *labels) if self._since else {})
        return {each: count for each, count in counted.items() if count}

    def since(self, before: Counts) -> Counts:
        self._since = before
        return self


@pytest.fixture(scope="module")
def watched(service: Service, stub: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    hurried(RULES, folder / "rules")
    with ExitStack() as stack:
        first, second, sink = (stack.enter_context(each()) for each in (langsmith, otlp, smtp_sink))
        variables = {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_API_KEY": "key",
            "LANGSMITH_ENDPOINT": first.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": second.url,
        }
        running = stack.enter_context(
            beside(service, NAME, _settings(service, stub), {"runtime_env": {"env_vars": variables}})
        )
        with running.client() as client:
            documents = {"documents": [{"source": "amberlock.md", "text": MANUAL}]}
            client.post("/knowledge/documents", json=documents).raise_for_status()
        settings = {**SETTINGS, "SERVE_APP_SMTP_HOST": sink.address}
        manager = stack.enter_context(alertmanager(folder / "mails", settings, impatient(folder / "configured")))
        target = service.url.removeprefix("http://")
        watching = stack.enter_context(prometheus(folder, target, folder / "rules", manager, every_s=5))
        yield Watched(running, stub, watching, sink, first, second)


def _settings(service: Service, stub: Stub) -> dict[str, Any]:
    orders = service.data_dir / "watched-orders.json"
    orders.write_text(json.dumps({"OD-1": "lost at sea"}))
    never = {"failures": 1000}
    nowhere = {"url": "http://127.0.0.1:1/never", "description": "Looks something up."}
    return {
        "model": {
            "name": f"openai:{FIRST}",
            "base_url": stub.url,
            "attempts": 2,
            "fallbacks": [{"name": f"openai:{SECOND}", "base_url": stub.url}],
            "breaker_failures": 1000,
        },
        "tools": {
            "order_query": {"function": "serve_app.tools.orders:order_query"},
            "note": {"function": "tools_with_secrets:note"},
            "fail": {"function": "tools_with_secrets:fail"},
            "look_up": {"http": nowhere, "attempts": 1, "fallback": "pulse", "breaker": never},
            "hang": {"function": "harmful_tools:hang", "attempts": 1, "timeout_s": 1, "breaker": never},
            "pulse": {"function": "harmful_tools:pulse"},
        },
        "egress": {"private_hosts": ["127.0.0.1"]},
        "orders": {"file": str(orders)},
        "knowledge": {"collection": NAME},
        "observability": {"redact": [r"EMP-\d{6}"]},
    }


def test_turns_that_become_slow_are_mailed_and_so_is_their_end(watched: Watched) -> None:
    def meanwhile(text: str, holds: Callable[[], bool], seconds: float) -> None:
        """Ten turns at a time, with a pause in which the page of metrics is made, until it holds."""
        give_up = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < give_up, watched.prometheus.alerts()
            watched.turns(AT_ONCE, text)
            time.sleep(1)

    subject = "p95 turn latency"
    meanwhile("be slow@3", lambda: bool(watched.mails.about("[FIRING", subject, RUNBOOK)), 300)
    meanwhile("hello", lambda: bool(watched.mails.about("[RESOLVED]", subject, RUNBOOK)), 300)


def test_two_hundred_mixed_turns_are_counted_exactly(watched: Watched) -> None:
    before = watched.counts()
    good = watched.turns(80)
    watched.turns(20, stream=True)
    watched.turns(20, "be calls@hang")
    watched.turns(30, "be broken@, then broken@")
    watched.turns(20, "be calls@look_up")
    watched.turns(20, "be searches")
    watched.stub.moods[SECOND] = ["wrong-key"] * 5
    for _ in range(5):
        watched.turn("be wrong-key")
        watched.cancelled()
    with watched.service.client() as client:
        for number, each in enumerate(good):
            vote = {"run_id": each["run_id"], "rating": "down" if number % 4 == 0 else "up"}
            client.post("/agent/feedback", json=vote).raise_for_status()

    counts = watched.counts(votes=80).since(before)
    first, second = f"openai:{FIRST}", f"openai:{SECOND}"
    assert counts.of("turns_total", "status") == {"success": 140, "degraded": 50, "error": 5, "cancelled": 5}
    assert counts.of("degraded_total", "part") == {"tool:hang": 20, "model": 30}
    assert counts.of("tool_calls_total", "tool", "outcome") == {
        "order_query ok": 130,
        "hang timeout": 20,
        "look_up standby": 20,
    }
    assert counts.of("retrievals_total", "outcome") == {"ok": 20}
    assert counts.of("model_calls_total", "model", "outcome") == {
        f"{first} ok": 320,
        f"{first} unavailable": 120,
        f"{first} refused": 5,
        f"{first} cancelled": 5,
        f"{second} ok": 60,
        f"{second} refused": 5,
    }
    assert counts.of("model_retries_total", "model") == {first: 60}
    assert counts.of("model_fallbacks_total", "model") == {second: 60}
    assert counts.of("feedback_total", "rating") == {"up": 60, "down": 20}
    chat = {
        each: count for each, count in counts.of("responses_total", "route", "status", "code").items() if "chat" in each
    }
    assert chat == {
        "/agent/chat 200 ok": 190,
        "/agent/chat 202 ok": 5,
        "/agent/chat 503 model_unavailable": 5,
    }


def test_every_panel_of_every_dashboard_has_something_to_show(watched: Watched) -> None:
    for text in ("hello", "be calls@hang", "be broken@, then broken@", "be calls@look_up", "be searches"):
        watched.turns(3, text)
    watched.turns(3, stream=True)
    with watched.service.client() as client:
        vote = {"run_id": watched.turn()["run_id"], "rating": "up"}
        client.post("/agent/feedback", json=vote).raise_for_status()
        assert client.post("/agent/chat", json={"session_id": "refused"}).status_code == 422
    watched.counts(votes=81)
    time.sleep(10)
    assert unanswered(watched.prometheus, but=RARE) == []


def test_a_turn_is_one_trace_for_langsmith_and_for_any_collector(watched: Watched) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    header = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    body = {"user_input": "be searches, then calls@pulse, then broken@", "session_id": "traced"}
    with watched.service.client() as client:
        answer = client.post("/agent/chat", json=body, headers=header).json()
    assert [(call["name"], call["status"]) for call in answer["tool_calls"]] == [
        ("knowledge_search", "ok"),
        ("pulse", "ok"),
    ]
    shapes = {}
    for name, collector, of in (
        ("langsmith", watched.langsmith, str(UUID(answer["run_id"]))),
        ("otlp", watched.otlp, trace),
    ):

        def spans(collector: Collector = collector, of: str = of) -> list[ReceivedSpan]:
            return [span for span in collector.spans if span.trace == of]

        wait_until(lambda: any(span.name == "serve_app" for span in spans()), 20, "the trace is told")
        shapes[name] = Collector(spans=spans()).shape()
    assert shapes["langsmith"] == shapes["otlp"]
    names = Counter(_names(shapes["otlp"]))
    assert {"knowledge_search": 1, "pulse": 1, FIRST: 4, SECOND: 1}.items() <= names.items(), names


def test_no_secret_is_told_by_whatever_way(watched: Watched) -> None:
    text = "; ".join(SECRETS)
    runs = [watched.turn(f"be parrots@{tool}, then parrots: {text}")["run_id"] for tool in ("note", "fail")]
    written: list[str] = []
    with watched.service.client() as client:
        written += [client.get(f"/admin/runs/{run_id}/logs").text for run_id in runs]
        written += [client.get(f"/agent/sessions/{each}").text for each in ("wang.fang@example.com.cn", "13912345678")]
        body = {"user_input": text, "session_id": "s", text: text}
        written += [client.post("/agent/chat", json=body).text, client.get("/metrics").text]
        written += [client.post("/agent/chat", content=text, headers={"content-type": "application/json"}).text]
    time.sleep(3)
    written += [body.decode(errors="replace") for each in (watched.langsmith, watched.otlp) for body in each.bodies]
    assert any("[secret]" in each for each in written)
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    written += [path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file()]
    for each in (*SECRETS.values(), PIN):
        assert [each for text in written if each in text] == []


def _names(shape: Any) -> Iterator[str]:
    name, inside = shape
    yield name
    for each in inside:
        yield from _names(each)

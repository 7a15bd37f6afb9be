"""The running service's `/metrics` says exactly what was done."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running_service import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from running_service import Service
    from stub_server import Stub

pytestmark = pytest.mark.long

NAME = "metered"
FIRST, SECOND = "openai:metered-first", "openai:metered-second"
EXPORTED_S = 40
"""Ray reports every ten seconds; a page is kept for five."""
REPORT_S = 15
"""Until the next report and page: a node takes a report in metric by metric, and a page read meanwhile has half."""
TURNS = 11
PROCESSES = {"Ingress", "Agent", "Retriever", "Tools"}


@pytest.fixture(scope="module")
def metered(service: Service, stub: Stub) -> Iterator[Service]:
    """A service whose model answers as the stub is told, and has a second one."""
    (service.data_dir / "metered-orders.json").write_text(json.dumps({"OD-1": "lost at sea"}))
    second = {"name": SECOND, "base_url": stub.url}
    configuration = {
        "model": {"name": FIRST, "base_url": stub.url, "attempts": 1, "fallbacks": [second]},
        "tools": {"order_query": {"function": "serve_app.tools.orders:order_query"}},
        "orders": {"file": str(service.data_dir / "metered-orders.json")},
    }
    with beside(service, NAME, configuration) as running:
        yield running


class Page:
    """What one page says of the application `NAME`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("application") == NAME
        ]

    def of(self, name: str, *labels: str) -> dict[str, float]:
        """The series of that name over all replicas, by the values of `labels`."""
        found: Counter[str] = Counter()
        for sample in self._samples:
            if sample.name == f"ray_serve_app_{name}":
                found[" ".join(sample.labels[label] for label in labels)] += sample.value  # type: ignore[assignment]
        return dict(found)


def _exported(client: httpx.Client, complete: Callable[[Page], bool]) -> Page:
    """The first page that is complete."""
    give_up = time.monotonic() + EXPORTED_S
    while True:
        page = Page(client.get("/metrics").text)
        if complete(page):
            return page
        assert time.monotonic() < give_up, page.text
        time.sleep(1)


def _is_complete(page: Page) -> bool:
    """Whether the page has all that the agent and the ingress have counted; each reports for itself."""
    responses = page.of("responses_total", "route")
    answered = sum(count for route, count in responses.items() if route.startswith("/agent"))
    return sum(page.of("turns_total").values()) >= TURNS and answered >= TURNS + 2


def test_mixed_turns_are_counted_exactly(metered: Service, stub: Stub) -> None:
    first, second = (stub.moods.setdefault(name.removeprefix("openai:"), []) for name in (FIRST, SECOND))
    with metered.client() as client:

        def turn(session: str, *moods: str, **fields: object) -> int:
            first.extend(moods)
            body = {"user_input": "Where is my order?", "session_id": session, **fields}
            return client.post("/agent/chat", json=body).status_code

        assert [turn(f"good{number}") for number in range(4)] == [200] * 4
        assert [turn(f"streamed{number}", stream=True) for number in range(2)] == [200] * 2
        assert [turn(f"degraded{number}", "broken") for number in range(3)] == [200] * 3
        second.append("wrong-key")
        assert turn("failed", "wrong-key") == 503
        first.append("silent")
        left = {"user_input": "hello", "session_id": "cancelled"}
        begun = client.post("/agent/chat", json=left, headers={"Prefer": "respond-async"}).json()
        while first:
            time.sleep(0.01)
        assert client.post(f"/agent/runs/{begun['run_id']}/cancel").json()["status"] == "cancelled"
        assert client.get("/agent/runs/none").status_code == 404
        _exported(client, _is_complete)
        time.sleep(REPORT_S)
        page = Page(client.get("/metrics").text)
    assert page.of("turns_total", "status") == {"success": 6, "degraded": 3, "error": 1, "cancelled": 1}
    assert page.of("turn_seconds_count", "status") == page.of("turns_total", "status")
    assert page.of("degraded_total", "part") == {"model": 3}
    assert page.of("first_token_seconds_count") == {"": 2}
    assert page.of("queue_wait_seconds_count") == {"": TURNS}
    assert page.of("model_calls_total", "model", "outcome") == {
        f"{FIRST} ok": 6 * 2 + 3,
        f"{FIRST} unavailable": 3,
        f"{FIRST} refused": 1,
        f"{FIRST} cancelled": 1,
        f"{SECOND} ok": 3,
        f"{SECOND} refused": 1,
    }
    assert page.of("model_fallbacks_total", "model") == {SECOND: 3}
    assert page.of("model_tokens_total", "model", "direction") == {
        f"{FIRST} input": 15 * 11,
        f"{FIRST} output": 15 * 7,
        f"{SECOND} input": 3 * 11,
        f"{SECOND} output": 3 * 7,
    }
    assert page.of("tool_calls_total", "tool", "outcome") == {"order_query ok": 9}
    assert page.of("tool_attempts_total", "tool") == {"order_query": 9}
    chat, run = "/agent/chat", "/agent/runs/{run_id}"
    counted = page.of("responses_total", "route", "status", "code")
    assert {each: count for each, count in counted.items() if each.startswith("/agent")} == {
        f"{chat} 200 ok": 9,
        f"{chat} 202 ok": 1,
        f"{chat} 503 model_unavailable": 1,
        f"{run}/cancel 200 ok": 1,
        f"{run} 404 not_found": 1,
    }
    states = page.of("breaker_state", "dependency")
    assert states == {f"model:{FIRST}": 0, f"model:{SECOND}": 0, "tool:order_query": 0, "milvus": 0}


def test_the_page_has_every_process_and_rays_own_series_too(metered: Service) -> None:
    with metered.client() as client:
        page = _exported(client, lambda page: {*page.of("process_resident_bytes", "deployment")} >= PROCESSES)
    processes = page.of("process_resident_bytes", "deployment")
    assert {*processes} == PROCESSES
    assert min(processes.values()) > 50e6
    for name in ("ray_serve_deployment_replica_healthy", "ray_node_mem_used", "serve_app_scrape_up"):
        assert f"\n{name}" in page.text
    assert "WorkerId" not in page.text

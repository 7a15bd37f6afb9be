"""A tool that crashes or blocks its process harms only its own group, which recovers."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from running_service import Service, beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stub_server import Stub

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

NAME, GROUP, MODEL = "risky", "perils", "perils"
OTHERS = ("Ingress", "Agent", "Retriever", "Tools")
BACK_WITHIN_S = 60
SOUND_WITHIN_S = 3
numbers = itertools.count()


@dataclass(frozen=True)
class Risky:
    """The service; each turn calls one tool, `order_query` where no other is named."""

    service: Service
    stub: Stub

    def turn(self, tool: str | None = None) -> tuple[dict[str, Any], float]:
        """The answer, and how many seconds it took."""
        self.stub.moods[MODEL] = [f"calls@{tool}"] if tool else []
        begun = time.monotonic()
        answer = self.service.ask("go on", f"risky-{next(numbers)}")
        return answer, time.monotonic() - begun

    def wait_until_back(self) -> float:
        """Seconds until a tool of the group answers."""
        begun = time.monotonic()
        while self.turn("pulse")[0]["status"] != "success":
            assert time.monotonic() - begun < BACK_WITHIN_S
            time.sleep(0.5)
        return time.monotonic() - begun

    def pids(self) -> dict[str, set[int]]:
        """The processes of what must not be harmed."""
        group = self._pids(f"Tools-{GROUP}")
        return {each: self._pids(each) - group for each in OTHERS}

    def _pids(self, deployment: str) -> set[int]:
        return {process.pid for process in self.service.processes(f"ServeReplica:{NAME}:{deployment}")}


@pytest.fixture(scope="module")
def risky(service: Service, stub: Stub) -> Iterator[Risky]:
    named = ("crash", "devour", "block", "pulse")
    orders = service.data_dir / "few-orders.json"
    orders.write_text(json.dumps({"OD-1": "lost at sea"}))
    tools: dict[str, Any] = {
        each: {"function": f"harmful_tools:{each}", "attempts": 1, "timeout_s": 5} for each in named
    }
    tools["order_query"] = {"function": "serve_app.tools.orders:order_query"}
    tools["groups"] = {GROUP: {"tools": list(named), "memory_mb": 256}}
    model = {"name": f"openai:{MODEL}", "base_url": stub.url}
    configuration = {"model": model, "tools": tools, "orders": {"file": str(orders)}}
    with beside(service, NAME, configuration) as running:
        yield Risky(running, stub)


@pytest.mark.parametrize("peril", ["crash", "devour", "block"])
def test_a_tool_harms_its_own_group_alone_and_the_group_comes_back(
    risky: Risky, peril: str, capsys: pytest.CaptureFixture[str]
) -> None:
    risky.wait_until_back()
    before = risky.pids()
    assert all(before.values())
    with ThreadPoolExecutor() as pool:
        harmed = pool.submit(risky.turn, peril)
        while risky.stub.moods[MODEL]:
            time.sleep(0.01)
        sound = [risky.turn()]
        while not harmed.done():
            sound.append(risky.turn())
    answer, _ = harmed.result()
    assert (answer["status"], answer["degraded"]) == ("degraded", [f"tool:{peril}"])
    back_s = risky.wait_until_back()
    sound.append(risky.turn())
    assert {answer["status"] for answer, _ in sound} == {"success"}
    assert max(took_s for _, took_s in sound) < SOUND_WITHIN_S
    assert risky.pids() == before
    with capsys.disabled():
        print(f"\n{peril}: the group was back after {back_s:.1f} s; {len(sound)} turns beside it were well")

"""The calls that a fault hits, and what happens to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.resilience.fault_injection import draw_fault, inject_fault
from serve_app.values import Fault

if TYPE_CHECKING:
    from serve_app.values import FaultMode

NOW = 1_000_000.0
TARGETS = ["tool:a", "tool:ab", "model", "model:openai:glm-4", "model:offline", "retriever", "embedding"]

faults = st.builds(
    Fault,
    target=st.sampled_from(TARGETS),
    mode=st.sampled_from(["timeout", "error", "slow", "garbage"]),
    rate=st.floats(0, 1),
    delay_s=st.just(0),
    until=st.floats(NOW - 10, NOW + 10),
)
chances = st.floats(0, 1, exclude_max=True)


def covers(fault: Fault, target: str) -> bool:
    return fault.target == target or (fault.target == "model" and target.startswith("model:"))


@given(st.lists(faults, max_size=5), st.sampled_from(TARGETS), chances)
def test_the_first_fault_is_drawn_that_is_in_force_and_meant_and_likely_enough(
    given: list[Fault], target: str, chance: float
) -> None:
    meant = [each for each in given if covers(each, target) and each.until > NOW and each.rate > chance]
    assert draw_fault(given, target, chance, NOW) == (meant[0] if meant else None)


@given(faults, chances)
def test_a_rate_of_nought_hits_nothing_and_one_of_one_all(fault: Fault, chance: float) -> None:
    always = fault.model_copy(update={"rate": 1, "until": NOW + 1})
    assert draw_fault([always], fault.target, chance, NOW) == always
    assert draw_fault([always.model_copy(update={"rate": 0})], fault.target, chance, NOW) is None


async def _struck(mode: FaultMode, target: str = "tool:a", rate: float = 1) -> bool:
    fault = Fault(target="tool:a", mode=mode, rate=rate, delay_s=7, until=4e9)
    return await inject_fault((fault,), target, KeyError("the caller's own"))


@pytest.mark.asyncio
@pytest.mark.looptime
async def test_a_call_that_is_hit_suffers_what_the_mode_says() -> None:
    clock: Any = asyncio.get_running_loop().time
    assert not await _struck("slow")
    assert clock() == pytest.approx(7)
    with pytest.raises(KeyError, match="the caller's own"):
        await _struck("error")
    assert await _struck("garbage")
    assert clock() == pytest.approx(7)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            await _struck("timeout")
    assert clock() == pytest.approx(1007)


async def test_a_call_that_is_not_hit_goes_on() -> None:
    assert not await _struck("error", target="tool:b")
    assert not await _struck("error", rate=0)
    assert not await inject_fault((), "tool:a", KeyError())


async def test_a_share_of_the_calls_is_hit() -> None:
    hits = sum([await _struck("garbage", rate=0.3) for _ in range(3000)])
    assert 700 < hits < 1100  # eight standard deviations

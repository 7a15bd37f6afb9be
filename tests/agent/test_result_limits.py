"""A turn reads no more of its tools' results than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage

from serve_app.agent.progress import TurnProgress, share_characters
from serve_app.agent.tool_dispatch import ToolOutcome
from serve_app.values import ToolRequest, ToolResult


@given(st.lists(st.integers(min_value=0, max_value=1000)), st.integers(min_value=0, max_value=3000))
def test_the_results_of_a_step_share_what_the_turn_may_still_read(sizes: list[int], limit: int) -> None:
    found = share_characters(sizes, limit)
    assert all(share <= size for share, size in zip(found, sizes, strict=True))
    assert sum(found) <= limit
    if sum(sizes) <= limit:
        assert found == sizes
    cut = [share for share, size in zip(found, sizes, strict=True) if share < size]
    assert not cut or min(cut) >= max((share for share in found if share not in cut), default=0) - 1
    assert not cut or sum(found) >= min(limit, sum(sizes)) - len(sizes)


def test_of_all_results_of_a_turn_no_more_is_told_than_the_setting_says() -> None:
    progress = TurnProgress.restore("hello", [], 10_000)
    for lengths in ([30_000, 100, 30_000], [50_000]):
        requests = [ToolRequest(id=f"c{index}", name="look", arguments={}) for index in range(len(lengths))]
        step = progress.begin_step(AIMessage(""), requests)
        for index, length in enumerate(lengths):
            content = "x" * (length - 1) + "\ud83d"
            result = ToolResult(content=content, status="ok", attempts=1, elapsed_ms=1)
            step.outcomes[index] = ToolOutcome(requests[index], result)
        progress.finish_step()
    results = [message.text for message in progress.messages if isinstance(message, ToolMessage)]
    assert results[1] == "x" * 99 + "\ufffd"
    assert sum(map(len, results[:3])) <= 10_000
    assert 4_000 < len(results[0]) <= 5_000
    assert len(results[3]) <= 200
    assert all("characters left out" in results[index] for index in (0, 2, 3))

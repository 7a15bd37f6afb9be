"""Is an outage told as one, and in words that the user can read?"""

from __future__ import annotations

import pytest

from serve_app.agent.localization import IN_CHINESE, in_the_language_of, status
from serve_app.errors import AgentUnavailable, ModelUnavailable, RunAbandoned, StoreUnavailable, ToolUnavailable


@pytest.mark.parametrize("kind", [ModelUnavailable, ToolUnavailable, StoreUnavailable, AgentUnavailable, RunAbandoned])
def test_who_asks_in_chinese_is_told_in_chinese(kind: type[ModelUnavailable]) -> None:
    error = in_the_language_of("订单OD-20240502到哪了?", kind("It is down", 7))
    assert (type(error), error.message, error.retry_after_s) == (kind, IN_CHINESE[kind], 7)


def test_who_asks_in_another_language_is_told_as_it_is() -> None:
    error = ModelUnavailable("It is down")
    assert in_the_language_of("Where is my order?", error) is error


def test_a_more_special_error_keeps_its_kind() -> None:
    class Refused(ModelUnavailable):
        retryable = False

    error = in_the_language_of("你好", Refused("no"))
    assert (type(error), error.retryable) == (Refused, False)


def test_an_answer_that_lacks_something_is_degraded() -> None:
    assert (status([]), status(["memory"])) == ("success", "degraded")

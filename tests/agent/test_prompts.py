"""Errors of an outage, in the language of the user."""

from __future__ import annotations

import pytest

from serve_app.agent.prompts import IN_CHINESE, localize_error
from serve_app.errors import AgentUnavailable, ModelUnavailable, RunAbandoned, StoreUnavailable, ToolUnavailable


@pytest.mark.parametrize("kind", [ModelUnavailable, ToolUnavailable, StoreUnavailable, AgentUnavailable, RunAbandoned])
def test_who_asks_in_chinese_is_told_in_chinese(kind: type[ModelUnavailable]) -> None:
    error = localize_error(kind("It is down", 7), "订单OD-20240502到哪了?")
    assert (type(error), error.message, error.retry_after_s) == (kind, IN_CHINESE[kind], 7)


def test_who_asks_in_another_language_is_told_as_it_is() -> None:
    error = ModelUnavailable("It is down")
    assert localize_error(error, "Where is my order?") is error


def test_a_more_special_error_keeps_its_kind() -> None:
    class Refused(ModelUnavailable):
        retryable = False

    error = localize_error(Refused("no"), "你好")
    assert (type(error), error.retryable) == (Refused, False)

"""Localized messages for a turn without an answer.

An answer degrades rung by rung, and these messages are for the last one:

    full          everything answered                                 success
    standby       another tool, endpoint or Milvus stood in           success; the call's status is `standby`
    without       another model answered, or something was missing    degraded: model, tool:NAME, retriever, memory
    basic answer  the model alone, without tools                      degraded: model
    nothing       no model answers                                    503, in the user's language

Each rung is taken where the failure is met: the tool runner and the retriever use a standby, the tool dispatcher makes
a result for a tool that is away, the fallback model switches models, the turn asks for the basic answer. The last rung
is an error and no answer: a 200 would hide the outage from monitoring.
"""

from __future__ import annotations

import re

from serve_app.errors import (
    AgentUnavailable,
    ModelUnavailable,
    RunAbandoned,
    StoreUnavailable,
    ToolUnavailable,
    Unavailable,
)
from serve_app.terms import HAN

_HAN = re.compile(f"[{HAN}]")
IN_CHINESE: dict[type[Unavailable], str] = {
    ModelUnavailable: "抱歉，语言模型暂时无法回答，请稍后再试",
    ToolUnavailable: "抱歉，所需的工具暂时不可用，请稍后再试",
    StoreUnavailable: "抱歉，存储服务暂时不可用，请稍后再试",
    AgentUnavailable: "抱歉，服务正在恢复，请稍后再试",
    RunAbandoned: "抱歉，这次对话多次中断，未能完成，请联系管理员",
}


REFUSAL = "The model declined to answer this request. Please rephrase it."
REFUSAL_IN_CHINESE = "抱歉，模型拒绝回答这个问题，请换一种说法"


def refusal_message(user_input: str) -> str:
    """Return what a user reads where the model refused without a word."""
    return REFUSAL_IN_CHINESE if _HAN.search(user_input) else REFUSAL


def localize_error(error: Unavailable, user_input: str) -> Unavailable:
    """Return the error with a message in the user's language: Chinese or English."""
    if not _HAN.search(user_input):
        return error
    chinese = next((text for kind, text in IN_CHINESE.items() if isinstance(error, kind)), None)
    return type(error)(chinese, error.retry_after_s) if chinese else error

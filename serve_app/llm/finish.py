"""The reasons for which providers end a reply, as the three that a client is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Finish = Literal["stop", "length", "content_filter", "broken", "unknown", "absent"]

_NAMES: dict[Finish, str] = {
    "stop": "stop end_turn stop_sequence stop_token eos eos_token complete completed end done tool_calls tool_call "
    "tool_use function_call pause_turn",
    "length": "length max_tokens max_output_tokens model_length token_limit incomplete model_context_window_exceeded",
    "content_filter": "content_filter content_filtered sensitive safety recitation blocklist prohibited_content spii "
    "refusal guardrail_intervened image_safety",
    "broken": "error network_error malformed_function_call malformed_model_output malformed_tool_use abort aborted "
    "unexpected_tool_call insufficient_system_resource cancelled canceled timeout other load repetition_truncation",
}
_FINISH = {name: finish for finish, names in _NAMES.items() for name in names.split()}
_FIELDS = ("finish_reason", "stop_reason", "stopReason", "done_reason")


def finish_of(metadata: Mapping[str, Any]) -> Finish:
    """Why the reply ended, by its `response_metadata`; `absent` where that gives no reason."""
    given = next((metadata[name] for name in _FIELDS if metadata.get(name)), None)
    if given is None:
        return "absent"
    reason = str(given).rpartition(".")[2].lower()  # an enum's name, as FinishReason.STOP
    return _FINISH.get(reason, "unknown")

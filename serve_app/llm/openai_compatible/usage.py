"""How many tokens a provider says it used."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata

_MAX_TOKENS = 10**12


class UsageReader:
    """Keeps the last running total of each count; totals are never summed."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def add(self, usage: Any) -> None:
        """Takes one usage object; what is no count is passed over."""
        if not isinstance(usage, dict):
            return
        details_in = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        details_out = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        cached = details_in.get("cached_tokens") if isinstance(details_in, dict) else None
        thought = details_out.get("reasoning_tokens") if isinstance(details_out, dict) else None
        self._keep("input", usage.get("prompt_tokens"), usage.get("input_tokens"))
        self._keep("output", usage.get("completion_tokens"), usage.get("output_tokens"))
        self._keep("total", usage.get("total_tokens"))
        self._keep("cached", cached, usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
        self._keep("thought", thought)

    def total(self) -> UsageMetadata | None:
        """The usage of the reply, or None where the provider said none."""
        last = self._last
        if "input" not in last and "output" not in last:
            return None
        given = last.get("input", last.get("output", 0))
        rest = max(last.get("total", given) - given, 0)
        read, written = last.get("input", rest), last.get("output", rest)
        made = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        if "cached" in last:
            made["input_token_details"] = InputTokenDetails(cache_read=last["cached"])
        if "thought" in last:
            made["output_token_details"] = OutputTokenDetails(reasoning=last["thought"])
        return made

    def _keep(self, name: str, *values: Any) -> None:
        for value in values:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS:
                self._last[name] = int(value)
                return

"""Checks a request as OpenAI's chat completions do."""

from __future__ import annotations

import json
import re
from typing import Any

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ID_CHARACTERS = 40
"""The longest tool call id that OpenAI takes; others are laxer."""


def find_violations(body: dict[str, Any]) -> list[str]:
    """Returns all that OpenAI would refuse in a request body."""
    found = [f"tools: illegal name {name!r}" for name in _tool_names(body) if not _is_legal(name)]
    ids: set[str] = set()
    waiting: list[str] = []
    for place, message in enumerate(body.get("messages", [])):
        role = message.get("role")
        if role == "tool":
            found += _of_result(place, message, waiting)
            continue
        if waiting:
            found.append(f"{place}: no result for {waiting}")
            waiting = []
        if role == "assistant":
            found += _of_reply(place, message, ids)
            waiting = [str(call.get("id")) for call in message.get("tool_calls") or []]
        elif not message.get("content"):
            found.append(f"{place}: {role} says nothing")
    return found + ([f"the end: no result for {waiting}"] if waiting else [])


def _tool_names(body: dict[str, Any]) -> list[Any]:
    return [each.get("function", {}).get("name") for each in body.get("tools") or []]


def _of_result(place: int, message: dict[str, Any], waiting: list[str]) -> list[str]:
    answered = message.get("tool_call_id")
    if answered not in waiting:
        return [f"{place}: a result of no call, {answered!r}"]
    waiting.remove(answered)
    return [] if message.get("content") is not None else [f"{place}: a result without content"]


def _of_reply(place: int, message: dict[str, Any], ids: set[str]) -> list[str]:
    calls = message.get("tool_calls") or []
    found = [] if calls or message.get("content") is not None else [f"{place}: assistant says nothing"]
    for call in calls:
        called = call.get("id")
        if not called or len(called) > ID_CHARACTERS:
            found.append(f"{place}: illegal id {called!r}")
        if called in ids:
            found.append(f"{place}: id {called!r} a second time")
        ids.add(str(called))
        if not _is_legal(call["function"].get("name")):
            found.append(f"{place}: illegal name {call['function'].get('name')!r}")
        if not _is_object(call["function"].get("arguments")):
            found.append(f"{place}: arguments are no JSON object: {call['function'].get('arguments')!r:.60}")
    return found


def _is_legal(name: Any) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _is_object(written: Any) -> bool:
    """Whether it is a JSON object in a string, by the standard: no NaN, no lone surrogate."""
    try:
        read = json.loads(written, parse_constant=_refuse)
        written.encode()
        json.dumps(read, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    return isinstance(read, dict)


def _refuse(constant: str) -> None:
    raise ValueError(constant)

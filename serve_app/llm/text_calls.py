"""Parses tool calls that a model wrote into its text.

The templates are:

Hermes and Qwen (`<tool_call>{"name": …, "arguments": …}`), GLM (`<tool_call>NAME<arg_key>…`), Qwen3-Coder and Llama
(`<function=NAME>…`), Kimi, Mistral, Llama 3 (`<|python_tag|>`) and DeepSeek.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.llm.openai_compatible.tool_calls import InvalidArguments, read_json, unique_keys

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_MARKS: dict[str, str] = {
    "<tool_call>": "</tool_call>",
    "<function=": "</function>",
    "<|tool_call_begin|>": "<|tool_call_end|>",
    "[TOOL_CALLS]": "",
    "<|python_tag|>": "",
    "<｜tool▁calls▁begin｜>": "<｜tool▁calls▁end｜>",
}
"""Begin and end of a call; an empty end is the end of the text."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, slots=True)
class TextCall:
    """A call in the text of a reply."""

    name: str
    arguments: dict[str, Any]
    written: str
    """The block of text with the call."""


def parse_calls(mark: str, block: str) -> list[TextCall]:
    """Parse the block after `mark`; no calls if any part of it is something else."""
    read = _READERS[mark](block)
    return [TextCall(name.strip(), arguments, block) for name, arguments in read or []]


_Read = list[tuple[str, dict[str, Any]]] | None


def _tagged(block: str) -> _Read:
    block = block.strip()
    if block.startswith("<function="):
        whole = block if block.endswith("</function>") else f"{block}</function>"
        functions = _pairs(whole, "<function=", ">", "</function>")
        return _all([_function(*each) for each in functions or []])
    if block.startswith(("{", "[")):
        return _json(block)
    name, marked, rest = block.partition("<arg_key>")
    if marked:
        return _all([_glm(name, marked + rest)])
    return [(block, {})] if _NAME.fullmatch(block) else None  # GLM's call without arguments


def _pairs(text: str, opening: str, middle: str, closing: str) -> list[tuple[str, str]] | None:
    """Split parts between `opening` and `closing` at `middle`; None if there is other text."""
    before, *parts = text.split(opening)
    pairs = []
    for each in parts:
        part, closed, behind = each.partition(closing)
        first, divided, second = part.partition(middle)
        if not (closed and divided) or behind.strip():
            return None
        pairs.append((first, second))
    return None if before.strip() else pairs


def _glm(name: str, rest: str) -> tuple[str, dict[str, Any]] | None:
    pairs = _pairs(rest, "<arg_key>", "</arg_key>", "</arg_value>") or []
    values = [(key.strip(), value.lstrip()) for key, value in pairs]
    if not values or not all(value.startswith("<arg_value>") for _, value in values):
        return None
    return _called(name, [(key, value.removeprefix("<arg_value>")) for key, value in values])


def _called(name: str, values: list[tuple[str, str]]) -> tuple[str, dict[str, Any]] | None:
    try:
        return name, unique_keys([(key, _value(value)) for key, value in values])
    except InvalidArguments:
        return None


def _json(block: str) -> _Read:
    document = _loaded(block)
    listed = document if isinstance(document, list) else [document]
    return _all([_described(each) for each in listed]) if listed else None


def _described(document: Any) -> tuple[str, dict[str, Any]] | None:
    if not isinstance(document, dict):
        return None
    inner = document.get("function")
    document = inner if isinstance(inner, dict) else document
    name = document.get("name")
    arguments = document.get("arguments", document.get("parameters"))
    arguments = _loaded(arguments) if isinstance(arguments, str) else arguments
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def _opened_function(block: str) -> _Read:
    name, closed, rest = block.partition(">")
    return _all([_function(name, rest)]) if closed else None


def _function(name: str, rest: str) -> tuple[str, dict[str, Any]] | None:
    if rest.lstrip().startswith("<parameter="):
        values = _pairs(rest, "<parameter=", ">", "</parameter>")
        return None if values is None else _called(name, [(key, _unwrapped(value)) for key, value in values])
    return _with_object(name, rest if rest.strip() else "{}")


def _unwrapped(value: str) -> str:
    return value.removeprefix("\n").removesuffix("\n")


def _kimi(block: str) -> _Read:
    name, _, arguments = block.partition("<|tool_call_argument_begin|>")
    return _all([_with_object(re.sub(r":\d+\s*$", "", name.strip()), arguments)])


def _mistral(block: str) -> _Read:
    if block.lstrip().startswith(("[", "{")):
        return _json(block)
    name, _, arguments = block.partition("[ARGS]")
    return _all([_with_object(name, arguments)])


def _deepseek(block: str) -> _Read:
    read: list[tuple[str, dict[str, Any]] | None] = []
    for head, tail in _pairs(block, "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>") or []:
        name, _, arguments = tail.partition("\n") if head.strip() == "function" else (head, "", tail)
        read.append(_with_object(name, arguments))
    return _all(read)


def _all(read: list[tuple[str, dict[str, Any]] | None]) -> _Read:
    known = [each for each in read if each is not None]
    return known if known and len(known) == len(read) else None


def _with_object(name: str, written: str) -> tuple[str, dict[str, Any]] | None:
    document = _loaded(written)
    return (name, document) if isinstance(document, dict) else None


def _loaded(text: str) -> Any:
    try:
        return read_json(text)
    except InvalidArguments:
        return None


def _value(written: str) -> Any:
    """Return the value of a parameter: JSON if it is JSON, else the text."""
    text = written.strip()
    document = None if text.startswith("```") else _loaded(text)
    return text if document is None and text != "null" else document


_READERS: dict[str, Callable[[str], _Read]] = {
    "<tool_call>": _tagged,
    "<function=": _opened_function,
    "<|tool_call_begin|>": _kimi,
    "[TOOL_CALLS]": _mistral,
    "<|python_tag|>": _json,
    "<｜tool▁calls▁begin｜>": _deepseek,
}

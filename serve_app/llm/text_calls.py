"""Reads tool calls that a model wrote into its text, by the templates that are known.

Hermes and Qwen (`<tool_call>{"name": …, "arguments": …}`), GLM (`<tool_call>NAME<arg_key>…`), Qwen3-Coder and Llama
(`<function=NAME>…`), Kimi, Mistral, Llama 3 (`<|python_tag|>`) and DeepSeek.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
"""By which a call begins and ends; an empty end is that of the text."""

_GLM = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>]{1,100})>\n?(.*?)\n?</parameter>", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>]{1,100})>(.*?)(?:</function>|$)", re.DOTALL)
_DEEPSEEK = re.compile(r"<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TextCall:
    """A call as the text has it."""

    name: str
    arguments: dict[str, Any]
    written: str
    """The block that it was read from."""


def calls_in(mark: str, block: str) -> list[TextCall]:
    """The calls of a block that began with `mark`; none where it is not wholly made of them."""
    read = _READERS[mark](block)
    return [TextCall(name.strip(), arguments, block) for name, arguments in read or []]


_Read = list[tuple[str, dict[str, Any]]] | None


def _tagged(block: str) -> _Read:
    if block.lstrip().startswith("<function="):
        return _all([_function(*found.groups()) for found in _FUNCTION.finditer(block)])
    if "<arg_key>" in block:
        name, key, rest = block.partition("<arg_key>")
        if _GLM.sub("", key + rest).strip():
            return None
        return [(name, {key.strip(): _value(value) for key, value in _GLM.findall(block)})]
    bare = block.strip()
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", bare):  # GLM's call without arguments
        return [(bare, {})]
    return _json(block)


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
    parameters = _PARAMETER.findall(rest)
    if parameters:
        if _PARAMETER.sub("", rest).strip():
            return None
        return name, {key: _value(value) for key, value in parameters}
    document = _loaded(rest) if rest.strip() else {}
    return (name, document) if isinstance(document, dict) else None


def _kimi(block: str) -> _Read:
    name, marked, arguments = block.partition("<|tool_call_argument_begin|>")
    document = _loaded(arguments) if marked else None
    name = re.sub(r":\d+\s*$", "", name.strip())
    return [(name, document)] if isinstance(document, dict) else None


def _mistral(block: str) -> _Read:
    if block.lstrip().startswith(("[", "{")):
        return _json(block)
    name, marked, arguments = block.partition("[ARGS]")
    document = _loaded(arguments) if marked else None
    return [(name, document)] if isinstance(document, dict) else None


def _deepseek(block: str) -> _Read:
    read: list[tuple[str, dict[str, Any]] | None] = []
    for head, tail in _DEEPSEEK.findall(block):
        name, _, arguments = tail.partition("\n") if head.strip() == "function" else (head, "", tail)
        fenced = _FENCED.search(arguments)
        document = _loaded(fenced.group(1) if fenced else arguments)
        read.append((name, document) if isinstance(document, dict) else None)
    return _all(read)


def _all(read: list[tuple[str, dict[str, Any]] | None]) -> _Read:
    known = [each for each in read if each is not None]
    return known if known and len(known) == len(read) else None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _value(written: str) -> Any:
    """A parameter's value: JSON where it is some, else the text."""
    document = _loaded(written)
    return written.strip() if document is None and written.strip() != "null" else document


_READERS: dict[str, Callable[[str], _Read]] = {
    "<tool_call>": _tagged,
    "<function=": _opened_function,
    "<|tool_call_begin|>": _kimi,
    "[TOOL_CALLS]": _mistral,
    "<|python_tag|>": _json,
    "<｜tool▁calls▁begin｜>": _deepseek,
}

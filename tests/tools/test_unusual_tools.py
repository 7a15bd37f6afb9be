"""Tools that return, raise and are asked odd things cost no more than their own call."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import time
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from serve_app.config import ToolSettings
from serve_app.tools.arguments import ArgumentsReader
from serve_app.tools.function_tool import function_tool
from serve_app.tools.registry import ToolRegistry
from serve_app.tools.tool import WrongArguments
from serve_app.values import Context, IdempotencyKey, ToolRequest, ToolResult

KEY = IdempotencyKey("run:0:0")

returned: list[Any] = []
cleaned: list[str] = []
got: list[dict[str, Any]] = []


class Item(BaseModel):
    sku: str
    qty: int = 1


class Rude:
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def give() -> Any:
    """Give what the test has put there."""
    return returned[-1]


async def fail() -> str:
    """Raise what the test has put there."""
    raise returned[-1]


async def cancel_itself() -> str:
    """Cancel the task that it runs in."""
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(0)
    return "never"


async def dive() -> str:
    """Call itself for ever."""
    return await dive()


async def wait() -> str:
    """Wait for long, and clean up."""
    try:
        await asyncio.sleep(60)
    finally:
        cleaned.append("wait")
    return "never"


async def stubborn() -> str:
    """Wait for long, whoever cancels it."""
    for _ in range(2):
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cleaned.append("stubborn")
    return "never"


async def order(  # noqa: PLR0913, PLR0917 - a model's arguments
    items: list[Item],
    when: dt.date = dt.date(2026, 1, 1),
    speed: Literal["slow", "fast"] = "slow",
    note: str | None = None,
    extra: dict[str, int] | None = None,
    count: int = 1,
    ratio: float = 1.0,
    gift: bool = False,  # noqa: FBT001, FBT002 - a model's argument
) -> str:
    """Take an order."""
    got.append({"items": items, "when": when, "speed": speed, "note": note, "extra": extra, "count": count})
    got[-1] |= {"ratio": ratio, "gift": gift}
    return "taken"


async def odd_names(
    _from: str, json: int, model_config: str, schema: Annotated[int, Field(alias="class")] = Field(2, ge=1)
) -> str:
    """Take arguments of odd names."""
    return f"{_from} {json} {model_config} {schema}"


def _runner(*names: str, **given_settings: Any) -> ToolRegistry:
    return ToolRegistry({name: ToolSettings(function=f"{__name__}:{name}", **given_settings) for name in names}, [])


async def _call(registry: ToolRegistry, name: str, arguments: dict[str, Any] | None = None) -> ToolResult:
    context = Context(request_id="r", run_id="r", session_id="s", deadline=time.time() + 30)
    result = await registry.call(context, ToolRequest(id="c", name=name, arguments=arguments or {}), KEY)
    json.dumps(result.model_dump_json()).encode()
    return result


def _odd_values() -> list[tuple[Any, str]]:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    return [
        ({(1, 2): "paid"}, "paid"),
        (cycle, "contains itself"),
        ("paid \udce9", "paid \ufffd"),
        (b"\x00\xff\xfe\x80binary", "binary"),
        ({"a": math.nan, "b": math.inf}, '{"a": "NaN", "b": "Infinity"}'),
        ((each for each in range(3)), "[0, 1, 2]"),
        ([Item(sku="A", qty=2)], '[{"sku": "A", "qty": 2}]'),
        ({"at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}, "2026-01-02T00:00:00Z"),
        (Unsayable(), "Unsayable"),
        (Rude(), "it was done"),
        ({"rude": Rude()}, "it was done"),
        (None, "null"),
        ("", ""),
        ("a\0b", "a\ufffdb"),
    ]


async def test_a_deed_whose_result_is_odd_is_done_and_said_as_well_as_it_can_be() -> None:
    for effect in ("pure", "effect"):
        registry = _runner("give", effect=effect, attempts=1)
        for value, expected in _odd_values():
            returned.append(value)
            result = await _call(registry, "give")
            assert result.status == "ok", value
            assert expected in result.content


async def test_of_a_long_result_the_head_the_tail_and_the_size_are_told() -> None:
    returned.append("<" + "x" * 5_000_000 + ">")
    result = await _call(_runner("give", effect="effect"), "give")
    assert (result.status, len(result.content) <= 100_000) == ("ok", True)
    assert (result.content[0], result.content[-1]) == ("<", ">")
    assert "characters left out" in result.content
    assert len((await _call(_runner("give", max_result_characters=500), "give")).content) <= 500


@pytest.mark.parametrize(
    ("error", "of_an_effect"),
    [
        (SystemExit(3), "unknown"),
        (KeyboardInterrupt(), "unknown"),
        (asyncio.CancelledError(), "unknown"),
        (GeneratorExit(), "unknown"),
        (BaseExceptionGroup("several", [SystemExit(1)]), "unknown"),
        (Unsayable(), "error"),
        (RecursionError(), "error"),
        (StopAsyncIteration(), "error"),
        (ExceptionGroup("several", [ValueError("\udce9")]), "error"),
    ],
)
async def test_whatever_a_tool_raises_ends_its_own_call_only(error: BaseException, of_an_effect: str) -> None:
    returned.append(error)
    for effect, status in (("pure", "error"), ("effect", of_an_effect)):
        registry = _runner("fail", "order", effect=effect, attempts=1)
        failed, other = await asyncio.gather(_call(registry, "fail"), _call(registry, "order", {"items": []}))
        assert (failed.status, failed.attempts, other.status) == (status, 1, "ok")


async def test_a_tool_that_cancels_itself_or_dives_ends_its_own_call_only() -> None:
    registry = _runner("cancel_itself", "dive", "order", attempts=1)
    results = await asyncio.gather(*(_call(registry, name) for name in ("cancel_itself", "dive")))
    assert [result.status for result in results] == ["error", "error"]
    assert (await _call(registry, "order", {"items": []})).status == "ok"


async def test_a_cancellation_from_outside_ends_the_tool_and_is_a_cancellation() -> None:
    for name, within_s in (("wait", 0.5), ("stubborn", 2)):
        cleaned.clear()
        calling = asyncio.create_task(_call(_runner(name, timeout_s=20, attempts=1), name))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert cleaned == [name]
        assert time.monotonic() - begun < within_s


async def test_what_a_model_has_put_into_a_string_is_taken_out_where_the_schema_takes_no_string() -> None:
    registry = _runner("order")
    result = await _call(
        registry,
        "order",
        {
            "items": '[{"sku": "A", "qty": "2"}]',
            "when": "2026-02-03",
            "note": '{"not": "parsed"}',
            "extra": '{"a": "1"}',
            "count": "3.0",
            "ratio": "2",
            "gift": "True",
        },
    )
    assert result.status == "ok", result.content
    given_ = got[-1]
    assert given_["items"] == [Item(sku="A", qty=2)]
    assert (given_["when"], given_["note"], given_["extra"]) == (dt.date(2026, 2, 3), '{"not": "parsed"}', {"a": 1})
    assert (given_["count"], given_["ratio"], given_["gift"]) == (3, 2.0, True)


async def test_arguments_that_cannot_be_meant_are_refused_in_few_and_valid_words() -> None:
    registry = _runner("order")
    got.clear()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"items": [], "ratio": math.nan}, "ratio: NaN"),
        ({"items": [], "ratio": "NaN"}, "ratio"),
        ({"items": [], "note": math.inf}, "note: the number is too large"),
        ({"items": [], "count": 10**400}, "count: the number is too large"),
        ({"items": [], "count": "1" * 400}, "count: the number is too large"),
        ({"items": [], "count": "9" * 5000}, "count"),
        ({"items": [], "count": True}, "count: true is no number"),
        ({"items": [], "gift": "yes"}, "gift: neither true nor false"),
        ({"items": [], "colour\udce9": 1}, "no such argument; the arguments are: items, when"),
        ({"items": [{"sku": "A", "qty": "x" * 100_000}]}, "items"),
        ({"items": [{"sku": 1}] * 1000}, "items"),
        ({f"unknown {number}" * 50: 1 for number in range(1000)}, "no such argument"),
        ({"items": "[1"}, "items"),
    ]
    for arguments, what in cases:
        result = await _call(registry, "order", arguments)
        assert (result.status, result.attempts) == ("error", 0), arguments
        assert result.content.startswith("error: wrong arguments for order: ")
        assert what in result.content
        assert len(result.content) <= 2_000
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep}
    assert "nested deeper" in (await _call(registry, "order", {"items": [], "extra": deep})).content
    assert got == []


async def test_a_name_of_any_length_is_answered_in_few_words() -> None:
    result = await _call(_runner("order"), "\udce9" * 1_000_000)
    assert (result.status, len(result.content) < 300) == ("error", True)


async def test_arguments_may_have_any_name() -> None:
    registry = _runner("odd_names")
    (spec,) = await registry.specs()
    assert list(spec.parameters["properties"]) == ["_from", "json", "model_config", "class"]
    result = await _call(registry, "odd_names", {"_from": "a", "json": 1, "model_config": "b", "class": 3})
    assert result.content == "a 1 b 3"
    assert (
        "class: "
        in (await _call(registry, "odd_names", {"_from": "a", "json": 1, "model_config": "b", "class": 0})).content
    )


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(exclude_categories=()), max_size=9),
        st.sampled_from(["1", "1.0", "true", "False", "null", "[]", "{}", '[{"sku": "A"}]', '{"a": 1}', "2026-01-01"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["sku", "qty", "a"]), inner)),
    max_leaves=6,
)
NAMES = st.sampled_from(["items", "note", "extra", "count", "ratio", "gift", "other"])
TOOL = function_tool("order", f"{__name__}:order", ToolSettings(function="a:b"), {})
SAME = ArgumentsReader(TOOL.spec.parameters)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(st.dictionaries(NAMES, VALUES))
def test_the_same_arguments_are_taken_or_refused_by_tools_of_every_kind(arguments: dict[str, Any]) -> None:
    def is_readable(read: Any) -> bool:
        try:
            read(arguments)
        except WrongArguments as error:
            str(error).encode("utf-8", "surrogatepass")
            return False
        return True

    assert is_readable(TOOL.read_arguments) == is_readable(SAME.read)

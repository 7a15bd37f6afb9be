"""Whatever comes from outside is made valid text and JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import json
import uuid
from collections import deque
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from serve_app.values.sanitize import MAX_ITEMS, sanitize_json, sanitize_text, truncate

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY_TEXT = st.text(st.characters(exclude_categories=()))
KEYS = st.one_of(ANY_TEXT, st.none(), st.booleans(), st.integers(), st.floats(), st.tuples(st.integers(), ANY_TEXT))
LEAVES = st.one_of(
    ANY_TEXT,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(),
    st.decimals(),
    st.datetimes(),
    st.uuids(),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner), st.lists(inner).map(iter)
    ),
)
JSON_VALUES = st.recursive(
    st.one_of(
        st.text().filter(lambda text: "\0" not in text),
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text().filter(lambda text: "\0" not in text), inner)),
)


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Pair:
    a: int
    b: Any


class Item(BaseModel):
    sku: str
    inner: Any = None


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def _broken() -> Iterator[int]:
    yield 1
    raise OSError("gone")


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@given(ANY_TEXT)
def test_any_text_becomes_valid_unicode_and_stays_so(text: str) -> None:
    valid = sanitize_text(text)
    valid.encode()
    assert "\0" not in valid
    assert sanitize_text(valid) == valid


@given(st.text().filter(lambda text: "\0" not in text))
def test_valid_text_stays_as_it_is_and_halves_of_its_characters_are_joined(text: str) -> None:
    units = text.encode("utf-16-le")
    halves = "".join(chr(int.from_bytes(units[place : place + 2], "little")) for place in range(0, len(units), 2))
    assert sanitize_text(text) == text
    assert sanitize_text(halves) == text


def test_a_lone_surrogate_and_a_nul_become_one_replacement_character_each() -> None:
    cases = {"a\ud83db": "a\ufffdb", "\udce9": "\ufffd", "\ud83d\ud83d\ude00": "\ufffd\U0001f600", "a\0b": "a\ufffdb"}
    for text, expected in cases.items():
        assert sanitize_text(text) == expected


@given(st.text(), st.integers(min_value=0, max_value=200))
def test_a_text_keeps_its_ends_within_the_limit(text: str, limit: int) -> None:
    cut = truncate(text * 40, limit)
    assert len(cut) <= limit
    if len(text * 40) <= limit:
        assert cut == text * 40


def test_a_long_text_says_how_much_of_it_is_missing() -> None:
    cut = truncate("x" * 600 + "y" * 400, 100)
    assert cut.startswith("xxxx")
    assert cut.endswith("yyyy")
    assert f"{1000 - cut.count('x') - cut.count('y'):,} characters left out" in cut


@given(ANYTHING)
def test_anything_becomes_a_value_that_json_can_say(value: Any) -> None:
    assert json.loads(_encoded(sanitize_json(value))) is not NotImplemented


@given(JSON_VALUES)
def test_what_json_can_say_stays_as_it_is(value: Any) -> None:
    assert sanitize_json(value, max_depth=1000) == value


def test_each_kind_of_value_is_said_as_well_as_it_can_be() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    model = Item(sku="A")
    model.inner = model
    when = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    cases: list[tuple[Any, Any]] = [
        ({(1, 2): "paid"}, {"[1, 2]": "paid"}),
        ({1: "a", "1": "b", None: "c"}, {"1": "a", "1 (2)": "b", "null": "c"}),
        (cycle, {"self": "[… contains itself …]"}),
        ([float("nan"), float("inf"), -float("inf")], ["NaN", "Infinity", "-Infinity"]),
        (10**400, str(10**400)),
        (b"\xe4\xbd\xa0", "\u4f60"),
        (b"caf\xe9", "caf\ufffd"),
        (b"\xff\xfe\x80\x81a", "[… 5 bytes of binary data …]"),
        ({Colour.RED: Colour.RED}, {"red": "red"}),
        (Pair(1, (2, {3})), {"a": 1, "b": [2, [3]]}),
        ([Item(sku="A", inner=Pair(1, "x"))], [{"sku": "A", "inner": {"a": 1, "b": "x"}}]),
        (deque([1]), [1]),
        ((each for each in range(3)), [0, 1, 2]),
        (_broken(), [1, "[… ended by OSError …]"]),
        (when, "2026-01-02T03:04:05Z"),
        ({"at": Decimal("1.10"), "id": uuid.UUID(int=1)}, {"at": "1.10", "id": str(uuid.UUID(int=1))}),
        (Path("/tmp/a"), "/tmp/a"),
        (SecretStr("x"), "**********"),
        (ValueError("locked"), "ValueError: locked"),
        (Mute(), "[… a value of type Mute …]"),
        ({"bad": Mute(), "good": 1}, {"bad": "[… a value of type Mute …]", "good": 1}),
        (Item, "[… the type Item …]"),
        ("a\ud83d\ude00", "a\U0001f600"),
        (dict.fromkeys(["\udce9", "\udcff"], 1), {"\ufffd": 1, "\ufffd (2)": 1}),
    ]
    for value, expected in cases:
        sanitized = sanitize_json(value)
        assert sanitized == expected, value
        _encoded(sanitized)
    assert "contains itself" in str(sanitize_json(model))
    assert "digits" in sanitize_json(10**5000)


def test_depth_items_and_characters_are_bounded_and_the_cut_is_noted() -> None:
    deep: Any = "bottom"
    for _ in range(3000):
        deep = [deep]
    sanitized = json.dumps(sanitize_json(deep), ensure_ascii=False)
    assert sanitized.count("[") == 65
    assert "nested deeper than 64 levels" in sanitized
    wide: Any = "x"
    for _ in range(40):
        wide = [wide, wide]
    assert len(json.dumps(sanitize_json(wide))) < 3_000_000
    endless = sanitize_json(itertools.count())
    assert len(endless) == MAX_ITEMS
    assert endless[-1] == "[… more …]"
    assert sanitize_json({"a": 1, "b": 2, "c": 3}, max_items=2) == {"a": 1, "…": "[… 2 more …]"}
    assert len(json.dumps(sanitize_json(["x" * 1_000_000] * 1000))) < 11_000_000


def test_a_hundred_thousand_keys_that_become_one_take_no_time() -> None:
    keys = {chr(0xD800 + one) + chr(0xD800 + other): 1 for one in range(300) for other in range(300)}
    assert len(sanitize_json(keys)) == pytest.approx(MAX_ITEMS / 2, abs=10)

"""Whether a citation names its passage in any form, and whatever is no citation names none."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from serve_app.agent.citations import cited_numbers

COUNT = 12

CITED = {
    "[1]": {1}, "［1］": {1}, "【1】": {1}, "〔１〕": {1}, "【１】": {1}, "[^1]": {1},
    "[ 1 ]": {1},
    "\\[1\\]": {1},
    "[1, 2]": {1, 2}, "[1,2]": {1, 2}, "[1，2]": {1, 2}, "[1、3]": {1, 3}, "[1; 2]": {1, 2}, "[^1, ^2]": {1, 2},
    "[1][2]": {1, 2}, "[1] [3]": {1, 3}, "[^1][^2]": {1, 2}, "【1】【3】": {1, 3}, "[1-3]": {1, 2, 3},
    "[1–3]": {1, 2, 3},
    "[1～3]": {1, 2, 3}, "[1-2, 5]": {1, 2, 5}, "【1†source】": {1}, "【2†手册.pdf†L3-L9】": {2}, "[citation:2]": {2},
    "[Source 2]": {2}, "[来源：2]": {2}, "**[1]**": {1}, "<sup>[1]</sup>": {1}, "第3节[1]。": {1}, "25 Nm[1].": {1},
    "at 5 V[1].": {1}, "7.5 kW[1]": {1}, "pump.pdf[1]": {1}, "(see the manual)[1]": {1}, "[manual][1]": {1},
    "[1]: the manual, page 3": {1}, "in 2024[1]": {1}, "Is it so [1]?": {1}, "[1] (page 3)": {1},
    "` [1] ``": {1}, "a ` b `` [1] `` c [2]": {2},
}  # fmt: skip

NOT_CITED = (
    "1", "see 1.", "(1)", "1.", "[2024]", "[0]", "[13]", "[3-1]", "[1, 2024]", "[1](https://example.org)",
    "![1](x.png)",
    "[[1]](https://example.org)", "a[1]", "a[1][2]", "x = [1, 2]", "my_list[1]", "myList[1]", "sys.argv[1]",
    "f(x)[1]",
    "`[1]`", "``a [1] b``", "```\n[1]\n```", "~~~python\n[1]\n~~~", "```\n[1]",
    "`a` ``b ` [1]`` `[2]`", "[11111]", "[1 2 x]",
    "[text][1]\n\n[1]: https://example.org",
    "[1:30]", "[1.5]", "【4:0†source】", "[x1]", "[1a]", "[12345]", "items[1] = 2", "", "[]", "[1", "1]",
)  # fmt: skip


def test_a_citation_names_its_passages_in_any_form() -> None:
    wrong = {text: found for text, wanted in CITED.items() if (found := cited_numbers(text, COUNT)) != wanted}
    assert wrong == {}


def test_what_is_no_citation_names_no_passage() -> None:
    wrong = {text: found for text in NOT_CITED if (found := cited_numbers(text, COUNT))}
    assert wrong == {}


OPENINGS = {"[": "]", "［": "］", "【": "】", "〔": "〕"}
DIGITS = st.sampled_from(["0123456789", "０１２３４５６７８９"])


@given(
    numbers=st.lists(st.integers(1, COUNT), min_size=1, max_size=4),
    opening=st.sampled_from(sorted(OPENINGS)),
    comma=st.sampled_from([",", ", ", "，", "、", ";"]),
    digits=DIGITS,
    caret=st.sampled_from(["", "^"]),
)
def test_any_mix_of_brackets_digits_and_commas_names_exactly_its_numbers(
    numbers: list[int], opening: str, comma: str, digits: str, caret: str
) -> None:
    written = comma.join(caret + "".join(digits[int(digit)] for digit in str(number)) for number in numbers)
    text = f"The torque is 25 Nm {opening}{written}{OPENINGS[opening]}, as said."
    assert cited_numbers(text, COUNT) == set(numbers)


@given(st.text(alphabet="[]【】^1２0-,† `a(\n)=:\\", max_size=40), st.integers(0, 5))
def test_no_text_names_a_number_that_it_does_not_hold_in_brackets_or_that_no_passage_has(text: str, count: int) -> None:
    found = cited_numbers(text, count)
    assert found <= set(range(1, count + 1))
    assert not found or re.search(r"[\[【]", text)


@given(st.text(max_size=60).map(lambda text: re.sub(r"[\[［【〔]", "", text)), st.integers(0, 20))
def test_a_text_without_brackets_cites_nothing(text: str, count: int) -> None:
    assert cited_numbers(text, count) == set()

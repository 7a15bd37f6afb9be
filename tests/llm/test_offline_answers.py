"""The offline model relays what tools returned, with sources, and adds nothing."""

from __future__ import annotations

import json
import re
from typing import Any

from offline_tools import SEARCH, answer, tool

DESCALING = (
    "Descale the kettle every three months. Fill it with water and two spoons of citric acid, bring it to the boil, "
    "wait twenty minutes and rinse it twice. A kettle that is never descaled boils slowly."
)
APT = """APT reads its sources from a list:

```
# apt edit-sources
deb http://deb.example.org stable main
```

| option | meaning |
| --- | --- |
| -y | assume yes to all questions |
| -q | print little |

Run it as root."""
HANDBOOK = "水壶每三个月需要除垢一次。加入清水和两勺柠檬酸，煮沸后静置二十分钟。\n本产品自购买之日起保修五年。"


def _order(number: str, content: str, status: str = "success") -> tuple[str, dict[str, Any], str, str]:
    return ("order_query", {"order_id": number}, content, status)


def _search(
    query: str, *passages: tuple[int, str, str, str], status: str = "success"
) -> tuple[str, dict[str, Any], str, str]:
    rows = [{"n": n, "source": source, "title": title, "passage": text} for n, source, title, text in passages]
    return ("knowledge_search", {"query": query}, json.dumps(rows, ensure_ascii=False), status)


def _marks(text: str) -> list[int]:
    return sorted({int(number) for number in re.findall(r"\[(\d+)\]", text)})


def test_what_a_tool_says_is_relayed_in_the_questions_language() -> None:
    cases = [
        ("Where is OD-20240502?", "OD-20240502: 已发货 (shipped)", "The look-up says: OD-20240502: 已发货 (shipped)"),
        ("Where is OD-20240502?", "shipped", "The look-up for OD-20240502 says: shipped"),
        ("订单OD-20240502到哪了？", "已发货", "OD-20240502 的查询结果：已发货"),
        ("OD-20249999发货了吗", "OD-20249999: 订单不存在", "查询结果：OD-20249999: 订单不存在"),
        ("OD-20240502?", '{"status": "paid", "items": ["a", 2]}', "says: status: paid, items: a, 2"),
        ("OD-20240502?", '"paid"', "says: paid"),
        ("OD-20240502?", '[{"at": "Oslo"}, {"at": "Rome"}]', "- at: Oslo\n- at: Rome"),
        ("OD-20240502?", "{broken", "says: {broken"),
    ]
    for question, content, found in cases:
        assert found in answer(question, _order("OD-20240502" if "99" not in question else "OD-20249999", content))


def test_results_of_several_calls_are_lines_in_their_order() -> None:
    lines = answer("OD-1 and OD-2?", _order("OD-1", "OD-1: paid"), _order("OD-2", "OD-2: shipped")).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["paid", "shipped"]


def test_a_look_up_that_failed_is_reported_and_nothing_invented() -> None:
    content = "error: order_query did not answer in time"
    found = answer("Where is OD-1?", _order("OD-1", content, "error"))
    assert "The look-up for OD-1 failed" in found
    assert content not in found
    assert "失败" in answer("OD-1发货了吗", _order("OD-1", content, "error"))


def test_one_failure_does_not_hide_the_other_result() -> None:
    found = answer("OD-1 and OD-2?", _order("OD-1", "error: x", "error"), _order("OD-2", "OD-2: shipped"))
    assert "OD-1 failed" in found
    assert "OD-2: shipped" in found


def test_a_question_is_answered_with_the_passage_and_its_source() -> None:
    found = answer(
        "How do I descale the kettle?", _search("How do I descale the kettle?", (1, "k.md", "Descaling", DESCALING))
    )
    assert "two spoons of citric acid" in found
    assert found.endswith("Sources:\n[1] k.md — Descaling")


def test_all_passages_are_named_and_the_one_that_bears_is_quoted_first() -> None:
    query = "How do I descale the kettle?"
    found = answer(query, _search(query, (4, "apt.md", "", APT), (5, "k.md", "Descaling", DESCALING)))
    assert _marks(found) == [4, 5]
    assert found.index("citric acid") < found.index("Sources:")
    assert "assume yes" not in found
    assert "[4] apt.md" in found


def test_numbers_go_on_over_several_searches_of_a_turn() -> None:
    found = answer(
        "How do I descale the kettle? How long is the warranty of a kettle?",
        _search("How do I descale the kettle?", (1, "k.md", "Descaling", DESCALING)),
        _search("How long is the warranty?", (2, "k.md", "Warranty", "The warranty covers five years.")),
    )
    assert _marks(found) == [1, 2]
    assert "five years" in found


def test_a_table_row_and_a_block_of_code_stay_whole() -> None:
    row = answer("What does the option -q print?", _search("What does the option -q print?", (1, "a", "APT", APT)))
    assert "| -q | print little |" in row
    code = answer("edit sources list", _search("edit sources list", (1, "a", "APT", APT)))
    assert "```\n# apt edit-sources\ndeb http://deb.example.org stable main\n```" in code


def test_a_chinese_question_is_answered_from_a_chinese_passage_in_chinese() -> None:
    found = answer("水壶怎么除垢？", _search("水壶怎么除垢?", (3, "水壶.md", "除垢", HANDBOOK)))
    assert found.startswith("知识库中")
    assert "柠檬酸" in found
    assert found.endswith("来源：\n[3] 水壶.md — 除垢")


def test_a_long_passage_is_quoted_where_it_bears() -> None:
    long = " ".join(f"Sentence {number} is about nothing at all." for number in range(60))
    passage = f"{long} The seal of the pump is replaced every year. {long}"
    found = answer("When is the pump seal replaced?", _search("When is the pump seal replaced?", (1, "p", "", passage)))
    assert "replaced every year" in found
    assert len(found) < 800


def test_passages_that_do_not_bear_on_the_question_are_not_quoted() -> None:
    cases = [
        ("football world cup", "Debian is used all over the world by many people, at home and at work."),
        ("Who won the football world cup in 1998?", "Debian is used all over the world by many people."),
        ("足球世界杯是谁赢的", "Debian 在世界各地都有用户。"),
        ("How do I bake sourdough bread?", DESCALING),
        ("谁赢了世界杯?", DESCALING),
        ("Who won the football world cup in 1998?", f"{HANDBOOK} 1998"),
        ("水壶怎么除垢？", DESCALING),
        ("How is the kettle descaled?", HANDBOOK),
    ]
    for question, passage in cases:
        found = answer(question, _search(question, (1, "debian.md", "About", passage)))
        assert "found nothing" in found or "没有找到" in found, question
        assert _marks(found) == []


def test_a_question_in_other_words_still_gets_its_passage() -> None:
    cases = [
        ("How do I get rid of limescale in my kettle?", DESCALING),
        ("保修期是多久？", HANDBOOK),
        ("apt怎么配置？", APT),
        ("How does fstab work?", "文件 fstab 列出挂载的文件系统。"),
    ]
    for question, passage in cases:
        assert _marks(answer(question, _search(question, (1, "k", "", passage)))) == [1], question


def test_an_empty_search_found_nothing() -> None:
    for question, found in [("What is zsh?", "found nothing"), ("什么是zsh？", "没有找到")]:
        assert found in answer(question, _search(question))


def test_an_empty_list_of_another_tool_is_no_search() -> None:
    listing = tool("list_orders", "List the orders that are open")
    assert "knowledge base" not in answer(
        "list open orders", ("list_orders", {}, "[]", "success"), tools=[listing, SEARCH]
    )


def test_a_search_that_failed_is_reported() -> None:
    found = answer("What is zsh?", ("knowledge_search", {"query": "zsh"}, "error: not available now", "error"))
    assert "failed" in found
    assert "found nothing" not in found


def test_passages_are_known_by_their_form_and_not_by_the_tool() -> None:
    library = tool("library", "Find books", query={"type": "string"})
    content = json.dumps([{"n": 1, "source": "k.md", "title": "T", "passage": DESCALING}])
    assert "[1] k.md — T" in answer(
        "descale kettle", ("library", {"query": "descale kettle"}, content, "success"), tools=[library]
    )
    assert "[1] k.md — T" in answer(
        "descale kettle", ("library", {"query": "descale kettle"}, content, "success"), tools=[]
    )


def test_an_order_and_passages_are_in_one_answer() -> None:
    found = answer(
        "Where is OD-1? How do I descale the kettle?",
        _order("OD-1", "OD-1: paid"),
        _search("How do I descale the kettle?", (1, "k.md", "", DESCALING)),
    )
    assert found.index("OD-1: paid") < found.index("citric acid")
    assert "[1] k.md" in found

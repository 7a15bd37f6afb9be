"""Documents are found as they were sent, and only by their tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve_app.errors import NotFound
from serve_app.values import Document

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.knowledge.index import KnowledgeIndex
    from serve_app.values import Context

CLOCK = Document(
    source="clock.md",
    text="# Time\n\n## The hardware clock\n\nThe hwclock command sets the battery clock of the machine to UTC.\n",
)
PRINTER = Document(
    source="printer.md",
    text="# 打印\n\n## 打印队列\n\n用 lpstat 查看打印队列, 用 cancel 取消一个打印任务。\n",
)


async def test_a_document_is_found_by_its_words(index: KnowledgeIndex, context: Context) -> None:
    added = await index.add(context, [CLOCK, PRINTER])
    assert [each.status for each in added] == ["added", "added"]
    found = (await index.search(context, "Which command sets the hardware clocks?")).passages
    assert [(each.source, each.title) for each in found] == [("clock.md", "Time > The hardware clock")]
    assert found[0].document_id == added[0].id
    assert 0.5 < found[0].score <= 1
    [queue] = (await index.search(context, "怎样查看打印队列?")).passages
    assert queue.source == "printer.md"


async def test_a_question_about_something_else_finds_nothing(index: KnowledgeIndex, context: Context) -> None:
    await index.add(context, [CLOCK, PRINTER])
    assert (await index.search(context, "Who won the football championship?")).passages == []
    assert (await index.search(context, "红烧肉要炖多久?")).passages == []
    assert (await index.search(context, "?!")).passages == []


async def test_an_empty_knowledge_base_finds_and_lists_nothing(index: KnowledgeIndex, context: Context) -> None:
    assert (await index.search(context, "anything")).passages == []
    assert (await index.documents(context, 0, 10)).total == 0


async def test_the_same_document_again_is_unchanged(index: KnowledgeIndex, context: Context) -> None:
    await index.add(context, [CLOCK])
    [again] = await index.add(context, [CLOCK])
    assert (again.status, again.passages) == ("unchanged", 1)


async def test_a_changed_document_replaces_its_passages(index: KnowledgeIndex, context: Context) -> None:
    await index.add(context, [CLOCK])
    changed = CLOCK.model_copy(update={"text": "# Time\n\nUse timedatectl to choose a timezone.\n"})
    [replaced] = await index.add(context, [changed])
    assert replaced.status == "replaced"
    assert (await index.search(context, "battery hwclock UTC")).passages == []
    [found] = (await index.search(context, "choose a timezone")).passages
    assert "timedatectl" in found.text


async def test_a_removed_document_is_not_found_any_more(index: KnowledgeIndex, context: Context) -> None:
    [clock, _] = await index.add(context, [CLOCK, PRINTER])
    removed = await index.remove(context, clock.id)
    assert (removed.source, removed.title, removed.passages) == ("clock.md", "Time", 1)
    assert (await index.search(context, "hardware clock")).passages == []
    with pytest.raises(NotFound):
        await index.remove(context, clock.id)
    assert [each.source for each in (await index.documents(context, 0, 10)).documents] == ["printer.md"]


async def test_the_list_is_by_source_and_counts_all(index: KnowledgeIndex, context: Context) -> None:
    names = ["b.md", "a.md", "c/z.md", "c.md"]
    await index.add(context, [Document(source=name, text=f"# {name}\n\nAbout {name}.") for name in names])
    page = await index.documents(context, 1, 2)
    assert [each.source for each in page.documents] == ["b.md", "c.md"]
    assert (page.total, page.passages) == (4, 4)


async def test_a_tenant_sees_its_own_documents_only(index: KnowledgeIndex, contexts: Callable[..., Context]) -> None:
    ours, theirs = contexts("ours"), contexts("theirs")
    [first] = await index.add(ours, [CLOCK])
    [second] = await index.add(theirs, [CLOCK])
    assert first.id != second.id
    assert [each.document_id for each in (await index.search(ours, "hardware clock")).passages] == [first.id]
    assert [each.document_id for each in (await index.search(theirs, "hardware clock")).passages] == [second.id]
    with pytest.raises(NotFound):
        await index.remove(ours, second.id)
    await index.remove(ours, first.id)
    assert (await index.search(ours, "hardware clock")).passages == []
    assert len((await index.search(theirs, "hardware clock")).passages) == 1


async def test_the_documents_of_others_do_not_crowd_out_a_tenants_own(
    index: KnowledgeIndex, contexts: Callable[..., Context]
) -> None:
    ours, theirs = contexts("ours"), contexts("theirs")
    await index.add(theirs, [CLOCK.model_copy(update={"source": str(number)}) for number in range(60)])
    await index.add(ours, [CLOCK])
    assert [each.source for each in (await index.search(ours, "hardware clock")).passages] == ["clock.md"]


async def test_the_same_text_in_two_documents_is_returned_once(index: KnowledgeIndex, context: Context) -> None:
    twin = CLOCK.model_copy(update={"source": "copy.md", "text": CLOCK.text.replace("## The", "## About the")})
    await index.add(context, [CLOCK, twin])
    assert len((await index.search(context, "hardware clock")).passages) == 1

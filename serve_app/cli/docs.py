"""`serve-app docs` and `serve-app config reference`: the manual, and the reference of the settings."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

MAX_SUMMARY_CHARACTERS = 110


@click.command()
@click.argument("topic", required=False)
def docs(topic: str | None) -> None:
    """Print the page of the manual about TOPIC, or list all pages."""
    pages = _find_pages()
    if topic is None:
        for line in _format_contents(pages):
            click.echo(line)
        return
    page = pages.get(topic.lower().removesuffix(".md"))
    if page is None:
        raise click.UsageError(f"there is no page {topic!r}. {_suggest(topic.lower(), list(pages))}")
    click.echo(page.read_text(encoding="utf-8"), nl=False)


@click.group()
def config() -> None:
    """Show the settings."""


@config.command("reference")
def reference() -> None:
    """Print all settings as Markdown: type, unit, default and reason."""
    from serve_app.config.reference import write_reference

    click.echo(write_reference(), nl=False)


def _find_pages() -> dict[str, Traversable]:
    folder = files("serve_app") / "docs"
    return {each.name.removesuffix(".md"): each for each in sorted(folder.iterdir(), key=_name) if _is_page(each)}


def _name(entry: Traversable) -> str:
    return entry.name


def _is_page(entry: Traversable) -> bool:
    return entry.name.endswith(".md")


def _format_contents(pages: dict[str, Traversable]) -> Iterator[str]:
    width = max(map(len, pages), default=0)
    for topic, page in pages.items():
        title, summary = read_heading(page.read_text(encoding="utf-8"))
        yield f"{topic:<{width}}  {title}"
        if summary:
            yield f"{'':<{width}}  {summary}"
    yield ""
    yield "serve-app docs TOPIC prints a page."


def read_heading(text: str) -> tuple[str, str]:
    """Return the title of a page and its first sentence, shortened to one line."""
    lines = text.splitlines()
    title = next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")
    paragraphs = text.split("\n\n")
    prose = next((" ".join(each.split()) for each in paragraphs if each.strip() and not _is_markup(each)), "")
    ends = [prose.find(end) + 1 for end in (". ", "。", ": ") if end in prose]
    sentence = prose[: min(ends)] if ends else prose
    if len(sentence) > MAX_SUMMARY_CHARACTERS:
        sentence = sentence[: MAX_SUMMARY_CHARACTERS - 1].rstrip() + "…"
    return title, sentence


def _is_markup(paragraph: str) -> bool:
    """Whether the paragraph is a heading, list, table, code, comment or image."""
    return paragraph.lstrip().startswith(("#", "-", "*", "|", "`", "<", "!", "[", ">"))


def _suggest(topic: str, topics: list[str]) -> str:
    near = get_close_matches(topic, topics, n=1, cutoff=0.5)
    near = near or [each for each in topics if topic in each]
    return f"Did you mean {near[0]!r}?" if near else f"The pages are: {', '.join(topics)}"

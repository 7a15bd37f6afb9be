"""Reads an HTML page as Markdown, without its navigation."""

from __future__ import annotations

import re
import warnings

from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning
from bs4.element import Comment, NavigableString, Tag
from markdownify import ATX, MarkdownConverter

from serve_app.knowledge.formats.tables import escaped, fill_spans

_HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"]
_NOT_CONTENT = (
    "head, script, style, noscript, template, iframe, object, svg, canvas, img, hr, button, input, select, textarea, "
    "dialog, nav, aside, footer, [hidden], [role=navigation], [role=search], [role=banner], [role=contentinfo], "
    # the furniture of DocBook, Sphinx, MkDocs, Docusaurus and GitHub pages
    ".navheader, .navfooter, .toc, .list-of-tables, .list-of-figures, .sphinxsidebar, .headerlink, .linenos, "
    ".breadcrumb, .breadcrumbs, .md-source-file, .edit-this-page, .theme-edit-this-page, .skip-link, .anchor"
)
_MAIN = "main, [role=main], article"
_ADMONITIONS = ".note > table, .tip > table, .caution > table, .warning > table, .important > table"
_LAYOUT = ["table", "pre", *_HEADINGS]
MAX_DEPTH = 100
"""Elements inside elements; deeper ones become text. People write twenty, and Python's stack holds 250."""

_TABLE_PARTS = ["thead", "tbody", "tfoot", "tr", "td", "th", "caption"]


def to_markdown(page: str) -> tuple[str, str]:
    """The page's title, empty where it has none, and its content as Markdown.

    Headings, lists, tables and code stay. Of links only the text stays: a passage full of addresses would match
    every question about addresses.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML pages are served, and read, as HTML
        soup = BeautifulSoup(page, "lxml")
    _bound_depth(soup)
    title = _line(soup.title) if soup.title else ""
    content = _main(soup)
    for element in content.select(_NOT_CONTENT):
        element.decompose()
    for header in content.find_all("header"):
        if not header.find(_HEADINGS):
            header.decompose()
    for comment in content.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    _flatten(content)
    for table in content.find_all("table"):
        fill_spans(table)
    return title, _tidy(_converter().convert_soup(content))


def _bound_depth(soup: BeautifulSoup) -> None:
    """Replace elements deeper than `MAX_DEPTH` by their text, without recursion."""
    depths = {id(soup): 0}
    deepest: list[Tag] = []
    for element in soup.descendants:
        if isinstance(element, Tag):
            depth = depths.get(id(element.parent), 0) + 1
            depths[id(element)] = depth
            if depth == MAX_DEPTH:
                deepest.append(element)
    for element in {id(holder): holder for holder in map(_holder, deepest)}.values():
        text = " ".join(element.get_text(" ").split())
        element.clear()
        element.append(NavigableString(text))


def _holder(element: Tag) -> Tag:
    """The nearest element around it that may hold text."""
    while element.parent is not None and element.name in ("table", "thead", "tbody", "tfoot", "tr", "ul", "ol", "dl"):
        element = element.parent
    return element


def _main(soup: BeautifulSoup) -> Tag:
    """The element that the page marks as its main content, else the whole page."""
    marked = [element for element in soup.select(_MAIN) if not element.find_parent(["main", "article"])]
    return marked[0] if len(marked) == 1 and marked[0].get_text(strip=True) else soup


def _flatten(content: Tag) -> None:
    """Replace tables that only lay out the page by their contents."""
    for table in content.select(_ADMONITIONS):
        label = table.find("th")
        if label:
            label.name = "p"
            label.string = f"{_line(label)}:"
    layout = [table for table in content.find_all("table") if table.find(_LAYOUT)]
    for table in [*content.select(_ADMONITIONS), *layout]:
        parts = [part for part in table.find_all(_TABLE_PARTS) if part.find_parent("table") is table]
        for part in [table, *parts]:
            part.name = "div"
    for heading in content.find_all(_HEADINGS):
        for mark in heading.find_all(["code", "tt", "kbd", "samp"]):
            mark.unwrap()


def _line(element: Tag) -> str:
    return " ".join(element.get_text().split())


def _tidy(markdown: str) -> str:
    lines = (line.rstrip() for line in markdown.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Converter(MarkdownConverter):
    """Converts paragraphs and code so that no line reads as a heading or a fence."""

    def convert_p(self, element: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - its override
        text = text.strip()
        if "_inline" in parent_tags:
            return f" {text} "
        return "\n\n" + re.sub(r"^(#{1,6} )", r"\\\1", text, flags=re.MULTILINE) + "\n\n"

    def convert_td(self, element: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - its override
        return f" {escaped(' '.join(text.split()))} |"

    convert_th = convert_td

    def convert_pre(self, element: Tag, text: str, parent_tags: set[str]) -> str:  # noqa: ARG002 - passed by name
        longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
        fence = "`" * (longest + 1)
        return "\n".join(["\n", fence, text.strip("\n"), fence, "\n"])


def _converter() -> _Converter:
    return _Converter(
        heading_style=ATX,
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        table_infer_header=True,
        wrap=True,
        wrap_width=None,
        strip=["a", "em", "strong", "b", "i", "u", "sup", "sub"],
    )

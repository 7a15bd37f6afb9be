"""Reads the fenced code blocks of the README and of the manual's pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "serve_app" / "docs").glob("*.md")),
    ROOT / "configs" / "README.md",
    ROOT / "configs" / "nginx" / "README.md",
    ROOT / "configs" / "prometheus" / "README.md",
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """One code block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(language: str, pages: list[Path] = PAGES) -> list[Snippet]:
    """The code blocks of a language, in the order of the pages."""
    found: list[Snippet] = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found += [
            Snippet(page, text.count("\n", 0, block.start()) + 1, language, block[2])
            for block in _FENCE.finditer(text)
            if block[1] == language
        ]
    return found


def commands(snippet: Snippet) -> list[str]:
    """The commands of a shell block; of a console block, those after the prompt, without what they print."""
    if snippet.language == "console":
        return [command for command, _ in console_outputs(snippet)]
    return [line for line in snippet.text.replace("\\\n", " ").splitlines() if line.strip()]


def console_outputs(snippet: Snippet) -> list[tuple[str, str]]:
    """Each command of a console block with what the page says that it prints."""
    outputs: list[tuple[str, str]] = []
    for block in re.split(r"^\$ ", snippet.text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, output = block.partition("\n")
        outputs.append((command, output.strip()))
    return outputs

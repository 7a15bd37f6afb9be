"""`serve-app docs` and `serve-app config reference`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from serve_app import docs as folder
from serve_app.cli.docs import read_heading
from serve_app.cli.main import main
from serve_app.config import Settings

PAGES = Path(folder.__path__[0])


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_docs_lists_every_page_with_its_title_and_prints_each() -> None:
    code, contents = run("docs")
    assert code == 0
    pages = sorted(PAGES.glob("*.md"))
    assert pages
    for page in pages:
        title, summary = read_heading(page.read_text(encoding="utf-8"))
        assert title, f"{page.name} has no title"
        assert summary, f"{page.name} says nothing before its first list"
        assert f"{page.stem} " in contents, page.name
        assert f"  {title}\n" in contents, page.name
        assert run("docs", page.stem) == (0, page.read_text(encoding="utf-8")), page.name
    assert all(len(line) < 140 for line in contents.splitlines())


def test_an_unknown_page_names_the_nearest() -> None:
    for topic, hint in {
        "toolz": "Did you mean 'tools'?",
        "Limits": "Did you mean 'keys-and-limits'?",
        "xyzzy": "The pages are: ",
        "../__init__": "The pages are: ",
    }.items():
        code, output = run("docs", topic)
        assert (code, hint in output) == (2, True), output


def test_the_page_of_the_configuration_is_what_the_settings_say() -> None:
    written = (PAGES / "configuration.md").read_text(encoding="utf-8")
    command = "serve-app config reference > serve_app/docs/configuration.md"
    assert run("config", "reference") == (0, written), f"write it again: {command}"


def test_every_key_of_the_settings_has_a_reason() -> None:
    schema = Settings.model_json_schema()
    sections: dict[str, Any] = schema["$defs"]
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, value in section["properties"].items()
        if not value.get("description")
    ]
    assert silent == []
    assert [name for name, section in sections.items() if not section.get("description")] == []


def test_the_reference_names_types_units_bounds_and_defaults() -> None:
    reference = run("config", "reference")[1]
    for line in (
        "- **`turn_timeout_s`** (number of seconds, over 0, at most 3,600, default: `60`):",
        "- **`steps_ttl_s`** (whole number of seconds, over 0, default: `86400`, 1 day):",
        "- **`max_bytes`** (whole number of bytes, at least 65,536, default: `4194304`, 4 MiB):",
        "- **`second_message`** (`wait`, `reject` or `cancel_running`, default: `wait`):",
        "- **`api_key_env`** (variable name, default: not set):",
        "- **`live_tools`** (list of tool names, default: empty):",
        "#### tools.NAME.http",
        "#### knowledge.embedding",
        "#### model.fallbacks[]",
    ):
        assert f"\n{line}\n" in reference, line

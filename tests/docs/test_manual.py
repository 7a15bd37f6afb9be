"""Every snippet, link and message of the README and of the manual is checked against the code."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click
import yaml
from manual_pages import PAGES, ROOT, Snippet, commands, snippets

from serve_app.cli.main import main
from serve_app.config import draft_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RUN_AGAINST_THE_SERVICE = "http://localhost:8000"
"""A Python snippet with this address is run by tests/service/test_manual_console.py."""
PROGRAMS = {
    "curl",
    "apt-get",
    "nginx",
    "ray",
    "serve",
    "pip-audit",
    "pytest",
    "prometheus",
    "promtool",
    "amtool",
    "ssh",
    "sh",
}
"""Programs of others, whose options are not checked here."""


def test_every_yaml_snippet_is_a_valid_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text(encoding="utf-8"))
    found = snippets("yaml")
    assert found
    problems = []
    for snippet in found:
        written = yaml.safe_load(snippet.text)
        for variable in re.findall(r"\b[A-Z][A-Z0-9_]{5,}\b", snippet.text):
            monkeypatch.setenv(variable, "a-secret-of-more-than-thirty-two-characters")
        path = tmp_path / "local.yaml"
        path.write_text(yaml.safe_dump(_merged(base, written), allow_unicode=True), encoding="utf-8")
        problems += [f"{snippet}: {problem}" for problem in draft_settings(path).problems]
    assert problems == []


def _merged(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    return {**base, **{key: _merged(base.get(key), value) for key, value in changes.items()}}


def test_every_python_snippet_runs() -> None:
    found = snippets("python")
    assert found
    for snippet in found:
        code = compile(snippet.text, str(snippet), "exec")
        if RUN_AGAINST_THE_SERVICE not in snippet.text:
            exec(code, {"__name__": "snippet"})


def test_every_command_is_one_that_exists() -> None:
    problems = []
    for snippet in [*snippets("sh"), *snippets("console")]:
        for command in commands(snippet):
            problems += [f"{snippet}: {problem}" for problem in _problems(command)]
    assert problems == []


def _problems(command: str) -> list[str]:
    """What is wrong with a command line: an unknown program, option or file."""
    problems = []
    for part in re.split(r"\s(?:&&|\|)\s", command):
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
            words = words[1:]
        if words[:3] == ["chrt", "--batch", "0"]:
            words = words[3:]
        if not words or words[0] in {"export", "grep", "set"} | PROGRAMS:
            continue
        program, *rest = words
        if program == "serve-app":
            problems += _cli_problems(rest)
        elif program in {"pip", "python", "cp", "docker"}:
            named = [word for word in rest if re.match(r"(configs|tests|serve_app)/", word)]
            problems += [f"there is no {word}" for word in named if not (ROOT / word.removesuffix("/.")).exists()]
        else:
            problems.append(f"nobody knows the program {program}")
    return problems


def _cli_problems(words: list[str]) -> list[str]:
    """Parses a `serve-app` command as click does, without running it."""
    command: click.Command = main
    context: click.Context | None = None
    try:
        while True:
            context = command.make_context(command.name or "serve-app", list(words), parent=context)
            if not isinstance(command, click.Group):
                return []
            name, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
            if found is None:
                return [f"serve-app has no command {name}"]
            command = found
    except click.UsageError as error:
        return [] if "does not exist" in error.message or "no such file" in error.message else [error.message]
    except click.exceptions.Exit:
        return []


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                broken.append(f"{page.name}: {target}")
            elif anchor and anchor not in _anchors(file.read_text(encoding="utf-8")):
                broken.append(f"{page.name}: {target} has no such heading")
    assert broken == []


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_file_and_variable_that_a_page_names_is_there() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in [*_sources(), ROOT / ".env.example"])
    missing: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        paths = re.findall(r"`((?:serve_app|configs|tests)/[\w./-]+)`", text)
        variables = re.findall(r"\bSERVE_APP_[A-Z_]+[A-Z]\b", text)
        missing += [f"{page.name}: {path}" for path in paths if not (ROOT / path).exists()]
        missing += [f"{page.name}: {name}" for name in variables if name not in sources]
    assert missing == []


def test_every_message_of_the_troubleshooting_page_is_one_of_ours() -> None:
    page = (ROOT / "serve_app" / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = page[page.index("| Message |") : page.index("| What you see |")]
    rows = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
    messages = [part for row in rows for part in re.findall(r"`([^`]+)`", row)]
    assert len(messages) >= 20
    sources = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in _sources()))
    unknown = [each for each in messages if not all(part.strip() in sources for part in each.split("…"))]
    assert unknown == []


def _sources() -> list[Path]:
    return sorted((ROOT / "serve_app").rglob("*.py"))


def test_every_page_begins_with_its_title_and_a_sentence() -> None:
    for page in sorted((ROOT / "serve_app" / "docs").glob("*.md")):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# "), page
        assert lines[1] == "", page
        assert lines[2], page
        assert not lines[2].startswith(("#", "|", "`")), page


def test_the_front_page_is_short_and_links_every_page() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(front.splitlines()) <= 150
    assert "serve_app/docs/zh.md" in front.splitlines()[2]
    for page in (ROOT / "serve_app" / "docs").glob("*.md"):
        assert f"serve_app/docs/{page.name}" in front, page


def test_the_snippets_cover_what_they_should() -> None:
    """A page whose fences are written wrongly would be skipped in silence."""
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("```") % 2 == 0, page
    assert sys.version_info >= (3, 11)
    assert {snippet.page.name for snippet in snippets("console")} >= {"README.md", "http-api.md", "failures.md"}


def test_a_snippet_is_named_by_its_page_and_line() -> None:
    assert str(Snippet(ROOT / "README.md", 7, "sh", "")) == "README.md:7"


def test_ci_runs_the_test_command_of_the_front_page_and_installs_its_programs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    [_, tests, programs] = [each.text.strip() for each in snippets("sh", [ROOT / "README.md"])[:3]]
    assert tests in script
    assert "pytest -m long" in script
    [installed] = [line for line in script.splitlines() if line.startswith("apt-get install")]
    assert set(installed.split()) - {"-y", "-qq"} == set(programs.split())


def test_the_chinese_front_page_has_the_commands_and_links_of_the_english_one() -> None:
    english, chinese = ROOT / "README.md", ROOT / "serve_app" / "docs" / "zh.md"
    for language in ("sh", "console"):
        both = [
            [command.partition("#")[0].strip() for each in snippets(language, [page]) for command in commands(each)]
            for page in (english, chinese)
        ]
        assert both[0] == both[1], language
    linked = [
        {
            (page.parent / target).resolve()
            for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        }
        for page in (english, chinese)
    ]
    assert linked[0] - linked[1] == {chinese}

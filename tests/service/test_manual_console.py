"""The console blocks and the client of the README and of the manual do what the pages say, on the running service."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manual_pages import PAGES, ROOT, console_outputs, snippets
from pdf_writer import make_pdf

if TYPE_CHECKING:
    from running_service import Service

ADDRESS = "localhost:8000"
RUN_WORD_BY_WORD = {"README.md", "zh.md", "http-api.md"}
"""The pages whose calls by `curl` are made; what others print depends on what was done before."""
CHANGES = {"run_id", "elapsed_ms", "created_at", "tool_calls"}
CHANGES_IN_BACKGROUND = {"status", "last_event_id", "answer"}
"""A run in the background may have begun, or ended, when its record is read."""


def _run(command: str, service: Service) -> str:
    """What a call by `curl` of a page prints, sent to this service."""
    words = shlex.split(command.replace(ADDRESS, service.url.removeprefix("http://")))
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def _fields_of(text: str) -> dict[str, Any]:
    """The fields that a page shows of an answer; a page ends a long one with `…`."""
    whole = re.sub(r"\s*\n\s*", "", text).replace(", …", "").replace("… ", "")
    shown: dict[str, Any] = json.loads(whole)
    return shown


def test_the_calls_of_the_pages_give_the_answers_that_they_show(service: Service) -> None:
    calls = [
        (snippet, command, output)
        for snippet in snippets("console", [page for page in PAGES if page.name in RUN_WORD_BY_WORD])
        for command, output in console_outputs(snippet)
        if "/agent/chat" in command
    ]
    assert len(calls) >= 5
    for snippet, command, output in calls:
        with service.client() as client:
            client.delete("/agent/sessions/s1")
        if "第一个订单" in command:
            service.ask("订单OD-20240502到哪了?", "s1")
        shown, answered = _fields_of(output), json.loads(_run(command, service))
        assert shown.keys() <= answered.keys(), snippet
        changes = CHANGES | CHANGES_IN_BACKGROUND if "respond-async" in command else CHANGES
        for name in shown.keys() - changes:
            assert answered[name] == shown[name], (str(snippet), name)


def test_the_openai_client_of_the_manual_gets_its_answer(service: Service) -> None:
    [snippet] = [each for each in snippets("python") if ADDRESS in each.text]
    program = snippet.text.replace(ADDRESS, service.url.removeprefix("http://"))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "OD-20240502" in ran.stdout
    assert "order_query" in ran.stdout


def test_somebody_who_reads_only_the_front_page_brings_a_document(service: Service, tmp_path: Path) -> None:
    manuals = tmp_path / "manuals"
    manuals.mkdir()
    (manuals / "pump.md").write_text("# Pump P-9\n\nThe pump P-9 is primed with two litres of clear water. " * 3)
    (tmp_path / "price-list.pdf").write_bytes(make_pdf([["Price list", "The pump P-9 costs 120 euros."]]))
    [command] = [
        line for each in snippets("sh", [ROOT / "README.md"]) for line in each.text.splitlines() if "ingest" in line
    ]
    words = [
        str(Path(sys.executable).parent / "serve-app"),
        *shlex.split(command, comments=True)[1:],
        "--url",
        service.url,
    ]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    answer = service.ask("With how much water is the pump P-9 primed?", "front-page")
    assert "two litres" in answer["result"]
    assert answer["citations"][0]["source"] == "manuals/pump.md"


def test_the_tool_of_the_front_page_is_called(service: Service) -> None:
    answer = service.ask("Where is parcel PX-123456?", "front-page-tool")
    assert [call["name"] for call in answer["tool_calls"]] == ["track_parcel"]
    assert "Parcel PX-123456 is in Hangzhou" in answer["result"]

"""Real manuals in two languages are indexed while the service goes on answering."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_service import Service

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MANUALS = Path("/usr/share/debian-reference")
INSTALL = "apt-get install debian-reference-en debian-reference-zh-cn"
INGEST_WITHIN_S = 180


@pytest.fixture(scope="module", autouse=True)
def _manuals_are_installed() -> None:
    if not (MANUALS / "ch02.en.html").exists() or not (MANUALS / "ch02.zh-cn.html").exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the manuals are missing: {INSTALL}")
        pytest.skip(f"the manuals are missing: {INSTALL}")


def _command(service: Service, *arguments: str) -> list[str]:
    program = Path(sys.executable).parent / "serve-app"
    return [str(program), "ingest", "--url", service.url, str(MANUALS), *arguments]


def _ingest(service: Service, *arguments: str) -> str:
    """What the command says in the end."""
    command = _command(service, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=INGEST_WITHIN_S, check=True).stdout


def test_both_manuals_are_taken_in_while_the_service_answers(service: Service) -> None:
    begun, slowest_s, turns = time.monotonic(), 0.0, 0
    with subprocess.Popen(_command(service), stdout=subprocess.PIPE, text=True) as ingesting:
        while ingesting.poll() is None:
            sent_at = time.monotonic()
            assert service.ask("Where is OD-20240502?", "meanwhile")["status"] == "success"
            assert service.ask("How do I descale the kettle?", "meanwhile")["status"] == "success"
            slowest_s, turns = max(slowest_s, time.monotonic() - sent_at), turns + 1
        assert ingesting.stdout
        summary = ingesting.stdout.read()
    took_s = time.monotonic() - begun
    print(f"\n{summary}taken in within {took_s:.0f} s; meanwhile {turns} pairs of turns, the slowest {slowest_s:.2f} s")
    assert ingesting.returncode == 0, summary
    assert took_s < INGEST_WITHIN_S
    assert slowest_s < 20


def test_the_same_manuals_again_are_a_no_op(service: Service) -> None:
    summary = _ingest(service)
    assert "33 unchanged" in summary
    assert "added" not in summary


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("How do I recover a sane console when the screen goes berserk?", "reset"),
        ("How do I generate a new key and export all keys with GnuPG?", "gpg --gen-key"),
        ("怎样设置默认文本编辑器?", "update-alternatives"),
        ("怎样用 iconv 转换文本文件的编码?", "iconv -f"),
    ],
)
def test_a_question_about_them_is_answered_with_the_passage(service: Service, question: str, fact: str) -> None:
    answer = service.ask(question, f"manual{abs(hash(question))}")
    assert fact in answer["result"]
    assert any(fact in citation["passage"] for citation in answer["citations"])
    assert len({citation["passage"] for citation in answer["citations"]}) == len(answer["citations"])


def test_they_are_removed_again(service: Service) -> None:
    _ingest(service, "--delete")
    with service.client() as client:
        sources = [each["source"] for each in client.get("/knowledge/documents").json()["documents"]]
    assert not [source for source in sources if source.startswith(str(MANUALS))]

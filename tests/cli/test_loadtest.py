"""`serve-app loadtest` counts each answer, good or bad, under a clear kind; it refuses what it cannot measure."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from listening import free_port
from rude_chat import ENDS, KEY, RAW, WHOLE, rude_chat

from serve_app.cli.load_generator import Measurements
from serve_app.cli.loadtest import DEFAULT_INPUT, PLAIN_PROGRESS_S, Progress
from serve_app.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rude_chat import RudeChat


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, RudeChat]]:
    with rude_chat() as running:
        yield running


@pytest.fixture
def url(running: tuple[str, RudeChat]) -> str:
    running[1].seen.clear()
    return running[0]


@pytest.fixture
def chat(running: tuple[str, RudeChat]) -> RudeChat:
    return running[1]


def loadtest(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["loadtest", *map(str, arguments)])
    return result.exit_code, result.output


def run_words(folder: Path, url: str, words: list[str], *options: object) -> tuple[str, dict[str, Any]]:
    """The output and the JSON of a run that sends each word twice, after a turn that is answered well."""
    inputs, page = folder / "inputs.txt", folder / "report.html"
    inputs.write_text("\n".join(f"later {word}" for word in words), encoding="utf-8")
    rate = 2 * len(words)
    code, output = loadtest(url, "--inputs", inputs, "--rate", rate, "--seconds", 1, "--report", page, *options)
    assert code == 0, output
    return output, json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))


def labels(report: dict[str, Any]) -> dict[str, int]:
    return {error["label"]: error["count"] for error in report["errors"]}


def test_each_bad_answer_is_counted_under_its_kind(url: str, tmp_path: Path) -> None:
    words = [*(set(WHOLE) - {"no-stream"}), *RAW, "good"]
    output, report = run_words(tmp_path, url, words)
    assert labels(report) == {
        "malformed: JSON that cannot be read": 4,
        "malformed: no JSON object in the answer": 2,
        "malformed: an answer without a result or status": 2,
        "malformed: the answer of another conversation": 2,
        "malformed: a body over 8 MB": 2,
        "malformed: no HTTP": 2,
        "HTTP 429 rate_limited": 2,
        "HTTP 503 overloaded (queue_full)": 2,
        "HTTP 500 internal": 2,
        "HTTP 422 invalid_request (invalid)": 2,
        "HTTP 503 model_unavailable (<script>alert(1)</script>)": 2,
        "HTTP 503 no error body of the service": 4,
        "HTTP 302 a redirect": 2,
        "transport: connection closed": 4,
        "transport: answer broke off": 2,
    }
    assert all(label in output for label in labels(report))
    summary = report["summary"]
    assert (summary["sent"], summary["answered"], summary["refused"]) == (2 * len(words), 8, 4)
    assert summary["failed"] == summary["sent"] - 12
    assert (summary["degraded"], summary["waiting"], summary["cached"]) == (2, 2, 2)
    assert report["degraded_without"] == {"tool:order_query": 2}
    [queue_full] = [error for error in report["errors"] if error["reason"] == "queue_full"]
    assert (queue_full["kind"], queue_full["status"], queue_full["code"]) == ("http", 503, "overloaded")


def test_each_bad_stream_is_counted_under_its_kind(url: str, tmp_path: Path) -> None:
    words = [*ENDS, "broken", "endless", "flood", "no-stream", "503", "good", "open", "tokenless", "split"]
    _, report = run_words(tmp_path, url, words, "--stream", "--timeout", "3")
    assert labels(report) == {
        "transport: stream broke": 6,
        "stream event: model_unavailable (no model)": 2,
        "stream event: cancelled": 2,
        "malformed: JSON that cannot be read": 2,
        "malformed: an answer without a result or status": 2,
        "transport: time-out": 2,
        "malformed: a body over 8 MB": 2,
        "malformed: no event stream but application/json": 2,
        "HTTP 503 overloaded (queue_full)": 2,
    }
    summary = report["summary"]
    assert (summary["answered"], summary["without_tokens"], summary["first_token"]["count"]) == (8, 2, 6)
    assert summary["latency"]["max_ms"] < 2500  # `open` has its answer, though its stream never ends
    assert summary["between_tokens"]["max_ms"] > 40


def test_each_turn_has_its_own_conversation_or_shares_some(url: str, chat: RudeChat, tmp_path: Path) -> None:
    for options, conversations in ((), 20), (("--sessions", 3), 3):
        chat.seen.clear()
        assert loadtest(url, "--rate", 40, "--seconds", 0.5, "--report", tmp_path / "r.html", *options)[0] == 0
        probe, *turns = [body for _, body in chat.seen]
        sessions = {body["session_id"] for body in turns}
        assert (len(turns), len(sessions)) == (20, conversations)
        assert probe["session_id"] not in sessions
        assert {body["user_input"] for body in turns} == {DEFAULT_INPUT}


def test_messages_of_a_file_are_sent_in_turn(url: str, chat: RudeChat, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\ufeffone\n\n  两个 \n", encoding="utf-8")
    loadtest(url, "--inputs", tmp_path / "in.txt", "--rate", 8, "--seconds", 0.5, "--report", tmp_path / "r.html")
    assert [body["user_input"] for _, body in chat.seen] == ["one", "one", "两个", "one", "两个"]


def test_the_key_and_the_address_come_from_where_other_commands_take_them(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("--rate", 4, "--seconds", 0.5, "--report", tmp_path / "r.html")
    assert loadtest(url, "--key", KEY, *short)[0] == 0
    assert loadtest("--url", url, *short)[0] == 0
    monkeypatch.setenv("SERVE_APP_URL", url)
    monkeypatch.setenv("SERVE_APP_KEY", "wrong")
    code, output = loadtest(*short)
    assert (code, "401 unauthenticated; pass a valid key with --key or SERVE_APP_KEY" in output) == (1, True), output
    assert loadtest("--key", KEY, *short)[0] == 0


@pytest.mark.parametrize(
    ("word", "saying"),
    [
        ("proxy", "HTTP 503 no error body of the service; is this the service's address?"),
        ("redirect", "HTTP 302 a redirect; is this the service's address?"),
        ("malformed", "JSON that cannot be read; is this the service's address?"),
        ("no-http", "no HTTP; is this the service's address?"),
        ("422", "HTTP 422 invalid_request (invalid); the service does not accept the turn"),
        ("slow 30", "time-out; the service took too long; see --timeout"),
    ],
)
def test_what_is_not_the_service_is_not_measured(
    url: str, chat: RudeChat, tmp_path: Path, word: str, saying: str
) -> None:
    timeout_s = 0.5 if word.startswith("slow") else 20
    code, output = loadtest(url, "--input", word, "--timeout", timeout_s, "--report", tmp_path / "r.html")
    assert (code, saying in output) == (1, True), output
    assert len(chat.seen) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_does_not_run_is_not_measured(tmp_path: Path) -> None:
    for address in (f"http://127.0.0.1:{free_port()}", f"http://localhost:{free_port()}"):
        code, output = loadtest(address, "--report", tmp_path / "r.html")
        assert (code, "connection refused; no service answers; start one with" in output) == (1, True), output


def test_a_service_that_is_full_is_measured(url: str, tmp_path: Path) -> None:
    short = ("--rate", 8, "--seconds", 0.5, "--report", tmp_path / "r.html")
    code, output = loadtest(url, "--input", "503", *short)
    assert "HTTP 503 overloaded (queue_full). The load test begins nevertheless." in output
    assert output.splitlines()[-1] == "Error: no turn was answered"
    assert code == 1
    assert json.loads((tmp_path / "r.json").read_text())["summary"]["refused"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "saying"),
    [
        (["--rate", "1000", "--seconds", "101"], 2, "are 101,000 turns; at most 100,000 are allowed"),
        (["--rate", "inf"], 2, "at most 100,000 are allowed"),
        (["--rate", "nan"], 2, "at most 100,000 are allowed"),
        (["--rate", "0"], 2, "0.0 is not in the range x>0"),
        (["--seconds", "3601"], 2, "3601.0 is not in the range"),
        (["--max-in-flight", "0"], 2, "0 is not in the range"),
        (["--input", "a", "--inputs", __file__], 2, "give one of --input and --inputs"),
        (["--input", ""], 1, "--input: a message has 1 to 32,000 characters"),
        (["--input", "x" * 32_001], 1, "--input: a message has 1 to 32,000 characters"),
        (["--url", "http://localhost"], 2, "give the address once"),
        (["--report", "no/such/folder/r.html"], 1, "the report cannot be written (No such file or directory)"),
        (["--report", "r.json"], 1, "r.json: --report names the page, such as loadtest.html"),
    ],
    ids=lambda value: None if isinstance(value, int) else str(value)[:30],
)
def test_what_cannot_be_run_is_refused_before_a_turn_is_sent(
    url: str, chat: RudeChat, arguments: list[str], code: int, saying: str
) -> None:
    ended, output = loadtest(url, *arguments)
    assert ended == code
    assert saying in output
    assert chat.seen == []


def test_what_is_no_address_is_refused() -> None:
    for address, saying in (
        ("http://[bad", "Invalid IPv6 URL"),
        ("http://", "a URL names a host"),
        ("http://host:99999", "Port out of range"),
        ("ftp://host", "a URL begins with http:// or https://"),
        ("http://me:secret@host", "a password in the URL and an API key cannot be sent together"),
    ):
        code, output = loadtest(address, "--key", KEY)
        assert (code, saying in output) == (2, True), output


def test_a_file_of_messages_that_has_none_or_a_bad_one_is_refused(url: str, chat: RudeChat, tmp_path: Path) -> None:
    for content, saying in (
        (b"\n \n", "has no message: write one a line"),
        (b"good\n" + b"x" * 32_001, "line 2: a message has 1 to 32,000 characters"),
        (b"\xff\xfe\x00", "cannot be read as UTF-8 text"),
    ):
        (tmp_path / "in.txt").write_bytes(content)
        code, output = loadtest(url, "--inputs", tmp_path / "in.txt", "--report", tmp_path / "r.html")
        assert (code, saying in output) == (1, True), output
    assert chat.seen == []


def test_the_progress_is_one_line_on_a_terminal_and_a_line_from_time_to_time_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measurements = Measurements(sent=1200, in_flight=7, elapsed_s=12.0)
    expected = "  12 s  sent 1,200  in flight 7  answered 0  errors 0"
    monkeypatch.setenv("COLUMNS", "61")
    for is_terminal, written in (True, f"\r{expected:<60}" * PLAIN_PROGRESS_S + "\n"), (False, f"{expected}\n"):
        progress = Progress(is_terminal=is_terminal)
        for _ in range(PLAIN_PROGRESS_S):
            progress.show(measurements)
        progress.end()
        assert capsys.readouterr().out == written


def test_the_command_imports_neither_langchain_nor_ray() -> None:
    code = "import sys, serve_app.cli.loadtest; print({'langchain', 'langchain_core', 'ray'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "set()"

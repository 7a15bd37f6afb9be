"""`serve-app logs` and `serve-app feedback` show what an operator looks for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import httpx
import pytest
import redis
from cli_service import served
from click.testing import CliRunner

from serve_app.cli.main import main
from serve_app.stores.redis_keys import RunKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = "request-1"
IDS = {"session_id": "s1", "request_id": "q1", "application": "serve_app"}
LINES = (
    {"ts": "2026-11-24T15:00:00.100+00:00", "level": "DEBUG", "event": "turn_received", "deployment": "Ingress"},
    {
        "ts": "2026-11-24T15:00:00.150+00:00",
        "level": "DEBUG",
        "event": "tool_called",
        "deployment": "Agent",
        "tool": "pay",
        "arguments": {"pin": "[sensitive]"},
    },
    {
        "ts": "2026-11-24T15:00:01.000+00:00",
        "level": "WARNING",
        "event": "run_ended\x1b[2J",
        "deployment": "Agent",
        "exception": "Traceback\nKeyError",
    },
)


@pytest.fixture(scope="module")
def url(api_redis_url: str) -> Iterator[str]:
    with served(api_redis_url) as url:
        yield url


@pytest.fixture(scope="module")
def run_id(url: str, api_redis_url: str) -> str:
    """A run, with lines in its log."""
    chat = {"user_input": "hello\nthere", "session_id": "s1"}
    headers = {"X-Request-Id": REQUEST}
    turn = httpx.post(f"{url}/agent/chat", json={**chat, "stream": True}, headers=headers, timeout=10)
    run_id = turn.text.split('"run_id":"')[1][:32]
    replicas = {"Ingress": "a", "Agent": "bcd"}
    lines = [json.dumps({**each, "replica": replicas[each["deployment"]], **IDS}) for each in LINES]
    with redis.Redis.from_url(api_redis_url) as client:
        client.xadd(RunKeys("default", run_id).lines, {"line": "\n".join(lines)})
    return run_id


def run_command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


def test_the_lines_of_a_run_stand_in_columns_and_what_is_the_same_in_all_once(url: str, run_id: str) -> None:
    code, output = run_command("logs", "--run", run_id, "--url", url)
    head, first, second, third, *trace = output.splitlines()
    assert (code, head) == (0, "session_id=s1 request_id=q1")
    assert first[12:] == "  Ingress a  turn_received"
    assert second[12:] == '  Agent bcd  tool_called    tool=pay arguments={"pin": "[sensitive]"}'
    assert third[12:] == "  Agent bcd  run_ended[2J"  # a terminal would have obeyed the escape
    assert trace == ["    Traceback", "    KeyError"]


def test_a_run_that_nobody_knows_is_one_line_and_status_one(url: str) -> None:
    code, output = run_command("logs", "--run", "none", "--url", url)
    assert (code, output.count("\n")) == (1, 1)
    assert "There is no run none" in output


def run_until_found(*arguments: str) -> str:
    """The output, as soon as what is asked for was written."""
    give_up = time.monotonic() + 5
    while (found := run_command(*arguments))[0] != 0 and time.monotonic() < give_up:
        time.sleep(0.05)
    assert found[0] == 0, found[1]
    return found[1]


def test_a_request_leads_to_its_run_or_to_its_refusal(url: str, run_id: str) -> None:
    assert run_id != REQUEST
    output = run_until_found("logs", "--request", REQUEST, "--url", url)
    head, *log = output.splitlines()
    assert head == f"Run {run_id}"
    assert log == run_command("logs", "--run", run_id, "--url", url)[1].splitlines()
    wrong = httpx.post(
        f"{url}/agent/chat", json={"session_id": "s1"}, headers={"X-Request-Id": "refused-1"}, timeout=10
    )
    assert wrong.status_code == 422
    none, ids, line = run_until_found("logs", "--request", "refused-1", "--url", url).splitlines()
    assert (none, ids) == ("The request has no run.", "request_id=refused-1")
    assert line[12:].startswith("  Ingress  turn_refused  reason=invalid code=invalid_request text=")
    code, output = run_command("logs", "--request", "nothing", "--url", url)
    assert (code, output.count("\n")) == (1, 1)
    assert "Nothing is logged of this request" in output


def test_one_of_run_and_request_is_asked_for() -> None:
    for arguments in ((), ("--run", "r", "--request", "q")):
        code, output = run_command("logs", *arguments)
        assert (code, "Give one of --run and --request." in output) == (2, True), arguments


def test_feedback_is_listed_with_question_and_answer(url: str, run_id: str) -> None:
    assert run_command("feedback", "--url", url) == (0, "There is no feedback yet.\n")
    vote = {"run_id": run_id, "rating": "down", "comment": "no\x1b[2J"}
    assert httpx.post(f"{url}/agent/feedback", json=vote, timeout=10).status_code == 200
    code, output = run_command("feedback", "--url", url, "--rating", "down")
    head, *rest = output.splitlines()
    assert code == 0
    assert head.endswith(f"  down  run {run_id}, session s1, success")
    assert rest == [
        "  question  hello",
        "            there",
        "  answer    hello",
        "            there",
        "  comment   no[2J",
        "",
        "1 of 1 ratings: 0 up, 1 down, 0% satisfied.",
    ]
    assert "question" not in run_command("feedback", "--url", url, "--rating", "up")[1]

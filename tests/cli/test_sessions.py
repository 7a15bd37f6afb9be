"""`serve-app sessions` shows which conversations take up most, and of how many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cli_service import served
from click.testing import CliRunner
from http_fakes import ScriptedAgent

from serve_app.cli.main import main
from serve_app.errors import StoreUnavailable
from serve_app.values import SessionSize, SessionSizes

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = SessionSize(session_id="s1", turns=1, bytes=900, repairs=0, expires_in_s=59.6)
LARGE = SessionSize(session_id="support-4711", turns=1200, bytes=1_843_200, repairs=3, expires_in_s=604_700)


@pytest.fixture(scope="module")
def agent() -> ScriptedAgent:
    return ScriptedAgent()


@pytest.fixture(scope="module")
def url(agent: ScriptedAgent, api_redis_url: str) -> Iterator[str]:
    with served(api_redis_url, agent) as url:
        yield url


def run_command(url: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["sessions", "--url", url, *options])
    return result.exit_code, result.output


def sizes(*sessions: SessionSize, counted: int, complete: bool = True) -> SessionSizes:
    return SessionSizes(sessions=list(sessions), counted=counted, complete=complete)


def test_names_stand_to_the_left_and_figures_to_the_right(url: str, agent: ScriptedAgent) -> None:
    agent.listed = sizes(LARGE, SMALL, counted=2)
    assert run_command(url) == (
        0,
        (
            "session       turns    size  per turn  repairs  expires in\n"
            "support-4711  1,200  1.8 MB    1.5 KB        3    6 d 23 h\n"
            "s1                1   900 B     900 B        0        59 s\n"
            "All 2 conversations.\n"
        ),
    )


@pytest.mark.parametrize(
    ("given", "last"),
    [
        (sizes(SMALL, counted=1), "All 1 conversation."),
        (sizes(LARGE, SMALL, counted=12_345), "The largest 2 of 12,345 conversations."),
        (
            sizes(LARGE, counted=10_000, complete=False),
            "1 of the 10,000 conversations that were examined. There are more.",
        ),
        (sizes(counted=0), "There are no conversations."),
    ],
)
def test_the_last_line_says_how_many_were_counted(
    url: str, agent: ScriptedAgent, given: SessionSizes, last: str
) -> None:
    agent.listed = given
    code, output = run_command(url)
    assert (code, output.splitlines()[-1]) == (0, last)


@pytest.mark.parametrize(
    ("changed", "cell"),
    [
        ({"bytes": 0, "turns": 0}, " 0 B "),
        ({"bytes": 1023}, " 1023 B "),
        ({"bytes": 1024}, " 1.0 KB "),
        ({"bytes": 5 * 1024**3}, " 5.0 GB "),
        ({"expires_in_s": 0}, " 0 s"),
        ({"expires_in_s": 60}, " 1 min 0 s"),
        ({"expires_in_s": 3599.9}, " 59 min 59 s"),
        ({"expires_in_s": 3600}, " 1 h 0 min"),
        ({"expires_in_s": 90_000}, " 1 d 1 h"),
    ],
    ids=str,
)
def test_sizes_and_times_are_told_in_their_units(
    url: str, agent: ScriptedAgent, changed: dict[str, Any], cell: str
) -> None:
    agent.listed = sizes(SMALL.model_copy(update=changed), counted=1)
    assert cell in run_command(url)[1].replace("\n", " \n")


def test_what_a_terminal_would_obey_is_not_passed_on(url: str, agent: ScriptedAgent) -> None:
    agent.listed = sizes(SMALL.model_copy(update={"session_id": "a\x1b[31m\x9bb"}), counted=1)
    assert "a[31mb " in run_command(url)[1]


def test_as_many_as_asked_for_are_listed(url: str, agent: ScriptedAgent) -> None:
    agent.listed = None
    agent.exchanges = {f"s{number}": [] for number in range(30)}
    assert len(run_command(url)[1].splitlines()) == 22
    assert len(run_command(url, "--limit", "3")[1].splitlines()) == 5
    assert run_command(url, "--limit", "0")[0] == 2
    assert run_command(url, "--limit", "101")[0] == 2


def test_a_service_that_cannot_tell_is_one_line(
    url: str, agent: ScriptedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "failing", StoreUnavailable("Redis did not answer"))
    code, output = run_command(url)
    assert (code, output.count("\n")) == (1, 1)
    assert output.startswith("Error: Redis did not answer (store_unavailable, request ")

"""A conversation in a terminal, and Ctrl-C in all its states."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripted_chat import ScriptedChatAgent

SERVE_APP = str(Path(sys.executable).with_name("serve-app"))


class Terminal:
    """`serve-app chat` as somebody at a keyboard has it."""

    def __init__(self, url: str) -> None:
        self._keyboard, end = pty.openpty()
        command = [SERVE_APP, "chat", "--url", url, "--session", "t"]
        environment = {**os.environ, "TERM": "dumb", "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            command, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True
        )
        os.close(end)
        self.seen = ""
        self._read_to = 0

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Until `text` stands behind what was waited for before."""
        give_up = time.monotonic() + seconds
        while text not in self.seen[self._read_to :]:
            ready, _, _ = select.select([self._keyboard], [], [], max(0, give_up - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self._keyboard, 65536).decode(errors="replace")
        self._read_to = self.seen.index(text, self._read_to) + len(text)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keyboard)


@pytest.fixture
def terminal(url: str) -> Iterator[Terminal]:
    with closing(Terminal(url)) as terminal:
        terminal.wait_for("> ")
        yield terminal


def test_words_are_shown_as_they_come(terminal: Terminal) -> None:
    assert "Session t at " in terminal.seen
    terminal.type("slow\n")
    terminal.wait_for("one ")
    assert "two" not in terminal.seen
    terminal.wait_for("two")
    terminal.wait_for("> ")
    terminal.type("/quit\n")
    assert terminal.process.wait(20) == 0


def _statuses(agent: ScriptedChatAgent) -> list[str]:
    """How the runs have ended; a run that is cancelled learns it a moment later."""
    _wait_until(lambda: all(run.over for run in agent.logs.values()))
    return [log.events[-1].name for log in agent.logs.values() if log.events]


def test_ctrl_c_cancels_an_answer_and_the_prompt_comes_back(terminal: Terminal, agent: ScriptedChatAgent) -> None:
    agent.logs.clear()
    terminal.type("endless\n")
    terminal.wait_for("I begin ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("[cancelled]")
    terminal.wait_for("> ")
    assert _statuses(agent) == ["cancelled"]
    terminal.type("still there?\n")
    terminal.wait_for("You said: still there?")
    terminal.wait_for("> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen


def test_ctrl_c_cancels_an_answer_of_which_nothing_came_yet(terminal: Terminal, agent: ScriptedChatAgent) -> None:
    agent.logs.clear()
    agent.received.clear()
    terminal.type("silent\n")
    _wait_until(lambda: bool(agent.received))
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("[cancelled]")
    terminal.wait_for("> ")
    assert _statuses(agent) == ["cancelled"]
    assert len(agent.received) == 1


def test_ctrl_c_cancels_an_answer_to_a_line_that_was_piped_in_and_ends(url: str, agent: ScriptedChatAgent) -> None:
    agent.logs.clear()
    agent.received.clear()
    command = [SERVE_APP, "chat", "--url", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        process.stdin.write("endless\nnever asked\n")
        process.stdin.close()
        _wait_until(lambda: bool(agent.received))
        assert process.stdout.read(8) == "I begin "
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "\n[cancelled]\n"
        assert process.wait(20) == 1
    assert _statuses(agent) == ["cancelled"]
    assert len(agent.received) == 1


def _wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_ctrl_c_at_the_prompt_ends_the_conversation(terminal: Terminal) -> None:
    time.sleep(0.5)  # readline misses a signal between its prompt and its first wait for a key
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen

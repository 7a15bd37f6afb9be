"""Does a conversation in a terminal show what the service says, as it says it?"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from click import unstyle
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from serve_app.cli.frames import Frame, frames
from serve_app.cli.main import main
from serve_app.cli.transcript import Transcript
from serve_app.config import HttpSettings
from serve_app.errors import Overloaded
from serve_app.http.api import create_api
from serve_app.values import (
    Answer,
    ChatRequest,
    Citation,
    Context,
    Event,
    Failed,
    Failure,
    RunStarted,
    Token,
    ToolCall,
    ToolRequest,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERVE_APP = str(Path(sys.executable).with_name("serve-app"))
RUN = RunStarted(run_id="r1")
ARGUMENTS = {"order_id": "OD-20240502"}
CALL = ToolRequest(id="1", name="order_query", arguments=ARGUMENTS)
RESULT = ToolCall(name="order_query", arguments=ARGUMENTS, status="ok", attempts=1, elapsed_ms=3.2)


def answer(result: str, **fields: Any) -> Answer:
    return Answer(**{"result": result, "session_id": "s", "run_id": "r1", "model": "offline", **fields})


def cited(*sources: str) -> list[Citation]:
    return [Citation(source=source, title="Returns", passage="…", score=0.9) for source in sources]


SCRIPTS: dict[str, list[Any]] = {
    "where is it?": [
        RUN,
        CALL,
        RESULT,
        Token(text="It has "),
        Token(text="shipped."),
        answer("It has shipped.", citations=cited("guide.md", "guide.md", "faq.md")),
    ],
    "slow": [RUN, Token(text="one "), 0.6, Token(text="two"), answer("one two")],
    "endless": [RUN, Token(text="I begin "), 30.0, answer("")],
    "overloaded": [Overloaded("Too many turns wait", retry_after_s=1)],
    "fails late": [
        RUN,
        Token(text="It is"),
        Failed(error=Failure(code="deadline_exceeded", message="Time ran out", retryable=True, request_id="q1")),
    ],
}


class Scripted:
    """An agent that plays `SCRIPTS`: values become events, errors are raised, numbers are pauses in seconds."""

    def __init__(self) -> None:
        self.told: list[ChatRequest] = []

    async def turn(self, context: Context, request: ChatRequest) -> AsyncIterator[Event]:
        self.told.append(request)
        said = [RUN, Token(text=f"You said: {request.user_input}"), answer("…")]
        for number, step in enumerate(SCRIPTS.get(request.user_input, said), 1):
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield Event(id=number, data=step)


@pytest.fixture(scope="module")
def agent() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
def url(agent: Scripted) -> Iterator[str]:
    """The real HTTP API over that agent."""
    api = create_api(agent, agent, agent, HttpSettings(), turn_timeout_s=60)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join(10)


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server of one connection, which gets `body` and the end."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(body)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass  # a close with unread bytes would be a reset

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def piped(url: str, *lines: str, session: str = "s1") -> tuple[int, str]:
    result = CliRunner().invoke(main, ["chat", "--url", url, "--session", session], input="\n".join(lines) + "\n")
    return result.exit_code, result.output


def shown(*steps: Any) -> str:
    """What a terminal shows of these events."""
    written: list[str] = []
    transcript = Transcript(written.append)
    for step in steps:
        transcript.show(Frame(step.event, step.model_dump_json()))
    return unstyle("".join(written))


def test_an_answer_shows_its_tools_its_text_and_each_source_once(url: str) -> None:
    assert piped(url, "where is it?") == (
        0,
        (
            "⚙ order_query(order_id=OD-20240502) … ok 3 ms\n"
            "It has shipped.\n"
            "  source: guide.md, Returns\n"
            "  source: faq.md, Returns\n"
        ),
    )


def test_piped_lines_are_answered_in_order_in_one_session(url: str, agent: Scripted) -> None:
    agent.told.clear()
    assert piped(url, "你好", "", "  again  ", session="abc") == (0, "You said: 你好\nYou said: again\n")
    assert [(each.user_input, each.session_id, each.stream) for each in agent.told] == [
        ("你好", "abc", True),
        ("again", "abc", True),
    ]


def test_without_a_session_a_new_one_begins(url: str, agent: Scripted) -> None:
    agent.told.clear()
    for _ in range(2):
        assert CliRunner().invoke(main, ["chat", "--url", url], input="hi\n").exit_code == 0
    first, second = (each.session_id for each in agent.told)
    assert first != second
    assert re.fullmatch(r"chat-[0-9a-f]{8}", first)


def test_quit_ends_the_conversation(url: str) -> None:
    assert piped(url, "one", "/quit", "two") == (0, "You said: one\n")


def test_a_refusal_is_one_line_and_the_conversation_goes_on(url: str) -> None:
    code, output = piped(url, "overloaded", "still there?")
    assert code == 1
    assert re.fullmatch(
        r"error: Too many turns wait \(overloaded, request \S+\)\nYou said: still there\?\n",
        output,
    )


def test_a_hostile_session_is_refused_by_the_service_in_one_line(url: str) -> None:
    code, output = piped(url, "hi", session="no spaces")
    assert code == 1
    assert output.startswith("error: ")
    assert "session_id" in output
    assert output.count("\n") == 1


def test_a_failure_after_the_first_words_stands_on_a_line_of_its_own(url: str) -> None:
    assert piped(url, "fails late") == (1, "It is\nerror: Time ran out (deadline_exceeded, request q1)\n")


def test_no_service_is_one_line_that_says_how_to_start_one() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        code, output = piped(f"http://127.0.0.1:{unused.getsockname()[1]}", "hi", "ho")
    assert code == 1
    assert output.count("no service answers; start one with 'serve run serve_config.yaml'") == 2
    assert output.count("\n") == 2


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (HEAD + b'event: token\ndata: {"text": "Hal"}\n\n', "Hal\nerror: the stream ended before the answer did\n"),
        (HEAD + b'event: token\ndata: {"te', "error: the stream ended before the answer did\n"),
        (HEAD + b"event: token\ndata: {]\n\n", "error: what .* is not understood \\(ValidationError\\)\n"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "error: .* answers 502 Bad Gateway; .*\n"),
        (b"", "error: .* the connection broke \\(RemoteProtocolError\\)\n"),
    ],
    ids=["cut between frames", "cut within a frame", "not JSON", "a proxy's refusal", "no answer"],
)
def test_a_broken_answer_is_one_line(body: bytes, line: str) -> None:
    with answering(body) as url:
        code, output = piped(url, "hi")
    assert code == 1
    assert re.fullmatch(line, output), output


def test_calls_of_one_step_each_get_their_outcome() -> None:
    other = ToolRequest(id="2", name="weather", arguments={"city": "Köln", "days": 3})
    late = ToolCall(name="weather", arguments=other.arguments, status="timeout", attempts=2, elapsed_ms=4000)
    assert shown(CALL, other, RESULT, late) == (
        "⚙ order_query(order_id=OD-20240502) …\n"
        "⚙ weather(city=Köln, days=3) …\n"
        "⚙ order_query(order_id=OD-20240502) … ok 3 ms\n"
        "⚙ weather(city=Köln, days=3) … timeout 4000 ms, 2 attempts\n"
    )


def test_text_before_and_after_a_call_stands_on_lines_of_its_own() -> None:
    assert shown(Token(text="Let me look."), CALL, Token(text="Well")) == (
        "Let me look.\n⚙ order_query(order_id=OD-20240502) …\nWell"
    )


def test_an_answer_that_starts_again_says_so() -> None:
    again = Token(text="New text", restart=True)
    assert shown(Token(text="Old te"), again, answer("New text")) == (
        "Old te\n[the answer starts again; what stands above no longer counts]\nNew text\n"
    )
    assert shown(again, answer("New text")) == "New text\n", "nothing stands above"


def test_an_answer_without_tokens_is_shown_whole() -> None:
    assert shown(RUN, answer("From the cache")) == "From the cache\n"
    assert shown(Token(text="lost"), Token(text="", restart=True), answer("All of it")).endswith("\nAll of it\n")


def test_a_degraded_answer_names_what_was_missing() -> None:
    degraded = answer("As far as I know", status="degraded", degraded=["retriever", "tool:weather"])
    assert shown(degraded) == "As far as I know\ndegraded: answered without retriever, tool:weather\n"


def test_what_a_terminal_would_obey_is_not_passed_on() -> None:
    hostile = "\x1b]0;owned\x07\x9b31mred\r\n\ttab"
    assert shown(Token(text=hostile)) == "]0;owned31mred\n\ttab"
    assert "\x1b" not in shown(ToolRequest(id="1", name="a", arguments={"b": hostile}))


def test_a_long_argument_is_cut() -> None:
    (line,) = shown(ToolRequest(id="1", name="note", arguments={"text": "word " * 100})).splitlines()
    assert len(line) < 90
    assert line.endswith("…) …")


def test_events_and_fields_of_a_newer_service_are_passed_over() -> None:
    written: list[str] = []
    transcript = Transcript(written.append)
    transcript.show(Frame("thought", "{}"))
    transcript.show(Frame("token", '{"text": "Hi", "mood": "good"}'))
    newer = {**answer("Hi").model_dump(), "cached": True, "config_version": "7"}
    transcript.show(Frame("answer", json.dumps(newer)))
    assert "".join(written) == "Hi\n"
    assert isinstance(transcript.result, Answer)


FRAMES = st.lists(
    st.builds(
        Frame,
        event=st.sampled_from(["token", "answer", "error"]),
        data=st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])),
        id=st.integers(0, 99).map(str),
    )
)


@given(sent=FRAMES, cuts=st.lists(st.integers(1, 40)), end=st.sampled_from(["\n", "\r\n"]), comment=st.booleans())
def test_frames_survive_any_cut_and_any_text(sent: list[Frame], cuts: list[int], end: str, *, comment: bool) -> None:
    between = f": keep-alive{end}{end}" if comment else ""
    wire = "".join(f"id: {f.id}{end}event: {f.event}{end}data: {f.data}{end}{end}{between}" for f in sent).encode()
    chunks, start = [], 0
    for cut in cuts:
        chunks.append(wire[start : start + cut])
        start += cut
    assert list(frames([*chunks, wire[start:]])) == sent


def test_lines_of_data_are_joined_and_an_event_without_a_name_is_a_message() -> None:
    assert list(frames([b"data: a\ndata:b\n\n", b"retry: 3\n\n", b"data\n\n"])) == [
        Frame("message", "a\nb"),
        Frame("message", ""),
    ]


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
        self._told = 0

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Until `text` stands behind what was waited for before."""
        give_up = time.monotonic() + seconds
        while text not in self.seen[self._told :]:
            ready, _, _ = select.select([self._keyboard], [], [], max(0, give_up - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self._keyboard, 65536).decode(errors="replace")
        self._told = self.seen.index(text, self._told) + len(text)

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


def test_ctrl_c_stops_showing_an_answer_and_the_prompt_comes_back(terminal: Terminal) -> None:
    terminal.type("endless\n")
    terminal.wait_for("I begin ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("[not shown further; the service finishes the answer]")
    terminal.wait_for("> ")
    terminal.type("still there?\n")
    terminal.wait_for("You said: still there?")
    terminal.wait_for("> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen


def test_ctrl_c_at_the_prompt_ends_the_conversation(terminal: Terminal) -> None:
    time.sleep(0.5)  # readline misses a signal between its prompt and its first wait for a key
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(20) == 0
    assert "Traceback" not in terminal.seen

"""A conversation through a pipe, whatever happens to the connection."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import closing, contextmanager, suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING

import httpx
import pytest
from click import ClickException
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from serve_app.cli import chat
from serve_app.cli.chat import TurnStream, read_events
from serve_app.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
from scripted_chat import ScriptedChatAgent, answer


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RESUME_WAITS_S", (0.02,))


@pytest.fixture
def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RESUME_TIMEOUT_S", 0.3)


@contextmanager
def answering(*bodies: bytes) -> Iterator[str]:
    """A server that gives each connection one of `bodies`, in turn and then the last one again, and the end."""

    def serve() -> None:
        for body in chain(bodies, repeat(bodies[-1])):
            connection, _ = listening.accept()
            with connection:
                if not connection.recv(65536):
                    return
                connection.sendall(body)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass  # a close with unread bytes would be a reset

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            socket.create_connection(listening.getsockname()).close()
            thread.join(10)


class Cutting:
    """A way to the service at `url` that breaks: each connection after as many frames as the next of `cuts` says."""

    def __init__(self, url: str, *cuts: int) -> None:
        self._port = int(url.rpartition(":")[2])
        self._cuts = list(cuts)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                cut = self._cuts.pop(0) if self._cuts else None
                threading.Thread(target=self._pass, args=[client, cut], daemon=True).start()

    def _pass(self, client: socket.socket, cut: int | None) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as service:
            threading.Thread(target=_pump, args=[client, service], daemon=True).start()
            sent, response = 0, b""
            while data := service.recv(65536):
                response += data
                ends = [0, *(found.end() for found in re.finditer(b"\n\n", response))]
                if cut is not None and len(ends) > cut:
                    client.sendall(response[sent : ends[cut]])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
                sent = len(response)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def piped(url: str, *lines: str, session: str = "s1") -> tuple[int, str]:
    result = CliRunner().invoke(main, ["chat", "--url", url, "--session", session], input="\n".join(lines) + "\n")
    return result.exit_code, result.output


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


def test_piped_lines_are_answered_in_order_in_one_session(url: str, agent: ScriptedChatAgent) -> None:
    agent.received.clear()
    assert piped(url, "你好", "", "  again  ", session="abc") == (0, "You said: 你好\nYou said: again\n")
    assert [(each.user_input, each.session_id, each.stream) for _, each in agent.received] == [
        ("你好", "abc", True),
        ("again", "abc", True),
    ]


def test_without_a_session_a_new_one_begins(url: str, agent: ScriptedChatAgent) -> None:
    agent.received.clear()
    for _ in range(2):
        assert CliRunner().invoke(main, ["chat", "--url", url], input="hi\n").exit_code == 0
    first, second = (each.session_id for _, each in agent.received)
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


def test_a_cancelled_answer_says_that_there_is_none(url: str) -> None:
    assert piped(url, "cancelled") == (1, "It is\n[cancelled: there is no answer]\n")


FRAMES_OF_AN_ANSWER = 6


@pytest.mark.parametrize("cuts", [*([cut] for cut in range(FRAMES_OF_AN_ANSWER)), [0, 0, 0], [1] * 5, [0, 2, 0, 0, 1]])
def test_an_answer_whose_connection_breaks_is_shown_as_if_it_had_not(
    url: str, agent: ScriptedChatAgent, cuts: list[int]
) -> None:
    agent.received.clear()
    with closing(Cutting(url, *cuts)) as cutting:
        assert piped(cutting.url, "where is it?") == piped(url, "where is it?")
        assert cutting.connections == len(cuts) + 1
    assert len(agent.received) == 2


def test_an_answer_goes_on_when_its_stream_fails_and_its_run_does_not(url: str) -> None:
    assert piped(url, "replica dies") == (0, "It has shipped.\n")


def test_each_message_has_a_key_of_its_own(url: str, agent: ScriptedChatAgent) -> None:
    before = len(agent.received)
    piped(url, "same", "same")
    assert len(agent.received) == before + 2


def test_no_service_is_at_once_one_line_that_says_how_to_start_one() -> None:
    started = time.monotonic()
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        code, output = piped(f"http://127.0.0.1:{unused.getsockname()[1]}", "hi", "ho")
    assert code == 1
    assert time.monotonic() - started < 10
    assert output.count("no service answers; start one with 'serve run serve_config.yaml'") == 2
    assert output.count("\n") == 2


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
RUN_FRAME = b'id: 1\nevent: run\ndata: {"run_id": "r1"}\n\n'


@pytest.mark.usefixtures("gives_up_soon")
@pytest.mark.parametrize(
    ("body", "line"),
    [
        (HEAD + b'event: token\ndata: {"text": "Hal"}\n\n', "Hal\nerror: the stream ended before the answer did\n"),
        (HEAD + b'event: token\ndata: {"te', "error: the stream ended before the answer did\n"),
        (HEAD + RUN_FRAME, "error: the stream ended before the answer did\n"),
        (HEAD + b"event: token\ndata: {]\n\n", "error: .* sent an answer that cannot be read \\(ValidationError\\)\n"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "error: .* answers 502 Bad Gateway; .*\n"),
        (b"", "error: .* the connection broke \\(RemoteProtocolError\\)\n"),
    ],
    ids=["cut between frames", "cut within a frame", "never resumed", "not JSON", "a proxy's refusal", "no answer"],
)
def test_a_broken_answer_is_one_line(body: bytes, line: str) -> None:
    with answering(body) as url:
        code, output = piped(url, "hi")
    assert code == 1
    assert re.fullmatch(line, output), output


ANSWER_FRAME = f"id: 2\nevent: answer\ndata: {answer('Hello').model_dump_json()}\n\n".encode()
SHED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}"


@pytest.mark.parametrize(
    "bodies",
    [
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", HEAD + RUN_FRAME + ANSWER_FRAME),
        (HEAD + RUN_FRAME, SHED, HEAD + ANSWER_FRAME),
        (b"", SHED, HEAD + RUN_FRAME + ANSWER_FRAME),
    ],
    ids=["a proxy whose process died", "a service that is not ready yet", "likewise, before the first frame"],
)
def test_a_service_that_comes_back_is_waited_for(bodies: tuple[bytes, ...]) -> None:
    with answering(*bodies) as url:
        assert piped(url, "hi") == (0, "Hello\n")


def test_a_run_that_is_over_without_its_last_frame_is_one_line() -> None:
    with answering(HEAD + RUN_FRAME, b"HTTP/1.1 204 No Content\r\n\r\n") as url:
        assert piped(url, "hi") == (1, "error: the run is over, and its answer did not come\n")


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["token", "answer", "error"]),
        st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1),
        st.integers(0, 99).map(str),
    )
)


def parsed(*chunks: bytes) -> list[tuple[str, str, str]]:
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(chunks))
    return [(each.event, each.data, each.id) for each in read_events(response)]


@given(sent=EVENTS, cuts=st.lists(st.integers(1, 40)), end=st.sampled_from(["\n", "\r\n"]), comment=st.booleans())
def test_events_survive_any_cut_and_any_text(
    sent: list[tuple[str, str, str]], cuts: list[int], end: str, *, comment: bool
) -> None:
    between = f": keep-alive{end}{end}" if comment else ""
    wire = "".join(f"id: {id_}{end}event: {event}{end}data: {data}{end}{end}{between}" for event, data, id_ in sent)
    chunks, rest = [], wire.encode()
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    assert parsed(*chunks, rest) == sent


def test_what_is_no_complete_event_is_passed_over() -> None:
    huge = "x" * 5_000_000
    for chunks, expected in [
        ([b"data: a\ndata:b\n\n", b"retry: 3\n\n", b"data\n\n"], [("message", "a\nb", "")]),
        ([b"data: whole\n\nevent: token\ndata: cut"], [("message", "whole", "")]),
        ([b"data: whole\n\ndata: cut\n"], [("message", "whole", "")]),
        ([b"data: caf\xc3", b"\xa9 \xff!\n\n"], [("message", "caf\xe9 \ufffd!", "")]),
        (["data: one\u2028line\x0b\x85\n\n".encode()], [("message", "one\u2028line\x0b\x85", "")]),
        ([b"data: ", *[b"x" * 50_000] * 100, b"\n\n"], [("message", huge, "")]),
    ]:
        assert parsed(*chunks) == expected, chunks[0]


@pytest.mark.usefixtures("gives_up_soon")
def test_an_answer_that_is_no_stream_is_one_line() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi") as url:
        code, output = piped(url, "hi")
    assert (code, output.count("\n")) == (1, 1)
    assert output.endswith("the answer is not a stream of events\n")


def test_a_run_that_cannot_be_cancelled_says_so() -> None:
    with answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as url:
        turn = TurnStream(url, {}, lambda frame: None)
        with pytest.raises(ClickException, match="502 Bad Gateway"):
            turn.cancel()

"""A mail server for tests."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage


@dataclass(frozen=True, slots=True)
class Sink:
    """A mail server on loopback that keeps the mails."""

    address: str
    mails: list[EmailMessage] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)

    def about(self, *words: str) -> list[str]:
        """Subject and text of the mails that have all the words."""
        whole = [f"{mail['Subject']}\n{mail.get_body(('plain',)).get_content()}" for mail in list(self.mails)]
        return [each for each in whole if all(word in each for word in words)]


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._say("220 sink")
        for raw in self.rfile:
            line = raw.decode().strip()
            verb = line[:4].upper()
            if verb == "DATA":
                self._say("354 go on")
                self._take()
            elif verb == "RCPT":
                self.server.sink.receivers.append(line.partition(":")[2].strip(" <>"))
            self._say("221 bye" if verb == "QUIT" else "250 ok")
            if verb == "QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _take(self) -> None:
        lines = []
        for raw in self.rfile:
            if raw == b".\r\n":
                break
            lines.append(raw.removeprefix(b".") if raw.startswith(b"..") else raw)
        self.server.sink.mails.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    sink: Sink


@contextmanager
def smtp_sink() -> Iterator[Sink]:
    with _Server(("127.0.0.1", 0), _Session) as server:
        server.sink = Sink(f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.sink
        finally:
            server.shutdown()
            thread.join(timeout=10)

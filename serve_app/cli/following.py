"""How is a turn followed to its end, whatever the connection does?"""

from __future__ import annotations

import time
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click
import httpx

from serve_app.cli.client import check, refusal, service, silence
from serve_app.cli.frames import frames
from serve_app.values import Answer, Cancelled, Failed, RunRecord, RunStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.cli.frames import Frame

SILENCE_S = 60.0
"""The service breaks a longer one every 15 s by a comment."""
PATIENCE_S = 30.0
"""From a break to the last attempt to go on: it spans the restart of a replica."""
WAITS_S = (0.2, 0.5, 1.0, 2.0)
"""Before each further attempt; the last one again and again."""
CANCEL_S = 5.0

LAST = {Answer.event, Failed.event, Cancelled.event}
NO_CONTENT = 204
FAULT = 500


class Broken(Exception):
    """The stream broke off, for the reason that the text gives; the run may go on."""


class Turn:
    """One message and its answer: begun under a key of its own, resumed where its stream breaks off."""

    def __init__(self, url: str, body: dict[str, Any], show: Callable[[Frame], None]) -> None:
        self.url = url
        self._body = body
        self._show = show
        self._key = uuid4().hex
        self._run_id = ""
        self._last_id = "0"
        self._shown = False
        self._broke = False

    def follow(self) -> None:
        """Show the frames to the last one; where they break off, for half a minute those that come after.

        Raises:
            click.ClickException: the service refuses, does not answer, or stays away.
            ValueError: what answers is not the service.
        """
        seen, give_up, waits = None, 0.0, _waits()
        while broken := self._broken_off():
            if self._last_id != seen:  # it went on since the last break
                seen, give_up, waits = self._last_id, time.monotonic() + PATIENCE_S, _waits()
            resumable = self._run_id or not self._shown
            if not resumable or time.monotonic() > give_up:
                raise click.ClickException(str(broken)) from broken
            self._broke = True
            time.sleep(next(waits))

    def cancel(self) -> str:
        """End the run; its status after that.

        Raises:
            click.ClickException: the service refuses, or does not answer.
            ValueError: what answers is not the service.
        """
        with service(self.url, CANCEL_S) as client:
            run_id = self._run_id or self._registered(client)
            return _run(client.post(f"/agent/runs/{run_id}/cancel")).status

    def _registered(self, client: httpx.Client) -> str:
        """The run of a message that no frame has come for yet: its key names it."""
        headers = {"Idempotency-Key": self._key, "Prefer": "respond-async"}
        return _run(client.post("/agent/chat", json=self._body, headers=headers)).run_id

    def _broken_off(self) -> Broken | None:
        """Show what comes; why it broke off, or None after the last frame."""
        try:
            self._read()
        except Broken as broken:
            return broken
        return None

    def _read(self) -> None:
        with service(self.url, SILENCE_S) as client:
            try:
                with client.stream(**self._request()) as response:
                    self._accept(response)
                    for frame in frames(response.iter_bytes()):
                        self._take(frame)
                        if frame.event in LAST:
                            return
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._broke:
                    raise  # there was no service to begin with
                raise Broken(f"{self.url}: {silence(error)}") from error
        raise Broken("the stream ended before the answer did")

    def _request(self) -> dict[str, Any]:
        if not self._run_id:
            headers = {"Idempotency-Key": self._key}
            return {"method": "POST", "url": "/agent/chat", "json": self._body, "headers": headers}
        headers = {"Last-Event-ID": self._last_id}
        return {"method": "GET", "url": f"/agent/runs/{self._run_id}/events", "headers": headers}

    def _accept(self, response: httpx.Response) -> None:
        """Only the service's own word is final: a proxy tells of a process that is being replaced."""
        if response.status_code == NO_CONTENT:
            raise click.ClickException("the run is over, and its answer did not come")
        of_the_service = response.headers.get("Content-Type") == "application/json"
        if response.status_code >= FAULT and (self._broke or not of_the_service):
            response.read()
            raise Broken(refusal(response))
        check(response)

    def _take(self, frame: Frame) -> None:
        if frame.event == Failed.event and frame.id == self._last_id and self._run_id:  # the stream's failure
            raise Broken(Failed.model_validate_json(frame.data, extra="ignore").error.message)
        self._show(frame)
        self._shown = True
        self._last_id = frame.id or self._last_id
        if frame.event == RunStarted.event:
            self._run_id = RunStarted.model_validate_json(frame.data, extra="ignore").run_id


def _waits() -> Iterator[float]:
    return chain(WAITS_S, repeat(WAITS_S[-1]))


def _run(response: httpx.Response) -> RunRecord:
    return RunRecord.model_validate_json(check(response).content, extra="ignore")

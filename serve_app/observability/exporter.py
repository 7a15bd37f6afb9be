"""How do traces leave the process without anybody waiting for it?

They are put into a queue that is never waited for, and a thread of its own sends them: where a sink is slow or away the
queue runs full, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from serve_app.observability.export import leaving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from serve_app.observability.export import Trace
    from serve_app.observability.redaction import Redactor
    from serve_app.observability.spans import Recording

    Send = Callable[[Sequence[Trace]], None]

logger = logging.getLogger(__name__)

MAX_SPANS = 2_000
"""That wait for a sink: a hundred turns or two."""
BATCH = 20
"""Traces in one request."""
UNWRITABLE = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What says that a trace cannot be written, and nothing of the sink."""
LINGER_S = 0.5
"""For how long the first of them waits for others: a request costs as much as telling several turns."""


class Outbox:
    """The way to one sink.

    `build` makes its client: in the thread, because importing one takes longer than a turn. The client raises where it
    could not send.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], Send],
        redactor: Redactor,
        dropped: Callable[[str, int], None],
        max_spans: int = MAX_SPANS,
    ) -> None:
        """`dropped` is told the sink and a number of spans, in whichever thread."""
        self._name = name
        self._build = build
        self._redactor = redactor
        self._dropped = dropped
        self._max_spans = max_spans
        self._waiting: deque[Recording] = deque()
        self._spans = 0
        """Those that wait, and those that are being sent."""
        self._closing = False
        self._well = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._go_on, name=f"traces to {name}", daemon=True)
        self._thread.start()

    def put(self, recording: Recording) -> None:
        """Have the trace sent, or drop it."""
        count = len(recording.spans)
        with self._changed:
            fits = self._spans + count <= self._max_spans and not self._closing
            if fits:
                self._waiting.append(recording)
                self._spans += count
                self._changed.notify()
        if not fits:
            self._dropped(self._name, count)

    def close(self) -> None:
        """Take no more; what waits is still sent."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self, until: float) -> None:
        """Wait for what is sent, until the monotonic time `until`; what is left then is dropped."""
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left, self._spans = self._spans, 0
            self._waiting.clear()
        if left:
            self._dropped(self._name, left)

    def _go_on(self) -> None:
        send: Send | None = None
        while batch := self._next():
            try:
                send = send or self._build()
                refused = self._send(send, batch)
            except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may end the thread
                self._report(error)
                self._sent(batch, well=False)
            else:
                self._report(None)
                self._sent(refused, well=False)
                self._sent([each for each in batch if not any(each is one for one in refused)], well=True)

    def _send(self, send: Send, batch: Sequence[Recording]) -> list[Recording]:
        """Send the traces, together or, where one of them cannot be written, each by itself; those that cannot be.

        Raises:
            Exception: the sink did not take them.
        """
        try:
            send([leaving(recording, self._redactor) for recording in batch])
        except UNWRITABLE:
            if len(batch) == 1:
                logger.exception("trace_unwritable", extra=batch[0].context.ids)
                return list(batch)
            return [refused for each in batch for refused in self._send(send, [each])]
        return []

    def _next(self) -> list[Recording]:
        """The next traces to send, waited for; none when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._closing, LINGER_S)
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _sent(self, batch: Sequence[Recording], *, well: bool) -> None:
        with self._changed:
            counted = min(self._spans, sum(len(recording.spans) for recording in batch))
            self._spans -= counted
        if counted and not well:
            self._dropped(self._name, counted)

    def _report(self, error: Exception | None) -> None:
        """Say when the sink goes away and when it is back, and not each time."""
        if error is None and not self._well:
            logger.warning("traces reach %s again", self._name)
        elif error is not None and self._well:
            logger.warning("traces do not reach %s, they are dropped: %s", self._name, type(error).__name__)
        self._well = error is None

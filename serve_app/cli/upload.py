"""How do documents reach the service, batch by batch, whatever the network does?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import httpx

from serve_app.cli.client import check, refusal, silence
from serve_app.values import Document, IndexingResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH_BYTES = 1_000_000
"""Small enough that an interrupt loses seconds of work."""

BATCH_DOCUMENTS = 16

MAX_BODY_BYTES = 16 * 1024 * 1024
"""What the service takes; a document alone in its batch may be this large."""

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further attempt, unless the service says how long: half a minute spans the restart of a replica."""

LONGEST_WAIT_S = 60.0

_COMES_BACK = {429, 503, 504}
_TAKES_NO_DOCUMENTS = {401, 403, 404, 405}
"""Whatever is sent; any other error is one batch's, and perhaps one document's."""

_OPENING, _CLOSING = b'{"documents":[', b"]}"


@dataclass(frozen=True, slots=True)
class Parcel:
    """A document as it is sent."""

    source: str
    body: bytes

    @classmethod
    def of(cls, document: Document) -> Parcel:
        return cls(document.source, document.model_dump_json().encode())


def batches(parcels: Iterable[Parcel]) -> Iterator[list[Parcel]]:
    """Parcels in order, as many together as a batch holds."""
    batch: list[Parcel] = []
    size = 0
    for parcel in parcels:
        if batch and (size + len(parcel.body) > BATCH_BYTES or len(batch) == BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(parcel)
        size += len(parcel.body) + 1
    if batch:
        yield batch


class Upload:
    """Sends batches and tries again while the service is away; sending twice does no harm."""

    def __init__(self, client: httpx.Client, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._sleep = sleep

    def send(self, batch: list[Parcel]) -> list[IndexingResult]:
        """One result per parcel, in order; what the service cannot take has failed, and does not take the others along.

        Raises:
            click.ClickException: the service stays away, or does not take documents at all.
        """
        body = _OPENING + b",".join(parcel.body for parcel in batch) + _CLOSING
        if len(body) > MAX_BODY_BYTES and len(batch) == 1:
            return [_failed(batch[0], f"its text is larger than the service takes ({MAX_BODY_BYTES >> 20} MB)")]
        response = self._post(body)
        if not response.is_error or response.status_code in _TAKES_NO_DOCUMENTS:
            return [IndexingResult.model_validate(result) for result in check(response).json()["documents"]]
        if len(batch) == 1:
            return [_failed(batch[0], refusal(response))]
        return [result for parcel in batch for result in self.send([parcel])]

    def _post(self, body: bytes) -> httpx.Response:
        for wait_s in (*WAITS_S, None):
            try:
                response = self._client.post(
                    "/knowledge/documents", content=body, headers={"Content-Type": "application/json"}
                )
            except httpx.TransportError as error:
                reason, asked_s = silence(error), None
            else:
                if response.status_code not in _COMES_BACK:
                    return response
                reason, asked_s = refusal(response), _retry_after_s(response)
            if wait_s is not None:
                self._sleep(wait_s if asked_s is None else min(asked_s, LONGEST_WAIT_S))
        raise click.ClickException(
            f"given up after {len(WAITS_S) + 1} attempts: {reason}; run the same command again to go on"
        )


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _failed(parcel: Parcel, reason: str) -> IndexingResult:
    return IndexingResult(id="", source=parcel.source, status="failed", reason=reason)

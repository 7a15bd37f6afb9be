"""How do files become documents of the running service?"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from serve_app.cli.client import check, service, url_option
from serve_app.cli.files import find, is_below, source_of
from serve_app.cli.upload import Parcel, Upload, batches
from serve_app.values import Catalogue, DocumentSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import httpx

    from serve_app.values import Indexed

INDEXING_S = 330.0
"""For one batch; a little longer than the service gives itself."""

LISTING_S = 30.0
PAGE = 1000
NOT_FOUND = 404
INTERRUPTED = 130
"""The exit status by which shells know Ctrl-C."""


@dataclass(slots=True)
class Tally:
    """What became of the documents so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    passages: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, results: Iterable[Indexed]) -> None:
        for result in results:
            if result.status == "failed":
                self.fail(result.source, result.reason or "the service gives no reason")
            else:
                self.outcomes[result.status] += 1
                self.passages += result.passages

    def fail(self, source: str, reason: str) -> None:
        self.outcomes["failed"] += 1
        self.failures.append(f"{source}: {' '.join(reason.split())}")

    def __str__(self) -> str:
        parts = [f"{self.outcomes[name]} {name}" for name in ("added", "replaced", "unchanged", "failed")]
        named = ", ".join(part for part in parts if not part.startswith("0 ")) or "none sent"
        return f"{_many(self.outcomes.total(), 'document')}: {named}; {_many(self.passages, 'passage')}"


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@url_option
@click.option("--delete", is_flag=True, help="Remove the documents of these paths, whether or not the files exist.")
def ingest(paths: tuple[str, ...], url: str, *, delete: bool) -> None:
    """Add documents to the service's knowledge base.

    Each PATH is a file or a folder of .md, .txt, .html, .pdf and .docx files. A file that was added before and has not
    changed is left as it is; one that has changed replaces what it said before. What cannot be added is told at the
    end, and does not stop the rest.
    """
    if delete:
        _delete(paths, url)
    else:
        _add(paths, url)


def _add(paths: tuple[str, ...], url: str) -> None:
    from serve_app.knowledge.load import READERS

    exists = {path: os.path.exists(path) for path in paths}  # noqa: PTH110 - Path.exists raises where it may not look
    if not any(exists.values()):
        raise click.UsageError(f"no such file or folder: {', '.join(exists)}")
    found = find([path for path in paths if exists[path]], READERS)
    started, tally = time.monotonic(), Tally()
    for path, is_there in exists.items():
        if not is_there:
            tally.fail(path, "no such file or folder")
    if not found.files and not tally.failures:
        raise click.ClickException(f"no files to add: none of {_many(found.skipped, 'file')} is {' '.join(READERS)}")
    try:
        with service(url, INDEXING_S) as client:
            _send(found.files, client, tally)
    except KeyboardInterrupt:
        tally.failures.append(
            "interrupted; run the same command again to go on: what was sent is kept, and is unchanged then"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        for failure in tally.failures:
            click.echo(failure, err=True)
        skipped = f"; {_many(found.skipped, 'file')} of other kinds skipped" if found.skipped else ""
        click.echo(f"{tally}{skipped}; {time.monotonic() - started:.0f} s")
    if tally.outcomes["failed"]:
        raise click.exceptions.Exit(1)


def _send(files: dict[str, Path], client: httpx.Client, tally: Tally) -> None:
    upload = Upload(client, time.sleep)
    label, total = "Adding documents", len(files) + tally.outcomes.total()
    with click.progressbar(length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for batch in batches(_parcels(files, tally)):
            tally.count(upload.send(batch))
            bar.update(tally.outcomes.total() - bar.pos)


def _parcels(files: dict[str, Path], tally: Tally) -> Iterator[Parcel]:
    from serve_app.knowledge.load import Unreadable, load

    for source, path in files.items():
        try:
            yield Parcel.of(load(path, source))
        except (Unreadable, OSError) as error:
            tally.fail(source, getattr(error, "strerror", None) or str(error))
        except Exception as error:  # noqa: BLE001 - a parser's fault over one file does not stop the rest
            tally.fail(source, f"it cannot be read ({type(error).__name__}: {error})")


def _delete(paths: tuple[str, ...], url: str) -> None:
    bases = [source_of(path) for path in paths]
    removed: list[DocumentSummary] = []
    with service(url, LISTING_S) as client:
        for document in list(_listed(client)):
            if any(is_below(document.source, base) for base in bases):
                response = client.delete(f"/knowledge/documents/{document.id}")
                if response.status_code != NOT_FOUND:
                    removed.append(DocumentSummary.model_validate(check(response).json()))
    passages = sum(document.passages for document in removed)
    click.echo(f"{_many(len(removed), 'document')} removed; {_many(passages, 'passage')}")


def _listed(client: httpx.Client) -> Iterator[DocumentSummary]:
    offset = 0
    while True:
        response = client.get("/knowledge/documents", params={"offset": offset, "limit": PAGE})
        page = Catalogue.model_validate(check(response).json())
        yield from page.documents
        offset += len(page.documents)
        if not page.documents or offset >= page.total:
            return


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

"""The command `serve-app ingest`: adds files to the knowledge base of the running service."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.client import check, service, url_option
from serve_app.cli.files import find, is_below, source_of
from serve_app.cli.upload import Parcel, Upload, batches
from serve_app.values import DocumentList, DocumentSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import httpx

    from serve_app.knowledge.langchain_loader import LangChainLoader
    from serve_app.values import Document, IndexingResult

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

    def count(self, results: Iterable[IndexingResult]) -> None:
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


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read: by their suffixes in `encoding`, or all by `loader`."""

    encoding: str | None = None
    loader: LangChainLoader | None = None

    def document(self, path: Path, source: str) -> Document:
        from serve_app.knowledge.document_reader import read_document

        return self.loader.load_file(path, source) if self.loader else read_document(path, source, self.encoding)


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@url_option
@click.option("--delete", is_flag=True, help="Remove the documents of these paths, whether or not the files exist.")
@click.option("--encoding", help="The encoding of these text files and pages, such as big5, where it cannot be told.")
@click.option("--loader", "loader_path", metavar="MODULE:CLASS", help="Read with this LangChain document loader.")
@click.option("--arg", "arguments", multiple=True, metavar="NAME=VALUE", help="An argument of the loader; repeatable.")
def ingest(**options: Any) -> None:
    """Add documents to the service's knowledge base.

    Each PATH is a file or a folder of .md, .txt, .html, .pdf, .docx, .csv, .tsv, .xlsx, .pptx and .eml files. A file
    that was added before and has not changed is left as it is; one that has changed replaces what it said before. What
    cannot be added is told at the end, and does not stop the rest. A text whose encoding cannot be told for sure is not
    added: convert it to UTF-8, or name its encoding.

    Any LangChain document loader reads other formats and places. It is constructed with each file's path, or without
    one where no PATH is given:

    \b
      serve-app ingest --loader langchain_community.document_loaders:UnstructuredEPubLoader book.epub
      serve-app ingest --loader langchain_community.document_loaders:WikipediaLoader --arg query=Pump
    """
    paths, url, loader_path = options["paths"], options["url"], options["loader_path"]
    if not paths and (options["delete"] or not loader_path):
        raise click.UsageError("Missing argument 'PATH...'")
    if options["arguments"] and not loader_path:
        raise click.UsageError("--arg belongs to --loader")
    if options["delete"]:
        _delete(paths, url)
        return
    loader = _loader(loader_path, options["arguments"]) if loader_path else None
    _add(paths, url, Reading(options["encoding"], loader))


def _loader(path: str, arguments: Iterable[str]) -> LangChainLoader:
    """The loader with its arguments, whose values are read as YAML: numbers, true, lists, and text as it stands."""
    import yaml

    from serve_app.knowledge.langchain_loader import LangChainLoader

    named: dict[str, Any] = {}
    for argument in arguments:
        name, is_given, value = argument.partition("=")
        if not is_given or not name.isidentifier():
            raise click.UsageError(f"--arg {argument} is not of the form NAME=VALUE")
        try:
            named[name] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            named[name] = value
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - where a team's own loaders are
    return LangChainLoader.from_import_path(path, named)


def _add(paths: tuple[str, ...], url: str, reading: Reading) -> None:
    started, tally = time.monotonic(), Tally()
    files, skipped = _files(paths, tally, any_kind=reading.loader is not None)
    try:
        with service(url, INDEXING_S) as client:
            _send(_documents(files, reading, tally), client, tally, len(files))
    except KeyboardInterrupt:
        tally.failures.append(
            "interrupted; run the same command again to go on: what was sent is kept, and is unchanged then"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        for failure in tally.failures:
            click.echo(failure, err=True)
        others = f"; {_many(skipped, 'file')} of other kinds skipped" if skipped else ""
        click.echo(f"{tally}{others}; {time.monotonic() - started:.0f} s")
    if tally.outcomes["failed"]:
        raise click.exceptions.Exit(1)


def _files(paths: tuple[str, ...], tally: Tally, *, any_kind: bool) -> tuple[dict[str, Path], int]:
    """The files of the paths by source, and how many were skipped; a path that is not there is told."""
    from serve_app.knowledge.document_reader import READERS

    exists = {path: os.path.exists(path) for path in paths}  # noqa: PTH110 - Path.exists raises where it may not look
    if paths and not any(exists.values()):
        raise click.UsageError(f"no such file or folder: {', '.join(exists)}")
    found = find([path for path in paths if exists[path]], None if any_kind else READERS)
    for path, is_there in exists.items():
        if not is_there:
            tally.fail(path, "no such file or folder")
    if paths and not found.files and not tally.failures:
        raise click.ClickException(f"no files to add: none of {_many(found.skipped, 'file')} is {' '.join(READERS)}")
    return found.files, found.skipped


def _send(documents: Iterator[Document], client: httpx.Client, tally: Tally, files: int) -> None:
    upload = Upload(client, time.sleep)
    label, total = "Adding documents", files + tally.outcomes.total()
    with click.progressbar(length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for batch in batches(Parcel.of(document) for document in documents):
            tally.count(upload.send(batch))
            bar.update(tally.outcomes.total() - bar.pos)


def _documents(files: dict[str, Path], reading: Reading, tally: Tally) -> Iterator[Document]:
    from serve_app.knowledge.formats.text_decoding import UnreadableDocument

    if reading.loader and not files:
        try:
            yield from reading.loader.load_all()
        except UnreadableDocument as error:
            tally.fail(reading.loader.path, str(error))
    for source, path in files.items():
        try:
            yield reading.document(path, source)
        except (UnreadableDocument, OSError) as error:
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
        page = DocumentList.model_validate(check(response).json())
        yield from page.documents
        offset += len(page.documents)
        if not page.documents or offset >= page.total:
            return


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

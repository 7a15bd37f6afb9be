"""`serve-app ingest`: adds files to the knowledge base of the running service."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx

from serve_app.cli.client import check_response, describe_no_answer, describe_refusal, open_client, url_option
from serve_app.cli.terminal import count_of
from serve_app.values import Document, DocumentList, DocumentSummary, IndexingResult

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from serve_app.knowledge.document_reader import LangChainLoader

INDEX_TIMEOUT_S = 330.0
"""For one batch: a little longer than the limit of the service."""
LIST_TIMEOUT_S = 30.0
PAGE = 1000
NOT_FOUND = 404
INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended."""
BATCH_BYTES = 1_000_000
"""An interrupt loses only seconds of work."""
BATCH_DOCUMENTS = 16
MAX_BODY_BYTES = 16 * 1024 * 1024
"""The limit of the service for one batch. A batch of one document may be so large."""
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The pauses before retries, if the service sends no `Retry-After`: together longer than the restart of a replica."""
MAX_RETRY_AFTER_S = 60.0

_TEMPORARY = {429, 503, 504}
_PERMANENT = {401, 403, 404, 405}
"""Errors that concern every batch. Other errors concern one batch, perhaps one document in it."""

_OPENING, _CLOSING = b'{"documents":[', b"]}"


@dataclass(slots=True)
class IngestReport:
    """Counts the outcomes of documents."""

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
        outcomes = ", ".join(part for part in parts if not part.startswith("0 ")) or "none sent"
        return f"{count_of(self.outcomes.total(), 'document')}: {outcomes}; {count_of(self.passages, 'passage')}"


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads files: by their suffix, in `encoding`, or all with `loader`."""

    encoding: str | None = None
    loader: LangChainLoader | None = None

    def read(self, path: Path, source: str) -> Document:
        from serve_app.knowledge.document_reader import read_document

        return self.loader.load_file(path, source) if self.loader else read_document(path, source, self.encoding)


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@url_option
@click.option("--delete", is_flag=True, help="Remove the documents of these paths. The files need not exist.")
@click.option("--encoding", help="The encoding of these text files and pages, such as big5, if it cannot be detected.")
@click.option("--loader", "loader_path", metavar="MODULE:CLASS", help="Read with this LangChain document loader.")
@click.option("--arg", "arguments", multiple=True, metavar="NAME=VALUE", help="An argument of the loader; repeatable.")
def ingest(**options: Any) -> None:
    """Add documents to the knowledge base of the running service.

    Each PATH is a file, or a folder of .md, .txt, .html, .pdf, .docx, .csv, .tsv, .xlsx, .pptx and .eml files. A file
    that has changed replaces its earlier version; one that has not changed is skipped. Files that cannot be added are
    listed at the end. If the encoding of a text cannot be detected reliably, convert it to UTF-8 or use --encoding.

    A LangChain document loader reads other formats and sources. It is constructed with the path of each file, or
    without a path if there is no PATH:

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
    _add(paths, url, FileReader(options["encoding"], loader))


def _loader(path: str, arguments: Iterable[str]) -> LangChainLoader:
    """Return the loader with its arguments. Their values are YAML: numbers, true, lists, or text."""
    import yaml

    from serve_app.knowledge.document_reader import LangChainLoader

    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--arg {argument} is not of the form NAME=VALUE")
        try:
            values[name] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            values[name] = value
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - the loaders of a team are there
    return LangChainLoader.from_import_path(path, values)


def _add(paths: tuple[str, ...], url: str, reader: FileReader) -> None:
    started, report = time.monotonic(), IngestReport()
    files, skipped = _find_files(paths, report, any_kind=reader.loader is not None)
    try:
        with open_client(url, INDEX_TIMEOUT_S) as client:
            _send(_documents(files, reader, report), client, report, len(files))
    except KeyboardInterrupt:
        report.failures.append(
            "interrupted; run the same command again to continue: documents that were added are skipped then"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        for failure in report.failures:
            click.echo(failure, err=True)
        others = f"; {count_of(skipped, 'file')} of other kinds skipped" if skipped else ""
        click.echo(f"{report}{others}; {time.monotonic() - started:.0f} s")
    if report.outcomes["failed"]:
        raise click.exceptions.Exit(1)


def _find_files(paths: tuple[str, ...], report: IngestReport, *, any_kind: bool) -> tuple[dict[str, Path], int]:
    """Return the files by source and the number of skipped ones; report missing paths."""
    from serve_app.knowledge.document_reader import READERS

    exists = {path: os.path.exists(path) for path in paths}  # noqa: PTH110 - Path.exists raises in a folder without permission
    if paths and not any(exists.values()):
        raise click.UsageError(f"no such file or folder: {', '.join(exists)}")
    found = find_files([path for path in paths if exists[path]], None if any_kind else READERS)
    for path, is_there in exists.items():
        if not is_there:
            report.fail(path, "no such file or folder")
    if paths and not found.files and not report.failures:
        raise click.ClickException(f"no files to add: none of {count_of(found.skipped, 'file')} is {' '.join(READERS)}")
    return found.files, found.skipped


def _send(documents: Iterator[Document], client: httpx.Client, report: IngestReport, files: int) -> None:
    upload = Upload(client, time.sleep)
    label, total = "Adding documents", files + report.outcomes.total()
    with click.progressbar(length=total, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for batch in make_batches(EncodedDocument.encode(document) for document in documents):
            report.count(upload.send(batch))
            bar.update(report.outcomes.total() - bar.pos)


def _documents(files: dict[str, Path], reader: FileReader, report: IngestReport) -> Iterator[Document]:
    from serve_app.knowledge.formats.text_decoding import UnreadableDocument

    if reader.loader and not files:
        try:
            yield from reader.loader.load_all()
        except UnreadableDocument as error:
            report.fail(reader.loader.path, str(error))
    for source, path in files.items():
        try:
            yield reader.read(path, source)
        except (UnreadableDocument, OSError) as error:
            report.fail(source, getattr(error, "strerror", None) or str(error))
        except Exception as error:  # noqa: BLE001 - the parser of one file must not stop the rest
            report.fail(source, f"it cannot be read ({type(error).__name__}: {error})")


def _delete(paths: tuple[str, ...], url: str) -> None:
    bases = [normalize_source(path) for path in paths]
    removed: list[DocumentSummary] = []
    with open_client(url, LIST_TIMEOUT_S) as client:
        for document in list(_list_documents(client)):
            if any(is_below(document.source, base) for base in bases):
                response = client.delete(f"/knowledge/documents/{document.id}")
                if response.status_code != NOT_FOUND:
                    removed.append(DocumentSummary.model_validate(check_response(response).json()))
    passages = sum(document.passages for document in removed)
    click.echo(f"{count_of(len(removed), 'document')} removed; {count_of(passages, 'passage')}")


def _list_documents(client: httpx.Client) -> Iterator[DocumentSummary]:
    offset = 0
    while True:
        response = client.get("/knowledge/documents", params={"offset": offset, "limit": PAGE})
        page = DocumentList.model_validate(check_response(response).json())
        yield from page.documents
        offset += len(page.documents)
        if not page.documents or offset >= page.total:
            return


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files by source, and the number of files of other kinds."""

    files: dict[str, Path]
    skipped: int


def find_files(paths: Sequence[str], suffixes: Container[str] | None) -> FoundFiles:
    """Find the files of `paths`.

    Of a folder, find the files with one of `suffixes`; for None, all that are not hidden.
    """
    files: dict[str, Path] = {}
    skipped = 0
    for path in map(Path, paths):
        if not path.is_dir():
            files[normalize_source(path)] = path
            continue
        for below in _walk_visible(path):
            if (suffixes is None or below.suffix.lower() in suffixes) and below.is_file():
                files[normalize_source(below)] = below
            else:
                skipped += 1
    return FoundFiles(files, skipped)


def normalize_source(path: Path | str) -> str:
    """Return the normal form of the path, which identifies the document."""
    normal = Path(os.path.normpath(path)).as_posix()
    return os.fsencode(normal).decode("utf-8", "replace")


def is_below(source: str, base: str) -> bool:
    """Whether `source` is the file `base` or in the folder `base`, both in normal form."""
    if base == ".":
        return not source.startswith(("/", "../")) and "://" not in source
    return source == base or source.startswith(f"{base.rstrip('/')}/")


def _walk_visible(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document in the form in which it is sent."""

    source: str
    body: bytes

    @classmethod
    def encode(cls, document: Document) -> EncodedDocument:
        return cls(document.source, document.model_dump_json().encode())


def make_batches(documents: Iterable[EncodedDocument]) -> Iterator[list[EncodedDocument]]:
    """Yield the documents in order, in batches."""
    batch: list[EncodedDocument] = []
    size = 0
    for document in documents:
        if batch and (size + len(document.body) > BATCH_BYTES or len(batch) == BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.body) + 1
    if batch:
        yield batch


class Upload:
    """Sends batches, and retries while the service is away.

    Sending a batch twice does no harm.
    """

    def __init__(self, client: httpx.Client, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._sleep = sleep

    def send(self, batch: list[EncodedDocument]) -> list[IndexingResult]:
        """Send a batch and return one result for each document, in order.

        If the service rejects the batch, each document is sent alone: one bad document does not stop the others.

        Raises:
            click.ClickException: the service does not come back, or accepts no documents at all.
        """
        body = _OPENING + b",".join(document.body for document in batch) + _CLOSING
        if len(body) > MAX_BODY_BYTES and len(batch) == 1:
            return [_fail(batch[0], f"its text is larger than the limit of the service ({MAX_BODY_BYTES >> 20} MB)")]
        response = self._post(body)
        if not response.is_error or response.status_code in _PERMANENT:
            return [IndexingResult.model_validate(result) for result in check_response(response).json()["documents"]]
        if len(batch) == 1:
            return [_fail(batch[0], describe_refusal(response))]
        return [result for document in batch for result in self.send([document])]

    def _post(self, body: bytes) -> httpx.Response:
        for wait_s in (*RETRY_WAITS_S, None):
            try:
                response = self._client.post(
                    "/knowledge/documents", content=body, headers={"Content-Type": "application/json"}
                )
            except httpx.TransportError as error:
                reason, retry_after_s = describe_no_answer(error), None
            else:
                if response.status_code not in _TEMPORARY:
                    return response
                reason, retry_after_s = describe_refusal(response), _read_retry_after_s(response)
            if wait_s is not None:
                self._sleep(wait_s if retry_after_s is None else min(retry_after_s, MAX_RETRY_AFTER_S))
        raise click.ClickException(
            f"gave up after {len(RETRY_WAITS_S) + 1} attempts: {reason}; run the same command again to continue"
        )


def _read_retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _fail(document: EncodedDocument, reason: str) -> IndexingResult:
    return IndexingResult(id="", source=document.source, status="failed", reason=reason)

"""`serve-app ingest` brings files to a service, and shows what went wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from listening import served

from serve_app.cli.ingest import ingest
from serve_app.knowledge.document_reader import READERS
from serve_app.values import Document

CLOSED = "http://127.0.0.1:9"


@dataclass
class Knowledge:
    """The service's knowledge routes; `outages` are answered first, `refused` sources always, with their status."""

    url: str = ""
    documents: dict[str, dict] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)
    outages: list[JSONResponse] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    delay_s: float = 0.0

    def add(self, body: dict):
        sent = [Document.model_validate(document) for document in body["documents"]]
        if self.outages:
            return self.outages.pop(0)
        if refused := [self.refused[document.source] for document in sent if document.source in self.refused]:
            return error(refused[0], "invalid_request", "the text is not welcome")
        self.batches.append([document.source for document in sent])
        time.sleep(self.delay_s)
        return {"documents": [self._indexed(document) for document in sent]}

    def _indexed(self, document: Document) -> dict:
        known = self.documents.get(document.source)
        fields = document.model_dump()
        status = "added" if known is None else "unchanged" if known == fields else "replaced"
        if "poison" in document.text:
            return {"id": "x", "source": document.source, "status": "failed", "reason": "it is poisoned"}
        self.documents[document.source] = fields
        return {"id": f"id-{document.source}", "source": document.source, "status": status, "passages": 700}

    def page(self, offset: int, limit: int) -> dict:
        rows = [self._summary(source) for source in sorted(self.documents)]
        return {"documents": rows[offset : offset + min(limit, 2)], "total": len(rows), "passages": 700 * len(rows)}

    def _summary(self, source: str) -> dict:
        return {
            "id": source.encode().hex(),
            "source": source,
            "title": "",
            "passages": 700,
            "characters": len(self.documents[source]["text"]),
            "indexed_at": 0.0,
        }

    def remove(self, document_id: str) -> dict:
        summary = self._summary(bytes.fromhex(document_id).decode())
        del self.documents[summary["source"]]
        return summary


def error(status, code, message, **headers):
    body = {"error": {"code": code, "message": message, "retryable": False, "request_id": "r1"}}
    return JSONResponse(body, status, headers)


def application(knowledge):
    api = FastAPI()

    @api.post("/knowledge/documents")
    async def add(request: Request):
        body = await request.json()
        return knowledge.add(body)

    @api.get("/knowledge/documents")
    async def page(offset: int, limit: int):
        return knowledge.page(offset, limit)

    @api.delete("/knowledge/documents/{document_id}")
    async def remove(document_id: str):
        return knowledge.remove(document_id)

    return api


@pytest.fixture
def knowledge():
    knowledge = Knowledge()
    with served(application(knowledge)) as knowledge.url:
        yield knowledge


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("docs/a.md", "docs/b/c.txt", "docs/b/logo.png", "docs/.git/d.md", "docs/.e.md", "other.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}")
    return tmp_path / "docs"


def run(*arguments):
    return CliRunner().invoke(ingest, arguments)


def test_folders_and_files_are_added_and_summed_up(knowledge, docs):
    result = run("docs", "other.md", "--url", knowledge.url)
    assert result.exit_code == 0
    assert knowledge.batches == [["docs/a.md", "docs/b/c.txt", "other.md"]]
    assert result.stdout == "3 documents: 3 added; 2,100 passages; 1 file of other kinds skipped; 0 s\n"
    assert result.stderr == ""


def test_the_same_again_changes_nothing_and_a_changed_file_is_replaced(knowledge, docs):
    run("docs", "--url", knowledge.url)
    assert "2 documents: 2 unchanged;" in run("./docs/", "--url", knowledge.url).stdout
    (docs / "a.md").write_text("# new")
    assert "2 documents: 1 replaced, 1 unchanged;" in run("docs/b/../", "--url", knowledge.url).stdout


def test_a_broken_file_is_told_and_does_not_stop_the_rest(knowledge, docs):
    (docs / "b" / "broken.pdf").write_text("no pdf")
    (docs / "poison.md").write_text("poison")
    result = run("docs", "docs/b/logo.png", "--url", knowledge.url)
    assert result.exit_code == 1
    assert "5 documents: 2 added, 3 failed;" in result.stdout
    assert sorted(result.stderr.splitlines()) == [
        "docs/b/broken.pdf: it is no PDF, or broken",
        f"docs/b/logo.png: no reader for '.png' files; known are {' '.join(READERS)}",
        "docs/poison.md: it is poisoned",
    ]


@pytest.mark.parametrize("status", [400, 413, 422, 500, 502])
def test_a_refused_document_takes_neither_its_batch_nor_the_next_along(knowledge, docs, status):
    for n in range(20):
        (docs / f"n{n:02}.txt").write_text("word " * 10)
    knowledge.refused = {"docs/a.md": status}
    result = run("docs", "other.md", "--url", knowledge.url)
    assert result.exit_code == 1
    assert "23 documents: 22 added, 1 failed;" in result.stdout
    assert "docs/a.md" not in knowledge.documents
    assert result.stderr == "docs/a.md: the text is not welcome (invalid_request, request r1)\n"


def test_a_service_that_takes_no_documents_is_asked_once(knowledge, docs):
    knowledge.outages = [error(403, "forbidden", "not yours") for _ in range(2)]
    result = run("docs", "--url", knowledge.url)
    assert result.exit_code == 1
    assert "not yours (forbidden, request r1)" in result.stderr
    assert len(knowledge.outages) == 1


def test_batches_hold_sixteen_documents_or_a_megabyte(knowledge, docs):
    for n in range(20):
        (docs / f"n{n:02}.txt").write_text("word " * 10)
    (docs / "z1.txt").write_text("large " * 150_000)
    (docs / "z2.txt").write_text("large " * 400_000)
    assert run("docs", "--url", knowledge.url).exit_code == 0
    assert [len(batch) for batch in knowledge.batches] == [16, 6, 1, 1]


def test_a_document_larger_than_the_service_takes_is_told(knowledge, docs):
    (docs / "huge.txt").write_text("word " * 3_400_000)
    result = run("docs", "--url", knowledge.url)
    assert result.stderr == "docs/huge.txt: its text is larger than the limit of the service (16 MB)\n"
    assert len(knowledge.documents) == 2


def test_an_outage_is_waited_out_as_long_as_the_service_says(knowledge, docs):
    knowledge.outages = [error(503, "unavailable", "Milvus is away", **{"Retry-After": "0"}) for _ in range(4)]
    assert run("docs", "--url", knowledge.url).exit_code == 0
    assert len(knowledge.documents) == 2


def test_an_outage_without_end_is_given_up_with_the_services_own_words(knowledge, docs):
    knowledge.outages = [error(503, "unavailable", "Milvus is away", **{"Retry-After": "0"}) for _ in range(9)]
    result = run("docs", "--url", knowledge.url)
    assert result.exit_code == 1
    assert "gave up after 6 attempts: Milvus is away (unavailable, request r1); run the same" in result.stderr
    assert len(knowledge.outages) == 3


def test_a_service_that_is_not_there_is_told_in_one_line(docs, monkeypatch):
    waits = []
    monkeypatch.setattr("serve_app.cli.ingest.time.sleep", waits.append)
    result = run("docs", "--url", CLOSED)
    assert result.exit_code == 1
    assert waits == [1, 2, 4, 8, 16]
    assert "no service answers" in result.stderr
    assert "Traceback" not in result.output


def test_another_server_at_the_address_is_noticed(knowledge, docs):
    result = run("docs", "--url", f"{knowledge.url}/elsewhere")
    assert result.exit_code == 1
    assert "answers 404 Not Found; is this the service's address?" in result.stderr


def test_a_path_that_does_not_exist_is_told_and_does_not_stop_the_rest(knowledge, docs):
    result = run("docs/a.md", "nowhere", "other.md", "nowhere", "--url", knowledge.url)
    assert result.exit_code == 1
    assert knowledge.batches == [["docs/a.md", "other.md"]]
    assert result.stderr == "nowhere: no such file or folder\n"
    assert result.stdout.startswith("3 documents: 2 added, 1 failed; 1,400 passages;")


def test_paths_of_which_none_exists_are_a_usage_error(knowledge, docs):
    result = run("nowhere", "elsewhere", "--url", knowledge.url)
    assert result.exit_code == 2
    assert "no such file or folder: nowhere, elsewhere" in result.stderr


def test_a_folder_without_documents_is_an_error(knowledge, docs):
    (docs / "empty").mkdir()
    assert "no files to add" in run("docs/empty", "--url", knowledge.url).stderr


def test_delete_removes_what_came_from_the_paths_even_if_they_are_gone(knowledge, docs):
    run("docs", "other.md", "--url", knowledge.url)
    knowledge.documents["docs-2/a.md"] = {"text": "x"}
    for path in (docs / "a.md", docs / "b" / "c.txt"):
        path.unlink()
    result = run("--delete", "docs", "--url", knowledge.url)
    assert (result.exit_code, result.stdout) == (0, "2 documents removed; 1,400 passages\n")
    assert set(knowledge.documents) == {"other.md", "docs-2/a.md"}


def test_delete_of_here_leaves_what_came_from_elsewhere(knowledge, docs):
    run("docs", "--url", knowledge.url)
    knowledge.documents |= {"/srv/x.md": {"text": "x"}, "../y.md": {"text": "y"}, "https://example.org": {"text": "z"}}
    run("--delete", ".", "--url", knowledge.url)
    assert set(knowledge.documents) == {"/srv/x.md", "../y.md", "https://example.org"}


def test_an_interrupt_keeps_what_was_sent_and_says_how_to_go_on(knowledge, docs):
    for n in range(40):
        (docs / f"n{n:02}.txt").write_text("word " * 10)
    knowledge.delay_s = 0.4
    program = "from serve_app.cli.ingest import ingest; ingest()"
    command = [sys.executable, "-c", program, "docs", "--url", knowledge.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while len(knowledge.batches) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout.startswith("16 documents: 16 added;")
    assert "run the same command again to continue" in stderr
    assert "Traceback" not in stderr
    knowledge.delay_s = 0
    result = run("docs", "--url", knowledge.url)
    assert "42 documents:" in result.stdout
    assert len(knowledge.documents) == 42
    assert " unchanged;" in result.stdout


def test_a_loader_reads_files_of_any_kind_with_its_arguments(knowledge, docs):
    (docs / "d.log").write_bytes("größer".encode("cp1252"))
    loader = ("--loader", "langchain_community.document_loaders:TextLoader", "--arg", "encoding=windows-1252")
    result = run("docs/d.log", *loader, "--url", knowledge.url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert knowledge.documents["docs/d.log"]["text"] == "größer"


def test_a_loader_that_is_not_there_is_told_before_anything_is_sent(knowledge, docs):
    result = run("docs", "--loader", "nowhere.at.all:Loader", "--url", knowledge.url)
    assert "there is no module nowhere" in str(result.exception)
    assert knowledge.batches == []


def test_a_text_whose_encoding_cannot_be_told_is_added_once_it_is_named(knowledge, docs):
    (docs / "d.txt").write_bytes("größer".encode("cp1252"))
    result = run("docs/d.txt", "--url", knowledge.url)
    assert (
        "docs/d.txt: its encoding cannot be told for sure: convert it to UTF-8, or name its encoding" in result.stderr
    )
    assert run("docs/d.txt", "--encoding", "windows-1252", "--url", knowledge.url).exit_code == 0
    assert knowledge.documents["docs/d.txt"]["text"] == "größer"

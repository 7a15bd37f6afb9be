"""Embeddings and loaders of any package are used by their import path."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from pydantic import ValidationError

from serve_app.cli.ingest import ingest
from serve_app.config import EmbeddingSettings
from serve_app.config.class_path import is_class_path, load_class
from serve_app.errors import InvalidConfiguration
from serve_app.knowledge.document_reader import LangChainLoader
from serve_app.knowledge.embedding import Embedder, create_embeddings, find_embedding_problems
from serve_app.knowledge.formats.text_decoding import UnreadableDocument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serve_app.values import Context

COMMUNITY = "langchain_community.embeddings"
NAMES = (f"{COMMUNITY}:X", "mine:Made", "openai:embedding-3", "offline", "a:b")
HERE = f"{__name__}:Constant"


class Constant(Embeddings):
    """Vectors that tell how it was made."""

    def __init__(self, size: int = 2, secret: str = "") -> None:
        self.size, self.secret = size, secret

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text))] * self.size


class Pages(BaseLoader):
    """Two pages of a file, or a note from each of two places."""

    def __init__(self, path: str | None = None, marks: int = 1) -> None:
        self.path, self.marks = path, marks

    def lazy_load(self) -> Iterator[LangChainDocument]:
        for page in range(2):
            metadata = {"source": self.path or f"place://{page}", "title": "Pumps"}
            yield LangChainDocument(f"Page {page}{'!' * self.marks} \ud800", metadata=metadata)


def what(settings: EmbeddingSettings) -> str:
    return "\n".join(map(str, find_embedding_problems(settings)))


def test_a_class_path_is_told_from_a_providers_name() -> None:
    assert [is_class_path(name) for name in NAMES] == [True, True, False, False, False]


def test_a_class_that_cannot_be_loaded_says_why() -> None:
    wrong = {
        "nowhere.at.all:X": "there is no module nowhere",
        "json.decoder:Nothing": "json.decoder has no class Nothing",
        "json:dumps": "json:dumps is not a class",
        "json:JSONDecoder": "json:JSONDecoder is no Embeddings",
        "no path": "'no path' is no import path",
    }
    for path, reason in wrong.items():
        with pytest.raises(InvalidConfiguration) as raised:
            load_class(path, Embeddings, "knowledge.embedding.model")
        assert str(raised.value).startswith(f"knowledge.embedding.model: {reason}")


async def test_an_embedding_by_import_path_is_made_with_its_options(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K", "hush")
    settings = EmbeddingSettings(model=HERE, options={"size": 3}, options_env={"secret": "K"})
    made = create_embeddings(settings)
    assert isinstance(made, Constant)
    assert (made.size, made.secret) == (3, "hush")
    assert what(settings) == ""

    embedder = Embedder(settings, 1.0, expected_dimension=lambda: None)
    assert await embedder.embed_query(context, "word") == [4.0] * 3


def test_an_embedding_of_langchain_community_is_named_by_its_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert what(EmbeddingSettings(model=f"{COMMUNITY}:FakeEmbeddings", options={"size": 4})) == ""
    assert "langchain_community.embeddings has no class Nope" in what(EmbeddingSettings(model=f"{COMMUNITY}:Nope"))
    assert "has no option colour. It has: size" in what(
        EmbeddingSettings(model=f"{COMMUNITY}:FakeEmbeddings", options={"colour": 1})
    )
    assert "needs another package" in what(EmbeddingSettings(model=f"{COMMUNITY}:DashScopeEmbeddings", api_key_env="K"))


def test_a_wrong_option_is_told_without_its_value() -> None:
    printed = what(EmbeddingSettings(model=f"{COMMUNITY}:FakeEmbeddings", options={"size": "hush"}))
    assert "cannot be constructed (size: " in printed
    assert "hush" not in printed


def test_options_hold_no_secret_and_belong_to_a_class() -> None:
    for fields, reason in (
        ({"model": HERE, "options": {"my_api_key": "x"}}, "name the variable that holds it in options_env"),
        ({"model": "openai:embedding-3", "options": {"x": 1}}, "options belong to a model that is named by its import"),
    ):
        with pytest.raises(ValidationError, match=reason):
            EmbeddingSettings(**fields)


def test_another_model_in_the_options_is_another_embedding() -> None:
    small, large = (EmbeddingSettings(model=HERE, options={"model": name, "timeout": 1}) for name in ("small", "large"))
    assert small.identity != large.identity
    assert EmbeddingSettings(model="openai:embedding-3").identity == "openai:embedding-3"


def test_a_loader_reads_a_file_as_one_valid_document(tmp_path: Path) -> None:
    loader = LangChainLoader.from_import_path(f"{__name__}:Pages", {"marks": 2})
    document = loader.load_file(tmp_path / "a.xyz", "a.xyz")
    assert (document.source, document.title) == ("a.xyz", "Pumps")
    assert document.text == "Page 0!! \ufffd\n\nPage 1!! \ufffd"


def test_a_loader_without_a_file_gives_a_document_for_each_source() -> None:
    found = list(LangChainLoader.from_import_path(f"{__name__}:Pages", {}).load_all())
    assert [document.source for document in found] == ["place://0", "place://1"]


def test_a_loader_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match="does not take these arguments"):
        LangChainLoader.from_import_path(f"{__name__}:Pages", {"colour": 1}).load_file(tmp_path / "a.xyz", "a.xyz")
    with pytest.raises(UnreadableDocument, match="cannot read it"):
        LangChainLoader.from_import_path("langchain_community.document_loaders:TextLoader", {}).load_file(
            tmp_path / "none.txt", "none.txt"
        )
    with pytest.raises(InvalidConfiguration, match="--loader: json:JSONDecoder is no BaseLoader"):
        LangChainLoader.from_import_path("json:JSONDecoder", {})


def test_a_loader_of_langchain_community_reads_a_file_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("Pumps are pumped.")
    loader = LangChainLoader.from_import_path("langchain_community.document_loaders:TextLoader", {"encoding": "utf-8"})
    assert loader.load_file(tmp_path / "a.log", "a.log").text == "Pumps are pumped."


def test_the_command_says_what_is_wrong_with_a_loader() -> None:
    wrong = {
        ("--arg", "a=1", "x"): "--arg belongs to --loader",
        (): "Missing argument 'PATH...'",
        ("--loader", f"{__name__}:Pages", "--arg", "nothing"): "is not of the form NAME=VALUE",
    }
    for arguments, reason in wrong.items():
        assert reason in CliRunner().invoke(ingest, arguments).output


def test_langchain_community_is_imported_only_where_it_is_named() -> None:
    modules = (
        "serve_app.cli.ingest, serve_app.knowledge.document_reader, serve_app.knowledge.embedding, serve_app.preflight"
    )
    code = f"import sys, {modules}; print('langchain_community' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "False"

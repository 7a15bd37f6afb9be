"""Lexical, dense and hybrid search are what the settings say they are."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.embeddings import Embeddings

from serve_app.errors import InvalidConfiguration, StoreUnavailable
from serve_app.values import Document, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.knowledge.index import KnowledgeIndex
    from serve_app.values import Context

MEANINGS = {"automobile": "car", "feline": "cat", "canine": "dog"}
EMBEDDING = {"factory": "test_search_modes:Hashing"}


class Hashing(Embeddings):
    """Words hashed into a vector; a few of them mean the same, as a trained model would know."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * 64
        for word in re.findall(r"\w+", text.casefold()):
            vector[hashlib.sha256(MEANINGS.get(word, word).encode()).digest()[0] % 64] += 1
        length = math.hypot(*vector)
        return [each / length for each in vector]


class Down(Hashing):
    """A model whose provider does not answer."""

    down = False
    calls = 0

    async def aembed_query(self, text: str) -> list[float]:
        self.calls += 1
        if self.down:
            raise ConnectionError("10.0.0.1 refused key sk-123")
        return self.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [await self.aembed_query(text) for text in texts]


class Short(Hashing):
    """A model that is exchanged for one with shorter vectors."""

    short = False

    def embed_query(self, text: str) -> list[float]:
        vector = super().embed_query(text)
        return vector[:3] if self.short else vector


class Slow(Hashing):
    """A model that does not answer in time."""

    async def aembed_query(self, text: str) -> list[float]:
        await asyncio.sleep(30)
        return self.embed_query(text)


DOCUMENTS = [
    Document(source="car", text="car"),
    Document(source="cat", text="cat"),
    Document(source="firewall", text="firewall packets filtered"),
]


def hybrid(open_index: Callable[..., KnowledgeIndex], mode: str = "hybrid", **options: Any) -> KnowledgeIndex:
    return open_index(mode=mode, embedding=EMBEDDING, **options)


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
async def test_a_meaning_is_found_without_a_shared_word(
    open_index: Callable[..., KnowledgeIndex], context: Context, mode: str
) -> None:
    index = hybrid(open_index, mode, min_score=0.8)
    assert {each.status for each in await index.add(context, DOCUMENTS)} == {"added"}
    [found] = (await index.search(context, "automobile")).passages
    assert (found.source, round(found.score, 1)) == ("car", 1.0)
    assert (await index.search(context, "zebra giraffe lion")).passages == []


async def test_hybrid_puts_first_what_both_ways_find(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    index = hybrid(open_index, min_score=0.1)
    both = Document(source="both", text="a car and a firewall, packets are filtered")
    await index.add(context, [*DOCUMENTS, both])
    assert ((await index.search(context, "automobile firewall packets")).passages)[0].source in {"both", "firewall"}
    assert ((await index.search(context, "firewall packets filtered")).passages)[0].source == "firewall"


async def test_hybrid_searches_by_words_while_the_embedding_model_is_down(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    model = Down()
    index = hybrid(open_index, embeddings=model)
    await index.add(context, DOCUMENTS)
    model.down = True
    found = await index.search(context, "firewall packets")
    assert [each.source for each in found.passages] == ["firewall"]
    assert found.lexical_only
    assert (await index.search(context, "zebra")).lexical_only
    [check] = [each for each in await index.checks() if not each.ok]
    assert (check.name, check.reason) == ("embedding", "The embedding model did not answer (ConnectionError)")
    [result] = await index.add(context, [Document(source="new", text="new words")])
    assert (result.status, result.reason) == ("failed", "The embedding model did not answer (ConnectionError)")


@pytest.mark.parametrize("mode", ["error", "timeout", "garbage", "slow"])
async def test_a_faulty_embedding_leaves_the_words(
    open_index: Callable[..., KnowledgeIndex], context: Context, mode: Any
) -> None:
    index = hybrid(open_index, timeout_s=0.8)
    await index.add(context, DOCUMENTS)
    await index.warm_up()
    assert not (await index.search(context, "firewall packets")).lexical_only
    fault = Fault(target="embedding", mode=mode, rate=1, delay_s=2, until=4e9)
    started = time.monotonic()
    found = await index.search(context.model_copy(update={"faults": (fault,)}), "firewall packets")
    assert ([each.source for each in found.passages], found.lexical_only) == (["firewall"], True)
    assert time.monotonic() - started < 1.6


async def test_a_vector_of_another_length_is_the_embeddings_failure_and_leaves_the_words(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    model = Short()
    index = hybrid(open_index, embeddings=model)
    await index.add(context, DOCUMENTS)
    model.short = True
    for _ in range(6):
        found = await index.search(context, "firewall packets")
        assert ([each.source for each in found.passages], found.lexical_only) == (["firewall"], True)
    checks = {check.name: check for check in await index.checks()}
    assert [name for name, check in checks.items() if not check.ok] == ["embedding"], "Milvus is well"
    assert "have 3 numbers, those of the collection 64" in str(checks["embedding"].reason)
    [result] = await index.add(context, [Document(source="new", text="new words")])
    assert (result.status, "have 3 numbers" in str(result.reason)) == ("failed", True)
    model.short = False
    [result] = await index.add(context, [Document(source="new", text="new words")])
    assert result.status == "added"


async def test_dense_search_says_that_its_vectors_have_another_length(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    first = hybrid(open_index, "dense")
    await first.add(context, DOCUMENTS)
    model = Short()
    model.short = True
    other = hybrid(open_index, "dense", embeddings=model, collection=first._settings.collection)  # another process
    with pytest.raises(StoreUnavailable, match="have 3 numbers"):
        await other.search(context, "car")


async def test_an_embedding_model_that_hangs_costs_five_searches_their_time(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    model = Down()
    index = hybrid(open_index, embeddings=model, timeout_s=0.8)
    await index.add(context, DOCUMENTS)
    await index.warm_up()
    model.down = True
    for _ in range(5):
        assert (await index.search(context, "firewall packets")).lexical_only
    calls_before = model.calls
    assert (await index.search(context, "firewall packets")).lexical_only
    assert model.calls == calls_before
    model.down = False
    [check] = [each for each in await index.checks() if not each.ok]
    assert (check.name, check.required) == ("embedding", False)
    assert (check.reason or "").startswith("searches failed again and again")


async def test_dense_search_needs_its_embedding_model(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    model = Down()
    index = hybrid(open_index, "dense", embeddings=model)
    await index.add(context, DOCUMENTS)
    model.down = True
    with pytest.raises(StoreUnavailable, match="embedding model"):
        await index.search(context, "car")


@pytest.mark.parametrize(
    ("timeout_s", "reason"),
    [(0.2, "The embedding model did not answer (TimeoutError)"), (10, "No answer within 1 second")],
)
async def test_an_embedding_model_has_a_time_limit(
    open_index: Callable[..., KnowledgeIndex], timeout_s: float, reason: str
) -> None:
    index = open_index(mode="dense", embedding={**EMBEDDING, "timeout_s": timeout_s}, embeddings=Slow())
    [check] = [each for each in await index.checks() if not each.ok]
    assert (check.name, check.reason) == ("embedding", reason)


async def test_a_document_of_many_passages_is_embedded_in_batches(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    sizes: list[int] = []

    class Counting(Hashing):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            sizes.append(len(texts))
            return self.embed_documents(texts)

    index = hybrid(open_index, embeddings=Counting())
    text = "\n\n".join(f"## Section {i}\n\n" + f"word{i} " * 100 for i in range(150))
    [added] = await index.add(context, [Document(source="long", text=text)])
    assert sum(sizes) == added.passages > 64
    assert max(sizes) <= 64


async def test_a_collection_of_another_mode_is_refused(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    lexical = open_index()
    await lexical.add(context, DOCUMENTS)
    other = hybrid(open_index, collection=lexical._settings.collection)
    with pytest.raises(InvalidConfiguration, match="made for mode lexical"):
        await other.add(context, [Document(source="new", text="new words")])
    with pytest.raises(InvalidConfiguration, match="Name a new collection"):
        await other.search(context, "car")
    assert [each.name for each in await other.checks() if not each.ok] == ["knowledge"]


async def test_a_collection_of_another_embedding_is_refused(
    open_index: Callable[..., KnowledgeIndex], context: Context
) -> None:
    first = hybrid(open_index)
    await first.add(context, DOCUMENTS)
    embedding = {"factory": "test_search_modes:Down"}
    other = open_index(mode="hybrid", embedding=embedding, collection=first._settings.collection)
    with pytest.raises(InvalidConfiguration, match="test_search_modes:Hashing"):
        await other.search(context, "car")

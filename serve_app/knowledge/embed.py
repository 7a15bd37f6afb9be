"""Which dense vector does a text get?"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, TypeVar

from serve_app.errors import ModelUnavailable
from serve_app.knowledge.embedding_models import embeddings_of
from serve_app.resilience.breaker import Limit
from serve_app.resilience.circuit import Circuit
from serve_app.resilience.faults import strike

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from langchain_core.embeddings import Embeddings

    from serve_app.config import EmbeddingSettings
    from serve_app.knowledge.layout import Layout
    from serve_app.values import Context

T = TypeVar("T")

logger = logging.getLogger(__name__)

BATCH = 64
"""Texts per call: the least that a known provider limits it to."""
LIMIT = Limit(failures=5, cool_down_s=10)
"""Twice as long as for Milvus: it is another's service, which may count the questions it refuses."""


class Embedder:
    """A LangChain `Embeddings`, its calls bounded in time and size; every method raises `ModelUnavailable`."""

    def __init__(
        self,
        settings: EmbeddingSettings,
        query_timeout_s: float,
        layout: Layout,
        embeddings: Embeddings | None = None,
    ) -> None:
        self.circuit = Circuit("embedding", LIMIT)
        self._layout = layout
        self._timeout_s = settings.timeout_s
        self._query_timeout_s = min(query_timeout_s, settings.timeout_s)
        self._embeddings = embeddings or embeddings_of(settings)

    async def query(self, context: Context, text: str) -> list[float]:
        """The vector of a question; refused while the breaker is open."""
        with self.circuit.passing(ModelUnavailable, (ModelUnavailable,)):
            vector = await _bounded(self._vector(context, text), self._query_timeout_s)
            self._assert_fitting(vector)
            return vector

    async def _vector(self, context: Context, text: str) -> list[float]:
        if await strike(context.faults, "embedding", ConnectionError("a fault set on purpose")):
            return []
        return await self._embeddings.aembed_query(text)

    async def ping(self) -> None:
        """Embed a word, and see that the collection could hold its vector."""
        self._assert_fitting(await self._word())

    async def dimension(self) -> int:
        """The length of every vector."""
        return len(await self._word())

    async def documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of passages, in order."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            vectors += await _bounded(self._embeddings.aembed_documents(batch), self._timeout_s)
        for vector in vectors:
            self._assert_fitting(vector)
        return vectors

    async def _word(self) -> list[float]:
        return await _bounded(self._embeddings.aembed_query("dimension"), self._timeout_s)

    def _assert_fitting(self, vector: list[float]) -> None:
        """See that Milvus, which would be blamed for it, is not given what it cannot take."""
        if not vector or not all(map(math.isfinite, vector)):
            raise ModelUnavailable("The embedding model's answer cannot be read")
        wanted = self._layout.dimension
        if wanted is not None and len(vector) != wanted:
            what = f"The embedding model's vectors have {len(vector)} numbers, those of the collection {wanted}"
            raise ModelUnavailable(f"{what}: it is another model, or another version of it")


async def _bounded(call: Awaitable[T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except Exception as error:  # each provider's package raises errors of its own
        logger.warning("embedding_failed", exc_info=error)
        raise ModelUnavailable(f"The embedding model did not answer ({type(error).__name__})") from error

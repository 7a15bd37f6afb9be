"""Which dense vector does a text get?"""

from __future__ import annotations

import asyncio
import logging
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from serve_app.config import secret
from serve_app.errors import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from langchain_core.embeddings import Embeddings

    from serve_app.config import EmbeddingSettings

T = TypeVar("T")

logger = logging.getLogger(__name__)

BATCH = 64
"""Texts per call: the least that a known provider limits it to."""


class Embedder:
    """A LangChain `Embeddings`, its calls bounded in time and size; every method raises `ModelUnavailable`."""

    def __init__(self, settings: EmbeddingSettings, embeddings: Embeddings | None = None) -> None:
        self.name = settings.model or settings.factory or ""
        self._timeout_s = settings.timeout_s
        self._embeddings = embeddings or _load(settings)

    async def query(self, text: str) -> list[float]:
        """The vector of a question."""
        return await self._bounded(self._embeddings.aembed_query(text))

    async def ping(self) -> None:
        """Embed a word."""
        await self.query("ping")

    async def documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of passages, in order."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            vectors += await self._bounded(self._embeddings.aembed_documents(texts[start : start + BATCH]))
        return vectors

    async def _bounded(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except Exception as error:  # each provider's package raises errors of its own
            logger.warning("embedding failed", exc_info=error)
            raise ModelUnavailable(f"The embedding model did not answer ({type(error).__name__})") from error


def _load(settings: EmbeddingSettings) -> Embeddings:
    if settings.factory is not None:
        made: Embeddings = resolve_name(settings.factory)()
        return made
    from langchain.embeddings import init_embeddings

    name = settings.model or ""
    options: dict[str, Any] = {}
    if settings.base_url is not None:
        options["base_url"] = settings.base_url
    if settings.api_key_env is not None:
        options["api_key"] = secret(settings.api_key_env)
    if name.startswith("openai:"):
        # The check would download a tokenizer; retries are the caller's.
        options |= {"check_embedding_ctx_length": False, "max_retries": 0, "timeout": settings.timeout_s}
    return init_embeddings(name, **options)

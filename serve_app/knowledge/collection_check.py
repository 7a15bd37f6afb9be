"""Checks that a Milvus collection fits the configured mode and embedding model.

Vectors of one embedding model mean nothing to another, and Milvus does not know which model made them. So Redis holds
the mode and the embedding of each collection.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from serve_app.errors import InvalidConfiguration, Problem, StoreUnavailable
from serve_app.stores.redis import translate_redis_errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.passage_store import PassageStore


@dataclass(frozen=True, slots=True)
class CollectionOrigin:
    """The mode and the embedding that a collection was made with."""

    mode: str
    embedding: str | None


class CollectionCheck:
    """Compares one collection with the configuration; once right, it stays right."""

    def __init__(self, settings: KnowledgeSettings, redis: Redis) -> None:
        self._redis: Any = redis
        self.dimension: int | None = None
        """Length of the collection's dense vectors; None while unknown."""
        self._key = f"{settings.collection}:layout"
        self._key_of_dimension = f"{settings.collection}:dimension"
        self._collection = settings.collection
        named = settings.embedding
        self._wanted = CollectionOrigin(settings.mode, named.identity if named and settings.mode != "lexical" else None)
        self._right = False

    async def check(self) -> bool:
        """Whether there is a collection.

        Raises:
            InvalidConfiguration: it was made for another mode or another embedding.
            StoreUnavailable: Redis did not answer.
        """
        if self._right:
            return True
        with translate_redis_errors():
            stored, dimension = await self._redis.mget(self._key, self._key_of_dimension)
        if stored is None:
            return False
        made = CollectionOrigin(**json.loads(stored))
        if made != self._wanted:
            raise InvalidConfiguration((self._problem(made),))
        self.dimension = int(dimension) if dimension else None
        self._right = True
        return True

    async def ensure_collection(
        self, passages: PassageStore, measure_dimension: Callable[[], Awaitable[int]] | None
    ) -> None:
        """Create the collection if there is none; without `measure_dimension` it has no dense vectors.

        Raises:
            InvalidConfiguration: it was made for another mode or another embedding.
            ModelUnavailable: the embedding model did not answer.
            StoreUnavailable: a store did not answer, or Milvus has lost the collection.
        """
        stored = await self.check()
        if stored and await passages.exists():
            return
        if stored:
            raise StoreUnavailable(
                f"Milvus no longer has the collection {self._collection}: restore it, or name another one"
            )
        dimension = await measure_dimension() if measure_dimension else None
        await passages.create(dimension)
        of_dense = {self._key_of_dimension: dimension} if dimension else {}
        with translate_redis_errors():
            await self._redis.mset({self._key: json.dumps(asdict(self._wanted)), **of_dense})
        await self.check()

    def _problem(self, made: CollectionOrigin) -> Problem:
        what = f"collection {self._collection!r} was made for mode {made.mode}"
        if made.embedding:
            what += f" and embedding {made.embedding}"
        return Problem("knowledge", what, "Name a new collection and ingest the documents again, or put the mode back")

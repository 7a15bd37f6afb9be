"""Does the collection hold what this configuration searches?

Vectors of one embedding model mean nothing to another, and Milvus cannot be asked which model made them. So what a
collection was created with is noted in Redis.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from serve_app.errors import InvalidConfiguration, Problem, StoreUnavailable
from serve_app.stores.redis import translate_redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from serve_app.config import KnowledgeSettings
    from serve_app.knowledge.embedding import Embedder
    from serve_app.knowledge.passage_store import PassageStore


@dataclass(frozen=True, slots=True)
class _Made:
    mode: str
    embedding: str | None


class CollectionCheck:
    """What the collection is made of."""

    def __init__(self, settings: KnowledgeSettings, redis: Redis) -> None:
        self._redis: Any = redis
        self.dimension: int | None = None
        """The length of the collection's dense vectors; None before it is known, and where nobody noted it."""
        self._key = f"{settings.collection}:layout"
        self._key_of_dimension = f"{settings.collection}:dimension"
        self._collection = settings.collection
        named = settings.embedding
        self._wanted = _Made(settings.mode, named.identity if named and settings.mode != "lexical" else None)
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
            noted, dimension = await self._redis.mget(self._key, self._key_of_dimension)
        if noted is None:
            return False
        made = _Made(**json.loads(noted))
        if made != self._wanted:
            raise InvalidConfiguration((self._problem(made),))
        self.dimension = int(dimension) if dimension else None
        self._right = True
        return True

    async def make(self, passages: PassageStore, embedder: Embedder | None) -> None:
        """Create the collection if there is none.

        Raises:
            InvalidConfiguration: it was made for another mode or another embedding.
            ModelUnavailable: the embedding model did not answer.
            StoreUnavailable: a store did not answer, or Milvus has lost the collection.
        """
        noted = await self.check()
        if noted and await passages.exist():
            return
        if noted:
            raise StoreUnavailable(
                f"Milvus no longer has the collection {self._collection}: restore it, or name another one"
            )
        dimension = await embedder.dimension() if embedder else None
        await passages.create(dimension)
        of_dense = {self._key_of_dimension: dimension} if dimension else {}
        with translate_redis_errors():
            await self._redis.mset({self._key: json.dumps(asdict(self._wanted)), **of_dense})
        await self.check()

    def _problem(self, made: _Made) -> Problem:
        what = f"collection {self._collection!r} was made for mode {made.mode}"
        if made.embedding:
            what += f" and embedding {made.embedding}"
        return Problem("knowledge", what, "Name a new collection and ingest the documents again, or put the mode back")

"""The Milvus client of one collection, and the translation of Milvus's errors."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from grpc import RpcError
from pymilvus import AsyncMilvusClient, MilvusClient
from pymilvus.exceptions import DataNotMatchException, DataTypeNotMatchException, MilvusException, ParamError

from serve_app.config import read_secret
from serve_app.errors import StoreCorrupt, StoreUnavailable
from serve_app.observability.metrics import NULL_METRICS, measure_call
from serve_app.resilience.tasks import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pymilvus import CollectionSchema

    from serve_app.config import MilvusSettings
    from serve_app.ports import Metrics

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
RECONNECTING = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1000}
"""By default gRPC's pauses between attempts to connect grow to two minutes, and it notices a server's return late."""

NOT_FOUND = 100
NOT_LOADED = 101
INVALID_PARAMETERS = {6, 1100}
"""The codes of Milvus Lite, and of Milvus."""
OF_THE_DATA = (ParamError, DataNotMatchException, DataTypeNotMatchException)
"""Raised by the client itself, about the rows that it is to send."""

# The client logs every error with a traceback and raises it too; what is raised is translated, and logged once.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class CollectionMissing(StoreUnavailable):
    """Milvus answers, and does not have the collection."""


@contextmanager
def translate_milvus_errors() -> Iterator[None]:
    """Raise Milvus's errors in the block as ours.

    Raises:
        CollectionMissing: there is no such collection.
        StoreCorrupt: it refuses what it was sent, and would accept other data.
        StoreUnavailable: the server did not answer, or refused.
    """
    try:
        yield
    except MilvusException as error:
        if error.code == NOT_FOUND:
            raise CollectionMissing("The collection is not there") from error
        if isinstance(error, OF_THE_DATA) or error.code in INVALID_PARAMETERS:
            raise StoreCorrupt("Milvus refuses what it was sent") from error
        raise StoreUnavailable(f"Milvus did not answer ({type(error).__name__} {error.code})") from error
    except (RpcError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"Milvus did not answer ({type(error).__name__})") from error


class MilvusCollection:
    """One collection of one Milvus server, over one connection of this process."""

    def __init__(self, settings: MilvusSettings, name: str, metrics: Metrics = NULL_METRICS) -> None:
        self.name = name
        self._metrics = metrics
        self._url = settings.url
        self._timeout_s = settings.timeout_s
        self._token = read_secret(settings.token_env).get_secret_value() if settings.token_env else ""
        self._client = AsyncMilvusClient(
            self._url, token=self._token, timeout=CONNECT_TIMEOUT_S, dedicated=True, grpc_options=RECONNECTING
        )
        self._connecting = SingleFlight(self._connect)
        self._loading = SingleFlight(self._load)
        self._connected = False
        self._loads = 0

    async def call(self, use: Callable[[AsyncMilvusClient], Awaitable[T]], timeout_s: float) -> T:
        """Return what `use` returns when it is called with the client.

        A collection that is not loaded, such as a restored one, is loaded, and `use` is called once more. Connecting
        and loading go on after `timeout_s`, so that the next call finds them done.

        Raises:
            CollectionMissing: there is no such collection.
            StoreUnavailable: the server did not answer in `timeout_s`, or refused.
        """
        with measure_call(self._metrics, "milvus", (CollectionMissing,)), translate_milvus_errors():
            async with asyncio.timeout(timeout_s):
                if not self._connected:
                    await self._connecting.run()
                loads = self._loads
                try:
                    return await use(self._client)
                except MilvusException as error:
                    if error.code != NOT_LOADED:
                        raise
                if self._loads == loads:  # otherwise another call has loaded it meanwhile
                    await self._loading.run()
                return await use(self._client)

    async def create(self, schema: CollectionSchema, indexes: dict[str, dict[str, Any]]) -> None:
        """Create the collection with one index per vector field, and load it.

        A collection that exists is left as it is.

        Raises:
            StoreUnavailable: the server did not answer, or refused.
        """
        with translate_milvus_errors():
            await asyncio.to_thread(self._create, schema, indexes)

    async def describe(self, timeout_s: float) -> dict[str, Any]:
        """Return the server's description of the collection.

        Raises:
            CollectionMissing: there is no such collection.
            StoreUnavailable: the server did not answer, or refused.
        """
        return dict(await self.call(lambda client: client.describe_collection(self.name, timeout=timeout_s), timeout_s))

    async def ping(self, timeout_s: float) -> None:
        """Ask for the server's version.

        Raises:
            StoreUnavailable: the server did not answer, or refused.
        """
        await self.call(lambda client: client.get_server_version(timeout=timeout_s), timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._connecting.close()
        await self._loading.close()
        await self._client.close()

    async def _connect(self) -> None:
        """Connect by a first call: two first calls at once would connect twice."""
        await self._client.get_server_version(timeout=CONNECT_TIMEOUT_S)
        self._connected = True

    async def _load(self) -> None:
        await self._client.load_collection(self.name, timeout=self._timeout_s)
        self._loads += 1

    def _create(self, schema: CollectionSchema, indexes: dict[str, dict[str, Any]]) -> None:
        """Use the synchronous client: the other one creates no index on Milvus Lite."""
        client = MilvusClient(self._url, token=self._token, timeout=CONNECT_TIMEOUT_S, dedicated=True)
        try:
            if client.has_collection(self.name, timeout=self._timeout_s):
                return
            params = client.prepare_index_params()
            for field, index in indexes.items():
                params.add_index(field, **index)
            client.create_collection(self.name, schema=schema, index_params=params, timeout=self._timeout_s)
        finally:
            client.close()

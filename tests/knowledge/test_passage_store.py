"""Milvus is searched, then its standby; one that keeps failing is skipped for a while."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from listening import free_port
from pymilvus import MilvusClient
from tcp_proxy import proxied

from serve_app.config import KnowledgeSettings, MilvusSettings
from serve_app.errors import StoreUnavailable
from serve_app.knowledge.passage_store import BREAKER, MilvusReplicas
from serve_app.resilience.circuit_breaker import BreakerPolicy
from serve_app.values import Document, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tcp_proxy import Proxy

    from serve_app.knowledge.index import KnowledgeIndex
    from serve_app.values import Context, DependencyCheck, SearchResult

DISK = Document(source="disk", text="Erase the disk with shred.")
QUESTION = "How is a disk erased?"
SLOW_S = 0.8
"""For one search in these tests: more than one takes on a busy machine."""


def dead_url() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
async def proxy(milvus_url: str) -> AsyncIterator[Proxy]:
    async with proxied(milvus_url) as proxy:
        yield proxy


@pytest.fixture
async def collection(index: KnowledgeIndex, context: Context) -> str:
    """The name of one that holds a document."""
    await index.add(context, [DISK])
    return index._settings.collection


def sources(found: SearchResult) -> list[str]:
    return [each.source for each in found.passages]


async def failing(index: KnowledgeIndex, context: Context, message: str = "") -> float:
    """Seconds until a search fails."""
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=message):
        await index.search(context, QUESTION)
    return time.monotonic() - started


async def check_of(index: KnowledgeIndex, name: str) -> DependencyCheck:
    [check] = [each for each in await index.checks() if each.name == name]
    return check


async def test_the_first_server_is_asked_while_it_answers(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, milvus_url: str
) -> None:
    index = open_index(collection=collection, standby=dead_url())
    found = await index.search(context, QUESTION)
    assert (sources(found), found.standby) == (["disk"], False)
    checks = {check.name: check.ok for check in await index.checks()}
    assert checks == {"milvus": True, "milvus:standby": False, "knowledge": True}


async def test_the_standby_is_searched_where_the_first_server_refuses(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, milvus_url: str
) -> None:
    index = open_index(url=dead_url(), standby=milvus_url, collection=collection)
    for _ in range(BREAKER.failures + 2):
        found = await index.search(context, QUESTION)
        assert (sources(found), found.standby) == (["disk"], True)


async def test_the_standby_is_searched_where_the_first_server_falls_silent(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, milvus_url: str, proxy: Proxy
) -> None:
    index = open_index(url=proxy.url, standby=milvus_url, collection=collection, timeout_s=SLOW_S)
    await index.warm_up()
    assert not (await index.search(context, QUESTION)).standby
    proxy.silent = True
    started = time.monotonic()
    found = await index.search(context, QUESTION)
    assert (sources(found), found.standby) == (["disk"], True)
    assert SLOW_S <= time.monotonic() - started < 2 * SLOW_S + 0.2
    proxy.silent = False
    assert not (await index.search(context, QUESTION)).standby


async def test_nothing_is_written_to_the_standby(
    open_index: Callable[..., KnowledgeIndex], context: Context, proxy: Proxy
) -> None:
    index = open_index(standby=proxy.url)
    await index.add(context, [DISK])
    [listed] = (await index.documents(context, 0, 10)).documents
    await index.remove(context, listed.id)
    assert proxy.received == 0


async def test_a_search_that_no_server_answers_ends_in_the_time_of_both(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, proxy: Proxy
) -> None:
    proxy.silent = True
    index = open_index(url=proxy.url, standby=proxy.url, collection=collection, timeout_s=0.3)
    assert 0.6 <= await failing(index, context, "Milvus did not answer") < 1.2


async def test_a_request_with_little_time_left_does_not_wait_for_a_silent_server(
    open_index: Callable[..., KnowledgeIndex], collection: str, contexts: Callable[..., Context], proxy: Proxy
) -> None:
    proxy.silent = True
    index = open_index(url=proxy.url, collection=collection)
    for _ in range(BREAKER.failures + 1):
        assert await failing(index, contexts("default", 0.1), "took too long") < 1
    assert index._replicas.all[0].circuit.state == "closed"  # a request's haste says nothing of the server


async def test_a_server_that_failed_five_times_is_left_alone_and_says_so(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, proxy: Proxy
) -> None:
    index = open_index(url=proxy.url, collection=collection, timeout_s=0.2)
    await index.warm_up()
    proxy.silent = True
    for _ in range(5):
        assert await failing(index, context, "did not answer") >= 0.2
    received = proxy.received
    assert await failing(index, context, "circuit breaker is open") < 0.1
    assert proxy.received == received
    proxy.silent = False
    check = await check_of(index, "milvus")
    assert (check.ok, check.required) == (False, False)
    assert (check.reason or "").startswith("searches failed again and again")


async def test_a_server_that_is_back_is_found_by_one_search(
    collection: str, context: Context, milvus_url: str, proxy: Proxy
) -> None:
    knowledge = KnowledgeSettings(collection=collection, timeout_s=SLOW_S)
    milvus = MilvusSettings(url=proxy.url, standby=milvus_url)
    servers = MilvusReplicas(milvus, knowledge, BreakerPolicy(failures=1, cool_down_s=0.5))

    async def standby() -> bool:
        return (await servers.search(context, {"sparse": {0: 1.0}}, 1)).standby

    assert not await standby()
    proxy.silent = True
    assert await standby()
    assert servers.all[0].circuit.state == "open"
    proxy.silent = False
    assert await standby()
    await asyncio.sleep(0.5)
    assert sorted(await asyncio.gather(*(standby() for _ in range(5)))) == [False, True, True, True, True]
    assert servers.all[0].circuit.state == "closed"
    assert not await standby()
    await servers.close()


async def test_a_document_that_the_standby_has_in_an_older_version_is_not_found_there(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, milvus_url: str
) -> None:
    index = open_index(url=dead_url(), standby=milvus_url, collection=collection)
    registry = index._documents(context.tenant)
    [(document_id, record)] = (await registry.records([(await registry.page(0, 1)).documents[0].id])).items()
    newer = {**{name: getattr(record, name) for name in type(record).__slots__}, "digest": "newer"}
    await index._redis.hset(registry._documents, document_id, json.dumps(newer))
    assert sources(await index.search(context, QUESTION)) == []


async def test_a_silent_server_does_not_keep_the_checks_waiting(
    open_index: Callable[..., KnowledgeIndex], context: Context, proxy: Proxy
) -> None:
    proxy.silent = True
    index = open_index(url=proxy.url, standby=proxy.url)
    started = time.monotonic()
    checks = {check.name: (check.ok, check.required) for check in await index.checks()}
    assert time.monotonic() - started < 1.8
    assert checks == {"milvus": (False, False), "milvus:standby": (False, False), "knowledge": (True, False)}


async def test_a_connection_that_outlasts_its_search_is_there_for_the_next_one(
    collection: str, context: Context, proxy: Proxy
) -> None:
    servers = MilvusReplicas(MilvusSettings(url=proxy.url), KnowledgeSettings(collection=collection, timeout_s=0.2))
    proxy.silent = True
    with pytest.raises(StoreUnavailable):
        await servers.search(context, {"sparse": {0: 1.0}}, 1)
    [connecting] = [each.passages._collection._connecting._task for each in servers.all]
    assert connecting
    assert not connecting.done()
    proxy.silent = False
    await connecting
    await servers.close()


async def test_a_process_that_starts_has_the_collection_loaded_before_it_is_searched(
    open_index: Callable[..., KnowledgeIndex], collection: str, milvus_url: str, context: Context
) -> None:
    client = MilvusClient(milvus_url)
    client.release_collection(collection)
    client.close()
    index = open_index(collection=collection)
    await index.warm_up()
    assert index._passages._collection._loads == 1
    assert sources(await index.search(context, QUESTION)) == ["disk"]
    assert index._passages._collection._loads == 1


async def test_a_process_starts_without_milvus(open_index: Callable[..., KnowledgeIndex], collection: str) -> None:
    await open_index(url=dead_url(), collection=collection).warm_up()


@pytest.mark.parametrize(("mode", "least_s"), [("error", 0), ("timeout", SLOW_S)])
async def test_a_fault_of_the_retriever_is_a_fault_of_each_server(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context, mode: Any, least_s: float
) -> None:
    index = open_index(collection=collection, timeout_s=SLOW_S)
    await index.warm_up()
    assert least_s <= await failing(index, faulty(context, mode), "did not answer") < least_s + 0.5
    assert sources(await index.search(faulty(context, mode, until=time.time() - 1), QUESTION)) == ["disk"]
    assert index._replicas.all[0].circuit.state == "closed"


async def test_a_slow_fault_delays_a_search_and_garbage_garbles_it(
    open_index: Callable[..., KnowledgeIndex], collection: str, context: Context
) -> None:
    index = open_index(collection=collection)
    started = time.monotonic()
    assert sources(await index.search(faulty(context, "slow"), QUESTION)) == ["disk"]
    assert time.monotonic() - started >= 0.3
    [garbled] = (await index.search(faulty(context, "garbage"), QUESTION)).passages
    assert garbled.source == "disk"
    assert "shred" not in garbled.text


def faulty(context: Context, mode: Any, target: str = "retriever", until: float = 4e9) -> Context:
    fault = Fault(target=target, mode=mode, rate=1, delay_s=0.3, until=until)
    return context.model_copy(update={"faults": (fault,)})

"""Redis, Milvus and stub servers that the tests share, and how their files are spread over workers."""

from __future__ import annotations

import gc
import logging
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import mcp.client.stdio  # noqa: F401 - it keeps the stderr of its first import, which must be no test's own
import pytest
from captured_logs import CapturedLogs
from debian_redis import debian_redis
from listening import free_port, served
from stub_server import Stub, stub_app
from xdist.scheduler import LoadScopeScheduling

from serve_app.config import RedisSettings
from serve_app.deployments.embedded_stores import EmbeddedStores, choose_ports
from serve_app.stores.redis import create_redis_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Mapping
    from pathlib import Path

    from redis.asyncio import Redis


# Ray's default is 15: beside two busy test workers on two cores, a replica would get a twentieth of one
os.environ |= {"RAY_worker_niceness": "0"}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children

SHARED_CLUSTER, OWN_CLUSTERS = "shared cluster", "own clusters"
"""One worker runs all tests that share a Ray cluster. Another begins with those that start one of their own: they have
ended when the shared one is at its largest."""
OWN_CLUSTER_FILES = {
    "tests/deployments/test_stores_deployment.py",
    "tests/service/test_guards.py",
    "tests/service/test_serve_run.py",
}


def _scope_of(nodeid: str) -> str:
    """What one worker runs together: a file's tests, or those of several files that start Ray."""
    file = nodeid.split("::", 1)[0]
    if file in OWN_CLUSTER_FILES:
        return OWN_CLUSTERS
    return SHARED_CLUSTER if file.startswith("tests/service/") else file


class ScopeScheduling(LoadScopeScheduling):  # type: ignore[misc] # its package is untyped
    """Gives the tests of one scope to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ScopeScheduling:
    return ScopeScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the tests that start clusters; those that need most of the shared one are its last.

    A test that is itself long runs with Debian's Redis only.
    """
    items[:] = [item for item in items if not (_is_long(item) and _parameters(item).get("redis_url") == "embedded")]
    order = {SHARED_CLUSTER: 0, OWN_CLUSTERS: 1}
    items.sort(key=lambda item: (order.get(_scope_of(item.nodeid), 2), _needs_pair(item)))


def _is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is not None


def _parameters(item: pytest.Item) -> Mapping[str, object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def _needs_pair(item: pytest.Item) -> bool:
    """Whether the test needs two replicas of each deployment, which then run to the end of the session."""
    return isinstance(item, pytest.Function) and "pair" in item.fixturenames


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes half characters in a report, which the connection to a worker cannot send."""
    report = yield
    report.sections = [(title, _escape(text)) for title, text in report.sections]
    if isinstance(report.longrepr, str):
        report.longrepr = _escape(report.longrepr)
    return report


def _escape(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(scope="module", autouse=True)
def freeze_objects() -> None:
    """Takes what imports and earlier files have left out of garbage collection.

    Otherwise a full collection stops a worker's event loop for a second, on a busy machine for three, and time-outs
    fire.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def running(data_dir: Path, store: str) -> Iterator[int]:
    """A store of its own in `data_dir`; its port."""
    ports = choose_ports(data_dir)
    stores = EmbeddedStores(data_dir, ports, redis=store == "redis", milvus=store == "milvus")
    try:
        stores.start()
        yield getattr(ports, store)
    finally:
        stores.stop()


@pytest.fixture(scope="session", params=["embedded", pytest.param("debian", marks=pytest.mark.long)])
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded Redis 6.2, and in the long run Debian's 7 as well."""
    folder = tmp_path_factory.mktemp("redis")
    with running(folder, "redis") if request.param == "embedded" else debian_redis(folder) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def api_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded Redis of the tests of the API, in the long run too."""
    with running(tmp_path_factory.mktemp("redis"), "redis") as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def milvus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("milvus"), "milvus") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = create_redis_client(RedisSettings(), redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def stub() -> Iterator[Stub]:
    app = stub_app()
    with served(app) as url:
        yield Stub(url, app)


@pytest.fixture(name="free_port")
def _free_port() -> int:
    return free_port()


@pytest.fixture
def captured_logs() -> Iterator[CapturedLogs]:
    """What is logged, down to the last step, as a file would have it."""
    handler, root, ours = CapturedLogs(), logging.getLogger(), logging.getLogger("serve_app")
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield handler
    ours.setLevel(logging.NOTSET)
    root.removeHandler(handler)

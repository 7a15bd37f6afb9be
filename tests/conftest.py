"""Which real servers do the tests share?"""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mcp.client.stdio  # noqa: F401 - it keeps the stderr of its first import, which must be no test's own
import pytest
from captured_logs import CapturedLogs
from debian_redis import debian_redis
from listening import free_port, served
from stub_server import Stub, stub_app

from serve_app.config import RedisSettings
from serve_app.deployments.data_folder import choose_ports
from serve_app.deployments.embedded_stores import EmbeddedStores
from serve_app.stores.redis import create_redis_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from redis.asyncio import Redis


signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children


WITH_RAY = {"service", "deployments"}
"""Folders whose tests start a Ray: one worker runs them all."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one worker, because they share its fixtures."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent)
        item.add_marker(pytest.mark.xdist_group("ray" if file.parts[0] in WITH_RAY else str(file)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hostile text in a report is escaped: a worker sends its reports as UTF-8."""
    report = yield
    report.sections = [(name, _escape(text)) for name, text in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        text = str(report.longrepr)
        if (escaped := _escape(text)) != text:
            report.longrepr = escaped
    return report


def _escape(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


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

"""The services that the tests of the API call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from http_service import Service, empty, running

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service(api_redis_url: str) -> AsyncIterator[Service]:
    async with running(Service(empty(api_redis_url))) as service:
        yield service


@pytest.fixture
async def roomy(api_redis_url: str) -> AsyncIterator[Service]:
    """A service with the default limits."""
    async with running(Service(empty(api_redis_url), settings=HttpSettings())) as service:
        yield service


@pytest.fixture
async def hurried(api_redis_url: str) -> AsyncIterator[Service]:
    """A service that gives a turn a tenth of a second."""
    async with running(Service(empty(api_redis_url), turn_timeout_s=0.1)) as service:
        yield service

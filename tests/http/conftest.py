"""Which services do the tests of the API speak to?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from http_service import Service, running

from serve_app.config import HttpSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running(Service()) as service:
        yield service


@pytest.fixture
async def roomy() -> AsyncIterator[Service]:
    """A service with the default limits."""
    async with running(Service(settings=HttpSettings())) as service:
        yield service


@pytest.fixture
async def hurried() -> AsyncIterator[Service]:
    """A service that gives a turn a tenth of a second."""
    async with running(Service(turn_timeout_s=0.1)) as service:
        yield service

"""The fakes that the tests of the commands share with those of the API, and the service of the chat tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parent.parent / "http"))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripted_chat import ScriptedChatAgent


@pytest.fixture(scope="package")
def agent() -> ScriptedChatAgent:
    from scripted_chat import ScriptedChatAgent

    return ScriptedChatAgent()


@pytest.fixture(scope="package")
def url(agent: ScriptedChatAgent, api_redis_url: str) -> Iterator[str]:
    """The real HTTP API over that agent."""
    from cli_service import served

    with served(api_redis_url, agent) as url:
        yield url

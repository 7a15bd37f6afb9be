"""The model passes the suites that LangChain has for chat models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import SecretStr
from scripted_provider import serving

from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_core.language_models import BaseChatModel


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return OpenAICompatibleModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "stub", "base_url": "http://127.0.0.1:9/v1", "api_key": SecretStr("key")}


class TestIntegration(ChatModelIntegrationTests):
    _url = ""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _provider(cls) -> Iterator[None]:
        with serving() as provider:
            cls._url = provider.url
            yield

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return OpenAICompatibleModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "stub", "base_url": self._url, "api_key": SecretStr("key")}

    @property
    def supports_image_inputs(self) -> bool:
        return False  # the suite fetches its images from the public network; test_requests.py has our own

    @property
    def model_override_value(self) -> str:
        return "another"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

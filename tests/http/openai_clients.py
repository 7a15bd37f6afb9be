"""Calls the API as OpenAI's own client does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import openai

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from http_service import Service

KEY = "sk-none-is-asked-for"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def base_url(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}/v1"


@asynccontextmanager
async def client_of(service: Service, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client that is pointed at the service, and otherwise as it comes."""
    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url(service), **options) as client:
        yield client


async def completed(service: Service, messages: list[Any] | None = None, **fields: Any) -> Any:
    """One completion."""
    async with client_of(service) as client:
        return await client.chat.completions.create(model="serve_app", messages=messages or HELLO, **fields)

"""OpenAI's client raises the right error where it is refused, and comes back when it may."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from http_service import running
from openai_clients import HELLO, base_url
from test_admission_routes import guarded
from test_keys import key_of, keyed

from serve_app.errors import RateLimited


async def _complete(service: Any, key: str, retries: int = 0) -> Any:
    async with openai.AsyncOpenAI(api_key=key, base_url=base_url(service), max_retries=retries) as client:
        return await client.chat.completions.create(model="serve_app", messages=HELLO)


@pytest.mark.parametrize(
    ("scopes", "raises", "code", "kind"),
    [
        ((), openai.AuthenticationError, "unauthenticated", "authentication_error"),
        (("knowledge",), openai.PermissionDeniedError, "forbidden", "permission_error"),
    ],
)
async def test_a_key_that_is_not_known_or_opens_something_else_is_told_in_openais_words(
    api_redis_url, scopes, raises, code, kind
) -> None:
    async with running(keyed(api_redis_url)) as service:
        key = (await key_of(service, *scopes))["Authorization"].split()[1] if scopes else "sk-of-somebody-else"
        with pytest.raises(raises) as refused:
            await _complete(service, key)
        assert (refused.value.code, refused.value.type) == (code, kind)
        assert service.agent.calls == 0
        good = (await key_of(service, "chat"))["Authorization"].split()[1]
        assert (await _complete(service, good)).choices[0].message.content


async def test_whoever_has_used_up_its_allowance_or_finds_the_service_full_is_told_so() -> None:
    async with guarded(max_turns=1, max_waiting=0) as service:
        service.limiter.says = RateLimited("This key has used up its turns per minute", retry_after_s=11.2)
        with pytest.raises(openai.RateLimitError) as limited:
            await _complete(service, "sk-any")
        assert (limited.value.code, limited.value.response.headers["Retry-After"]) == ("rate_limited", "12")
        assert service.agent.calls == 0


async def test_a_client_that_may_try_again_comes_back_and_is_answered() -> None:
    async with guarded() as service:
        says = [RateLimited("Not now", retry_after_s=0.1), service.limiter.says]

        async def take_turn(caller: Any) -> Any:
            service.limiter.says = says.pop(0)
            return await type(service.limiter).take_turn(service.limiter, caller)

        service.limiter.take_turn = take_turn
        assert (await _complete(service, "sk-any", retries=2)).choices[0].message.content
        assert says == []

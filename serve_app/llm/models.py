"""Which chat model does a name mean, and what keeps it from being built?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.config import environment, secret
from serve_app.errors import InvalidConfiguration, Problem
from serve_app.llm.chain import Chain
from serve_app.llm.guarded import Guarded
from serve_app.llm.offline import OfflineModel
from serve_app.llm.translate import problem_of
from serve_app.llm.tries import Link
from serve_app.observability.recorders import SILENT
from serve_app.resilience.breaker import Limit
from serve_app.resilience.circuit import Circuit

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from pydantic import SecretStr

    from serve_app.config import ModelEndpoint, ModelSettings
    from serve_app.ports import Metrics

OFFLINE = "offline"
OPENAI = "openai"
NO_KEY = "none"
"""For a compatible server that asks for no key: OpenAI's client wants one, and OpenAI's own must not go there."""


def build(settings: ModelSettings, metrics: Metrics = SILENT) -> Chain:
    """The model and its fallbacks as one, each call within its time and failing in our terms.

    Raises:
        InvalidConfiguration: with every problem.
    """
    found = problems(settings)
    if found:
        raise InvalidConfiguration(tuple(found))
    limit = Limit(settings.breaker_failures, settings.cool_down_s)
    links = tuple(Link(_guarded(each), Circuit(each.name, limit)) for each in (settings, *settings.fallbacks))
    return Chain(links=links, attempts=settings.attempts, metrics=metrics)


def problems(settings: ModelSettings) -> list[Problem]:
    """What would keep the model or a fallback from being built; nothing is asked over the network."""
    fallbacks = [(f"model.fallbacks.{place}", each) for place, each in enumerate(settings.fallbacks)]
    return [problem for where, each in [("model", settings), *fallbacks] for problem in _problems(each, where)]


def _guarded(settings: ModelEndpoint) -> Guarded:
    model = OfflineModel() if settings.name == OFFLINE else _provided(settings, _key(settings))
    return Guarded(inner=model, timeout_s=settings.timeout_s, called=settings.name)


def _problems(settings: ModelEndpoint, where: str) -> list[Problem]:
    if settings.name == OFFLINE:
        return []
    if not settings.name.strip():
        mend = "Name it provider:model, such as openai:glm-4, or offline"
        return [Problem(f"{where}.name", "no model is named", mend)]
    missing, key = [], None
    try:
        key = _key(settings)
    except InvalidConfiguration as error:
        missing = [Problem(f"{where}.api_key_env", _not_set(settings), each.mend) for each in error.problems]
    constructing = partial(_provided, settings, NO_KEY if missing else key)
    unbuildable = problem_of(constructing, settings.name, where)
    return [*missing, unbuildable] if unbuildable else missing


def _provided(settings: ModelEndpoint, key: SecretStr | str | None) -> BaseChatModel:
    from langchain.chat_models import init_chat_model

    optional: dict[str, Any] = {
        "base_url": settings.base_url,
        "api_key": key,
        "temperature": settings.temperature,
        "stream_usage": True if _provider(settings) == OPENAI else None,
    }
    given = {name: value for name, value in optional.items() if value is not None}
    model: BaseChatModel = init_chat_model(settings.name, timeout=settings.timeout_s, max_retries=0, **given)
    return model


def _key(settings: ModelEndpoint) -> SecretStr | str | None:
    """The key that the settings name, else the provider's usual one; None leaves it to the provider's package."""
    if settings.api_key_env:
        return secret(settings.api_key_env)
    if settings.base_url:
        return NO_KEY if _provider(settings) == OPENAI else None
    usual = f"{_provider(settings).upper()}_API_KEY"
    return secret(usual) if environment().get(usual) else None


def _provider(settings: ModelEndpoint) -> str:
    return settings.name.partition(":")[0]


def _not_set(settings: ModelEndpoint) -> str:
    return f"the environment variable {settings.api_key_env} is not set"

"""Builds the chat models of the settings, and finds the problems that prevent it."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from serve_app.config import read_environment, read_secret
from serve_app.config.class_path import load_class
from serve_app.errors import InvalidConfiguration, Problem
from serve_app.llm.error_translation import read_error_text
from serve_app.llm.fallback import FallbackModel, ModelCandidate
from serve_app.llm.guarded import GuardedModel
from serve_app.llm.offline import OfflineModel
from serve_app.observability.metrics import NULL_METRICS
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from serve_app.config import ModelEndpoint, ModelSettings
    from serve_app.llm.openai_compatible.endpoint_profile import EndpointProfile
    from serve_app.ports import Metrics

OFFLINE = "offline"
OPENAI = "openai"
ANY_KEY = "none"
"""Replaces a missing key while the other settings are checked."""

_KEY_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|ACCESS_KEY|TOKEN)\b")
_PACKAGE = re.compile(r"pip install [`'\"]?([A-Za-z0-9_.\[\]-]+)")
_PROVIDERS = re.compile(r"[Ss]upported (?:model )?providers(?: are)?: ([a-z0-9_, ]+)")


def build_model(settings: ModelSettings, metrics: Metrics = NULL_METRICS) -> FallbackModel:
    """Build the model and its fallbacks as one guarded model.

    Raises:
        InvalidConfiguration: with every problem.
    """
    problems = find_model_problems(settings)
    if problems:
        raise InvalidConfiguration(tuple(problems))
    policy = BreakerPolicy(settings.breaker_failures, settings.cool_down_s)
    candidates = tuple(_build_candidate(each, policy) for each in (settings, *settings.fallbacks))
    return FallbackModel(
        candidates=candidates, attempts=settings.attempts, fallback_on=frozenset(settings.fallback_on), metrics=metrics
    )


def find_model_problems(settings: ModelSettings) -> list[Problem]:
    """Return what prevents the model or a fallback from being built; uses no network."""
    fallbacks = [(f"model.fallbacks.{place}", each) for place, each in enumerate(settings.fallbacks)]
    return [problem for where, each in [("model", settings), *fallbacks] for problem in _endpoint_problems(each, where)]


def _build_candidate(settings: ModelEndpoint, policy: BreakerPolicy) -> ModelCandidate:
    model = OfflineModel() if settings.name == OFFLINE else _construct_model(settings, _read_key(settings))
    guarded = GuardedModel(inner=model, timeout_s=settings.timeout_s, configured_name=settings.name)
    return ModelCandidate(
        guarded,
        GuardedCalls(settings.name, policy),
        context_tokens=settings.context_tokens,
        takes_tools=settings.tools,
        dialect=_choose_profile(settings).schema_dialect if _provider(settings) == OPENAI else "full",
        key_env=settings.api_key_env or _default_key_variable(settings),
    )


def _endpoint_problems(settings: ModelEndpoint, where: str) -> list[Problem]:
    if settings.name == OFFLINE:
        return []
    if not settings.name.strip():
        fix = "Name it provider:model, such as openai:glm-4, or offline"
        return [Problem(f"{where}.name", "no model is named", fix)]
    missing, key = [], None
    try:
        key = _read_key(settings)
    except InvalidConfiguration as error:
        missing = [_describe_missing_key(settings, where, each) for each in error.problems]
    unset = [name for name in settings.options_env.values() if not read_environment().get(name)]
    if unset:
        fix = "Set it, put it into .env, or name another variable"
        return [Problem(f"{where}.options_env", f"the environment variable {each} is not set", fix) for each in unset]
    problem = _construction_problem(settings, ANY_KEY if missing else key, where)
    return [*missing, problem] if problem else missing


def _construction_problem(settings: ModelEndpoint, key: SecretStr | str | None, where: str) -> Problem | None:
    """Return why the model of the section `where` cannot be constructed, or None."""
    try:
        _construct_model(settings, key)
    except InvalidConfiguration as error:
        return replace(error.problems[0], where=f"{where}.name")
    except Exception as error:  # noqa: BLE001 - a provider's package raises whatever it likes
        return _describe_error(error, settings.name, where)
    return None


def _describe_error(error: Exception, name: str, where: str) -> Problem:
    text, at = read_error_text(error), f"{where}.name"
    provider = name.partition(":")[0]
    if variable := _KEY_VARIABLE.search(text):
        fix = f"Set it, put it into .env, or name another variable in {where}.api_key_env"
        return Problem(at, f"{name} has no key: the environment variable {variable.group()} is not set", fix)
    if isinstance(error, ImportError | AttributeError):
        package = _PACKAGE.search(text)
        install = package.group(1) if package else f"langchain-{provider.replace('_', '-')}"
        return Problem(at, f"the package of {name} is not installed", f"pip install {install}")
    if supported := _PROVIDERS.search(text):
        near = get_close_matches(provider, re.findall(r"\w+", supported.group(1)), n=1)
        fix = f"Did you mean {near[0]!r}?" if near else "Name it provider:model, such as openai:glm-4"
        return Problem(at, f"{name} names no provider that is known", fix)
    return Problem(at, f"{name} cannot be constructed ({type(error).__name__})", f"Check the section {where}")


def _construct_model(settings: ModelEndpoint, key: SecretStr | str | None) -> BaseChatModel:
    if _provider(settings) == OPENAI:
        return _construct_compatible(settings, key)
    optional: dict[str, Any] = {
        "base_url": settings.base_url,
        "api_key": key,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
        "reasoning_effort": settings.reasoning_effort,
        "default_headers": settings.extra_headers or None,
        "model_kwargs": settings.extra_body or None,
    }
    options = {name: value for name, value in optional.items() if value is not None} | settings.options
    options |= {name: read_secret(variable) for name, variable in settings.options_env.items()}
    if _is_class(settings):
        cls = load_class(settings.name, _chat_model_class())
        built: BaseChatModel = cls(**options)
        return built
    from langchain.chat_models import init_chat_model

    model: BaseChatModel = init_chat_model(settings.name, timeout=settings.timeout_s, max_retries=0, **options)
    return model


def _construct_compatible(settings: ModelEndpoint, key: SecretStr | str | None) -> BaseChatModel:
    """Build our own client, for any endpoint that speaks OpenAI's chat completions."""
    from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel

    optional: dict[str, Any] = {
        "base_url": settings.base_url,
        "api_key": SecretStr(key) if isinstance(key, str) else key,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        "reasoning_effort": settings.reasoning_effort,
        "stream_usage": settings.stream_usage,
    }
    return OpenAICompatibleModel(
        model=settings.name.partition(":")[2],
        timeout_s=settings.timeout_s,
        endpoint_profile=_choose_profile(settings),
        extra_body=settings.extra_body,
        extra_headers=settings.extra_headers,
        stream_always=settings.stream == "always",
        **{name: value for name, value in optional.items() if value is not None},
    )


def _choose_profile(settings: ModelEndpoint) -> EndpointProfile:
    from serve_app.llm.openai_compatible.endpoint_profile import PROFILES, find_profile

    found = (
        PROFILES[settings.profile]
        if settings.profile
        else find_profile(settings.base_url, settings.name.partition(":")[2])
    )
    return replace(found, accepts_done_as_end=True) if settings.done_ends else found


def _chat_model_class() -> type[BaseChatModel]:
    from langchain_core.language_models import BaseChatModel

    return BaseChatModel


def _read_key(settings: ModelEndpoint) -> SecretStr | str | None:
    """Read the key that the settings name, else the provider's usual one.

    Raises:
        InvalidConfiguration: there is no key for OpenAI's own endpoint.
    """
    if settings.api_key_env:
        return read_secret(settings.api_key_env)
    if settings.base_url or _is_class(settings):
        return None
    usual = _default_key_variable(settings)
    if read_environment().get(usual) or _provider(settings) == OPENAI:
        return read_secret(usual)
    return None


def _default_key_variable(settings: ModelEndpoint) -> str:
    return "" if _is_class(settings) else f"{_provider(settings).upper()}_API_KEY"


def _is_class(settings: ModelEndpoint) -> bool:
    """Return whether the name is the import path of a class, not `provider:model`."""
    provider = _provider(settings)
    return "." in provider or provider.startswith("langchain_")


def _provider(settings: ModelEndpoint) -> str:
    return settings.name.partition(":")[0]


def _describe_missing_key(settings: ModelEndpoint, where: str, found: Problem) -> Problem:
    if settings.api_key_env:
        return Problem(f"{where}.api_key_env", f"the environment variable {settings.api_key_env} is not set", found.fix)
    what = f"{settings.name} has no key: the environment variable {_default_key_variable(settings)} is not set"
    return Problem(f"{where}.name", what, f"Set it, put it into .env, or name another variable in {where}.api_key_env")

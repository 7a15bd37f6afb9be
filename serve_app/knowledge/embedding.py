"""Embeds texts: constructs the embedding model that the configuration names, and bounds its calls."""

from __future__ import annotations

import asyncio
import logging
import math
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from serve_app.config import read_secret
from serve_app.config.class_path import is_class_path, load_class, silence_community_notice
from serve_app.errors import InvalidConfiguration, ModelUnavailable, Problem
from serve_app.resilience.circuit_breaker import BreakerPolicy, GuardedCalls
from serve_app.resilience.fault_injection import inject_fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from langchain_core.embeddings import Embeddings

    from serve_app.config import EmbeddingSettings
    from serve_app.values import Context

T = TypeVar("T")


logger = logging.getLogger(__name__)

BATCH = 64
"""Texts per call: the smallest limit of a known provider."""
BREAKER = BreakerPolicy(failures=5, cool_down_s=10)
"""Twice as long as for Milvus: a provider may count the calls that it refuses."""
MODEL = "knowledge.embedding.model"
OPTIONS = "knowledge.embedding.options"
FACTORY = "knowledge.embedding.factory"
_ADDRESSES = ("base_url", "api_base", "endpoint")


class Embedder:
    """Calls LangChain `Embeddings` within bounds of time and size; every method may raise `ModelUnavailable`."""

    def __init__(
        self,
        settings: EmbeddingSettings,
        query_timeout_s: float,
        expected_dimension: Callable[[], int | None],
        embeddings: Embeddings | None = None,
    ) -> None:
        self.circuit = GuardedCalls("embedding", BREAKER)
        self._expected_dimension = expected_dimension
        self._timeout_s = settings.timeout_s
        self._query_timeout_s = min(query_timeout_s, settings.timeout_s)
        self._embeddings = embeddings or create_embeddings(settings)

    async def embed_query(self, context: Context, text: str) -> list[float]:
        """The vector of a question; fails at once while the circuit breaker is open."""
        with self.circuit.guard(ModelUnavailable, (ModelUnavailable,)):
            vector = await _call_embeddings(self._embed_with_faults(context, text), self._query_timeout_s)
            self._check_vector(vector)
            return vector

    async def _embed_with_faults(self, context: Context, text: str) -> list[float]:
        if await inject_fault(context.faults, "embedding", ConnectionError("an injected fault")):
            return []
        return await self._embeddings.aembed_query(text)

    async def ping(self) -> None:
        """Embed a word, and check that the collection could hold its vector."""
        self._check_vector(await self._embed_word())

    async def measure_dimension(self) -> int:
        """The length of every vector."""
        return len(await self._embed_word())

    async def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of passages, in order."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            vectors += await _call_embeddings(self._embeddings.aembed_documents(batch), self._timeout_s)
        for vector in vectors:
            self._check_vector(vector)
        return vectors

    async def _embed_word(self) -> list[float]:
        return await _call_embeddings(self._embeddings.aembed_query("dimension"), self._timeout_s)

    def _check_vector(self, vector: list[float]) -> None:
        """Refuse a vector that Milvus would not take, as a failure of the embedding model."""
        if not vector or not all(map(math.isfinite, vector)):
            raise ModelUnavailable("The embedding model's answer cannot be read")
        wanted = self._expected_dimension()
        if wanted is not None and len(vector) != wanted:
            what = f"The embedding model's vectors have {len(vector)} numbers, those of the collection {wanted}"
            raise ModelUnavailable(f"{what}: it is another model, or another version of it")


async def _call_embeddings(call: Awaitable[T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except Exception as error:  # each provider's package raises errors of its own
        logger.warning("embedding_failed", exc_info=error)
        raise ModelUnavailable(f"The embedding model did not answer ({type(error).__name__})") from error


def create_embeddings(settings: EmbeddingSettings) -> Embeddings:
    """The LangChain `Embeddings` that `settings` name, with its secrets.

    Raises:
        InvalidConfiguration: a class by import path is missing, or does not take its options.
    """
    if settings.factory is not None:
        made: Embeddings = resolve_name(settings.factory)()
        return made
    name = settings.model or ""
    if is_class_path(name):
        given = {option: read_secret(variable).get_secret_value() for option, variable in settings.options_env.items()}
        key = read_secret(settings.api_key_env).get_secret_value() if settings.api_key_env else None
        return _construct(settings, given, key)
    from langchain.embeddings import init_embeddings

    options: dict[str, Any] = {}
    if settings.base_url is not None:
        options["base_url"] = settings.base_url
    if settings.api_key_env is not None:
        options["api_key"] = read_secret(settings.api_key_env)
    if name.startswith("openai:"):
        # The check would download a tokenizer; retries are the caller's.
        options |= {"check_embedding_ctx_length": False, "max_retries": 0, "timeout": settings.timeout_s}
    return init_embeddings(name, **options)


def find_embedding_problems(settings: EmbeddingSettings) -> Iterator[Problem]:
    """The reasons why the model cannot be constructed; nothing is sent to it."""
    if settings.factory:
        yield from _factory_problems(settings.factory)
    elif settings.model and is_class_path(settings.model):
        try:
            given = dict.fromkeys(settings.options_env, "no key")
            _construct(settings, given, "no key" if settings.api_key_env else None)
        except InvalidConfiguration as error:
            yield from error.problems
    elif settings.model:
        yield from _name_problems(settings.model, has_key=settings.api_key_env is not None)


def _construct(settings: EmbeddingSettings, given: dict[str, str], key: str | None) -> Embeddings:
    from langchain_core.embeddings import Embeddings

    path = settings.model or ""
    chosen = load_class(path, Embeddings, MODEL)
    known: dict[str, Any] = getattr(chosen, "model_fields", {})
    options: dict[str, Any] = {**settings.options, **given}
    if key is not None:
        options[_find_option(known, ("api_key",), path, "api_key_env")] = key
    if settings.base_url is not None:
        options[_find_option(known, _ADDRESSES, path, "base_url")] = settings.base_url
    if "max_retries" in known:
        options.setdefault("max_retries", 1)  # the least that its package takes: the service itself retries
    names = {*known, *(field.alias for field in known.values())}
    if known and (unknown := sorted(options.keys() - names)):
        what = f"{path} has no option {', '.join(unknown)}"
        raise InvalidConfiguration((Problem(OPTIONS, what, f"It has: {', '.join(sorted(known))}"),))
    try:
        with silence_community_notice():
            made: Embeddings = chosen(**options)
    except ImportError as error:
        raise InvalidConfiguration((Problem(MODEL, f"{path} needs another package", _first_line(error)),)) from error
    except Exception as error:  # a provider's package raises whatever it likes; its message may hold an option's value
        what = f"{path} cannot be constructed ({_reasons(error)})"
        hint = "Correct knowledge.embedding.options; name the variable of its key in api_key_env or options_env"
        raise InvalidConfiguration((Problem(MODEL, what, hint),)) from error
    return made


def _find_option(known: dict[str, Any], endings: tuple[str, ...], path: str, setting: str) -> str:
    """The option of the class that corresponds to the setting."""
    for ending in endings:
        found = [name for name in known if name == ending] or [name for name in known if name.endswith(ending)]
        if len(found) == 1:
            return found[0]
    what = f"{path} has no option that {setting} could be"
    raise InvalidConfiguration((Problem(f"knowledge.embedding.{setting}", what, "Use options and options_env"),))


def _factory_problems(path: str) -> Iterator[Problem]:
    hint = "Name a function without arguments that returns LangChain Embeddings"
    try:
        factory = resolve_name(path)
    except Exception as error:  # noqa: BLE001 - importing runs whatever the user's module does
        yield Problem(FACTORY, f"{path} does not import ({type(error).__name__}: {error})", hint)
    else:
        if not callable(factory):
            yield Problem(FACTORY, f"{path} is not a function", hint)


def _name_problems(name: str, *, has_key: bool) -> Iterator[Problem]:
    """Problems of a model's name, found by constructing it; keys are checked elsewhere."""
    from langchain.embeddings import init_embeddings

    hint = "Name it provider:model, such as openai:embedding-3, or package.module:Class"
    if ":" not in name:
        yield Problem(MODEL, f"{name} names no provider", hint)
        return
    try:
        init_embeddings(name, **({"api_key": "no key"} if has_key else {}))
    except ImportError as error:
        yield Problem(MODEL, f"the package of {name} is not installed", str(error))
    except ValueError as error:
        yield Problem(MODEL, _first_line(error), hint)
    except Exception as error:  # noqa: BLE001 - a provider's package raises whatever it likes
        what = f"{name} cannot be constructed ({_first_line(error)})"
        yield Problem(MODEL, what, "Name the variable that holds its key: knowledge.embedding.api_key_env")


def _reasons(error: Exception) -> str:
    """The message of `error` without the values that pydantic repeats."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = [": ".join([".".join(map(str, each["loc"])), each["msg"]]).removeprefix(": ") for each in found]
        return "; ".join(reasons).split("\n", 1)[0].rstrip(".")
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__

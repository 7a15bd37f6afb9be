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
    from collections.abc import Awaitable, Iterator

    from langchain_core.embeddings import Embeddings

    from serve_app.config import EmbeddingSettings
    from serve_app.knowledge.collection_check import CollectionCheck
    from serve_app.values import Context

T = TypeVar("T")


logger = logging.getLogger(__name__)

BATCH = 64
"""Texts per call: the least that a known provider limits it to."""
LIMIT = BreakerPolicy(failures=5, cool_down_s=10)
"""Twice as long as for Milvus: it is another's service, which may count the questions it refuses."""
MODEL = "knowledge.embedding.model"
OPTIONS = "knowledge.embedding.options"
FACTORY = "knowledge.embedding.factory"
_ADDRESSES = ("base_url", "api_base", "endpoint")


class Embedder:
    """A LangChain `Embeddings`, its calls bounded in time and size; every method raises `ModelUnavailable`."""

    def __init__(
        self,
        settings: EmbeddingSettings,
        query_timeout_s: float,
        layout: CollectionCheck,
        embeddings: Embeddings | None = None,
    ) -> None:
        self.circuit = GuardedCalls("embedding", LIMIT)
        self._layout = layout
        self._timeout_s = settings.timeout_s
        self._query_timeout_s = min(query_timeout_s, settings.timeout_s)
        self._embeddings = embeddings or embeddings_of(settings)

    async def query(self, context: Context, text: str) -> list[float]:
        """The vector of a question; refused while the breaker is open."""
        with self.circuit.guard(ModelUnavailable, (ModelUnavailable,)):
            vector = await _bounded(self._vector(context, text), self._query_timeout_s)
            self._assert_fitting(vector)
            return vector

    async def _vector(self, context: Context, text: str) -> list[float]:
        if await inject_fault(context.faults, "embedding", ConnectionError("a fault set on purpose")):
            return []
        return await self._embeddings.aembed_query(text)

    async def ping(self) -> None:
        """Embed a word, and see that the collection could hold its vector."""
        self._assert_fitting(await self._word())

    async def dimension(self) -> int:
        """The length of every vector."""
        return len(await self._word())

    async def documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of passages, in order."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            vectors += await _bounded(self._embeddings.aembed_documents(batch), self._timeout_s)
        for vector in vectors:
            self._assert_fitting(vector)
        return vectors

    async def _word(self) -> list[float]:
        return await _bounded(self._embeddings.aembed_query("dimension"), self._timeout_s)

    def _assert_fitting(self, vector: list[float]) -> None:
        """See that Milvus, which would be blamed for it, is not given what it cannot take."""
        if not vector or not all(map(math.isfinite, vector)):
            raise ModelUnavailable("The embedding model's answer cannot be read")
        wanted = self._layout.dimension
        if wanted is not None and len(vector) != wanted:
            what = f"The embedding model's vectors have {len(vector)} numbers, those of the collection {wanted}"
            raise ModelUnavailable(f"{what}: it is another model, or another version of it")


async def _bounded(call: Awaitable[T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except Exception as error:  # each provider's package raises errors of its own
        logger.warning("embedding_failed", exc_info=error)
        raise ModelUnavailable(f"The embedding model did not answer ({type(error).__name__})") from error


def embeddings_of(settings: EmbeddingSettings) -> Embeddings:
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
        return _of_class(settings, given, key)
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
    """What keeps the model from being constructed; nothing is sent to it."""
    if settings.factory:
        yield from _factory_problems(settings.factory)
    elif settings.model and is_class_path(settings.model):
        try:
            given = dict.fromkeys(settings.options_env, "not asked")
            _of_class(settings, given, "not asked" if settings.api_key_env else None)
        except InvalidConfiguration as error:
            yield from error.problems
    elif settings.model:
        yield from _name_problems(settings.model, has_key=settings.api_key_env is not None)


def _of_class(settings: EmbeddingSettings, given: dict[str, str], key: str | None) -> Embeddings:
    from langchain_core.embeddings import Embeddings

    path = settings.model or ""
    chosen = load_class(path, Embeddings, MODEL)
    known: dict[str, Any] = getattr(chosen, "model_fields", {})
    options: dict[str, Any] = {**settings.options, **given}
    if key is not None:
        options[_option(known, ("api_key",), path, "api_key_env")] = key
    if settings.base_url is not None:
        options[_option(known, _ADDRESSES, path, "base_url")] = settings.base_url
    if "max_retries" in known:
        options.setdefault("max_retries", 1)  # the least that its package takes; the service retries where it should
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
        mend = "Mend knowledge.embedding.options; name the variable of its key in api_key_env or options_env"
        raise InvalidConfiguration((Problem(MODEL, what, mend),)) from error
    return made


def _option(known: dict[str, Any], endings: tuple[str, ...], path: str, setting: str) -> str:
    """The option of the class that the setting stands for."""
    for ending in endings:
        found = [name for name in known if name == ending] or [name for name in known if name.endswith(ending)]
        if len(found) == 1:
            return found[0]
    what = f"{path} has no option that {setting} could be"
    raise InvalidConfiguration((Problem(f"knowledge.embedding.{setting}", what, "Use options and options_env"),))


def _factory_problems(path: str) -> Iterator[Problem]:
    mend = "Name a function without arguments that returns LangChain Embeddings"
    try:
        factory = resolve_name(path)
    except Exception as error:  # noqa: BLE001 - importing runs whatever the user's module does
        yield Problem(FACTORY, f"{path} does not import ({type(error).__name__}: {error})", mend)
    else:
        if not callable(factory):
            yield Problem(FACTORY, f"{path} is not a function", mend)


def _name_problems(name: str, *, has_key: bool) -> Iterator[Problem]:
    """Its package and its name, by constructing it; a key that is named but missing is told elsewhere."""
    from langchain.embeddings import init_embeddings

    mend = "Name it provider:model, such as openai:embedding-3, or package.module:Class"
    if ":" not in name:
        yield Problem(MODEL, f"{name} names no provider", mend)
        return
    try:
        init_embeddings(name, **({"api_key": "not asked"} if has_key else {}))
    except ImportError as error:
        yield Problem(MODEL, f"the package of {name} is not installed", str(error))
    except ValueError as error:
        yield Problem(MODEL, _first_line(error), mend)
    except Exception as error:  # noqa: BLE001 - a provider's package raises whatever it likes
        what = f"{name} cannot be constructed ({_first_line(error)})"
        yield Problem(MODEL, what, "Name the variable that holds its key: knowledge.embedding.api_key_env")


def _reasons(error: Exception) -> str:
    """Why, without the values that pydantic repeats."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = [": ".join([".".join(map(str, each["loc"])), each["msg"]]).removeprefix(": ") for each in found]
        return "; ".join(reasons).split("\n", 1)[0].rstrip(".")
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__

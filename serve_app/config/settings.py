"""The settings tree: one frozen section for each part of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from serve_app.config.class_path import SECRET_OPTION, is_class_path
from serve_app.config.model_settings import ModelSettings
from serve_app.config.tool_settings import EgressSettings, ToolsSettings
from serve_app.config.validators import (
    EMBEDDED,
    FunctionPath,
    HttpUrl,
    MilvusUrl,
    Network,
    Origin,
    Pattern,
    RedisUrl,
    Section,
    ToolName,
    VariableName,
)
from serve_app.values import RateLimits


class AccessSettings(Section):
    """Keys, and what becomes of those who show wrong ones."""

    admin_key_env: VariableName | None = None
    """The environment variable that holds the operator's key, of at least 32 characters, which makes the others. None
    asks for no keys at all, which is for one machine: the service then refuses to listen on anything but loopback."""
    trusted_proxies: tuple[Network, ...] = ()
    """The addresses and networks of proxies before the service whose `X-Forwarded-For` is believed: anybody can write
    one. A client's address is the last one in it that is none of these."""
    failures_per_minute: float = Field(default=10, gt=0, le=1_000_000)
    """Wrong keys from one address; beyond that they are a 429. A person who mistypes needs fewer, a program that has an
    old key asks more often, and a right key is let in from any address."""
    failures_burst: int = Field(default=10, ge=1, le=1_000_000)
    """Of them at once: a program's first retries are still told that the key is wrong."""


class CacheSettings(Section):
    """Answers that are given again to the same question."""

    ttl_s: float | None = Field(default=None, gt=0, le=30 * 24 * 3600)
    """For how long an answer is given again. None keeps none: how long an answer stays true, only those know who know
    the tools. A change of a document ends it at once."""
    live_tools: tuple[ToolName, ...] = ()
    """Tools whose results hold for the moment only, such as an order's state: an answer that needed one is not kept."""
    max_bytes: int = Field(default=128 * 1024, ge=1024)
    """Of one answer, with its passages and what the session remembers of it: twice a long one."""


class HttpSettings(Section):
    """What the ingress accepts."""

    max_chat_body_bytes: int = Field(default=512 * 1024, ge=1024)
    """32,000 characters take 384 kB when each is a pair of escapes."""
    max_knowledge_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """One batch of documents; the CLI sends batches of 1 MB, a larger document alone."""
    max_headers: int = Field(default=100, ge=20)
    """Of one request: a browser behind two proxies sends thirty. HAProxy takes no more than 101."""
    max_header_bytes: int = Field(default=16 * 1024, ge=1024)
    """All names and values of one request: four long tokens. HAProxy's buffer is as large."""
    cors_origins: tuple[Origin, ...] = ()
    """The origins whose pages may call the API from a browser, such as `https://desk.example`. None: an API key has no
    place in a page, so whoever lists one has decided otherwise. Cookies are never part of it."""


class LimitSettings(Section):
    """What holds where nothing was said for a tenant, or for a key: no limit, because only the operator knows one."""

    tenant: RateLimits = RateLimits()
    """For each tenant, all of its keys together. A value that is set for a tenant of its own takes its place."""
    key: RateLimits = RateLimits()
    """For each key. A value that is set for a key of its own takes its place."""


class AdmissionSettings(Section):
    """How many turns one replica of Ingress serves at once, and what becomes of the others.

    `max_ongoing_requests` of Ingress in `serve_config.yaml` must be well above the first two together.
    """

    max_turns: int = Field(default=100, ge=1)
    """As many as one replica of Agent takes at once (its `max_ongoing_requests`): what is let in beyond that would wait
    behind the ingress, where nobody is fair. Two ingresses fill four agents to half."""
    max_waiting: int = Field(default=150, ge=0)
    """Turns that wait for a place, of all tenants; one tenant alone gets three fifths of it. A full queue is as
    long as the turns in flight and half as many again: it is served in less than two turns' time."""
    max_wait_s: float = Field(default=5, gt=0)
    """Then a turn that waits is refused: a user who has seen nothing for so long has left."""


class AgentSettings(Section):
    """How a turn is run."""

    prompt: str = (
        "You are a helpful assistant. Use the tools when they can answer; never invent an order's state or a fact that "
        "no tool gave you. Answer in the language of the question."
    )
    """The system prompt; what the knowledge base returns and how to cite it is added by the service."""
    turn_timeout_s: float = Field(default=60, gt=0, le=3600)
    """The whole request's deadline: longer than a user waits, shorter than the proxies' idle limits."""
    max_steps: int = Field(default=8, ge=1, le=50)
    """Model calls per turn: a loop that has not ended by then does not end by itself. At this and the next two limits
    the model is asked to answer from what is known, without tools; such an answer is `degraded`."""
    max_tool_calls: int = Field(default=20, ge=1, le=1000)
    """Tool calls per turn; those beyond are refused. No turn of use makes so many."""
    max_tokens: int = Field(default=200_000, ge=1000)
    """Input and output tokens of all model calls of a turn, as the provider counts them: what one turn may cost."""
    max_result_characters: int = Field(default=200_000, ge=1000)
    """Of all tool results of a turn together; of longer ones the model is told beginnings and ends. 200,000 characters
    are 50,000 tokens: half of what the smaller context windows of today hold."""
    retry_budget: int = Field(default=6, ge=0, le=100)
    """Tries beyond the first that one turn may make over all its calls together, of models and of tools."""
    max_runs: int = Field(default=150, ge=1)
    """Turns of one replica at once: those that clients follow (`max_ongoing_requests`), and those that they left. One
    tenant alone has seven eighths of them at most."""


class RunSettings(Section):
    """How runs are kept and handed over."""

    second_message: Literal["wait", "reject", "cancel_running"] = "wait"
    """What a message does while a turn of its session runs: wait for its end, be refused with 409, or cancel it."""
    steps_ttl_s: int = Field(default=24 * 3600, gt=0)
    """How long a run can be read, and a repeated `Idempotency-Key` finds it: a client's retries end within a day."""
    tokens_ttl_s: int = Field(default=3600, gt=0)
    """How long its stream can be resumed word by word; after that its steps and its answer are still there."""
    max_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    """Of one run's events in Redis; a run that goes beyond fails. Sixty times a long answer with its passages."""
    grace_s: float = Field(default=45, ge=0)
    """How long a replica that shuts down lets its runs go on before others take them over. With the 10 s for which a
    call follows a run, it stays below the Agent's `graceful_shutdown_timeout_s`."""


class MemorySettings(Section):
    """What a conversation remembers."""

    window: int = Field(default=3, ge=0, le=100)
    """Exchanges given to the model, the latest ones."""
    ttl_s: int = Field(default=7 * 24 * 3600, gt=0)
    """A conversation's life after its last turn, in seconds."""


class OrdersSettings(Section):
    """Where `order_query` looks orders up."""

    file: Path = Path("orders.json")
    """Order id -> state; relative to the configuration file."""
    url: HttpUrl | None = None
    """An HTTP backend asked with GET `{url}/{order_id}` in place of the file."""


class EmbeddingSettings(Section):
    """Which model turns text into dense vectors; one of `model` and `factory`."""

    model: str | None = None
    """Any name `init_embeddings` knows, such as `openai:embedding-3`, or the import path of a LangChain `Embeddings`,
    such as `langchain_community.embeddings:DashScopeEmbeddings`, whose module is imported only where it is named."""
    options: dict[str, Any] = {}
    """What a class by import path is constructed with, such as `{model: text-embedding-v4}`. No secrets: see below."""
    options_env: dict[str, VariableName] = {}
    """Option -> the environment variable that holds it: secrets of a class that `api_key_env` does not fit."""
    factory: FunctionPath | None = None
    """`module:function` without arguments that returns a LangChain `Embeddings`."""
    base_url: HttpUrl | None = None
    """The endpoint of an OpenAI-compatible server; None means the provider's own."""
    api_key_env: VariableName | None = None
    """The environment variable that holds the key."""
    timeout_s: float = Field(default=10, gt=0)
    """For one call, of a query or of a batch of passages."""

    @model_validator(mode="after")
    def _one_source(self) -> EmbeddingSettings:
        if (self.model is None) == (self.factory is None):
            raise ValueError("name the embedding either by model or by factory")
        by_class = self.model is not None and is_class_path(self.model)
        if (self.options or self.options_env) and not by_class:
            raise ValueError("options belong to a model that is named by its import path, package.module:Class")
        if secret := next((name for name in self.options if SECRET_OPTION.search(name)), None):
            raise ValueError(f"{secret} stands in options; name the variable that holds it in options_env")
        return self

    @property
    def identity(self) -> str:
        """What tells its vectors from those of another model."""
        chosen = {name: self.options[name] for name in sorted(self.options) if "model" in name or "dim" in name}
        return f"{self.model or self.factory}" + (f" {chosen}" if chosen else "")


class KnowledgeSettings(Section):
    """How documents are kept and found."""

    collection: str = Field(default="serve_app", pattern=r"^[A-Za-z_]\w{0,200}$")
    """The Milvus collection; the names of its Redis keys begin with it too."""
    mode: Literal["lexical", "dense", "hybrid"] = "lexical"
    """`dense` and `hybrid` need an `embedding`; a change of mode or embedding needs a new collection."""
    embedding: EmbeddingSettings | None = None
    """None keeps the whole of retrieval on this machine."""
    limit: int = Field(default=5, ge=1, le=50)
    """Passages per search."""
    min_score: float = Field(default=0.35, ge=0, le=1)
    """How much of the question the best passage must carry for anything to be returned; those beside it need half of
    that. Twelve questions about other things stayed below it over a manual of 2,300 passages."""
    timeout_s: float = Field(default=0.5, gt=0)
    """For one search of one Milvus, and for the embedding of its question: a turn that waits longer is better answered
    without documents."""
    description: str = (
        "Search the knowledge base (manuals, guides, policies and other documents) for passages that answer a "
        "question. 在知识库(手册、指南、政策等文档)中查找能回答问题的段落。"
    )
    """What the model is told of `knowledge_search`: say here what your documents are about."""

    @property
    def total_timeout_s(self) -> float:
        """For all that a search asks in turn: Redis, the embedding, Milvus, its standby."""
        return 4 * self.timeout_s

    @model_validator(mode="after")
    def _vectors_need_an_embedding(self) -> KnowledgeSettings:
        if self.mode != "lexical" and self.embedding is None:
            raise ValueError(f"mode {self.mode} needs an embedding section")
        return self


def _url_of(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class RedisSettings(Section):
    """Where state lives; `redis: URL` is short for `redis: {url: URL}`."""

    url: RedisUrl = EMBEDDED
    """`embedded` starts one on loopback; `redis://host:port/db` uses one that exists."""
    password_env: VariableName | None = None
    """The environment variable that holds the password."""
    timeout_s: float = Field(default=2, gt=0)
    """For one command or pipeline: far above a healthy server's milliseconds."""

    @model_validator(mode="after")
    def _one_password(self) -> RedisSettings:
        if self.password_env and urlsplit(self.url).password:
            raise ValueError("the password stands in the URL and in password_env; leave it out of the URL")
        return self


class MilvusSettings(Section):
    """Where vectors live; `milvus: URL` is short for `milvus: {url: URL}`."""

    url: MilvusUrl = EMBEDDED
    """`embedded` starts a Milvus Lite server on loopback; `http://host:port` uses one that exists."""
    standby: HttpUrl | None = None
    """A second Milvus that is searched while the first one does not answer. The service reads from it and never writes
    to it: whoever runs it keeps it in step with the first one, as by Milvus-CDC or by restoring its backups. A passage
    that only one of the two has, or has in an older version, is not found there."""
    token_env: VariableName | None = None
    """The environment variable that holds `user:password` or an API key, for both servers."""
    timeout_s: float = Field(default=30, gt=0)
    """For one command that is no search: Milvus Lite writes a batch in 0.2 s, a server that compacts takes more, and a
    large collection is loaded for longest. A search has `knowledge.timeout_s`."""


class FaultSettings(Section):
    """Faults on purpose, to rehearse an outage: `serve-app fault`."""

    enabled: bool = False
    """Whether whoever reaches `/admin/faults` may set them: they cost the users their answers."""


class FeedbackSettings(Section):
    """How long users' votes are kept."""

    ttl_s: int = Field(default=90 * 24 * 3600, gt=0)
    """With question and answer, in seconds: a season of work on prompts and documents."""


class ObservabilitySettings(Section):
    """What the service tells of itself; where traces go, the usual variables of LangSmith and OpenTelemetry say."""

    steps: bool = True
    """Whether `serve-app logs --run` tells of every step of a run, by half a dozen more lines a turn that are in Redis
    only; without, it tells what the files do."""
    redact: tuple[Pattern, ...] = ()
    """Regular expressions of what must not leave in logs, traces and error bodies, beside what is masked anyway: keys,
    passwords, e-mail addresses, phone numbers, Chinese identity numbers and bank cards. One that comes back to a place
    again and again, such as `(a+)+b`, slows every line down."""
    metrics: bool = True
    """Whether its own metrics are kept; `/metrics` has Ray's all the same. Off only to see what they cost."""
    trace_sampling: float = Field(default=1.0, ge=0, le=1)
    """The share of turns that are traced, besides those that fail or are degraded. All: who switches tracing on looks
    for the turn that was just made; at full load each that is told costs about a millisecond of processor."""


class Settings(Section):
    """The whole tree."""

    model: ModelSettings = ModelSettings()
    agent: AgentSettings = AgentSettings()
    runs: RunSettings = RunSettings()
    memory: MemorySettings = MemorySettings()
    tools: ToolsSettings = ToolsSettings()
    egress: EgressSettings = EgressSettings()
    orders: OrdersSettings = OrdersSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    redis: Annotated[RedisSettings, BeforeValidator(_url_of)] = RedisSettings()
    milvus: Annotated[MilvusSettings, BeforeValidator(_url_of)] = MilvusSettings()
    access: AccessSettings = AccessSettings()
    http: HttpSettings = HttpSettings()
    cache: CacheSettings = CacheSettings()
    limits: LimitSettings = LimitSettings()
    admission: AdmissionSettings = AdmissionSettings()
    faults: FaultSettings = FaultSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    observability: ObservabilitySettings = ObservabilitySettings()

"""The settings tree: one frozen section for each part of the service.

A YAML file is validated into these sections; each class receives only its own section. The file never contains a
secret: it names an environment variable, and only the process that needs the secret reads it.
"""

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
    SettingsSection,
    ToolName,
    VariableName,
)
from serve_app.values import RateLimits


class AccessSettings(SettingsSection):
    """API keys, and the throttle for wrong keys."""

    admin_key_env: VariableName | None = None
    """The environment variable with the operator's key, which has at least 32 characters and creates all other keys.
    None: the service requires no keys. Use that on one machine only: the service then refuses to listen on any address
    but loopback."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses and networks of your proxies. `X-Forwarded-For` is believed only from them, because anybody can send
    this header. The client's address is the last address in it that is not a trusted proxy."""
    failures_per_minute: float = Field(default=10, gt=0, le=1_000_000)
    """Wrong keys that one address may send; further ones get 429. A person who mistypes needs fewer, a program with an
    old key sends more. A correct key is always accepted, from any address."""
    failures_burst: int = Field(default=10, ge=1, le=1_000_000)
    """Wrong keys that one address may send at once. The first retries of a program still get 401, so that its log says
    that the key is wrong."""


class CacheSettings(SettingsSection):
    """The answer cache: a repeated question gets the stored answer."""

    ttl_s: float | None = Field(default=None, gt=0, le=30 * 24 * 3600)
    """How long a stored answer is used again. None: no answer is stored, because only you know how long the results of
    your tools stay true. A change of any document ends the use of all stored answers at once."""
    live_tools: tuple[ToolName, ...] = ()
    """Tools whose results are true only at that moment, such as the state of an order. An answer that used one of them
    is not stored."""
    max_bytes: int = Field(default=128 * 1024, ge=1024)
    """The largest answer that is stored, with its passages and its part of the session. The default is twice the size
    of a long answer."""


class HttpSettings(SettingsSection):
    """Limits of HTTP requests, and the web origins that may call the API."""

    max_chat_body_bytes: int = Field(default=512 * 1024, ge=1024)
    """The largest body of a chat request. 32,000 characters need 384 kB if each one is written as two JSON escapes."""
    max_knowledge_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """The largest body of a request that adds documents. `serve-app ingest` sends batches of 1 MB, and a larger
    document in a batch of its own."""
    max_headers: int = Field(default=100, ge=20)
    """Headers of one request. A browser behind two proxies sends about 30. HAProxy accepts at most 101."""
    max_header_bytes: int = Field(default=16 * 1024, ge=1024)
    """Names and values of all headers of one request: room for four long tokens. HAProxy's buffer has the same size."""
    cors_origins: tuple[Origin, ...] = ()
    """Web origins whose pages may call the API from a browser, such as `https://desk.example`. The default is none,
    because an API key in a page is public. Cookies are never allowed."""


class LimitSettings(SettingsSection):
    """Default rate limits. There are none by default: only the operator knows the right values."""

    tenant: RateLimits = RateLimits()
    """For each tenant, over all its keys. `serve-app tenants limit` sets other values for one tenant."""
    key: RateLimits = RateLimits()
    """For each key. `serve-app keys limit` sets other values for one key."""


class AdmissionSettings(SettingsSection):
    """Admission control: how many turns one Ingress replica serves, and its queue.

    `max_ongoing_requests` of Ingress in `serve_config.yaml` must be well above the turns that it serves plus
    `max_waiting`.
    """

    max_turns: int | None = Field(default=None, ge=1)
    """Turns that one Ingress replica serves at once. By default as many as the agents can hold: their number times
    `agent.max_runs`, as they report it, shared among the Ingress replicas. It is fewer while event loops are busy
    all the time: a turn that waits for its model costs memory, and a turn that computes costs a core."""
    max_waiting: int = Field(default=150, ge=0)
    """Turns that wait in the fair queue, of all tenants together. One tenant can use at most three fifths of it. One
    Agent replica serves the default within two or three seconds."""
    max_wait_s: float = Field(default=5, gt=0)
    """How long a turn waits in the queue before it is refused. A user who sees nothing for so long has left."""


class AgentSettings(SettingsSection):
    """How the agent runs a turn."""

    prompt: str = (
        "You are a helpful assistant. Use the tools when they can answer; never invent an order's state or a fact that "
        "no tool gave you. Answer in the language of the question."
    )
    """The system prompt. The service adds the passages from the knowledge base and how to cite them."""
    turn_timeout_s: float = Field(default=60, gt=0, le=3600)
    """The deadline of the whole request: longer than a user waits, shorter than the idle timeouts of proxies."""
    max_steps: int = Field(default=8, ge=1, le=50)
    """Model calls in one turn. A loop that has not ended by then does not end by itself. At `max_steps`,
    `max_tool_calls` or `max_tokens`, the model must answer from what it knows, without tools. Such an answer is
    `degraded`."""
    max_tool_calls: int = Field(default=20, ge=1, le=1000)
    """Tool calls in one turn; further calls are refused. No useful turn makes so many."""
    max_tokens: int = Field(default=200_000, ge=1000)
    """Input and output tokens of all model calls of one turn, as the provider counts them: the most that one turn can
    cost."""
    max_result_characters: int = Field(default=200_000, ge=1000)
    """Characters of all tool results of one turn together. Of longer results, the model reads the beginnings and the
    ends. 200,000 characters are about 50,000 tokens: half of a small context window today."""
    retry_budget: int = Field(default=6, ge=0, le=100)
    """Retries in one turn, over all its model calls and tool calls together."""
    max_runs: int = Field(default=1200, ge=1)
    """Turns that one Agent replica runs at once, most of which wait for a model. One tenant can use at most 7/8 of
    them, which is a thousand. `max_ongoing_requests` of Agent must be above it."""


class RunSettings(SettingsSection):
    """How runs are stored and handed over."""

    second_message: Literal["wait", "reject", "cancel_running"] = "wait"
    """What a message does while another turn of its session runs: `wait` for its end, `reject` with 409, or
    `cancel_running`."""
    steps_ttl_s: int = Field(default=24 * 3600, gt=0)
    """How long a run can be read, and how long a repeated `Idempotency-Key` finds it. The retries of a client end
    within a day."""
    tokens_ttl_s: int = Field(default=3600, gt=0)
    """How long the stream of a run can be resumed word by word. After that, only its steps and its answer are
    stored."""
    max_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    """The largest size of one run's events in Redis; a larger run fails. The default is sixty times a long answer with
    its passages."""
    grace_s: float = Field(default=45, ge=0)
    """How long a replica that shuts down continues its runs before other replicas take them over. A call follows its
    run for 10 s more: keep the sum below `graceful_shutdown_timeout_s` of Agent in `serve_config.yaml`."""


class MemorySettings(SettingsSection):
    """What a conversation remembers."""

    window: int = Field(default=3, ge=0, le=100)
    """How many of the latest exchanges the model reads. An exchange is a question and its answer, with the steps
    between."""
    ttl_s: int = Field(default=7 * 24 * 3600, gt=0)
    """How long a conversation is stored after its last turn. The default is a week."""


class OrdersSettings(SettingsSection):
    """The orders that the tool `order_query` reads."""

    file: Path = Path("orders.json")
    """A JSON file that maps order ids to states. The path is relative to the settings file."""
    url: HttpUrl | None = None
    """An HTTP backend in place of the file. The tool sends GET `{url}/{order_id}`."""


class EmbeddingSettings(SettingsSection):
    """The model that turns text into dense vectors. Set either `model` or `factory`."""

    model: str | None = None
    """A name that LangChain's `init_embeddings` knows, such as `openai:embedding-3`, or the import path of a LangChain
    `Embeddings` class, such as `langchain_community.embeddings:DashScopeEmbeddings`. Its module is imported only if it
    is named here."""
    options: dict[str, Any] = {}
    """Constructor arguments of a class that `model` names, such as `{model: text-embedding-v4}`. Never a secret: see
    `options_env`."""
    options_env: dict[str, VariableName] = {}
    """Constructor argument -> the environment variable with its value. For the secrets of a class that does not use
    `api_key_env`."""
    factory: FunctionPath | None = None
    """`module:function`: a function without arguments that returns a LangChain `Embeddings`."""
    base_url: HttpUrl | None = None
    """The URL of an OpenAI-compatible server. None: the provider's own."""
    api_key_env: VariableName | None = None
    """The environment variable with the API key."""
    timeout_s: float = Field(default=10, gt=0)
    """For one call, which embeds a query or a batch of passages."""

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
        """The identity of the model, so that vectors of different models are never mixed."""
        chosen = {name: self.options[name] for name in sorted(self.options) if "model" in name or "dim" in name}
        return f"{self.model or self.factory}" + (f" {chosen}" if chosen else "")


class KnowledgeSettings(SettingsSection):
    """How documents are stored and searched."""

    collection: str = Field(default="serve_app", pattern=r"^[A-Za-z_]\w{0,200}$")
    """The Milvus collection. The names of its Redis keys begin with it, too."""
    mode: Literal["lexical", "dense", "hybrid"] = "lexical"
    """`lexical` matches words, `dense` matches meaning, `hybrid` does both. `dense` and `hybrid` need an `embedding`.
    If you change the mode or the embedding, choose a new collection."""
    embedding: EmbeddingSettings | None = None
    """The embedding model. None: text is never sent to another machine for retrieval."""
    limit: int = Field(default=5, ge=1, le=50)
    """Passages that one search returns."""
    min_score: float = Field(default=0.35, ge=0, le=1)
    """The share of the question that the best passage must cover; otherwise the search finds nothing. Further passages
    need half of it. In a test, twelve questions about other topics stayed below the default over a manual of 2,300
    passages."""
    timeout_s: float = Field(default=0.5, gt=0)
    """For one search in one Milvus, and for the embedding of its question. After a longer wait, an answer without
    documents is better."""
    description: str = (
        "Search the knowledge base (manuals, guides, policies and other documents) for passages that answer a "
        "question. 在知识库(手册、指南、政策等文档)中查找能回答问题的段落。"
    )
    """What the model reads about the tool `knowledge_search`. Write here what your documents are about."""

    @property
    def total_timeout_s(self) -> float:
        """The time limit of a whole search: Redis, the embedding, Milvus, its standby."""
        return 4 * self.timeout_s

    @model_validator(mode="after")
    def _vectors_need_an_embedding(self) -> KnowledgeSettings:
        if self.mode != "lexical" and self.embedding is None:
            raise ValueError(f"mode {self.mode} needs an embedding section")
        return self


def _expand_url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class RedisSettings(SettingsSection):
    """The Redis that stores the state. `redis: URL` is short for `redis: {url: URL}`."""

    url: RedisUrl = EMBEDDED
    """`embedded` starts a Redis on loopback; `redis://host:port/db` uses yours."""
    password_env: VariableName | None = None
    """The environment variable with the password."""
    timeout_s: float = Field(default=2, gt=0)
    """For one command or pipeline. A healthy server needs milliseconds."""

    @model_validator(mode="after")
    def _one_password(self) -> RedisSettings:
        if self.password_env and urlsplit(self.url).password:
            raise ValueError("the password stands in the URL and in password_env; leave it out of the URL")
        return self


class MilvusSettings(SettingsSection):
    """The Milvus that stores the vectors. `milvus: URL` is short for `milvus: {url: URL}`."""

    url: MilvusUrl = EMBEDDED
    """`embedded` starts a Milvus Lite server on loopback; `http://host:port` uses yours."""
    standby: HttpUrl | None = None
    """A second Milvus, which is searched while the first one does not answer. The service never writes to it: its
    operator keeps it in step with the first one, with Milvus-CDC or by restoring backups. A passage that only one
    server has, or that is older on the standby, is not found there."""
    token_env: VariableName | None = None
    """The environment variable with `user:password` or an API key, for both servers."""
    timeout_s: float = Field(default=30, gt=0)
    """For one command other than a search. Milvus Lite writes a batch in 0.2 s; a server that compacts needs more, and
    loading a large collection takes longest. A search has `knowledge.timeout_s`."""


class FaultSettings(SettingsSection):
    """Fault injection, to test how the service behaves in an outage: `serve-app fault`."""

    enabled: bool = False
    """Whether `/admin/faults` may set faults. An injected fault affects the answers of real users."""


class FeedbackSettings(SettingsSection):
    """How long the feedback of users is stored."""

    ttl_s: int = Field(default=90 * 24 * 3600, gt=0)
    """For one rating, with its question and answer. The default is 90 days: enough to improve prompts and documents."""


class ObservabilitySettings(SettingsSection):
    """Logs, metrics and traces.

    The usual environment variables of LangSmith and OpenTelemetry say where traces are sent.
    """

    steps: bool = True
    """Whether `serve-app logs --run` shows every step of a run. These lines, about six for a turn, are stored in Redis
    only. Without them, the command shows what the log files show."""
    redact: tuple[Pattern, ...] = ()
    """Regular expressions of text to mask in logs, traces and error bodies. Keys, passwords, e-mail addresses, phone
    numbers, Chinese identity numbers and bank cards are always masked. An expression that backtracks, such as `(a+)+b`,
    slows every log line down."""
    metrics: bool = True
    """Whether the service records its own metrics. `/metrics` shows those of Ray in any case. Switch it off only to
    measure its cost."""
    trace_sampling: float = Field(default=1.0, ge=0, le=1)
    """The share of turns that are traced. Turns that fail or are degraded are always traced. The default is all,
    because you switch tracing on to see the turn that you just made. At full load, each traced turn costs about a
    millisecond of CPU."""


class Settings(SettingsSection):
    """All settings of an installation."""

    model: ModelSettings = ModelSettings()
    agent: AgentSettings = AgentSettings()
    runs: RunSettings = RunSettings()
    memory: MemorySettings = MemorySettings()
    tools: ToolsSettings = ToolsSettings()
    egress: EgressSettings = EgressSettings()
    orders: OrdersSettings = OrdersSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    redis: Annotated[RedisSettings, BeforeValidator(_expand_url)] = RedisSettings()
    milvus: Annotated[MilvusSettings, BeforeValidator(_expand_url)] = MilvusSettings()
    access: AccessSettings = AccessSettings()
    http: HttpSettings = HttpSettings()
    cache: CacheSettings = CacheSettings()
    limits: LimitSettings = LimitSettings()
    admission: AdmissionSettings = AdmissionSettings()
    faults: FaultSettings = FaultSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    observability: ObservabilitySettings = ObservabilitySettings()

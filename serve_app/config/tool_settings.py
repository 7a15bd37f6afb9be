"""Settings of the tools: how each is called, its retries, and where it runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from serve_app.config.validators import (
    FunctionPath,
    GroupName,
    HeaderName,
    HostName,
    HttpUrl,
    SettingsSection,
    ToolName,
    UrlTemplate,
    VariableName,
)
from serve_app.values import Effect

RetryOn = Literal["timeout", "connection", "server_error"]
"""`server_error`: the server answered with 429 or 5xx."""
KINDS = ("http", "mcp", "function")


class HttpToolSettings(SettingsSection):
    """An HTTP endpoint as a tool. It connects only to the hosts of its URLs."""

    url: UrlTemplate
    """`{parameter}` in the path or the query is replaced with the argument, percent-encoded. Other arguments are sent
    in the query of GET, HEAD and DELETE, and in the JSON body of other methods."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """The HTTP method."""
    description: str = Field(min_length=1)
    """What the model reads about the tool."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    """JSON schema of the arguments object. Arguments that it does not name are rejected, unless the schema allows
    them."""
    headers_env: dict[HeaderName, VariableName] = {}
    """Header -> the environment variable with its value, such as `Authorization: BILLING_TOKEN`."""
    standby_url: UrlTemplate | None = None
    """A second endpoint that answers the same calls. It is called once, after all attempts failed."""
    max_response_bytes: int = Field(default=100_000, ge=1, le=10_000_000)
    """The largest response that is read. Of a larger one, the model reads the beginning and a note."""


class McpToolSettings(SettingsSection):
    """A tool of an MCP server.

    The server is reached at `url` (streamable HTTP) or started by `command` (stdio).
    """

    url: HttpUrl | None = None
    """The URL of the server."""
    command: list[str] | None = Field(default=None, min_length=1)
    """The program and its arguments. Each process of the tool starts it once."""
    tool: str | None = None
    """The name of the tool on the server. None: the name of this entry."""
    tools: Literal["all"] | None = None
    """`all` offers every tool that the server lists. The other settings of the entry apply to each of them."""
    prefix: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_-]{0,31})?$")
    """For `tools: all`: put before the name of each tool, so that two servers can have tools of the same name."""
    effects: dict[str, Effect] = {}
    """For `tools: all`: tool name on the server -> its effect, if it differs from the effect of the entry."""
    headers_env: dict[HeaderName, VariableName] = {}
    """For `url`: header -> the environment variable with its value."""
    connect_timeout_s: float = Field(default=10, gt=0)
    """For the server to start, to answer and to list its tools. After that the service tries again, with growing
    pauses."""
    environment: list[VariableName] = []
    """For `command`: environment variables that the program receives, besides PATH, HOME and the like."""
    max_response_bytes: int = Field(default=100_000, ge=1, le=10_000_000)
    """The largest response that the model reads whole. Of a larger one it reads the beginning and the end; a response
    of more than twelve times this size is not read."""

    @model_validator(mode="after")
    def _one_way_to_the_server(self) -> McpToolSettings:
        if (self.url is None) == (self.command is None):
            raise ValueError("name the MCP server either by url or by command")
        if self.tools and self.tool:
            raise ValueError("name one tool of the server by tool, or take all of them by tools: all")
        if not self.tools and (self.prefix or self.effects):
            raise ValueError("prefix and effects belong to tools: all")
        return self


class BreakerSettings(SettingsSection):
    """The circuit breaker of a tool."""

    failures: int = Field(default=5, ge=1)
    """Calls in a row that time out, lose the connection or get a server error, after which the breaker opens."""
    cool_down_s: float = Field(default=10, gt=0)
    """How long the breaker stays open. Then one call tests whether the tool works again."""


class ToolSettings(SettingsSection):
    """One tool. It has exactly one of `function`, `http` and `mcp`."""

    http: HttpToolSettings | None = None
    """The tool is an HTTP endpoint."""
    mcp: McpToolSettings | None = None
    """The tool belongs to an MCP server."""
    function: FunctionPath | None = Field(default=None, validate_default=True)
    """The tool is a Python function: `module:function`, an async function with type annotations and a docstring."""
    timeout_s: float = Field(default=10, gt=0)
    """For one attempt."""
    attempts: int = Field(default=2, ge=1, le=10)
    """Calls of the tool, if they fail as `retry_on` says. Between them the service waits 2 to 5 s, growing
    exponentially."""
    retry_on: list[RetryOn] = ["timeout", "connection"]
    """The failures after which the tool is called again. `server_error` is an answer of 429 or 5xx."""
    effect: Effect = "pure"
    """What a second call with the same arguments does: nothing (`pure`), nothing with the same idempotency key
    (`idempotent`), or the effect once more (`effect`). A tool with `effect` has one attempt and no standby."""
    max_result_characters: int = Field(default=100_000, ge=100, le=10_000_000)
    """Of a longer result, the model reads the beginning, the end and how much is missing. 100,000 characters are about
    25,000 tokens: more than a model should read from one tool."""
    fallback: ToolName | None = None
    """The tool that is called once with the same arguments, after all attempts of this one failed."""
    breaker: BreakerSettings = BreakerSettings()
    """When the service stops calling a tool that fails."""

    @field_validator("function")
    @classmethod
    def _one_kind(cls, value: str | None, info: ValidationInfo) -> str | None:
        named = [kind for kind in KINDS[:2] if info.data.get(kind, ...) is not None]  # a wrong one is named, too
        if len(named) + (value is not None) != 1:
            raise ValueError(f"a tool has exactly one of {', '.join(KINDS)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _one_attempt_per_effect(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("effect") == "effect":
            if data.get("attempts", 1) != 1:
                raise ValueError("a tool with effect: effect has one attempt; a second could do the deed twice")
            return {**data, "attempts": 1}
        return data

    @model_validator(mode="after")
    def _one_standby_and_none_per_effect(self) -> ToolSettings:
        standbys = [self.fallback, self.http.standby_url if self.http else None]
        if all(standbys):
            raise ValueError("a tool has one standby: fallback or http.standby_url")
        if self.fallback and self.mcp and self.mcp.tools:
            raise ValueError("an entry with mcp.tools: all has no fallback: each tool takes arguments of its own")
        if any(standbys) and self.effect == "effect":
            raise ValueError("a tool with effect: effect has no standby; it could do the deed twice")
        return self


class GroupSettings(SettingsSection):
    """Tools that run in a deployment of their own, `Tools-NAME`.

    The deployment needs an entry in `serve_config.yaml`.
    """

    tools: list[ToolName] = Field(min_length=1)
    """The names of the tools."""
    memory_mb: int | None = Field(default=None, ge=128)
    """The memory that the tools of one replica may use, besides the memory of the process at its start. A thread counts
    8 MB. None: no limit."""


class ToolsSettings(SettingsSection):
    """Tools by name.

    The reserved key `groups` names those that run apart from the others.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[ToolName, ToolSettings]
    groups: dict[GroupName, GroupSettings] = {}
    """Groups of tools by name. Each group runs in a deployment of its own."""

    @property
    def by_name(self) -> dict[str, ToolSettings]:
        """All tools by name, without `groups`."""
        return dict(self.__pydantic_extra__)

    def names_of_group(self, group: str | None) -> list[str]:
        """Return the names of a group's tools; for None, those in no group."""
        if group is not None:
            return [name for name in self.groups[group].tools if name in self.by_name]
        grouped = {name for each in self.groups.values() for name in each.tools}
        return [name for name in self.by_name if name not in grouped]


class EgressSettings(SettingsSection):
    """The private addresses that tools may connect to."""

    private_hosts: list[HostName] = []
    """Hosts, as `host` or `host:port`, of HTTP tools and MCP servers that may have private, loopback or link-local
    addresses. Other hosts must have public addresses: this protects internal services from requests that a model makes
    (SSRF)."""

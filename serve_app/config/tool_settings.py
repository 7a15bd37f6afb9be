"""Which tools are there, how is each called, and in which process?"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from serve_app.config.validators import (
    FunctionPath,
    GroupName,
    HeaderName,
    HostName,
    HttpUrl,
    Section,
    ToolName,
    UrlTemplate,
    VariableName,
)
from serve_app.values import Effect

RetryOn = Literal["timeout", "connection", "server_error"]
"""`server_error` is an answer of 429 or 5xx: the server is there, but does not manage."""
KINDS = ("http", "mcp", "function")


class HttpToolSettings(Section):
    """An HTTP endpoint as a tool. Only the hosts of its own URLs are ever contacted."""

    url: UrlTemplate
    """`{parameter}` in the path or the query is filled with the argument, percent-encoded. What is not in the URL goes
    into the query of GET, HEAD and DELETE, and into the JSON body of the others."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    description: str = Field(min_length=1)
    """What the model is told."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    """JSON schema of the arguments object; what it does not name is refused unless it says otherwise."""
    headers_env: dict[HeaderName, VariableName] = {}
    """Header -> the environment variable that holds its value, such as `Authorization: BILLING_TOKEN`."""
    standby_url: UrlTemplate | None = None
    """A second endpoint that answers the same calls."""
    max_response_bytes: int = Field(default=100_000, ge=1, le=10_000_000)
    """Of a longer answer the rest is not read; the model is told its beginning, and that there is more."""


class McpToolSettings(Section):
    """A tool of an MCP server, which is reached by `url` (streamable HTTP) or started by `command` (stdio)."""

    url: HttpUrl | None = None
    command: list[str] | None = Field(default=None, min_length=1)
    """The program and its arguments; it is started once per process of the tool."""
    tool: str | None = None
    """The tool's name on the server; None means the name it has here."""
    tools: Literal["all"] | None = None
    """`all` offers every tool that the server lists, as it lists them; the entry's other settings hold for each."""
    prefix: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_-]{0,31})?$")
    """For `tools: all`: what each name begins with here, so that two servers may have tools of one name."""
    effects: dict[str, Effect] = {}
    """For `tools: all`: the effect of single tools, by their names on the server, where it is not the entry's."""
    headers_env: dict[HeaderName, VariableName] = {}
    """For `url`: header -> the environment variable that holds its value."""
    connect_timeout_s: float = Field(default=10, gt=0)
    """For a program to start, or a server to answer, and to list its tools; then it is tried again, later and later."""
    environment: list[VariableName] = []
    """For `command`: the variables that the program is given beside PATH, HOME and the like."""
    max_response_bytes: int = Field(default=100_000, ge=1, le=10_000_000)
    """Of a longer answer the model is told the beginning and the end; one of over twelve times as much is not read."""

    @model_validator(mode="after")
    def _one_way_to_the_server(self) -> McpToolSettings:
        if (self.url is None) == (self.command is None):
            raise ValueError("name the MCP server either by url or by command")
        if self.tools and self.tool:
            raise ValueError("name one tool of the server by tool, or take all of them by tools: all")
        if not self.tools and (self.prefix or self.effects):
            raise ValueError("prefix and effects belong to tools: all")
        return self


class BreakerSettings(Section):
    """When a dependency that fails is left alone, and for how long."""

    failures: int = Field(default=5, ge=1)
    """Calls in a row that timed out, lost the connection or got a server error."""
    cool_down_s: float = Field(default=10, gt=0)
    """After it one call is let through as a probe."""


class ToolSettings(Section):
    """One tool, of the kind whose key it has: `function`, `http` or `mcp`."""

    http: HttpToolSettings | None = None
    mcp: McpToolSettings | None = None
    function: FunctionPath | None = Field(default=None, validate_default=True)
    """`module:function`, a typed async function with a docstring."""
    timeout_s: float = Field(default=10, gt=0)
    """For one attempt."""
    attempts: int = Field(default=2, ge=1, le=10)
    """Tries on what `retry_on` names, with an exponential wait of 2-5 s between them."""
    retry_on: list[RetryOn] = ["timeout", "connection"]
    effect: Effect = "pure"
    """`effect` says that a second call would do the deed twice: such a tool has one attempt and no standby."""
    max_result_characters: int = Field(default=100_000, ge=100, le=10_000_000)
    """Of a longer result the model is told the beginning, the end and how much is missing: 100,000 characters are
    25,000 tokens, more than a model should read of one tool."""
    fallback: ToolName | None = None
    """The tool that is called once with the same arguments after the attempts of this one have failed."""
    breaker: BreakerSettings = BreakerSettings()

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


class GroupSettings(Section):
    """Tools in a deployment of their own, `Tools-NAME`, which needs an entry in `serve_config.yaml`."""

    tools: list[ToolName] = Field(min_length=1)
    memory_mb: int | None = Field(default=None, ge=128)
    """What the tools of one replica may take up beside what the process takes up at its start; None is no limit. A
    thread counts 8 MB."""


class ToolsSettings(Section):
    """Tools by name, and under the one reserved key `groups` those that run apart from the others."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[ToolName, ToolSettings]
    groups: dict[GroupName, GroupSettings] = {}

    @property
    def by_name(self) -> dict[str, ToolSettings]:
        """All tools."""
        return dict(self.__pydantic_extra__)

    def names_of_group(self, group: str | None) -> list[str]:
        """The names of a group's tools; of those in no group for None."""
        if group is not None:
            return [name for name in self.groups[group].tools if name in self.by_name]
        grouped = {name for each in self.groups.values() for name in each.tools}
        return [name for name in self.by_name if name not in grouped]


class EgressSettings(Section):
    """Where tools may connect to."""

    private_hosts: list[HostName] = []
    """Hosts, or `host:port`, of HTTP tools and MCP servers that may have private, loopback or link-local addresses."""

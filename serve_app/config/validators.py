"""`SettingsSection`, the base class of all settings sections, and the types of their text values.

The messages never repeat the value: it may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema

from serve_app.values import KNOWLEDGE_SEARCH

EMBEDDED = "embedded"


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0 and not re.search(r"\s", value)
        )
    except ValueError:  # a port that is not a number, or an open bracket
        return False


def _http_url(value: str) -> str:
    if not _is_url(value, ("http", "https")):
        raise ValueError("not an http:// or https:// URL")
    return value


def _redis_url(value: str) -> str:
    if value != EMBEDDED and not _is_url(value, ("redis", "rediss")):
        raise ValueError("neither 'embedded' nor a URL such as redis://host:6379/0")
    return value


def _milvus_url(value: str) -> str:
    if value != EMBEDDED and not _is_url(value, ("http", "https")):
        raise ValueError("neither 'embedded' nor a URL such as http://host:19530")
    return value


def _function_path(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError("not of the form module:function")
    return value


def _variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII):
        raise ValueError("not the name of an environment variable; the secret itself never stands here")
    return value


def _tool_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", value):
        raise ValueError("a tool's name is 1-64 letters, digits, _ or -, beginning with a letter or _")
    if value == KNOWLEDGE_SEARCH:
        raise ValueError("the name is taken: it is the retriever's")
    return value


def _url_template(value: str) -> str:
    try:
        parts = urlsplit(_http_url(value))
    except ValueError:
        raise ValueError("not an http:// or https:// URL") from None
    if "@" in parts.netloc:
        raise ValueError("a user or a password stands in the URL; name the variable of a header in headers_env")
    if re.search(r"[{}]", parts.netloc + parts.fragment):
        raise ValueError("a {parameter} stands in the host or the fragment; it may stand in the path and the query")
    if re.search(r"[{}]", re.sub(r"\{[A-Za-z_]\w*\}", "", parts.path + parts.query)):
        raise ValueError("a brace that belongs to no {parameter}")
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
        raise ValueError("not the name of a header")
    if value.lower() in {"host", "content-length", "transfer-encoding", "connection"}:
        raise ValueError("the header belongs to the connection, not to the tool")
    return value


def _group_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", value):
        raise ValueError("a group's name is 1-64 letters, digits or _")
    return value


def _pattern(value: str) -> str:
    try:
        empty = re.compile(value).search("")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error.msg}") from None
    if empty:
        raise ValueError("it matches the empty text, and with it every place of a line")
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError("neither an address nor a network such as 10.0.0.0/8") from None


def _host_name(value: str) -> str:
    if not _is_url(f"http://{value}", ("http",)) or re.search(r"[/@?#]", value):
        raise ValueError("neither host nor host:port")
    return value.lower()


def _origin(value: str) -> str:
    if not _is_url(value, ("http", "https")) or not re.fullmatch(r"https?://[^/@?#*]+", value):
        raise ValueError("not an origin such as https://desk.example: scheme, host and port, and nothing after them")
    return value.lower()


def _display_as(kind: str) -> WithJsonSchema:
    """Set the name of a type in the reference of the settings."""
    return WithJsonSchema({"type": "string", "format": kind})


HttpUrl = Annotated[str, AfterValidator(_http_url), _display_as("URL")]
RedisUrl = Annotated[str, AfterValidator(_redis_url), _display_as("`embedded` or URL")]
MilvusUrl = Annotated[str, AfterValidator(_milvus_url), _display_as("`embedded` or URL")]
FunctionPath = Annotated[str, AfterValidator(_function_path), _display_as("`module:function`")]
VariableName = Annotated[str, AfterValidator(_variable_name), _display_as("variable name")]
ToolName = Annotated[str, AfterValidator(_tool_name), _display_as("tool name")]
UrlTemplate = Annotated[str, AfterValidator(_url_template), _display_as("URL with `{parameter}`")]
HeaderName = Annotated[str, AfterValidator(_header_name), _display_as("header name")]
GroupName = Annotated[str, AfterValidator(_group_name), _display_as("group name")]
Pattern = Annotated[str, AfterValidator(_pattern), _display_as("regular expression")]
Network = Annotated[str, AfterValidator(_network), _display_as("IP network")]
HostName = Annotated[str, AfterValidator(_host_name), _display_as("`host` or `host:port`")]
Origin = Annotated[str, AfterValidator(_origin), _display_as("web origin")]


class SettingsSection(BaseModel):
    """A frozen section of the settings that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

"""Makes a tool of an HTTP endpoint: URL template, request, and response as text."""

from __future__ import annotations

import json
import re
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from serve_app.config import read_secret
from serve_app.errors import InvalidConfiguration, Problem
from serve_app.observability.traceparent import HEADER, current
from serve_app.tools.arguments import ArgumentsReader
from serve_app.tools.egress import EgressPolicy, EgressRefused, SsrfGuardTransport
from serve_app.tools.tool import ConnectionLost, ToolReply, ToolServerError, WrongArguments, is_server_error, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.config import HttpToolSettings, ToolSettings
    from serve_app.values import IdempotencyKey, ToolSpec

MAX_REDIRECTS = 3
ARGUMENTS_IN_QUERY = {"GET", "HEAD", "DELETE"}
CLIENT_ERROR = 400
TEXT_TYPE_ENDINGS = ("json", "xml", "yaml", "javascript", "urlencoded")
"""Content types that end in these are text, beside `text/*`."""


class RedirectRefused(Exception):
    """A redirect to another origin is not followed."""


class HttpTool:
    """One URL; implements `Tool`."""

    def __init__(self, spec: ToolSpec, url: str, settings: HttpToolSettings, egress: EgressPolicy) -> None:
        self._arguments = ArgumentsReader(spec.parameters)
        self.always_present = self._arguments.always_present
        self.spec = spec.model_copy(update={"parameters": self._arguments.schema})
        self._url = url
        self._settings = settings
        self._client = http_client(_secret_headers(spec.name, settings), egress)

    def start(self) -> None:
        """Nothing to connect to before a call."""

    def read_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        complete = self._arguments.read(arguments)
        fill_template(self._url, complete)
        return complete

    async def call(self, arguments: Mapping[str, Any], key: IdempotencyKey) -> ToolReply:
        request = first = self._build_request(arguments, key)
        try:
            for _ in range(1 + MAX_REDIRECTS):
                response = await self._client.send(request, stream=True)
                try:
                    if response.next_request is None:
                        return await self._read_reply(response)
                    request = _follow_redirect(request, response.next_request)
                finally:
                    await response.aclose()
        except EgressRefused:
            return self._end_redirects("its address is not allowed", sent=request is not first)
        except RedirectRefused as error:
            return self._end_redirects(str(error), sent=True)
        return self._end_redirects("it redirects again and again", sent=True)

    async def close(self) -> None:
        await self._client.aclose()

    def _build_request(self, arguments: Mapping[str, Any], key: IdempotencyKey) -> httpx.Request:
        url = httpx.URL(fill_template(self._url, arguments))
        rest = {name: value for name, value in arguments.items() if name not in template_parameters(self._url)}
        method = self._settings.method
        headers = {HEADER: current()} if current() else {}
        if self.spec.effect != "pure":
            headers["Idempotency-Key"] = key
        if method in ARGUMENTS_IN_QUERY:
            return self._client.build_request(method, url.copy_merge_params(_query_parameters(rest)), headers=headers)
        return self._client.build_request(method, url, headers=headers, json=rest)

    async def _read_reply(self, response: httpx.Response) -> ToolReply:
        if is_server_error(response.status_code):
            raise ToolServerError(f"HTTP {response.status_code}")
        body, note = await self._read_body(response)
        problem = None if note else _body_problem(response, body)
        if problem and self.spec.effect == "pure":
            return self._unusable_reply(problem)
        text = (_decode(response, body) or "(no content)") + note
        if response.status_code >= CLIENT_ERROR:
            return ToolReply(f"error: {self.spec.name} answered {response.status_code}: {text}", ok=False)
        return ToolReply(text)

    async def _read_body(self, response: httpx.Response) -> tuple[bytes, str]:
        """The body, and a note if only a part of it was read."""
        body, note = bytearray(), ""
        if _is_compressed(response):
            return b"", ""
        limit = self._settings.max_response_bytes
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > limit:
                    note = f"\n[… longer than {limit} bytes: the rest was not read …]"
                    break
        except httpx.HTTPError:
            if self.spec.effect != "effect":
                raise
            note = "\n[… the connection broke: the rest was not read …]"
        return bytes(body[:limit]), note

    def _end_redirects(self, problem: str, *, sent: bool) -> ToolReply:
        """The reply when redirects lead nowhere.

        Raises:
            ConnectionLost: a request was sent, and the server may have caused the effect before it redirected.
        """
        if sent and self.spec.effect == "effect":
            raise ConnectionLost(problem)
        return self._unusable_reply(problem)

    def _unusable_reply(self, problem: str) -> ToolReply:
        return ToolReply(f"error: {self.spec.name} gave no answer that can be used: {problem}", ok=False)


def http_tools(name: str, settings: HttpToolSettings, tool: ToolSettings, egress: EgressPolicy) -> list[HttpTool]:
    """The tool, followed by its standby if a standby URL is set.

    Raises:
        InvalidConfiguration: the schema is invalid, does not require a parameter of the URL, or a secret is not set.
    """
    spec = spec_of(name, tool, settings.description, settings.parameters)
    urls = [url for url in (settings.url, settings.standby_url) if url]
    try:
        tools = [HttpTool(spec, url, settings, egress) for url in urls]
    except ValueError as error:
        raise _invalid(f"tools.{name}.http.parameters", str(error)) from None
    for url in urls:
        for parameter in template_parameters(url):
            if parameter not in tools[0].always_present:
                problem = f"{{{parameter}}} stands in the URL, but is no required parameter"
                raise _invalid(f"tools.{name}.http.parameters", problem)
    return tools


def http_client(headers: Mapping[str, str], egress: EgressPolicy) -> httpx.AsyncClient:
    """An HTTP client behind the SSRF guard, without cookies, proxies and time-out."""
    return httpx.AsyncClient(
        transport=SsrfGuardTransport(egress),
        headers={"Accept": "application/json, text/*", "Accept-Encoding": "identity", **headers},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,  # noqa: S113 - the caller sets one
        trust_env=False,
    )


def _secret_headers(name: str, settings: HttpToolSettings) -> dict[str, str]:
    headers: dict[str, str] = {}
    for header, variable in settings.headers_env.items():
        try:
            headers[header] = read_secret(variable).get_secret_value()
        except InvalidConfiguration:
            where = f"tools.{name}.http.headers_env.{header}"
            raise _invalid(where, f"the environment variable {variable} is not set") from None
    return headers


def _follow_redirect(request: httpx.Request, following: httpx.Request) -> httpx.Request:
    """The next request of a redirect.

    Raises:
        RedirectRefused: it leads to another origin.
    """
    if any(getattr(request.url, part) != getattr(following.url, part) for part in ("scheme", "host", "port")):
        raise RedirectRefused("it redirects to another place")
    return following


def _is_compressed(response: httpx.Response) -> bool:
    return str(response.headers.get("content-encoding", "identity")) != "identity"


def _content_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).split(";")[0].strip().lower()


def _body_problem(response: httpx.Response, body: bytes) -> str | None:
    """Why a complete body cannot be used as text; None if it can."""
    content_type = _content_type(response)
    if _is_compressed(response):
        return "it is compressed, which was not asked for"
    if body and not (content_type.startswith("text/") or content_type.endswith(TEXT_TYPE_ENDINGS)):
        return "it is neither text nor JSON"
    if body and (content_type == "application/json" or content_type.endswith("+json")):
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return "it is not the JSON that it says it is"
    return None


def _decode(response: httpx.Response, body: bytes) -> str:
    """The text of a body; for a body that is no text, its type."""
    if _is_compressed(response):
        return f"(HTTP {response.status_code}; its content is compressed, which was not asked for, and was not read)"
    content_type = _content_type(response)
    if body and not (content_type.startswith("text/") or content_type.endswith(TEXT_TYPE_ENDINGS)):
        described = content_type or "of no named type"
        return f"(HTTP {response.status_code}; its content, {described}, is neither text nor JSON)"
    try:
        return body.decode(response.charset_encoding or "utf-8", errors="replace")
    except LookupError:  # an unknown charset
        return body.decode("utf-8", errors="replace")


def _query_parameters(rest: Mapping[str, Any]) -> dict[str, str | list[str]]:
    return {
        name: [url_text(each) for each in value] if isinstance(value, list) else url_text(value)
        for name, value in rest.items()
    }


def _invalid(where: str, what: str) -> InvalidConfiguration:
    fix = "An http tool has a JSON schema of an object, in which every {parameter} of its URL is required"
    return InvalidConfiguration((Problem(where, what, fix),))


_PARAMETER = re.compile(r"\{([A-Za-z_]\w*)\}")
_PATH_SEPARATOR = re.compile(r"[/\\]")
_DOT_SEGMENTS = {".", ".."}


def template_parameters(template: str) -> list[str]:
    """The names in the `{}` of a URL template."""
    return _PARAMETER.findall(template)


def fill_template(template: str, arguments: Mapping[str, Any]) -> str:
    """The URL with percent-encoded arguments; none can change another part of the URL.

    Raises:
        WrongArguments: a part of the path would be empty or hold `..`: some servers resolve it after decoding.
    """
    url = _PARAMETER.sub(lambda place: quote(url_text(arguments[place[1]]), safe=""), template)
    parts = zip(urlsplit(template).path.split("/"), urlsplit(url).path.split("/"), strict=True)
    for part, filled in parts:
        if part != filled and (not filled or _DOT_SEGMENTS & set(_PATH_SEPARATOR.split(unquote(filled)))):
            raise WrongArguments(f"{', '.join(template_parameters(part))}: not a value that a URL can hold")
    return url


def url_text(value: Any) -> str:
    """A value for a URL: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

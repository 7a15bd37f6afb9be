"""How does an HTTP endpoint become a tool?"""

from __future__ import annotations

import json
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx

from serve_app.config import read_secret
from serve_app.errors import InvalidConfiguration, Problem
from serve_app.observability.traceparent import HEADER, current
from serve_app.tools.egress import CheckedTransport, Egress, EgressRefused
from serve_app.tools.failures import Lost, ServerFault, is_server_fault
from serve_app.tools.schema import Arguments
from serve_app.tools.template import as_text, filled, parameters
from serve_app.tools.tool import Said, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve_app.config import HttpToolSettings, ToolSettings
    from serve_app.values import IdempotencyKey, ToolSpec

REDIRECTS = 3
IN_QUERY = {"GET", "HEAD", "DELETE"}
CLIENT_ERROR = 400
TEXTS = ("json", "xml", "yaml", "javascript", "urlencoded")
"""Ends of the types whose content is text beside `text/*`."""


class Misdirected(Exception):
    """A redirect that is not followed; the text says why."""


class Endpoint:
    """One URL that answers calls; implements `Tool`."""

    def __init__(self, spec: ToolSpec, url: str, settings: HttpToolSettings, rules: Egress) -> None:
        self._arguments = Arguments(spec.parameters)
        self.sure = self._arguments.sure
        self.spec = spec.model_copy(update={"parameters": self._arguments.schema})
        self._url = url
        self._settings = settings
        self._client = client(_headers(spec.name, settings), rules)

    def start(self) -> None:
        """It is there."""

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        given = self._arguments.read(arguments)
        filled(self._url, given)
        return given

    async def ask(self, given: Mapping[str, Any], key: IdempotencyKey) -> Said:
        request = first = self._request(given, key)
        try:
            for _ in range(1 + REDIRECTS):
                response = await self._client.send(request, stream=True)
                try:
                    if response.next_request is None:
                        return await self._said(response)
                    request = _within(request, response.next_request)
                finally:
                    await response.aclose()
        except EgressRefused:
            return self._misdirected("its address is not allowed", taken=request is not first)
        except Misdirected as error:
            return self._misdirected(str(error), taken=True)
        return self._misdirected("it redirects again and again", taken=True)

    async def close(self) -> None:
        await self._client.aclose()

    def _request(self, given: Mapping[str, Any], key: IdempotencyKey) -> httpx.Request:
        url = httpx.URL(filled(self._url, given))
        rest = {name: value for name, value in given.items() if name not in parameters(self._url)}
        method = self._settings.method
        headers = {HEADER: current()} if current() else {}
        if self.spec.effect != "pure":
            headers["Idempotency-Key"] = key
        if method in IN_QUERY:
            return self._client.build_request(method, url.copy_merge_params(_query(rest)), headers=headers)
        return self._client.build_request(method, url, headers=headers, json=rest)

    async def _said(self, response: httpx.Response) -> Said:
        if is_server_fault(response.status_code):
            raise ServerFault(f"HTTP {response.status_code}")
        body, note = await self._body(response)
        why = None if note else _unusable(response, body)
        if why and self.spec.effect == "pure":
            return Said(f"error: {self.spec.name} gave no answer that can be used: {why}", well=False)
        text = (_decoded(response, body) or "(no content)") + note
        if response.status_code >= CLIENT_ERROR:
            return Said(f"error: {self.spec.name} answered {response.status_code}: {text}", well=False)
        return Said(text)

    async def _body(self, response: httpx.Response) -> tuple[bytes, str]:
        """The body as far as it is read, and a note where that is not all: the server has done what it was asked."""
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

    def _misdirected(self, why: str, *, taken: bool) -> Said:
        """The end of redirects that lead nowhere: a server may well have done what it was asked before it redirects."""
        if taken and self.spec.effect == "effect":
            raise Lost(why)
        return Said(f"error: {self.spec.name} gave no answer that can be used: {why}", well=False)


def endpoints(name: str, settings: HttpToolSettings, tool: ToolSettings, rules: Egress) -> list[Endpoint]:
    """The endpoint, and the second one where there is one.

    Raises:
        InvalidConfiguration: the schema is none, or lacks what the URL needs, or a secret is not set.
    """
    spec = spec_of(name, tool, settings.description, settings.parameters)
    urls = [url for url in (settings.url, settings.standby_url) if url]
    try:
        made = [Endpoint(spec, url, settings, rules) for url in urls]
    except ValueError as error:
        raise _invalid(f"tools.{name}.http.parameters", str(error)) from None
    for url in urls:
        properties = made[0].spec.parameters["properties"]
        surely = {
            *settings.parameters.get("required", []),
            *(key for key, each in properties.items() if "default" in each),
        }
        for parameter in parameters(url):
            if parameter not in surely or parameter not in properties:
                what = f"{{{parameter}}} stands in the URL, but is no required parameter"
                raise _invalid(f"tools.{name}.http.parameters", what)
    return made


def client(headers: Mapping[str, str], rules: Egress) -> httpx.AsyncClient:
    """A client that keeps the rules, keeps no cookies, and knows no proxies; the caller bounds its time."""
    return httpx.AsyncClient(
        transport=CheckedTransport(rules),
        headers={"Accept": "application/json, text/*", "Accept-Encoding": "identity", **headers},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,  # noqa: S113 - the caller bounds it
        trust_env=False,
    )


def _headers(name: str, settings: HttpToolSettings) -> dict[str, str]:
    headers: dict[str, str] = {}
    for header, variable in settings.headers_env.items():
        try:
            headers[header] = read_secret(variable).get_secret_value()
        except InvalidConfiguration:
            where = f"tools.{name}.http.headers_env.{header}"
            raise _invalid(where, f"the environment variable {variable} is not set") from None
    return headers


def _within(request: httpx.Request, following: httpx.Request) -> httpx.Request:
    """The request that a redirect asks for, if it stays at the same origin."""
    if any(getattr(request.url, part) != getattr(following.url, part) for part in ("scheme", "host", "port")):
        raise Misdirected("it redirects to another place")
    return following


def _is_compressed(response: httpx.Response) -> bool:
    return str(response.headers.get("content-encoding", "identity")) != "identity"


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).split(";")[0].strip().lower()


def _unusable(response: httpx.Response, body: bytes) -> str | None:
    """Why a whole body is nothing that a tool that only looks may say; None where it is."""
    kind = _kind(response)
    if _is_compressed(response):
        return "it is compressed, which was not asked for"
    if body and not (kind.startswith("text/") or kind.endswith(TEXTS)):
        return "it is neither text nor JSON"
    if body and (kind == "application/json" or kind.endswith("+json")):
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return "it is not the JSON that it says it is"
    return None


def _decoded(response: httpx.Response, body: bytes) -> str:
    """The text of a body, or its kind where it is none."""
    if _is_compressed(response):
        return f"(HTTP {response.status_code}; its content is compressed, which was not asked for, and was not read)"
    kind = _kind(response)
    if body and not (kind.startswith("text/") or kind.endswith(TEXTS)):
        return f"(HTTP {response.status_code}; its content, {kind or 'of no named type'}, is neither text nor JSON)"
    try:
        return body.decode(response.charset_encoding or "utf-8", errors="replace")
    except LookupError:  # a charset that there is not
        return body.decode("utf-8", errors="replace")


def _query(rest: Mapping[str, Any]) -> dict[str, str | list[str]]:
    return {
        name: [as_text(each) for each in value] if isinstance(value, list) else as_text(value)
        for name, value in rest.items()
    }


def _invalid(where: str, what: str) -> InvalidConfiguration:
    mend = "An http tool has a JSON schema of an object, in which every {parameter} of its URL is required"
    return InvalidConfiguration((Problem(where, what, mend),))

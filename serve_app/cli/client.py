"""The HTTP client of the commands, and one-line messages for failed requests."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import httpx

from serve_app.config import SERVICE_KEY, SERVICE_URL, read_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.values import Value

F = TypeVar("F", bound="Callable[..., Any]")
V = TypeVar("V", bound="Value")

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
UNAUTHENTICATED = 401
_HEADER = "Authorization"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def read_url(_context: click.Context, _option: click.Parameter, value: str | None) -> str:
    """Return the address of the service; without one, that of the environment or the default.

    Raises:
        click.BadParameter: it is no address of a web service.
    """
    value = value or read_environment().get(SERVICE_URL, "").strip() or DEFAULT_URL
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value}: a URL begins with http:// or https://")
    return value.rstrip("/")


def _store_key(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    context.meta[_HEADER] = value


_url = click.option(
    "--url",
    callback=read_url,
    help=f"The address of the service. Without it: {SERVICE_URL} in the environment or in .env, then {DEFAULT_URL}.",
)
_key = click.option(
    "--key",
    metavar="KEY",
    expose_value=False,
    callback=_store_key,
    help=f"The API key, if the service requires keys. {SERVICE_KEY} in the environment or in .env is safer.",
)


def url_option(command: F) -> F:
    """Add the options `--url` and `--key` to a command. `open_client` sends the key."""
    return _url(_key(command))


def key_headers() -> dict[str, str]:
    """Return the header with the API key of the running command, if there is one.

    Raises:
        InvalidConfiguration: `.env` cannot be read.
    """
    context = click.get_current_context(silent=True)
    key = (context.meta.get(_HEADER) if context else None) or read_environment().get(SERVICE_KEY, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise click.ClickException(
            f"the API key contains a character that is not allowed in a header; check --key and {SERVICE_KEY}"
        )
    return {_HEADER: f"Bearer {key}"} if key else {}


def call_service(kind: type[V], url: str, method: str, path: str, timeout_s: float = TIMEOUT_S, **options: Any) -> V:
    """Send one request, and parse its response; fields of a newer service are ignored.

    Raises:
        click.ClickException: the service does not answer, refuses, or the body is not a `kind`.
    """
    with open_client(url, timeout_s) as client:
        response = client.request(method, path, **options)
        try:
            return kind.model_validate_json(check_response(response).content, extra="ignore")
        except ValueError as error:
            what = f"{response.url} sent an answer that cannot be read ({type(error).__name__})"
            raise click.ClickException(what) from error


@contextmanager
def open_client(url: str, timeout_s: float) -> Iterator[httpx.Client]:
    """Open a client of the service at `url`.

    `timeout_s` limits each pause of the service, not the whole answer.

    Raises:
        click.ClickException: inside the block, the service did not answer or the connection broke.
    """
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(base_url=url, timeout=timeout, trust_env=not is_local(url), headers=key_headers()) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"{url}: {describe_no_answer(error)}") from error


def is_local(url: str) -> bool:
    """Whether the service is on this machine: no proxy of the environment leads there."""
    return httpx.URL(url).host in _LOOPBACK


def check_response(response: httpx.Response) -> httpx.Response:
    """Return the response if it is a success; its body may still be unread.

    Raises:
        click.ClickException: the error message of the service in one line, or the status.
    """
    if response.is_success:
        return response
    response.read()
    raise click.ClickException(describe_refusal(response))


def describe_refusal(response: httpx.Response) -> str:
    """Return one line from the error body, or from the status."""
    try:
        error = response.json()["error"]
        hint = f"; pass the key with --key or {SERVICE_KEY}" if response.status_code == UNAUTHENTICATED else ""
        return f"{error['message']} ({error['code']}, request {error['request_id']}){hint}"
    except (ValueError, LookupError, TypeError):
        return f"{response.url} answers {response.status_code} {response.reason_phrase}; is this the service's address?"


def describe_no_answer(error: Exception) -> str:
    """Return one line about a request that got no answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "no service answers; start one with 'serve run serve_config.yaml', or pass its address with --url"
    if isinstance(error, httpx.TimeoutException):
        return "the service took too long"
    return f"the connection broke ({type(error).__name__})"

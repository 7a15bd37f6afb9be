"""How do the commands speak to the service, and what do they say when it does not answer?"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import httpx

from serve_app.config import KEY, read_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serve_app.values import Value

F = TypeVar("F", bound="Callable[..., Any]")
V = TypeVar("V", bound="Value")

CONNECT_S = 5.0
UNAUTHENTICATED = 401
_HEADER = "Authorization"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def _address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter("it starts with http:// or https://")
    return value.rstrip("/")


def _remember(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    context.meta[_HEADER] = value


_url = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    callback=_address,
    help="Where the service listens.",
)
_key = click.option(
    "--key",
    metavar="KEY",
    expose_value=False,
    callback=_remember,
    help=f"What the service asks for, where it asks for keys; {KEY} in the environment or in .env is safer.",
)


def url_option(command: F) -> F:
    """`--url`, and `--key` for whoever opens `service` in the command."""
    return _url(_key(command))


def _headers() -> dict[str, str]:
    """With the key of the command that runs; Click hands its `meta` down to whatever the command calls.

    Raises:
        InvalidConfiguration: `.env` cannot be read.
    """
    context = click.get_current_context(silent=True)
    key = (context.meta.get(_HEADER) if context else None) or read_environment().get(KEY, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise click.ClickException(f"the key holds a character that no header can carry; see --key and {KEY}")
    return {_HEADER: f"Bearer {key}"} if key else {}


@contextmanager
def service(url: str, timeout_s: float) -> Iterator[httpx.Client]:
    """A client of the service at `url`; `timeout_s` is for each silence of the service, not for a whole answer.

    Raises:
        click.ClickException: inside the block the service did not answer, or broke off.
    """
    is_local = httpx.URL(url).host in _LOOPBACK
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
    try:
        with httpx.Client(base_url=url, timeout=timeout, trust_env=not is_local, headers=_headers()) as client:
            yield client
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"{url}: {silence(error)}") from error


def check(response: httpx.Response) -> httpx.Response:
    """The response, unless it is a refusal; its body need not have been read.

    Raises:
        click.ClickException: in one line, what the service says, or its status where it says nothing.
    """
    if response.is_success:
        return response
    response.read()
    raise click.ClickException(refusal(response))


def read(kind: type[V], response: httpx.Response) -> V:
    """What the service answers; a newer one may tell more than is known here.

    Raises:
        click.ClickException: it is something else.
    """
    try:
        return kind.model_validate_json(response.content, extra="ignore")
    except ValueError as error:
        what = f"what {response.url} answers is not understood ({type(error).__name__})"
        raise click.ClickException(what) from error


def refusal(response: httpx.Response) -> str:
    """One line from the error body of DESIGN §4, or from whatever answered in the service's place."""
    try:
        error = response.json()["error"]
        hint = f"; name the key with --key or {KEY}" if response.status_code == UNAUTHENTICATED else ""
        return f"{error['message']} ({error['code']}, request {error['request_id']}){hint}"
    except (ValueError, LookupError, TypeError):
        return f"{response.url} answers {response.status_code} {response.reason_phrase}; is this the service's address?"


def silence(error: Exception) -> str:
    """One line for a request that was not answered."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "no service answers; start one with 'serve run serve_config.yaml', or name another with --url"
    if isinstance(error, httpx.TimeoutException):
        return "the service took too long"
    return f"the connection broke ({type(error).__name__})"

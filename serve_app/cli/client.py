"""How do the commands speak to the service, and what do they say when it does not answer?"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_S = 5.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def _address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter("it starts with http:// or https://")
    return value.rstrip("/")


url_option = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    callback=_address,
    help="Where the service listens.",
)


@contextmanager
def service(url: str, timeout_s: float) -> Iterator[httpx.Client]:
    """A client of the service at `url`; `timeout_s` is for each silence of the service, not for a whole answer.

    Raises:
        click.ClickException: inside the block the service did not answer, or broke off.
    """
    is_local = httpx.URL(url).host in _LOOPBACK
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
    try:
        with httpx.Client(base_url=url, timeout=timeout, trust_env=not is_local) as client:
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


def refusal(response: httpx.Response) -> str:
    """One line from the error body of DESIGN §4, or from whatever answered in the service's place."""
    try:
        error = response.json()["error"]
        return f"{error['message']} ({error['code']}, request {error['request_id']})"
    except (ValueError, LookupError, TypeError):
        return f"{response.url} answers {response.status_code} {response.reason_phrase}; is this the service's address?"


def silence(error: Exception) -> str:
    """One line for a request that was not answered."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "no service answers; start one with 'serve run serve_config.yaml', or name another with --url"
    if isinstance(error, httpx.TimeoutException):
        return "the service took too long"
    return f"the connection broke ({type(error).__name__})"

"""How is an outage rehearsed from the command line?"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, get_args

import click

from serve_app.cli.client import check, service, url_option
from serve_app.values import FaultList, FaultMode

if TYPE_CHECKING:
    import httpx

    from serve_app.values import Fault

ANSWER_S = 30.0
_PATH = "/admin/faults"
_UNITS_S = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """Seconds, written as 60, 60s, 500ms, 5m or 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no time: write 60s, 500ms, 5m or 1h", param, ctx)
        return float(match[1]) * _UNITS_S[match[2]]


@click.group()
def fault() -> None:
    """Have something fail on purpose, to rehearse an outage.

    The running service must allow it: faults: {enabled: true} in its configuration. TARGET is tool:NAME, model,
    model:NAME, retriever or embedding. Turns that begin after a command see what it did within a second.
    """


@fault.command("set")
@click.argument("target")
@click.option("--mode", type=click.Choice(get_args(FaultMode)), required=True, help="What calls that are hit do.")
@click.option("--rate", type=click.FloatRange(0, 1), default=1, show_default=True, help="The share that is hit.")
@click.option("--for", "for_s", type=Duration(), default="60s", show_default=True, help="How long; an hour at most.")
@click.option(
    "--delay", "delay_s", type=Duration(), default="2s", show_default=True, help="How much later slow calls answer."
)
@url_option
def set_(*, url: str, **rehearsal: Any) -> None:
    """Have calls of TARGET fail, in place of what was set for it before."""
    with service(url, ANSWER_S) as client:
        _show(check(client.put(_PATH, json=rehearsal)), url)


@fault.command("list")
@url_option
def list_(*, url: str) -> None:
    """List what fails on purpose now."""
    with service(url, ANSWER_S) as client:
        _show(check(client.get(_PATH)), url)


@fault.command("clear")
@click.argument("target", required=False)
@url_option
def clear(*, target: str | None, url: str) -> None:
    """End the fault of TARGET, or all faults."""
    with service(url, ANSWER_S) as client:
        _show(check(client.delete(_PATH, params={"target": target} if target else {})), url)


def _show(response: httpx.Response, url: str) -> None:
    try:
        faults = FaultList.model_validate_json(response.content, extra="ignore").faults
    except ValueError as error:
        raise click.ClickException(f"what {url} answers is not understood ({type(error).__name__})") from error
    if not faults:
        click.echo("Nothing fails on purpose.")
    for each in faults:
        click.echo(_line(each))


def _line(each: Fault) -> str:
    late = f" by {each.delay_s:g} s" if each.mode == "slow" else ""
    left_s = max(0.0, each.until - time.time())
    return f"{each.target}: {each.mode}{late}, {each.rate:.0%} of calls, for {left_s:.0f} s more"

"""`serve-app fault`: fault injection, to test an outage."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, get_args

import click

from serve_app.cli.client import call_service, url_option
from serve_app.values import FaultList, FaultMode

if TYPE_CHECKING:
    from serve_app.values import Fault

_PATH = "/admin/faults"
_UNITS_S = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """Seconds, written as 60, 60s, 500ms, 5m or 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration: write 60s, 500ms, 5m or 1h", param, ctx)
        return float(match[1]) * _UNITS_S[match[2]]


@click.group()
def fault() -> None:
    """Make something fail on purpose, to test how the service behaves in an outage.

    The running service must allow it: faults: {enabled: true} in its settings. TARGET is tool:NAME, model, model:NAME,
    retriever or embedding. A command takes effect within a second, for new turns.
    """


@fault.command("set")
@click.argument("target")
@click.option("--mode", type=click.Choice(get_args(FaultMode)), required=True, help="What an affected call does.")
@click.option(
    "--rate", type=click.FloatRange(0, 1), default=1, show_default=True, help="The share of calls that are affected."
)
@click.option("--for", "for_s", type=Duration(), default="60s", show_default=True, help="How long, at most an hour.")
@click.option(
    "--delay", "delay_s", type=Duration(), default="2s", show_default=True, help="The added delay of slow calls."
)
@url_option
def set_fault(*, url: str, **fault: Any) -> None:
    """Make calls of TARGET fail. This replaces an earlier fault of TARGET."""
    _show(call_service(FaultList, url, "PUT", _PATH, json=fault))


@fault.command("list")
@url_option
def list_faults(*, url: str) -> None:
    """List the active faults."""
    _show(call_service(FaultList, url, "GET", _PATH))


@fault.command("clear")
@click.argument("target", required=False)
@url_option
def clear_faults(*, target: str | None, url: str) -> None:
    """Remove the fault of TARGET, or all faults."""
    _show(call_service(FaultList, url, "DELETE", _PATH, params={"target": target} if target else {}))


def _show(active: FaultList) -> None:
    if not active.faults:
        click.echo("There are no active faults.")
    for each in active.faults:
        click.echo(_format_fault(each))


def _format_fault(each: Fault) -> str:
    late = f" by {each.delay_s:g} s" if each.mode == "slow" else ""
    left_s = max(0.0, each.until - time.time())
    return f"{each.target}: {each.mode}{late}, {each.rate:.0%} of calls, {left_s:.0f} s left"

"""`serve-app logs`: the log of one run or request, from all processes."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from click import style

from serve_app.cli.client import open_client, read_response, url_option
from serve_app.cli.terminal import strip_controls
from serve_app.values import RequestLogLines, RunLogLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import RunLogLine

TIMEOUT_S = 30.0
COLORS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_HEADER_FIELDS = ("session_id", "request_id", "trace_id")
_HIDDEN_FIELDS = (*_HEADER_FIELDS, "application", "logger")


@click.command()
@click.option("--run", "run_id", help="The run id, from the answer or the first frame.")
@click.option("--request", "request_id", help="The request id, from the header X-Request-Id or the error.")
@url_option
def logs(run_id: str | None, request_id: str | None, url: str) -> None:
    """Show every step of one run, from all processes, in order.

    With --request, show the run that the request started, or why the request was refused. During a flood of refusals,
    only a sample of them is logged.

    Secret and personal data is masked. The log is stored as long as the run. A new line appears after half a
    second.
    """
    if (run_id is None) == (request_id is None):
        raise click.UsageError("Give one of --run and --request.")
    with open_client(url, TIMEOUT_S) as client:
        log: RunLogLines | RequestLogLines
        if run_id:
            log = read_response(RunLogLines, client.get(f"/admin/runs/{run_id}/logs"))
        else:
            log = read_response(RequestLogLines, client.get(f"/admin/requests/{request_id}/logs"))
            click.echo(f"Run {log.run_id}" if log.run_id else "The request has no run.")
    for line in _format_log(log.lines):
        click.echo(line)


def _format_log(lines: tuple[RunLogLine, ...]) -> Iterator[str]:
    if not lines:
        yield "There is no log of this run."
        return
    yield style(
        _format_fields({name: lines[0].fields[name] for name in _HEADER_FIELDS if name in lines[0].fields}), dim=True
    )
    process, event = (max(len(getattr(line, name)) for line in lines) for name in ("process", "event"))
    for line in lines:
        fields = _format_fields({name: value for name, value in line.fields.items() if name not in _HIDDEN_FIELDS})
        text = f"{_format_time(line.ts)}  {line.process:<{process}}  {line.event:<{event}}  {fields}".rstrip()
        yield style(strip_controls(text), fg=COLORS.get(line.level))
        for each in (line.exception or "").splitlines():
            yield f"    {strip_controls(each)}"


def _format_time(ts: str) -> str:
    """Return the local time of this machine."""
    return datetime.fromisoformat(ts).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _format_fields(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_format_value(value)}" for name, value in fields.items())


def _format_value(value: Any) -> str:
    if isinstance(value, str) and value and not any(each.isspace() or each in '"=' for each in value):
        return value
    return json.dumps(value, ensure_ascii=False)

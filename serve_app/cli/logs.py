"""What happened in one run, over all processes, line by line?"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from click import style

from serve_app.cli.client import check, service, url_option
from serve_app.cli.transcript import CONTROLS
from serve_app.values import RunLogLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve_app.values import RunLogLine

ANSWER_S = 30.0
COLORS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_HEAD = ("session_id", "request_id", "trace_id")
_NOT_SHOWN = (*_HEAD, "application", "logger")


@click.command()
@click.option("--run", "run_id", required=True, help="The run, as its answer or its first frame names it.")
@url_option
def logs(run_id: str, url: str) -> None:
    """Show every step of one run, over all processes, in order.

    What is secret or personal is masked. Lines are kept as long as the run is; one shows a quarter of a second after it
    was written.
    """
    with service(url, ANSWER_S) as client:
        response = check(client.get(f"/admin/runs/{run_id}/logs"))
    try:
        told = RunLogLines.model_validate_json(response.content, extra="ignore")
    except ValueError as error:
        raise click.ClickException(f"what {url} answers is not understood ({type(error).__name__})") from error
    for line in _shown(told.lines):
        click.echo(line)


def _shown(lines: tuple[RunLogLine, ...]) -> Iterator[str]:
    if not lines:
        yield "Nothing was told of this run."
        return
    yield style(_fields({name: lines[0].fields[name] for name in _HEAD if name in lines[0].fields}), dim=True)
    process, event = (max(len(getattr(line, name)) for line in lines) for name in ("process", "event"))
    for line in lines:
        fields = _fields({name: value for name, value in line.fields.items() if name not in _NOT_SHOWN})
        text = f"{_time(line.ts)}  {line.process:<{process}}  {line.event:<{event}}  {fields}".rstrip()
        yield style(text.translate(CONTROLS), fg=COLORS.get(line.level))
        for each in (line.exception or "").splitlines():
            yield f"    {each.translate(CONTROLS)}"


def _time(ts: str) -> str:
    """Of this machine's clock."""
    return datetime.fromisoformat(ts).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _fields(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_written(value)}" for name, value in fields.items())


def _written(value: Any) -> str:
    if isinstance(value, str) and value and not any(each.isspace() or each in '"=' for each in value):
        return value
    return json.dumps(value, ensure_ascii=False)

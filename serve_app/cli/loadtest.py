"""`serve-app loadtest`: how fast the running service answers at a rate of turns."""

from __future__ import annotations

import asyncio
import gc
import math
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click
from click.core import ParameterSource
from yarl import URL

from serve_app.cli import load_table
from serve_app.cli.client import UNAUTHENTICATED, key_headers, read_url, url_option
from serve_app.cli.load_generator import LoadGenerator, LoadPlan, open_turn_client
from serve_app.cli.load_report import ReportFiles
from serve_app.cli.load_summary import MS_PER_S, LoadResult, percentile, public_url
from serve_app.cli.load_table import format_ms
from serve_app.cli.terminal import count_of, format_table, strip_controls
from serve_app.config import SERVICE_KEY
from serve_app.values import ChatRequest

if TYPE_CHECKING:
    from serve_app.cli.load_generator import Measurements
    from serve_app.cli.turn_client import TurnClient, TurnError

DEFAULT_INPUT = "Hello, what can you do?"
MAX_TURNS = 100_000
MAX_DURATION_S = 3600
MAX_TIMEOUT_S = 3600
PLAIN_PROGRESS_S = 5
"""How often a line of progress is printed where no terminal rewrites it."""
FILES_BESIDE = 256
"""Open files of the client that are no connections."""
INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended."""
FORBIDDEN = 403
SERVER_ERROR = 500
_PROBE = "probe"


@click.command()
@click.argument("address", metavar="[URL]", required=False)
@url_option
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Turns per second."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, MAX_DURATION_S, min_open=True),
    default=30.0,
    show_default=True,
    help="How long turns are started.",
)
@click.option("--stream", is_flag=True, help="Stream the answers; measure the time to the first token, too.")
@click.option("--input", "text", metavar="TEXT", help=f"The message of each turn. Without it: {DEFAULT_INPUT!r}")
@click.option(
    "--inputs",
    "inputs_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Messages, one a line, sent in turn.",
)
@click.option(
    "--sessions",
    type=click.IntRange(1, MAX_TURNS),
    help="Spread the turns over so many conversations. Without it, each turn has its own.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, MAX_TURNS),
    default=1000,
    show_default=True,
    help="A turn beyond so many unanswered ones is not sent, and counts as failed.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, MAX_TIMEOUT_S, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds after which a turn without an answer has failed.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("loadtest.html"),
    show_default=True,
    help="The HTML report. The figures as JSON are written beside it.",
)
@click.pass_context
def loadtest(context: click.Context, /, **options: Any) -> None:
    """Measure how fast the running service answers.

    Turns start at random times, --rate of them per second, however slow the answers are. The same options give the same
    times. A latency counts from the planned start of the turn. So an overload is seen as users would see it.

    URL is the same as --url. Every turn costs what a turn of a user costs: model tokens, tool calls, memory. Ctrl-C
    ends the load test; the report then has what was measured so far.

    \b
      serve-app loadtest --rate 20 --seconds 60 --stream
      serve-app loadtest https://agent.example.com --inputs questions.txt
    """
    plan = _plan(context, options)
    report = ReportFiles.at(options["report"])
    _raise_file_limit(plan.max_in_flight + FILES_BESIDE)
    measurements = asyncio.run(_run(plan))
    result = LoadResult.of(plan, measurements)
    _print_result(result)
    report.write(result)
    click.echo(f"Report: {report.page}, {report.data}")
    if measurements.interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    if not measurements.answered:
        raise click.ClickException("no turn was answered")


def _plan(context: click.Context, options: dict[str, Any]) -> LoadPlan:
    rate, seconds, address = options["rate"], options["seconds"], options["address"]
    if address and context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give the address once: as URL or with --url")
    if not rate * seconds <= MAX_TURNS or math.isnan(options["timeout_s"]):  # nan passes click's ranges
        turns = f"{rate * seconds:,.0f} turns; at most {MAX_TURNS:,} are allowed"
        raise click.UsageError(f"--rate {rate:g} for --seconds {seconds:g} are {turns}")
    url = read_url(context, context.command.params[0], address) if address else options["url"]
    _check_url(url)
    return LoadPlan(
        url=url,
        rate_per_s=rate,
        duration_s=seconds,
        stream=options["stream"],
        inputs=_read_inputs(options["text"], options["inputs_file"]),
        sessions=options["sessions"],
        max_in_flight=options["max_in_flight"],
        timeout_s=options["timeout_s"],
        run_id=uuid4().hex[:8],
    )


def _check_url(url: str) -> None:
    try:
        parsed = URL(url)
    except ValueError as error:
        raise click.UsageError(f"{url}: {error}") from error
    if not parsed.host:
        raise click.UsageError(f"{url}: a URL names a host")
    if parsed.user and key_headers():
        raise click.UsageError("a password in the URL and an API key cannot be sent together")


def _read_inputs(text: str | None, file: Path | None) -> tuple[str, ...]:
    """Return the messages, each of which the service accepts."""
    if text is not None and file:
        raise click.UsageError("give one of --input and --inputs")
    if not file:
        text = DEFAULT_INPUT if text is None else text.encode(errors="replace").decode()
        _check_input(text, "--input")
        return (text,)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8 text ({type(error).__name__})") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            _check_input(line, f"{file}, line {number}")
    inputs = tuple(line.strip() for line in lines if line.strip())
    if not inputs:
        raise click.ClickException(f"{file} has no message: write one a line")
    return inputs


def _check_input(text: str, where: str) -> None:
    try:
        ChatRequest(user_input=text, session_id=_PROBE)
    except ValueError as error:
        raise click.ClickException(f"{where}: a message has 1 to 32,000 characters") from error


def _raise_file_limit(wanted: int) -> None:
    """Allow as many open files as wanted, as far as the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


async def _run(plan: LoadPlan) -> Measurements:
    async with open_turn_client(plan) as client:
        await _probe(plan, client)
        gc.collect()
        gc.freeze()  # what was imported need not be searched while time is measured
        progress = Progress(is_terminal=sys.stdout.isatty())
        measurements = await LoadGenerator(plan, client, progress.show).run()
        progress.end()
        return measurements


async def _probe(plan: LoadPlan, client: TurnClient) -> None:
    """Send one turn that does not count.

    Raises:
        click.ClickException: the service cannot be reached, or it refuses the key or the message.
    """
    where = public_url(plan.url)
    click.echo(f"Probing {where} with one turn, which does not count …")
    result = await client.send(plan.inputs[0], f"loadtest-{plan.run_id}-{_PROBE}")
    if (error := result.outcome.error) is None:
        lacks = f", without {', '.join(result.outcome.degraded)}" if result.outcome.degraded else ""
        click.echo(f"It was answered{lacks}.")
    elif _is_ours(error):
        click.echo(f"It was not answered: {error}. The load test begins nevertheless.")
    else:
        raise click.ClickException(f"{where}: {error}; {_hint(error)}")
    turns = count_of(plan.turns, "turn")
    click.echo(f"Sending {turns} in {plan.duration_s:g} s. Ctrl-C ends it early and still writes the report.")


def _is_ours(error: TurnError) -> bool:
    """Whether the service itself failed or is busy: that can be measured."""
    return error.kind == "stream_event" or (
        bool(error.code) and (error.is_refusal or (error.status or 0) >= SERVER_ERROR)
    )


def _hint(error: TurnError) -> str:
    if error.status == UNAUTHENTICATED:
        return f"pass a valid key with --key or {SERVICE_KEY}"
    if error.status == FORBIDDEN:
        return "the key needs the scope chat"
    if error.reason == "connection refused":
        return "no service answers; start one with 'serve run serve_config.yaml', or pass its address as URL"
    if error.code:
        return "the service does not accept the turn"
    if error.reason == "time-out":
        return "the service took too long; see --timeout"
    return "is this the service's address?"


class Progress:
    """Shows how the load goes: a line that changes, or lines where nothing can change."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._calls = 0

    def show(self, measurements: Measurements) -> None:
        """Show the progress; called once a second."""
        self._calls += 1
        line = format_progress(measurements)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r{line[:width]:<{width}}", nl=False)
        elif self._calls % PLAIN_PROGRESS_S == 0:
            click.echo(line)

    def end(self) -> None:
        """End the line that changes."""
        if self._is_terminal and self._calls:
            with suppress(OSError):
                click.echo()


def format_progress(measurements: Measurements) -> str:
    """Return one line: the counts so far, and percentiles of the last seconds."""
    m = measurements
    counts = {"sent": m.sent, "in flight": m.in_flight, "answered": m.answered, "errors": m.errors}
    line = "  ".join((f"{m.elapsed_s:4.0f} s", *(f"{name} {count:,}" for name, count in counts.items())))
    recent = [MS_PER_S * latency_s for latency_s in m.recent_latencies_s()]
    if not recent:
        return line
    return f"{line}  p50 {format_ms(percentile(recent, 0.5))}  p99 {format_ms(percentile(recent, 0.99))}"


def _print_result(result: LoadResult) -> None:
    for _, titles, rows in load_table.tables_of(result):
        lines = list(format_table(titles, rows))
        for line in ["", *lines] if lines else []:
            click.echo(strip_controls(line))
    per_s, planned_per_s = result.summary.answered_per_s, result.plan.rate_per_s
    click.echo(f"\n{per_s:,.1f} answers per second while turns were started, of {planned_per_s:,g} planned.")
    for warning in load_table.warnings_of(result):
        click.echo(click.style(f"Warning: {warning}", fg="yellow"))

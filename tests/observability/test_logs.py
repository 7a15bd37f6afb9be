"""A log record names its event, its fields and its run, and holds nothing that must be masked."""

from __future__ import annotations

import asyncio
import io
import json
import logging

from captured_logs import PROCESS, CapturedLogs

from serve_app.observability.logs import (
    MAX_CHARACTERS,
    MAX_WAITING,
    JsonLogFormatter,
    RedactingFilter,
    RunLogHandler,
    hide_in_logs,
    log_context,
)
from serve_app.observability.redaction import Redactor

PHONE = "13800138000"

ours = logging.getLogger("serve_app.somewhere")
theirs = logging.getLogger("some.library")


def test_a_line_has_its_event_its_fields_its_process_and_its_time(captured_logs: CapturedLogs) -> None:
    ours.warning("run_adopted", extra={"after": 4})
    [line] = captured_logs.lines
    assert line.pop("ts").endswith("+00:00")
    assert line == {"level": "WARNING", **PROCESS, "event": "run_adopted", "after": 4}
    assert captured_logs.readable[0].startswith("WARNING ")
    assert captured_logs.readable[0].endswith(" Agent run_adopted after=4")


def test_a_librarys_line_is_a_message(captured_logs: CapturedLogs) -> None:
    theirs.warning("%d of %s", 3, "them")
    [line] = captured_logs.lines
    assert (line["logger"], line["message"]) == ("some.library", "3 of them")
    assert "event" not in line


async def test_every_record_of_a_block_has_the_ids_of_its_run(captured_logs: CapturedLogs) -> None:
    async def run(run_id: str) -> None:
        with log_context({"run_id": run_id}):
            await asyncio.sleep(0.01)
            theirs.warning("in a library")
            with log_context({"request_id": "q"}):
                ours.warning("inside")

    await asyncio.gather(run("a"), run("b"))
    ours.warning("outside")
    assert sorted((line.get("run_id", ""), line.get("request_id", "")) for line in captured_logs.lines) == [
        ("", ""),
        ("a", ""),
        ("a", "q"),
        ("b", ""),
        ("b", "q"),
    ]


def test_a_records_own_fields_win_over_those_of_its_context(captured_logs: CapturedLogs) -> None:
    with log_context({"run_id": "around"}):
        ours.warning("event", extra={"run_id": "own"})
    assert captured_logs.lines[0]["run_id"] == "own"


def test_text_arguments_fields_and_tracebacks_are_masked(captured_logs: CapturedLogs) -> None:
    try:
        int(f"no such phone {PHONE}")
    except ValueError:
        theirs.exception("call %s", PHONE, extra={"given": {"phone": [PHONE]}, "password": "x", "number": int(PHONE)})
    text = json.dumps(captured_logs.lines) + captured_logs.readable[0]
    assert PHONE not in text
    assert "Traceback" in captured_logs.lines[0]["exception"]
    assert captured_logs.lines[0]["given"] == {"phone": ["[phone]"]}
    assert captured_logs.lines[0]["password"] == "[secret]"


def test_hidden_values_are_masked_at_any_depth_and_only_in_their_block(captured_logs: CapturedLogs) -> None:
    with hide_in_logs([{"pin": ["4711"]}, "Rosebud", True]):
        ours.warning("event", extra={"error": "KeyError('Rosebud')", "pin": 4711, "yes": True})
    ours.warning("event", extra={"error": "Rosebud"})
    masked, clear = captured_logs.lines
    assert (masked["error"], masked["pin"], masked["yes"]) == ("KeyError('[sensitive]')", "[sensitive]", True)
    assert clear["error"] == "Rosebud"


def test_a_record_whose_arguments_do_not_fit_fails_no_caller(captured_logs: CapturedLogs) -> None:
    theirs.warning("%d", "three")
    assert captured_logs.lines[0]["message"] == "%d ('three',)"


def test_a_record_is_masked_before_a_handler_formats_it(captured_logs: CapturedLogs) -> None:
    record = logging.makeLogRecord({"name": "x", "msg": "call %s", "args": (PHONE,)})
    with log_context({"run_id": "r"}):
        RedactingFilter(Redactor()).filter(record)
    assert (record.getMessage(), vars(record)["run_id"]) == ("call [phone]", "r")


def test_the_run_log_handler_keeps_the_records_of_runs_and_counts_dropped_ones() -> None:
    run_logs = RunLogHandler(JsonLogFormatter(PROCESS), RedactingFilter(Redactor()))
    for number in range(MAX_WAITING + 7):
        made = {"name": "serve_app.x", "msg": "step", "run_id": "r", "tenant": "t", "number": number}
        run_logs.handle(logging.makeLogRecord(made))
    run_logs.handle(logging.makeLogRecord({"name": "serve_app.x", "msg": "of no run"}))
    for unknown in (None, ""):
        run_logs.handle(logging.makeLogRecord({"name": "serve_app.x", "msg": "of no run", "run_id": unknown}))
    taken = run_logs.drain()
    assert (len(taken), run_logs.dropped, run_logs.drain()) == (MAX_WAITING, 7, [])
    run_logs.handle(logging.makeLogRecord({"name": "serve_app.x", "msg": "of no run", "run_id": None}))
    assert run_logs.drain() == []
    tenant, run_id, line = taken[-1]
    assert (tenant, run_id, json.loads(line)["number"]) == ("t", "r", MAX_WAITING - 1)


def test_the_run_log_handler_masks_the_values_that_were_hidden_at_the_call() -> None:
    run_logs = RunLogHandler(JsonLogFormatter(PROCESS), RedactingFilter(Redactor()))
    made = logging.makeLogRecord({"name": "serve_app.x", "msg": "called", "number": PHONE, "pin": "Rosebud"})
    with log_context({"run_id": "r", "tenant": "t"}), hide_in_logs(["Rosebud"]):
        run_logs.handle(made)
    [(tenant, run_id, line)] = run_logs.drain()
    assert (tenant, run_id) == ("t", "r")
    assert (json.loads(line)["number"], json.loads(line)["pin"]) == ("[phone]", "[sensitive]")


def test_a_long_line_is_cut() -> None:
    run_logs = RunLogHandler(JsonLogFormatter(PROCESS), RedactingFilter(Redactor()))
    long = {"run_id": "r", "query": "x" * 5000, "exc_text": "y" * 5000 + "the end"}
    run_logs.handle(logging.makeLogRecord({"name": "serve_app.x", "msg": "step", **long}))
    [(_, _, line)] = run_logs.drain()
    record = json.loads(line)
    assert len(record["query"]) == len(record["exception"]) == MAX_CHARACTERS + 1
    assert record["exception"].endswith("the end")


def test_what_a_tool_prints_is_masked_line_by_line_however_it_is_written() -> None:
    from serve_app.deployments.replica_logs import RedactedStream

    written = io.StringIO()
    stream = RedactedStream(written, Redactor())
    with hide_in_logs(["Rosebud"]):
        for piece in ("call 1380", "0138000 or Rose", "bud\nnext", " line\n", "no end"):
            stream.write(piece)
        assert written.getvalue() == "call [phone] or [sensitive]\nnext line\n"
        stream.flush()
    assert written.getvalue().endswith("\nno end")

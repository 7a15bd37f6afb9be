"""Every process comes to the same trace, and the share of traces that is kept is the configured one."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.observability import traceparent
from serve_app.observability.traceparent import (
    TraceOrigin,
    current,
    outgoing_traceparent,
    root_span_id,
    trace_origin,
    use_traceparent,
)
from serve_app.values import Context

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER_SENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
MALFORMED = [
    "",
    "nonsense",
    HEADER_SENT.upper(),
    HEADER_SENT + "-more",
    f"ff-{TRACE_ID}-{SPAN_ID}-01",
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID}-{SPAN_ID}",
    f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
]
uuids = st.uuids(version=4).map(lambda each: each.hex)


def context_of(run_id: str, header: str = "") -> Context:
    return Context(request_id="q", run_id=run_id, session_id="s", deadline=0, traceparent=header)


def test_a_callers_trace_is_continued() -> None:
    assert traceparent.valid_traceparent(HEADER_SENT) == HEADER_SENT
    assert trace_origin(context_of(uuid4().hex, HEADER_SENT)) == TraceOrigin(TRACE_ID, SPAN_ID, sampled=True)
    assert outgoing_traceparent(context_of(uuid4().hex, HEADER_SENT)) == HEADER_SENT


def test_a_malformed_header_is_ignored() -> None:
    assert [each for each in (None, *MALFORMED) if traceparent.valid_traceparent(each) != ""] == []


@given(uuids)
def test_a_turn_without_a_callers_trace_begins_one_with_its_run_id(run_id: str) -> None:
    assert trace_origin(context_of(run_id)) == TraceOrigin(run_id, "", sampled=False)
    header = outgoing_traceparent(context_of(run_id))
    assert traceparent.valid_traceparent(header) == header
    assert header.split("-")[1:3] == [run_id, root_span_id(run_id)]


@pytest.mark.parametrize("run_id", ["r", "", "x" * 32, "0" * 32])
def test_a_run_whose_id_is_no_trace_id_is_not_traced(run_id: str) -> None:
    assert trace_origin(context_of(run_id)) is None
    assert outgoing_traceparent(context_of(run_id)) == ""


@given(st.text(max_size=80))
def test_whatever_a_client_sends_is_a_trace_or_nothing(header: str) -> None:
    taken = traceparent.valid_traceparent(header)
    assert taken in {"", header}
    assert trace_origin(context_of(uuid4().hex, taken)) is not None


def test_within_a_tool_call_its_header_can_be_read() -> None:
    with use_traceparent(HEADER_SENT):
        assert current() == HEADER_SENT
    assert current() == ""


@given(uuids, st.floats(0, 1), st.floats(0, 1))
def test_a_trace_that_a_small_share_keeps_a_larger_one_keeps_too(trace_id: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    origin = TraceOrigin(trace_id, "", sampled=False)
    assert traceparent.is_sampled(origin, small) <= traceparent.is_sampled(origin, large)
    assert traceparent.is_sampled(origin, 1)
    assert not traceparent.is_sampled(origin, 0)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_is_exported_of_many_is_the_one_that_is_configured(share: float) -> None:
    many = 20_000
    ids = (f"{'5' * 18}{(0x9E3779B97F4A7D * n) % 16**14:014x}" for n in range(many))  # only the end is random in some
    sampled = sum(traceparent.is_sampled(TraceOrigin(each, "", sampled=False), share) for each in ids)
    assert abs(sampled / many - share) < 0.01


def test_failed_and_degraded_turns_are_kept_though_they_are_not_sampled() -> None:
    ends = ("failed", "degraded", "success", "cancelled")
    assert [each for each in ends if traceparent.is_exported(each, sampled=False)] == ["failed", "degraded"]
    assert all(traceparent.is_exported(each, sampled=True) for each in ends)

"""A guarded model ends its calls in time and raises errors of the service."""

from __future__ import annotations

import asyncio
import logging
import pickle
import time
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.utils import message_chunk_to_message
from langchain_openai import ChatOpenAI
from stub_server import REFUSALS, SECRET_TEXT

from serve_app.config import ModelSettings
from serve_app.errors import DeadlineExceeded, ModelUnavailable, ServeAppError
from serve_app.llm.error_translation import (
    FAILED,
    REFUSED,
    TOO_LONG,
    TOO_MANY,
    TOO_SLOW,
    UNREACHABLE,
    UNREADABLE,
    WRONG_KEY,
    ContextOverflow,
    KeyRefused,
    ModelBusy,
    ModelRefused,
    ModelTooSlow,
    RequestRefused,
    translate_errors,
)
from serve_app.llm.guarded import GuardedModel, _translate_time_out
from serve_app.llm.models import build_model
from serve_app.values import Fault

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from stub_server import Stub

    from serve_app.values import FaultMode


def _model(stub: Stub, name: str, timeout_s: float = 0.6) -> BaseChatModel:
    """One model, asked once for each call."""
    settings = ModelSettings(name=f"openai:{name}", base_url=stub.url, timeout_s=timeout_s)
    return build_model(settings).candidates[0].model


async def _text_of(model: BaseChatModel, *, streaming: bool, **given: Any) -> str:
    if not streaming:
        return (await model.ainvoke("hello", **given)).text
    return "".join([chunk.text async for chunk in model.astream("hello", **given)])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("rate-limited", ModelBusy, TOO_MANY),
        ("broken", ModelUnavailable, FAILED),
        ("overloaded", ModelUnavailable, FAILED),
        ("wrong-key", KeyRefused, WRONG_KEY),
        ("forbidden", ModelRefused, REFUSED),
        ("unknown-model", ModelRefused, REFUSED),
        ("bad-request", RequestRefused, REFUSED),
        ("too-long", ContextOverflow, TOO_LONG),
        ("silent", ModelTooSlow, TOO_SLOW),
    ],
)
async def test_a_failure_is_ours_and_says_nothing_of_the_providers(
    stub: Stub, name: str, kind: type[ServeAppError], message: str, *, streaming: bool
) -> None:
    with pytest.raises(ServeAppError) as failed:
        await _text_of(_model(stub, name), streaming=streaming)
    assert type(failed.value) is kind
    assert failed.value.message == message
    assert failed.value.__cause__ is None
    assert failed.value.retryable is (kind in {ModelUnavailable, ModelBusy, ModelTooSlow})
    assert pickle.loads(pickle.dumps(failed.value)).message == message


@pytest.mark.parametrize(
    ("name", "streaming"),
    [("garbage", False), ("garbage", True), ("empty", False), ("empty", True), ("garbage-frame", True)],
)
async def test_an_answer_that_is_none_is_the_providers_failure(stub: Stub, name: str, *, streaming: bool) -> None:
    with pytest.raises(ModelUnavailable) as failed:
        await _text_of(_model(stub, name), streaming=streaming)
    assert failed.value.message in {UNREADABLE, "The model gave no answer"}


@pytest.mark.parametrize(("name", "message"), [("cut", UNREACHABLE), ("error-frame", FAILED), ("stalls", TOO_SLOW)])
async def test_a_stream_that_breaks_has_given_what_came_before(stub: Stub, name: str, message: str) -> None:
    came, failed = await _until_it_breaks(_model(stub, name))
    assert came == "Hello from "
    assert failed.message == message


async def _until_it_breaks(model: BaseChatModel) -> tuple[str, ModelUnavailable]:
    came = ""
    try:
        async for chunk in model.astream("hello"):
            came += chunk.text
    except ModelUnavailable as error:
        return came, error
    pytest.fail("the stream did not break")


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    model = (
        build_model(ModelSettings(name="openai:x", base_url="http://127.0.0.1:9/v1", timeout_s=2)).candidates[0].model
    )
    with pytest.raises(ModelUnavailable, match=UNREACHABLE):
        await model.ainvoke("hello")


async def test_a_rate_limit_passes_on_when_to_come_back(stub: Stub) -> None:
    with pytest.raises(ModelUnavailable) as failed:
        await _model(stub, "rate-limited").ainvoke("hello")
    assert failed.value.retry_after_s == 7.0


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_call_ends_at_the_requests_deadline_and_says_so(stub: Stub, *, streaming: bool) -> None:
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await _text_of(_model(stub, "silent", timeout_s=20), streaming=streaming, deadline=time.time() + 0.3)
    assert time.monotonic() - begun < 2


def test_a_timer_that_fires_a_millisecond_early_is_still_the_deadlines() -> None:
    with pytest.raises(DeadlineExceeded), _translate_time_out(time.time() + 0.005):
        raise TimeoutError
    with pytest.raises(ModelUnavailable, match=TOO_SLOW), _translate_time_out(time.time() + 5):
        raise TimeoutError


async def test_no_call_is_begun_when_the_time_has_run_out(stub: Stub) -> None:
    before = len(stub.seen)
    with pytest.raises(DeadlineExceeded):
        await _model(stub, "stub-model").ainvoke("hello", deadline=time.time() - 1)
    assert len(stub.seen) == before


async def test_the_time_is_for_the_whole_stream_and_not_for_each_piece(stub: Stub) -> None:
    assert await _text_of(_model(stub, "drips", timeout_s=5), streaming=True) == "Hello from the stub."
    with pytest.raises(ModelUnavailable, match=TOO_SLOW):
        await _text_of(_model(stub, "drips", timeout_s=0.4), streaming=True)


async def test_pieces_are_passed_on_as_they_come(stub: Stub) -> None:
    at = [time.monotonic() async for chunk in _model(stub, "drips", timeout_s=5).astream("hello") if chunk.text]
    assert at[-1] - at[0] > 0.3


async def test_a_reader_who_takes_his_time_loses_no_piece(stub: Stub) -> None:
    streamed = ""
    async for chunk in _model(stub, "stub-model", timeout_s=5).astream("hello"):
        streamed += chunk.text
        await asyncio.sleep(0.02)
    assert streamed == "Hello from the stub."


async def test_a_call_that_is_cancelled_stays_cancelled(stub: Stub) -> None:
    call = asyncio.create_task(_text_of(_model(stub, "silent", timeout_s=20), streaming=True))
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("name", list(REFUSALS))
async def test_the_log_names_the_failure_without_the_providers_words(
    stub: Stub, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ServeAppError):
        await _model(stub, name).ainvoke("hello")
    assert any(str(REFUSALS[name][0]) in str(getattr(each, "error", "")) for each in caplog.records)
    assert SECRET_TEXT not in caplog.text


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (429, ModelBusy, TOO_MANY),
        (503, ModelUnavailable, FAILED),
        (504, ModelTooSlow, TOO_SLOW),
        (401, KeyRefused, WRONG_KEY),
    ],
)
def test_a_provider_that_langchain_does_not_classify_is_read_by_its_status(
    status: int, kind: type[ServeAppError], message: str
) -> None:
    class VendorError(Exception):
        status_code = status

    with pytest.raises(kind) as failed, translate_errors():
        raise VendorError("their words")
    assert type(failed.value) is kind
    assert failed.value.message == message


def test_an_error_of_ours_passes_unchanged() -> None:
    ours = DeadlineExceeded("mine")
    with pytest.raises(DeadlineExceeded) as raised, translate_errors():
        raise ours
    assert raised.value is ours


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("mode", "message"), [("error", UNREACHABLE), ("timeout", TOO_SLOW)])
async def test_a_fault_hits_the_model_it_names_before_its_provider(
    stub: Stub, mode: FaultMode, message: str, *, streaming: bool
) -> None:
    seen = len(stub.seen)
    fault = Fault(target="model:openai:good", mode=mode, rate=1, delay_s=0, until=4e9)
    with pytest.raises(ModelUnavailable, match=message):
        await _text_of(_model(stub, "good"), streaming=streaming, faults=(fault,))
    assert len(stub.seen) == seen
    assert await _text_of(_model(stub, "other"), streaming=streaming, faults=(fault,)) == "Hello from the stub."


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_faulty_model_calls_a_tool_in_a_way_that_cannot_be_read(stub: Stub, *, streaming: bool) -> None:
    fault = Fault(target="model", mode="garbage", rate=1, delay_s=0, until=4e9)
    model = _model(stub, "good")
    if streaming:
        first, *rest = [chunk async for chunk in model.astream("hello", faults=(fault,))]
        reply = message_chunk_to_message(sum(rest, first))
    else:
        reply = await model.ainvoke("hello", faults=(fault,))
    assert isinstance(reply, AIMessage)
    assert (reply.text, reply.tool_calls, len(reply.invalid_tool_calls)) == ("", [], 1)


def test_a_class_made_of_one_whose_provider_gives_reasons_wants_one_too() -> None:
    class Ours(ChatOpenAI):
        """A user's own, in the user's package."""

    for inner, wants in ((Ours(model="m", api_key="k"), True), (GenericFakeChatModel(messages=iter([])), False)):  # type: ignore[arg-type]
        assert GuardedModel(inner=inner, timeout_s=5)._reader([], {}).wants_reason is wants

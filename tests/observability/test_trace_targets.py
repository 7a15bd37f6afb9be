"""The usual variables choose trace targets, and without them nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from serve_app.config import ObservabilitySettings, read_langsmith_target, read_otlp_target
from serve_app.observability.redaction import Redactor
from serve_app.observability.spans import NullTracer
from serve_app.observability.tracing import create_tracer

if TYPE_CHECKING:
    from pathlib import Path

PREFIXES = ("LANGSMITH_", "LANGCHAIN_", "OTEL_")


@pytest.fixture(autouse=True)
def _no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith(PREFIXES)]:
        monkeypatch.delenv(name)


def test_without_the_variables_nothing_is_traced() -> None:
    assert read_langsmith_target() is None
    assert read_otlp_target() is None
    assert isinstance(create_tracer(ObservabilitySettings(), Redactor(), lambda *_: None), NullTracer)


@pytest.mark.parametrize("prefix", ["LANGSMITH_", "LANGCHAIN_"])
@pytest.mark.parametrize("switch", ["TRACING", "TRACING_V2"])
def test_whatever_switches_langsmith_on_elsewhere_does_so_here(
    monkeypatch: pytest.MonkeyPatch, prefix: str, switch: str
) -> None:
    for name, value in [(switch, "true"), ("ENDPOINT", "http://e"), ("API_KEY", "k"), ("PROJECT", "p")]:
        monkeypatch.setenv(prefix + name, value)
    target = read_langsmith_target()
    assert target
    assert (target.url, target.project) == ("http://e", "p")
    assert target.key
    assert target.key.get_secret_value() == "k"


@pytest.mark.parametrize("value", ["True", "1", "TRUE", "yes"])
def test_another_word_than_true_does_not_switch_langsmith_on_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", value)
    assert read_langsmith_target() is None
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["value"]) == ("langsmith_switch_ignored", value)


def test_the_variables_may_stand_in_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "LANGSMITH_TRACING=true\nOTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318/\nOTEL_EXPORTER_OTLP_HEADERS=a=b\n",
        encoding="utf-8",
    )
    assert read_langsmith_target()
    target = read_otlp_target()
    assert target
    assert target.url == "http://c:4318/v1/traces"
    assert target.headers
    assert target.headers.get_secret_value() == "a=b"


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4318", "TRACES_ENDPOINT": "http://t/own"}, "http://t/own"),
        ({"ENDPOINT": "http://c:4318", "PROTOCOL": "http/protobuf"}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4317", "PROTOCOL": "grpc"}, None),
    ],
)
def test_the_collector_is_where_opentelemetry_s_variables_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    target = read_otlp_target()
    assert (target.url if target else None) == url


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_opentelemetry_s_own_switches_are_obeyed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")
    monkeypatch.setenv(name, value)
    assert read_otlp_target() is None


def test_without_the_variables_no_client_is_imported() -> None:
    code = """
import sys
from serve_app.config import ObservabilitySettings
from serve_app.observability.redaction import Redactor
from serve_app.observability.tracing import create_tracer
create_tracer(ObservabilitySettings(), Redactor(), lambda *_: None)
print([name for name in sys.modules if name.split(".")[0] in {"langsmith", "opentelemetry"}])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"

"""Environment variables and `.env`. No other module reads them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr

from serve_app.errors import InvalidConfiguration, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

DATA_DIR = "SERVE_APP_DATA_DIR"
LANGSMITH = ("LANGSMITH_", "LANGCHAIN_")
"""The prefixes of LangSmith's variables. The second one is older; LangSmith reads both."""
OTLP = "OTEL_EXPORTER_OTLP_"
OTLP_FORM = "http/protobuf"

logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # its warnings are Problems here, reported once


def read_environment() -> dict[str, str]:
    """Return the variables of the process; those that are missing come from `.env`.

    `.env` is read in the working directory.

    Raises:
        InvalidConfiguration: `.env` exists and cannot be read.
    """
    try:
        from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(".env", f"cannot be read ({type(error).__name__})", "Save it as UTF-8, readable by this user")
        raise InvalidConfiguration((problem,)) from None
    return {**from_file, **os.environ}


def find_env_file_problems() -> tuple[Problem, ...]:
    """Return the lines of `.env` that are not of the form NAME=value."""
    file = Path(".env")
    if not file.is_file():
        return ()
    with file.open(encoding="utf-8") as lines:
        return tuple(
            Problem(f".env:{each.original.line}", "not of the form NAME=value", "Correct the line, or put # before it")
            for each in parse_stream(lines)
            if each.error
        )


def read_secret(name: str) -> SecretStr:
    """Return the secret in the environment variable `name`.

    Raises:
        InvalidConfiguration: the variable is not set.
    """
    value = read_environment().get(name)
    if not value:
        problem = Problem(name, "the environment variable is not set", "Set it, or put it into .env")
        raise InvalidConfiguration((problem,))
    return SecretStr(value)


def data_dir() -> Path:
    """Return the folder of the embedded stores: `SERVE_APP_DATA_DIR` or `.serve_app`."""
    return Path(read_environment().get(DATA_DIR) or ".serve_app").expanduser().resolve()


@dataclass(frozen=True, slots=True)
class LangSmithTarget:
    """Where and how to send traces to LangSmith; None: the default of its client."""

    url: str | None
    key: SecretStr | None
    workspace: str | None
    project: str


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """A collector that accepts OTLP over HTTP."""

    url: str
    headers: SecretStr | None
    """In the form of the variable: `name=value,name=value`."""


def read_langsmith_target() -> LangSmithTarget | None:
    """Return the LangSmith target, or None if LangSmith is off.

    Only `true` switches it on, as in LangSmith itself.
    """
    known = {
        name.removeprefix(prefix): value
        for prefix in reversed(LANGSMITH)
        for name, value in read_environment().items()
        if value and name.startswith(prefix)
    }
    switch = known.get("TRACING_V2") or known.get("TRACING") or ""
    if switch != "true":
        if switch.lower() in {"true", "1", "yes", "on"}:
            logger.warning("langsmith_switch_ignored", extra={"value": switch, "only": "true, in lower case"})
        return None
    return LangSmithTarget(
        url=known.get("ENDPOINT"),
        key=_secret(known, "API_KEY"),
        workspace=known.get("WORKSPACE_ID"),
        project=known.get("PROJECT", "default"),
    )


def read_otlp_target() -> OtlpTarget | None:
    """Return the OTLP target, or None if no collector is set."""
    known = read_environment()
    base = known.get(OTLP + "ENDPOINT", "").rstrip("/")
    url = known.get(OTLP + "TRACES_ENDPOINT") or (f"{base}/v1/traces" if base else "")
    if not url or known.get("OTEL_SDK_DISABLED", "").lower() == "true" or known.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    form = known.get(OTLP + "TRACES_PROTOCOL") or known.get(OTLP + "PROTOCOL") or OTLP_FORM
    if form != OTLP_FORM:
        logger.warning("otlp_protocol_unsupported", extra={"protocol": form, "supported": OTLP_FORM})
        return None
    return OtlpTarget(url, _secret(known, OTLP + "TRACES_HEADERS") or _secret(known, OTLP + "HEADERS"))


def _secret(known: Mapping[str, str], name: str) -> SecretStr | None:
    value = known.get(name)
    return SecretStr(value) if value else None

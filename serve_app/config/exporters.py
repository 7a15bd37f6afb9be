"""Where do traces go? By the variables that LangSmith and OpenTelemetry are set up with everywhere."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from serve_app.config.environment import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

LANGSMITH = ("LANGSMITH_", "LANGCHAIN_")
"""The second is the older one; LangSmith reads both."""
OTLP = "OTEL_EXPORTER_OTLP_"
OTLP_FORM = "http/protobuf"


@dataclass(frozen=True, slots=True)
class LangSmithTarget:
    """A project of LangSmith; None leaves it to LangSmith's client."""

    url: str | None
    key: SecretStr | None
    workspace: str | None
    project: str


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """A collector that takes OTLP over HTTP."""

    url: str
    headers: SecretStr | None
    """As the variable has them: `name=value,name=value`."""


def langsmith_target() -> LangSmithTarget | None:
    """Where LangSmith is, if it is switched on; by the word that LangSmith itself wants, and no other."""
    known = {
        name.removeprefix(prefix): value
        for prefix in reversed(LANGSMITH)
        for name, value in environment().items()
        if value and name.startswith(prefix)
    }
    switch = known.get("TRACING_V2") or known.get("TRACING") or ""
    if switch != "true":
        if switch.lower() in {"true", "1", "yes", "on"}:
            logger.warning("%sTRACING is %r: only `true`, in lower case, switches it on", LANGSMITH[0], switch)
        return None
    return LangSmithTarget(
        url=known.get("ENDPOINT"),
        key=_secret(known, "API_KEY"),
        workspace=known.get("WORKSPACE_ID"),
        project=known.get("PROJECT", "default"),
    )


def otlp_target() -> OtlpTarget | None:
    """Where the collector is, if one is named."""
    known = environment()
    base = known.get(OTLP + "ENDPOINT", "").rstrip("/")
    url = known.get(OTLP + "TRACES_ENDPOINT") or (f"{base}/v1/traces" if base else "")
    if not url or known.get("OTEL_SDK_DISABLED", "").lower() == "true" or known.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    form = known.get(OTLP + "TRACES_PROTOCOL") or known.get(OTLP + "PROTOCOL") or OTLP_FORM
    if form != OTLP_FORM:
        logger.warning("traces are not sent: %sPROTOCOL is %s, and only %s is spoken", OTLP, form, OTLP_FORM)
        return None
    return OtlpTarget(url, _secret(known, OTLP + "TRACES_HEADERS") or _secret(known, OTLP + "HEADERS"))


def _secret(known: Mapping[str, str], name: str) -> SecretStr | None:
    value = known.get(name)
    return SecretStr(value) if value else None

"""Writes settings files and reads their problems, for the tests of the configuration."""

from __future__ import annotations

from pathlib import Path

from serve_app.config import (
    draft_settings,
)

VARIABLES = [
    "SERVE_APP_CONFIG",
    "SERVE_APP_DATA_DIR",
    "SERVE_APP_MODEL",
    "SERVE_APP_MODEL_BASE_URL",
    "SERVE_APP_MODEL_API_KEY",
]


def lines(path: str | Path = "app.yaml") -> list[str]:
    return [str(problem) for problem in draft_settings(path).problems]


def write(text: str, name: str = "app.yaml") -> Path:
    file = Path(name)
    file.write_text(text, encoding="utf-8")
    return file

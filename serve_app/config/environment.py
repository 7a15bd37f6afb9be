"""What does the environment say? The only place that reads it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr

from serve_app.errors import InvalidConfiguration, Problem

DATA_DIR = "SERVE_APP_DATA_DIR"

logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # what it warns of is a problem, told once


def environment() -> dict[str, str]:
    """The process's environment over what `.env` in the working directory says.

    Raises:
        InvalidConfiguration: there is a `.env` that cannot be read.
    """
    try:
        from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(".env", f"cannot be read ({type(error).__name__})", "Save it as UTF-8, readable by this user")
        raise InvalidConfiguration((problem,)) from None
    return {**from_file, **os.environ}


def malformed() -> tuple[Problem, ...]:
    """The lines of `.env` that set nothing."""
    file = Path(".env")
    if not file.is_file():
        return ()
    with file.open(encoding="utf-8") as lines:
        return tuple(
            Problem(f".env:{each.original.line}", "not of the form NAME=value", "Mend the line, or put # before it")
            for each in parse_stream(lines)
            if each.error
        )


def secret(name: str) -> SecretStr:
    """The secret that the environment variable `name` holds.

    Raises:
        InvalidConfiguration: it is not set.
    """
    value = environment().get(name)
    if not value:
        problem = Problem(name, "the environment variable is not set", "Set it, or put it into .env")
        raise InvalidConfiguration((problem,))
    return SecretStr(value)


def data_dir() -> Path:
    """The folder of the embedded stores, `SERVE_APP_DATA_DIR` or `.serve_app`."""
    return Path(environment().get(DATA_DIR) or ".serve_app").expanduser().resolve()

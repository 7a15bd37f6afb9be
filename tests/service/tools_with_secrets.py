"""Tools that are told secrets."""

from typing import Annotated

from serve_app.values import Sensitive


async def note(text: str, pin: Annotated[str, Sensitive]) -> str:
    """Take a note."""
    return f"noted: {text}, with {pin}"


async def fail(text: str, pin: Annotated[str, Sensitive]) -> str:
    """Fail to take a note."""
    raise RuntimeError(f"not noted: {text}, with {pin}")

"""Tools that write down what they do, for replies of all shapes."""

import os
from pathlib import Path

from serve_app.values import IdempotencyKey


def deeds_file() -> Path:
    """The file in which each deed is a line."""
    return Path(os.environ["SERVE_APP_DATA_DIR"]) / "reply-deeds"


def _write_down(line: str) -> None:
    """One write to the end of the file: lines of several processes do not mix."""
    file = os.open(deeds_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


async def book(turn: str = "nobody", seats: int = 900) -> str:
    """Book seats; each call books more, and one without arguments very many for nobody."""
    _write_down(f"{turn} book {seats}")
    return f"booked {seats}"


async def refund(turn: str, amount: float, *, key: IdempotencyKey) -> object:
    """Give money back; what it returns cannot be written as JSON for some amounts."""
    _write_down(f"{turn} refund {amount:g}")
    odd = {1.0: {(1, 2): "refunded"}, 2.0: "refunded \udce9", 3.0: "refunded " * 400_000, 4.0: iter(["refunded"])}
    return odd.get(amount, f"refunded {amount:g}")


async def look_up(word: str) -> str:
    """Look a word up."""
    return f"<{word}> stands on page 7"


async def pack(boxes: list[dict[str, int]], wrapping: str = "") -> str:
    """Pack boxes."""
    return f"packed {len(boxes)}{wrapping and ' in ' + wrapping}"


async def stumble(how: str) -> str:
    """Fail in the way that is asked for."""
    if how == "exit":
        raise SystemExit(3)
    if how == "deep":
        return await stumble(how)
    if how == "group":
        raise BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError("x")])
    raise ValueError(f"the shelf is locked: {how}")

"""What does an operator have go wrong on purpose?"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serve_app.values.value import Value

FaultMode = Literal["timeout", "error", "slow", "garbage"]
"""What a call that is hit does: not answer, fail, answer late, or answer with what cannot be read."""

FaultTarget = Annotated[
    str,
    Field(
        pattern=r"^(tool:[A-Za-z_][A-Za-z0-9_-]{0,63}|model(:[!-~]{1,128})?|retriever|embedding)$",
        description="What is hit: `tool:NAME`, `model` for every model, `model:NAME`, `retriever` or `embedding`.",
    ),
]


class Fault(Value):
    """A fault in force: which calls it hits, how often, and until when."""

    target: FaultTarget
    mode: FaultMode
    rate: float = Field(ge=0, le=1, description="The share of calls that are hit.")
    delay_s: float = Field(ge=0, description="How much later a `slow` call is answered.")
    until: float = Field(description="Unix time in seconds.")


class FaultList(Value):
    """The faults in force, by their targets."""

    faults: tuple[Fault, ...]

"""What is the state of a dependency?"""

from __future__ import annotations

from serve_app.values.value import Value


class Check(Value):
    """One dependency's state as `/readyz` tells it; `reason` is there where it is not ok.

    Without one that is not `required`, turns are answered all the same, some of them degraded.
    """

    name: str
    ok: bool
    reason: str | None = None
    required: bool = True

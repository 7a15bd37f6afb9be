"""Do values cross between processes of two versions, as they do during a rolling update?"""

from __future__ import annotations

import pickle

from serve_app.values import Citation, Context

CONTEXT = Context(request_id="r", run_id="r", session_id="s", deadline=9.0, timeout_s=7)


class Later(Context):
    """What the next version makes of a context."""

    later: int = 3


def _of_another_version(value: Context, kind: type[Context]) -> Context:
    """As `kind` reads what was pickled as another version of it."""
    made = kind.__new__(kind)
    made.__setstate__(pickle.loads(pickle.dumps(value.__getstate__())))
    return made


def test_a_value_is_what_it_was_after_pickling() -> None:
    assert pickle.loads(pickle.dumps(CONTEXT)) == CONTEXT
    whole = Citation(source="s", title="t", passage="p", score=1)
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_a_field_that_the_version_before_does_not_know_has_its_default() -> None:
    read = _of_another_version(CONTEXT, Later)
    assert isinstance(read, Later)
    assert (read.later, read.timeout_s) == (3, 7)


def test_a_field_that_is_not_known_here_is_left_out() -> None:
    told = Later(**CONTEXT.model_dump(), later=5)
    assert _of_another_version(told, Context) == CONTEXT

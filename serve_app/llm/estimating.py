"""How many tokens is a call taken to have used, where its provider has not counted them?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from serve_app.values import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.llm.measuring import Heard

BYTES_PER_TOKEN = 4
"""Of UTF-8: a token is then about one short word, or one Chinese character."""


def tokens(text: str) -> int:
    """An estimate for a text."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def used(messages: Sequence[BaseMessage], heard: Heard) -> Usage:
    """By a call that was given up, asked with `messages`: what the provider has told, else an estimate.

    Some providers tell at the start what was read and that next to nothing is written, so that what has come counts
    where it is more.
    """
    written = tokens("".join(message.text for message in heard.messages))
    return Usage(
        input_tokens=heard.input_tokens or sum(tokens(message.text) for message in messages),
        output_tokens=max(heard.output_tokens, written),
        estimated=heard.estimated or not heard.input_tokens or written > heard.output_tokens,
    )

"""How is a call of a model told in a trace?"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.messages import convert_to_openai_messages
from langchain_core.messages.ai import AIMessageChunk, add_ai_message_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.messages import BaseMessage

    from serve_app.llm.measuring import Heard
    from serve_app.ports import Span


@contextmanager
def recorded(call: AbstractContextManager[Span], heard: Heard) -> Iterator[Span]:
    """Record the call that is made in the block: how it ends, and what is heard of it."""
    with call as span:
        span.tell(partial(told, heard.messages))
        try:
            yield span
        finally:
            if heard.input_tokens or heard.output_tokens:
                span.note(input_tokens=heard.input_tokens, output_tokens=heard.output_tokens)


def told(messages: Sequence[BaseMessage]) -> Any:
    """Messages in OpenAI's form, whichever provider they are for or from; chunks of a stream as one."""
    chunks = [each for each in messages if isinstance(each, AIMessageChunk)]
    others = [each for each in messages if not isinstance(each, AIMessageChunk)]
    return convert_to_openai_messages([*others, *([add_ai_message_chunks(*chunks)] if chunks else [])])


def named(name: str) -> tuple[str, str]:
    """The provider and the model that a configured name means; a name without a provider stands for both."""
    provider, _, model = name.partition(":")
    return provider, model or provider

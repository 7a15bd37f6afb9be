"""How is a call of a model told in a trace?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import convert_to_openai_messages
from langchain_core.messages.ai import AIMessageChunk, add_ai_message_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from serve_app.ports import Span


def told(messages: Sequence[BaseMessage]) -> Any:
    """Messages in OpenAI's form, whichever provider they are for or from."""
    return convert_to_openai_messages(list(messages))


def told_of_stream(chunks: Sequence[AIMessageChunk]) -> Any:
    """The reply that the chunks of a stream make up, as far as it came."""
    return told([add_ai_message_chunks(*chunks)]) if chunks else []


def note_usage(span: Span, message: BaseMessage) -> None:
    """Record the tokens of a call, where the message says them."""
    usage = getattr(message, "usage_metadata", None)
    if usage:
        span.note(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"])

"""A lean chat model for OpenAI-compatible endpoints."""

from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel
from serve_app.llm.openai_compatible.endpoint_profile import PROFILES, EndpointProfile, find_profile
from serve_app.llm.openai_compatible.provider_error import (
    ConnectionFailed,
    ProviderError,
    ReplyIncomplete,
    ReplyUnreadable,
    TimedOut,
)

__all__ = [
    "PROFILES",
    "ConnectionFailed",
    "EndpointProfile",
    "OpenAICompatibleModel",
    "ProviderError",
    "ReplyIncomplete",
    "ReplyUnreadable",
    "TimedOut",
    "find_profile",
]

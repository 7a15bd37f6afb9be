"""A lean chat model for OpenAI-compatible endpoints."""

from serve_app.llm.openai_compatible.chat_model import OpenAICompatibleModel
from serve_app.llm.openai_compatible.errors import (
    ConnectionFailed,
    ProviderError,
    ReplyIncomplete,
    ReplyUnreadable,
    TimedOut,
)
from serve_app.llm.openai_compatible.profile import PROFILES, Profile, profile_for

__all__ = [
    "PROFILES",
    "ConnectionFailed",
    "OpenAICompatibleModel",
    "Profile",
    "ProviderError",
    "ReplyIncomplete",
    "ReplyUnreadable",
    "TimedOut",
    "profile_for",
]

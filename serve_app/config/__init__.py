"""How an installation behaves: the settings tree, the file it is loaded from, the environment."""

from serve_app.config.access import AccessSettings
from serve_app.config.cache import CacheSettings
from serve_app.config.environment import data_dir, environment, secret
from serve_app.config.exporters import LangSmithTarget, OtlpTarget, langsmith_target, otlp_target
from serve_app.config.forms import EMBEDDED
from serve_app.config.http import HttpSettings
from serve_app.config.limits import AdmissionSettings, LimitSettings
from serve_app.config.load import KEY, Draft, draft, load
from serve_app.config.model import FallbackOn, ModelEndpoint, ModelSettings
from serve_app.config.source import Source, read, standing
from serve_app.config.tools import (
    BreakerSettings,
    EgressSettings,
    GroupSettings,
    HttpToolSettings,
    McpToolSettings,
    RetryOn,
    ToolSettings,
    ToolsSettings,
)
from serve_app.config.tree import (
    AgentSettings,
    EmbeddingSettings,
    FaultSettings,
    FeedbackSettings,
    KnowledgeSettings,
    MemorySettings,
    MilvusSettings,
    ObservabilitySettings,
    OrdersSettings,
    RedisSettings,
    RunSettings,
    Settings,
)

__all__ = [
    "EMBEDDED",
    "KEY",
    "AccessSettings",
    "AdmissionSettings",
    "AgentSettings",
    "BreakerSettings",
    "CacheSettings",
    "Draft",
    "EgressSettings",
    "EmbeddingSettings",
    "FallbackOn",
    "FaultSettings",
    "FeedbackSettings",
    "GroupSettings",
    "HttpSettings",
    "HttpToolSettings",
    "KnowledgeSettings",
    "LangSmithTarget",
    "LimitSettings",
    "McpToolSettings",
    "MemorySettings",
    "MilvusSettings",
    "ModelEndpoint",
    "ModelSettings",
    "ObservabilitySettings",
    "OrdersSettings",
    "OtlpTarget",
    "RedisSettings",
    "RetryOn",
    "RunSettings",
    "Settings",
    "Source",
    "ToolSettings",
    "ToolsSettings",
    "data_dir",
    "draft",
    "environment",
    "langsmith_target",
    "load",
    "otlp_target",
    "read",
    "secret",
    "standing",
]

"""How an installation behaves: the settings tree, the file it is loaded from, the environment."""

from serve_app.config.environment import data_dir, environment, secret
from serve_app.config.load import load
from serve_app.config.tree import (
    EMBEDDED,
    AgentSettings,
    EmbeddingSettings,
    HttpSettings,
    KnowledgeSettings,
    MemorySettings,
    MilvusSettings,
    ModelSettings,
    OrdersSettings,
    RedisSettings,
    Settings,
    ToolSettings,
)

__all__ = [
    "EMBEDDED",
    "AgentSettings",
    "EmbeddingSettings",
    "HttpSettings",
    "KnowledgeSettings",
    "MemorySettings",
    "MilvusSettings",
    "ModelSettings",
    "OrdersSettings",
    "RedisSettings",
    "Settings",
    "ToolSettings",
    "data_dir",
    "environment",
    "load",
    "secret",
]

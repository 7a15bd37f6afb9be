"""How is a question answered without a network? By rules: tools are called, what they return is quoted."""

from serve_app.llm.offline.model import OfflineModel

__all__ = ["OfflineModel"]

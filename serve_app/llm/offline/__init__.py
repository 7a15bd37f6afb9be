"""A chat model of fixed rules for running and testing without a network.

It calls a tool for each value in a message that fits the `pattern`, `enum` or `examples` of a parameter, asks for what
is missing, calls the last tool again for a follow-up, searches for everything else, and relays and quotes what it
gets with its sources: in English and Chinese, the same for the same conversation. It does not reason.
"""

from serve_app.llm.offline.model import OfflineModel

__all__ = ["OfflineModel"]

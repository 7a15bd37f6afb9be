"""What does the ingress accept, and from whose pages?"""

from __future__ import annotations

from pydantic import Field

from serve_app.config.forms import Origin
from serve_app.config.section import Section


class HttpSettings(Section):
    """What the ingress accepts."""

    max_chat_body_bytes: int = Field(default=512 * 1024, ge=1024)
    """32,000 characters take 384 kB when each is a pair of escapes."""
    max_knowledge_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """One batch of documents; the CLI sends batches of 1 MB, a larger document alone."""
    max_headers: int = Field(default=100, ge=20)
    """Of one request: a browser behind two proxies sends thirty. HAProxy takes no more than 101."""
    max_header_bytes: int = Field(default=16 * 1024, ge=1024)
    """All names and values of one request: four long tokens. HAProxy's buffer is as large."""
    cors_origins: tuple[Origin, ...] = ()
    """The origins whose pages may call the API from a browser, such as `https://desk.example`. None: an API key has no
    place in a page, so whoever lists one has decided otherwise. Cookies are never part of it."""

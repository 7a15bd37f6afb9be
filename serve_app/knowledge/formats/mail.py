"""Reads an e-mail (.eml) as Markdown, with the attachments that can be read."""

from __future__ import annotations

import email
import re
from email import policy
from email.message import EmailMessage, MIMEPart
from pathlib import PurePath
from typing import TYPE_CHECKING

from serve_app.knowledge.formats.html import to_markdown
from serve_app.knowledge.formats.text_decoding import UnreadableDocument, decode_labelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DEPTH = 3
"""Mails attached to mails."""

_SHOWN = ("From", "To", "Cc", "Date")
_HEADING = re.compile(r"^(#{1,6} )", re.MULTILINE)
_UNDERLINE = re.compile(r"\n(?=[ \t]*[-=]+[ \t]*(?:\n|$))")


def read(content: bytes, load: Callable[[str, bytes], str], depth: int = 0) -> tuple[str, str]:
    """The subject and the text.

    `load` reads an attachment by its name and bytes, or raises `UnreadableDocument`.

    Raises:
        UnreadableDocument: it is no mail, or its body is in an encoding that cannot be told.
    """
    message = email.message_from_bytes(content, policy=policy.default)
    if not isinstance(message, EmailMessage) or not (message["From"] or message["Subject"]):
        raise UnreadableDocument("it is no e-mail: it has neither a sender nor a subject")
    subject = " ".join(_header(message, "Subject").split())
    heads = [f"{name}: {text}" for name in _SHOWN if (text := " ".join(_header(message, name).split()))]
    parts = [f"# {subject or 'E-mail'}", "\n".join(f"- {head}" for head in heads), _body(message)]
    parts += _attachments(message, load, depth)
    return subject, "\n\n".join(part for part in parts if part.strip())


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message[name] or "")
    except (ValueError, IndexError, AttributeError, LookupError):  # the standard parser's, over malformed headers
        return ""


def _body(message: EmailMessage) -> str:
    body = message.get_body(("plain", "html"))
    if body is None or body.is_multipart():
        return ""
    text = _decoded(body)
    if body.get_content_type() == "text/html":
        return _HEADING.sub(r"#\1", to_markdown(text)[1])
    return _UNDERLINE.sub("\n\n", _HEADING.sub(r"\\\1", text.replace("\r\n", "\n")))


def _decoded(part: MIMEPart) -> str:
    payload = part.get_payload(decode=True)
    label = part.get_content_charset()
    return decode_labelled(payload, label) if isinstance(payload, bytes) else ""


def _attachments(message: EmailMessage, load: Callable[[str, bytes], str], depth: int) -> Iterator[str]:
    for part in message.iter_attachments():
        name = " ".join((part.get_filename() or part.get_content_type()).split())
        try:
            yield f"## Attachment: {name}\n\n{_lowered(_attached(part, name, load, depth))}"
        except UnreadableDocument as error:
            yield f"Attachment {name}, not read: {error}"


def _attached(part: MIMEPart, name: str, load: Callable[[str, bytes], str], depth: int) -> str:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_content()
        if depth >= MAX_DEPTH:
            raise UnreadableDocument("mails are attached to mails too deeply")
        return read(inner.as_bytes(), load, depth + 1)[1]
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        raise UnreadableDocument("it has no content")
    return load(PurePath(name).name, payload)


def _lowered(text: str) -> str:
    """The text with headings two levels lower, under the heading of the attachment."""
    return re.sub(r"^(#{1,4}) ", r"##\1 ", text, flags=re.MULTILINE)

"""What can a client do wrong that only HTTP knows of?"""

from __future__ import annotations

from serve_app.errors import InvalidRequest, NotFound


class MalformedBody(InvalidRequest):
    """The body is not the UTF-8 JSON that it claims to be."""

    status = 400
    code = "malformed_body"


class ModelNotFound(NotFound):
    """A model other than the agent is asked for, in OpenAI's language."""

    code = "model_not_found"


class OriginRefused(InvalidRequest):
    """A page of an origin that is not listed asks whether it may call."""

    status = 403
    code = "origin_refused"


class MethodNotAllowed(InvalidRequest):
    """The path exists, for other methods; `Allow` names them."""

    status = 405
    code = "method_not_allowed"


class BodyTimeout(InvalidRequest):
    """The body did not arrive in time."""

    status = 408
    code = "body_timeout"
    retryable = True


class BodyTooLarge(InvalidRequest):
    """The body is over the route's limit."""

    status = 413
    code = "body_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The body does not say that it is JSON."""

    status = 415
    code = "unsupported_media_type"


class HeadersTooLarge(InvalidRequest):
    """There are too many headers, or they are too long."""

    status = 431
    code = "headers_too_large"

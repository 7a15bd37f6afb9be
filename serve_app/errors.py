"""The tree of errors, with their HTTP status and whether a retry makes sense.

    ServeAppError            status code retryable
    ├── InvalidRequest       422   the caller must change something
    │   ├── Unauthenticated  401   no key, or none that is known
    │   ├── Forbidden        403   the key does not open this
    │   ├── NotFound         404   no such session, run or document
    │   │   └── ModelNotFound      no such model, in OpenAI's format
    │   ├── SessionBusy      409   another turn of the session runs, or others change the same API key
    │   ├── RunUnfinished    409   the run has not ended, so that it cannot be rated yet
    │   ├── RunCancelled     409   the run was cancelled, so there is no answer
    │   ├── KeyReused        422   the idempotency key belongs to another body
    │   ├── RunTooLarge      422   the run's events take up more than `runs.max_bytes`
    │   ├── MalformedBody    400   the body is not JSON in UTF-8
    │   ├── OriginRefused    403   a page of an unknown origin sent a preflight request
    │   ├── MethodNotAllowed 405   the path has no such method
    │   ├── BodyTimeout      408   the body did not arrive in time
    │   ├── BodyTooLarge     413   the body is over the route's limit
    │   ├── UnsupportedMediaType 415   the Content-Type is not JSON
    │   └── HeadersTooLarge  431   too many headers, or too long ones
    ├── Overloaded           503   shed on purpose; `retry_after_s` says when to come back
    │   ├── RateLimited      429   the key or its tenant has asked for more than it may
    │   └── TooManyFailures  429   an address has shown too many wrong keys
    ├── DeadlineExceeded     504   the request's own time ran out
    ├── Unavailable          503   a dependency is down
    │   ├── ModelUnavailable
    │   ├── ToolUnavailable        no replica of Tools answered
    │   ├── RetrieverUnavailable   no replica of Retriever answered
    │   ├── StoreUnavailable       Redis or Milvus
    │   │   └── StoreCorrupt       the store answers; one key is unreadable, or Milvus refuses the data
    │   ├── AgentUnavailable       the replica that held the run is gone
    │   └── RunAbandoned           each process that took the run over died
    ├── InvalidConfiguration 500   every problem, one line each: at the start, or of a collection
    └── Internal             500   the message stays inside

The `reason` is for the operator and finer than the code. Of a refused turn it is one of these, else the code:

    rate_limited     the key or its tenant is over its limit                 stores/rate_limiter.py
    queue_full       no room at this ingress                                 http/admission.py
    wait_expired     waited for a place in vain                              http/admission.py
    agents_full      an agent runs as many turns as it may                   runs/worker.py
    backpressure     Ray Serve queues as many calls as it may                deployments/remote_calls.py
    unauthenticated  no valid key, or too many wrong ones                    http/auth.py
    forbidden        the key does not open the path                          http/auth.py
    invalid          an `InvalidRequest` that has no reason of its own       http/errors.py, json_body.py, middleware/

Every argument after `message` has a default, because these errors cross processes pickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class ServeAppError(Exception):
    """The root; `message` is safe to show to a client in every class but `Internal`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    default_reason: ClassVar[str] = ""
    """The reason of an error that names none; the code where it is empty."""

    def __init__(self, message: str, retry_after_s: float | None = None, reason: str = "") -> None:
        super().__init__(message, retry_after_s, reason)
        self.message = message
        self.retry_after_s = retry_after_s
        self.reason = reason or self.default_reason or self.code

    def __str__(self) -> str:
        return self.message


class InvalidRequest(ServeAppError):
    """The caller must change something before trying again."""

    status = 422
    code = "invalid_request"
    default_reason = "invalid"


class Unauthenticated(InvalidRequest):
    """The request shows no key, or one that is nobody's."""

    status = 401
    code = "unauthenticated"
    default_reason = "unauthenticated"


class Forbidden(InvalidRequest):
    """The key is known, and does not open this."""

    status = 403
    code = "forbidden"
    default_reason = "forbidden"


class NotFound(InvalidRequest):
    """No such session, run or document for this tenant."""

    status = 404
    code = "not_found"
    default_reason = "not_found"


class SessionBusy(InvalidRequest):
    """Another turn of the session runs, or others are changing the same API key.

    The turn did not end in this request's time, or `second_message` is `reject`.
    """

    status = 409
    code = "session_busy"
    retryable = True
    default_reason = "session_busy"


class RunUnfinished(InvalidRequest):
    """The run has not ended: there is nothing to rate yet."""

    status = 409
    code = "run_unfinished"
    retryable = True
    default_reason = "run_unfinished"


class RunCancelled(InvalidRequest):
    """The run was cancelled, so that there is no answer."""

    status = 409
    code = "run_cancelled"
    default_reason = "run_cancelled"


class KeyReused(InvalidRequest):
    """The idempotency key came earlier with another body."""

    code = "idempotency_key_reused"


class RunTooLarge(InvalidRequest):
    """The run's events take up more than they may; a smaller question may do."""

    code = "run_too_large"


class MalformedBody(InvalidRequest):
    """The body is not JSON in UTF-8."""

    status = 400
    code = "malformed_body"


class ModelNotFound(NotFound):
    """A request in OpenAI's format names a model other than the agent."""

    code = "model_not_found"


class OriginRefused(InvalidRequest):
    """A page of an origin that is not configured sent a preflight request."""

    status = 403
    code = "origin_refused"


class MethodNotAllowed(InvalidRequest):
    """The path exists for other methods; the `Allow` header names them."""

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
    """The Content-Type is not `application/json`."""

    status = 415
    code = "unsupported_media_type"


class HeadersTooLarge(InvalidRequest):
    """There are too many headers, or they are too long."""

    status = 431
    code = "headers_too_large"


class Overloaded(ServeAppError):
    """Refused on purpose, before any work was done."""

    status = 503
    code = "overloaded"
    retryable = True


class RateLimited(Overloaded):
    """The key or its tenant has used up its turns or tokens per minute."""

    status = 429
    code = "rate_limited"


class TooManyFailures(Overloaded):
    """Too many wrong keys came from this address; a valid key still works."""

    status = 429
    code = "too_many_failures"
    default_reason = "unauthenticated"


class DeadlineExceeded(ServeAppError):
    """The request's own time ran out."""

    status = 504
    code = "deadline_exceeded"
    retryable = True


class Unavailable(ServeAppError):
    """A dependency is down."""

    status = 503
    code = "unavailable"
    retryable = True


class ModelUnavailable(Unavailable):
    """The model's provider did not answer, or refused."""

    code = "model_unavailable"


class ToolUnavailable(Unavailable):
    """The Tools deployment did not answer."""

    code = "tool_unavailable"


class RetrieverUnavailable(Unavailable):
    """The Retriever deployment did not answer."""

    code = "retriever_unavailable"


class StoreUnavailable(Unavailable):
    """Redis or Milvus did not answer."""

    code = "store_unavailable"


class StoreCorrupt(StoreUnavailable):
    """Redis has data that cannot be read, or Milvus refuses what it was sent.

    The store answers and other data may be fine; a retry does not help.
    """

    code = "store_corrupt"
    retryable = False


class AgentUnavailable(Unavailable):
    """The replica that held the run is gone, or none is ready yet."""

    code = "agent_unavailable"


class RunAbandoned(Unavailable):
    """Each process that ran the run died, and its failovers are used up."""

    code = "run_abandoned"
    retryable = False


class Internal(ServeAppError):
    """A fault of the service; the client never sees its message."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem that stops the start: what is wrong, where, and how to fix it."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.fix}"


class InvalidConfiguration(ServeAppError):
    """The service cannot work with these settings; all problems at once.

    It stops the start. A search or an indexing raises it if the collection was made by other settings.
    """

    code = "invalid_configuration"

    def __init__(self, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[InvalidConfiguration], tuple[tuple[Problem, ...]]]:
        return (type(self), (self.problems,))

"""The layout of Redis: the keys, their types and their content.

    serve_app:session:{TENANT:SESSION}:exchanges   list: the conversation, one exchange per turn
                                     :lease        hash: the run that holds the session; short-lived
                                     :meta         hash: `epoch`, which rises with each holder, and `repairs`
                                     :aside:MS     any type: an unreadable conversation, set aside at this Unix time
                     {TENANT:/RUN}:lease :meta     the same, for a run without a conversation
    serve_app:run:{TENANT:RUN}                     hash: the request, its owner, its progress
                              :steps               stream: the events without the tokens, and what a successor needs
                              :tokens              stream: the tokens; an event's id in both is `N-0`, N its number
                              :lines               stream: the log lines about it, of all processes
    serve_app:request:{TENANT:REQUEST}             string: the run that a request started or joined
    serve_app:refusals:{TENANT}                    stream: the latest refused turns; {}: those without a valid key
    serve_app:feedback:{TENANT}:vote:RUN           string: a user's vote on a run, with question and answer
                               :up :down           sorted set: the runs with this rating, by the time of the vote
    serve_app:runs                                 sorted set: the runs that have not ended, by the time (server, ms)
                                                   at which their owner's lease ends
    serve_app:replicas:agents :ingresses           hash: what each replica last reported of itself, and when (server, s)
    serve_app:control:OWNER                        stream: messages to the process OWNER about its runs
    serve_app:key:{TENANT:HASH}                    hash: the run that an idempotency key began
    serve_app:faults                               hash: the injected faults, by their targets
    serve_app:limit:{TENANT}:turns:RATE :tokens:RATE
                                                   string: the time (server, microseconds) until which a tenant has used
                                                   up its limit of so much per minute
                            :KEY:turns:RATE …      likewise for each of its keys
    serve_app:access:keys                          hash: the API keys by their ids, each with a hash of its secret
                    :tenants                       hash: the limits of each tenant that has some
                    :version                       string: a new one after each change of the two
    serve_app:answer:{TENANT:HASH}                 hash: an answer, and the version of the documents it is based on
                                  :lead            hash: the run that is making it; short-lived
                                  :waiting         set: the processes that wait for it
    serve_app:inbox:OWNER                          stream: which of the answers that OWNER waits for are ready
    COLLECTION:TENANT:…                            the documents of the knowledge base (knowledge/document_store.py);
                                                   `version` changes with them
              :layout :dimension                   strings: the mode and embedding that the collection was made
                                                   with, and the length of its vectors (knowledge/index.py)
              :writer                              hash: the process that is indexing (knowledge/ingestion.py)

Each key but those of access and of the documents has a time to live. Scripts touch keys of a run and of its session
together: one Redis server, with replicas as you like, and not a Redis Cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from serve_app.values import Context

UNFINISHED_RUNS = "serve_app:runs"
SESSION_PATTERN = "serve_app:session:*:exchanges"
AGENTS = "serve_app:replicas:agents"
INGRESSES = "serve_app:replicas:ingresses"
FAULTS = "serve_app:faults"
API_KEYS = "serve_app:access:keys"
TENANTS = "serve_app:access:tenants"
ACCESS_VERSION = "serve_app:access:version"


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """The keys of one conversation."""

    tenant: str
    session_id: str

    @classmethod
    def of(cls, context: Context) -> SessionKeys:
        """Return the keys of the context's conversation.

        A run without one gets keys of its own, under a name that no client can use.
        """
        return cls(context.tenant, context.session_id or f"/{context.run_id}")

    def _key(self, part: str) -> str:
        return f"serve_app:session:{{{self.tenant}:{self.session_id}}}:{part}"

    @property
    def exchanges(self) -> str:
        return self._key("exchanges")

    @property
    def lease(self) -> str:
        return self._key("lease")

    @property
    def meta(self) -> str:
        return self._key("meta")

    def aside(self, at_ms: int) -> str:
        """Return the key to which an unreadable conversation is moved."""
        return self._key(f"aside:{at_ms}")


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run."""

    tenant: str
    run_id: str

    @property
    def run(self) -> str:
        return f"serve_app:run:{{{self.tenant}:{self.run_id}}}"

    @property
    def steps(self) -> str:
        return f"{self.run}:steps"

    @property
    def tokens(self) -> str:
        return f"{self.run}:tokens"

    @property
    def lines(self) -> str:
        return f"{self.run}:lines"

    @property
    def member(self) -> str:
        """The run's name in `UNFINISHED_RUNS`."""
        return f"{self.tenant}:{self.run_id}"

    @classmethod
    def of(cls, member: str) -> RunKeys:
        """Return the keys of the run that `member` names."""
        tenant, _, run_id = member.rpartition(":")
        return cls(tenant, run_id)


@dataclass(frozen=True, slots=True)
class FeedbackKeys:
    """The keys of a tenant's feedback."""

    tenant: str

    def vote(self, run_id: str) -> str:
        """Return the key of one run's vote."""
        return f"serve_app:feedback:{{{self.tenant}}}:vote:{run_id}"

    def rated(self, rating: str) -> str:
        """Return the key of the runs with this rating."""
        return f"serve_app:feedback:{{{self.tenant}}}:{rating}"


@dataclass(frozen=True, slots=True)
class AnswerKeys:
    """The keys of the answer to one question, whose hash is `digest`."""

    tenant: str
    digest: str
    collection: str
    """Of the knowledge base."""

    @property
    def answer(self) -> str:
        return f"serve_app:answer:{{{self.tenant}:{self.digest}}}"

    @property
    def lead(self) -> str:
        return f"{self.answer}:lead"

    @property
    def all(self) -> tuple[str, ...]:
        """The keys in the order of the scripts' arguments."""
        return (self.answer, self.lead, f"{self.answer}:waiting", documents_version_key(self.collection, self.tenant))


def parse_session_id(exchanges: str, tenant: str) -> str | None:
    """Return the session id in a key of exchanges; None if it is another tenant's."""
    inside = exchanges[exchanges.find("{") + 1 : exchanges.rfind("}")]
    return inside.removeprefix(f"{tenant}:") if inside.startswith(f"{tenant}:") else None


def rate_limit_key(tenant: str, key_id: str, of: Literal["turns", "tokens"], per_minute: float) -> str:
    """Return the key of one rate limit of an API key or of a tenant.

    With an empty `key_id` it is the tenant's. A new rate is a new limit: a caller that has used up the old one need not
    wait for it.
    """
    owner = f"{{{tenant}}}:{key_id}" if key_id else f"{{{tenant}}}"
    return f"serve_app:limit:{owner}:{of}:{per_minute:g}"


def control_stream(owner: str) -> str:
    """Return the key of the stream of messages to the process `owner`."""
    return f"serve_app:control:{owner}"


def inbox_stream(owner: str) -> str:
    """Return the key of the stream that names ready answers to the process `owner`."""
    return f"serve_app:inbox:{owner}"


def documents_version_key(collection: str, tenant: str) -> str:
    """Return the key of what changes with each change of the tenant's documents."""
    return f"{collection}:{tenant}:version"


def request_key(tenant: str, request_id: str) -> str:
    """Return the key that names the run that a request started or joined."""
    return f"serve_app:request:{{{tenant}:{request_id}}}"


def refusals_key(tenant: str) -> str:
    """Return the key of a tenant's refused turns; `tenant` may be empty."""
    return f"serve_app:refusals:{{{tenant}}}"


def idempotency_key(tenant: str, digest: str) -> str:
    """Return the key that names an idempotency key's run; `digest` is the key's hash."""
    return f"serve_app:key:{{{tenant}:{digest}}}"

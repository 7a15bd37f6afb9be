"""Where does what stand in Redis?

    serve_app:session:{TENANT:SESSION}:exchanges   list: the conversation, one exchange per turn
                                     :lease        hash: the run whose turn it is; short-lived
                                     :meta         hash: `epoch` rises with each run that gets the turn, `repairs`
                     {TENANT:/RUN}:lease :meta     the same, for a run without a conversation
    serve_app:run:{TENANT:RUN}                     hash: what was asked, by whom it is run, how far it is
                              :steps               stream: the events without the tokens, and what a successor needs
                              :tokens              stream: the tokens; an event's id in both is `N-0`, N its number
                              :lines               stream: what the processes' logs tell of it
    serve_app:feedback:{TENANT}:vote:RUN           string: what a user thought of a run, with question and answer
                               :up :down           sorted set: the runs that are rated so, by the time of the vote
    serve_app:runs                                 sorted set: the runs that have not ended, by the time (server, ms)
                                                   at which their owner's right to them lapses
    serve_app:control:OWNER                        stream: what the process OWNER is told of its runs
    serve_app:key:{TENANT:HASH}                    hash: the run that an idempotency key began
    serve_app:faults                               hash: what goes wrong on purpose, by its target
    serve_app:limit:{TENANT}:turns:RATE :tokens:RATE
                                                   string: the time (server, microseconds) until which a tenant has used
                                                   up what it may have at so much per minute
                            :KEY:turns:RATE …      likewise for each of its keys
    serve_app:access:keys                          hash: the API keys by their ids, each with a hash of its secret
                    :tenants                       hash: the limits of each tenant that has some
                    :version                       string: another one after each change of the two
    serve_app:answer:{TENANT:HASH}                 hash: an answer, and the version of the documents it rests on
                                  :lead            hash: the run that is making it; short-lived
                                  :waiting         set: the processes that wait for it
    serve_app:inbox:OWNER                          stream: which of the answers that OWNER waits for are there
    COLLECTION:TENANT:…                            the documents of the knowledge base; `version` changes with them

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
        """The conversation's; a run without one has them to itself, under a name that no client can take."""
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
        """For a conversation that no turn can read."""
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
        """The run's name among those of all tenants."""
        return f"{self.tenant}:{self.run_id}"

    @classmethod
    def of(cls, member: str) -> RunKeys:
        """The keys of the run that `member` names."""
        tenant, _, run_id = member.rpartition(":")
        return cls(tenant, run_id)


@dataclass(frozen=True, slots=True)
class FeedbackKeys:
    """The keys of a tenant's feedback."""

    tenant: str

    def vote(self, run_id: str) -> str:
        """What was thought of one run."""
        return f"serve_app:feedback:{{{self.tenant}}}:vote:{run_id}"

    def rated(self, rating: str) -> str:
        """The runs that have this rating."""
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
        """As the scripts take them."""
        return (self.answer, self.lead, f"{self.answer}:waiting", documents_version_key(self.collection, self.tenant))


def parse_session_id(exchanges: str, tenant: str) -> str | None:
    """The session id in a key of exchanges; None where it is another tenant's."""
    inside = exchanges[exchanges.find("{") + 1 : exchanges.rfind("}")]
    return inside.removeprefix(f"{tenant}:") if inside.startswith(f"{tenant}:") else None


def rate_limit_key(tenant: str, key_id: str, of: Literal["turns", "tokens"], per_minute: float) -> str:
    """How much of its turns or tokens a key, or with the empty `key_id` a tenant, has used up.

    Another rate is another allowance, so that whoever has used up the old one need not wait for it.
    """
    whose = f"{{{tenant}}}:{key_id}" if key_id else f"{{{tenant}}}"
    return f"serve_app:limit:{whose}:{of}:{per_minute:g}"


def control_stream(owner: str) -> str:
    """The stream by which the process `owner` is told something."""
    return f"serve_app:control:{owner}"


def inbox_stream(owner: str) -> str:
    """The stream by which the process `owner` is told of answers."""
    return f"serve_app:inbox:{owner}"


def documents_version_key(collection: str, tenant: str) -> str:
    """What changes with each change of the tenant's documents."""
    return f"{collection}:{tenant}:version"


def idempotency_key(tenant: str, digest: str) -> str:
    """Where an idempotency key's run stands; `digest` is the key's hash."""
    return f"serve_app:key:{{{tenant}:{digest}}}"

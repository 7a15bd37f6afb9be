"""A fair queue of the turns of all tenants, and their throughput.

Order: start-time fair queueing (Goyal, Vin and Cheng, 1996). Each turn of a tenant begins, in virtual time, where the
tenant's previous turn ended, and lasts one over the tenant's weight. The turn with the earliest begin is served next,
and virtual time is the begin of the turn that was served last. A tenant that comes anew begins now, before the backlog
of the others. A turn counts the same however long it takes.

Admission: the dynamic threshold of Choudhury and Hahne (1998). A tenant may have `SHARE` times as many turns waiting as
there are free places to wait in; the last eighth (`RESERVED_SHARE`) of them is for tenants with no turn waiting, so
that a tenant that comes anew finds a place. Of the places to be served in, one tenant alone cannot have the `reserved`
ones, so that turns that take long, or wait for one another, never fill them all.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

SHARE = 2
"""One tenant alone gets two thirds of the places, each of two gets two fifths."""
RESERVED_SHARE = 8
"""One place in so many."""
FORGET_FROM = 64
"""Below so many tenants, nothing is forgotten."""

MAX_ENDS = 256
"""Half a minute of eight ends a second, and two seconds of a hundred."""
FRESH_S = 30.0
"""The age up to which an end counts."""
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
RETRY_UNKNOWN_S = 5.0
"""Where no turn has ended of late."""


def dynamic_threshold(share: int, free: int) -> int:
    """Return how many places one tenant may hold while `free` places are free.

    From Choudhury and Hahne (1998). A tenant alone gets share / (share + 1) of all places, each of n tenants
    share / (n * share + 1).
    """
    return share * free


@dataclass(slots=True, eq=False)
class Ticket:
    """One turn's right to wait, and then to be served."""

    tenant: str
    weight: float = 1.0
    state: Literal["waits", "served", "left"] = "waits"


@dataclass(slots=True)
class FairQueue:
    """Turns that are served, and turns that wait for a place.

    At most `places` turns are served, all but `reserved` of them of one tenant, and `waiting_places` turns wait.
    """

    places: int
    waiting_places: int
    reserved: int = 0
    served: int = field(default=0, init=False)
    waiting: int = field(default=0, init=False)
    _serving: Counter[str] = field(default_factory=Counter, init=False)
    """How many turns of each tenant are served now."""
    _queues: dict[str, deque[Ticket]] = field(default_factory=dict, init=False)
    """Of the tenants that have turns waiting."""
    _ends: dict[str, float] = field(default_factory=dict, init=False)
    """Of each tenant's latest turn, in virtual time."""
    _now: float = field(default=0.0, init=False)
    _forget_from: int = field(default=FORGET_FROM, init=False)

    def has_room(self, tenant: str) -> bool:
        """Return whether a turn of the tenant would be served, or could wait."""
        if self._has_place(tenant):
            return True
        queue, free = self._queues.get(tenant), self.waiting_places - self.waiting
        if not queue:
            return free > 0
        return len(queue) < dynamic_threshold(SHARE, free - self.waiting_places // RESERVED_SHARE)

    def enter(self, tenant: str, weight: float = 1.0) -> Ticket | None:
        """Serve a new turn, or let it wait; None where there is no room."""
        if not self.has_room(tenant):
            return None
        ticket = Ticket(tenant, weight)
        if self._has_place(tenant):  # then no other turn waits that could have it
            self._serve(ticket)
        else:
            self.waiting += 1
            self._queues.setdefault(tenant, deque()).append(ticket)
        return ticket

    def resize(self, places: int, reserved: int) -> list[Ticket]:
        """Change the number of places; return the turns that are served now.

        With fewer places, turns that are already served stay.
        """
        self.places, self.reserved = places, reserved
        served: list[Ticket] = []
        while ticket := self._serve_next():
            served.append(ticket)
        return served

    def leave(self, ticket: Ticket) -> Ticket | None:
        """Remove a turn that ends or gives up; return the one served instead, if any."""
        state, ticket.state = ticket.state, "left"
        if state == "waits":
            self._dequeue(ticket)
        if state != "served":
            return None
        self.served -= 1
        self._serving -= Counter({ticket.tenant: 1})
        if not self.served and not self._queues:
            self._ends.clear()  # when no tenant is busy, all begin anew
        return self._serve_next()

    def _serve_next(self) -> Ticket | None:
        entitled = [tenant for tenant in self._queues if self._has_place(tenant)]
        if not entitled:
            return None
        tenant = min(entitled, key=self._begin)
        ticket = self._queues[tenant][0]
        self._dequeue(ticket)
        self._serve(ticket)
        return ticket

    def _dequeue(self, ticket: Ticket) -> None:
        queue = self._queues[ticket.tenant]
        queue.remove(ticket)
        self.waiting -= 1
        if not queue:
            del self._queues[ticket.tenant]

    def _serve(self, ticket: Ticket) -> None:
        self.served += 1
        self._serving[ticket.tenant] += 1
        ticket.state = "served"
        self._now = self._begin(ticket.tenant)
        self._ends[ticket.tenant] = self._now + 1 / ticket.weight
        if len(self._ends) > self._forget_from:
            self._ends = {tenant: end for tenant, end in self._ends.items() if end > self._now}
            self._forget_from = max(FORGET_FROM, 2 * len(self._ends))

    def _has_place(self, tenant: str) -> bool:
        return self.served < self.places and self._serving[tenant] < self.places - self.reserved

    def _begin(self, tenant: str) -> float:
        """Return the begin of the tenant's next turn, in virtual time."""
        return max(self._now, self._ends.get(tenant, self._now))


@dataclass(slots=True)
class Throughput:
    """Turns that end in a second, over the latest ends; by any steady clock."""

    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_ENDS), init=False)

    def record_end(self, now: float) -> None:
        """Count a turn that ends now."""
        self._ends.append(now)

    def per_second(self, now: float) -> float:
        """Return the turns that end in a second; 0 if fewer than two ended lately."""
        while self._ends and self._ends[0] < now - FRESH_S:
            self._ends.popleft()
        if len(self._ends) < 2:  # noqa: PLR2004 - a rate takes two
            return 0.0
        return (len(self._ends) - 1) / max(now - self._ends[0], 0.001)

    def retry_after_s(self, waiting: int, now: float) -> float:
        """Return the seconds until the `waiting` turns have been served and one more has room."""
        rate = self.per_second(now)
        return min(RETRY_MAX_S, max(RETRY_MIN_S, (waiting + 1) / rate)) if rate else RETRY_UNKNOWN_S

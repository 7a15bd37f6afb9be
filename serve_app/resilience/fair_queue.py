"""Who is served next, when tenants want more than there is, and who may not even wait?

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each turn of a tenant begins, in virtual time, where the tenant's
one before it ended, and lasts one over the tenant's weight; whoever begins first is served next, and virtual time is
the begin of the one that was served last. A tenant that comes anew begins now, before all that another has piled up. A
turn counts the same however long it takes.

A tenant may have waiting `SHARE` times the places that are free to wait in (the dynamic threshold of Choudhury and
Hahne, 1998); the last eighth (`KEPT_FREE`) of them is for tenants that have nothing waiting, so that whoever comes anew
finds a place. Of the places to be served in, `kept` are not for one tenant alone: its turns that take long, or wait for
one another, cannot fill them all.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

SHARE = 2
"""One tenant alone gets two thirds of the places, each of two gets two fifths."""
KEPT_FREE = 8
FORGET_FROM = 64
"""So many tenants are remembered without a look at whether it matters."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One turn's right to wait, and then to be served."""

    tenant: str
    weight: float = 1.0
    state: Literal["waits", "served", "left"] = "waits"


@dataclass(slots=True)
class FairQueue:
    """So many `places` to be served in, all but `kept` of them for one tenant, and so many to wait in."""

    places: int
    waiting_places: int
    kept: int = 0
    served: int = field(default=0, init=False)
    waiting: int = field(default=0, init=False)
    _serving: Counter[str] = field(default_factory=Counter, init=False)
    """How many turns of each tenant are served now."""
    _queues: dict[str, deque[Ticket]] = field(default_factory=dict, init=False)
    """Of the tenants that wait."""
    _ends: dict[str, float] = field(default_factory=dict, init=False)
    """Of each tenant's latest turn, in virtual time."""
    _now: float = field(default=0.0, init=False)
    _forget_from: int = field(default=FORGET_FROM, init=False)

    def has_room(self, tenant: str) -> bool:
        """Whether a turn of the tenant would be served, or might wait."""
        if self._has_place(tenant):
            return True
        queue, free = self._queues.get(tenant), self.waiting_places - self.waiting
        if not queue:
            return free > 0
        return len(queue) < SHARE * (free - self.waiting_places // KEPT_FREE)

    def enter(self, tenant: str, weight: float = 1.0) -> Ticket | None:
        """A turn comes: it is served, or waits; None where there is no room."""
        if not self.has_room(tenant):
            return None
        ticket = Ticket(tenant, weight)
        if self._has_place(tenant):  # then nobody waits who might have it
            self._serve(ticket)
        else:
            self.waiting += 1
            self._queues.setdefault(tenant, deque()).append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> Ticket | None:
        """A turn ends, or gives up waiting; the one that is served now instead, if any."""
        state, ticket.state = ticket.state, "left"
        if state == "waits":
            self._take(ticket)
        if state != "served":
            return None
        self.served -= 1
        self._serving -= Counter({ticket.tenant: 1})
        if not self.served and not self._queues:
            self._ends.clear()  # when nobody is busy, all begin anew
        return self._next()

    def _next(self) -> Ticket | None:
        entitled = [tenant for tenant in self._queues if self._has_place(tenant)]
        if not entitled:
            return None
        tenant = min(entitled, key=self._begin)
        ticket = self._queues[tenant][0]
        self._take(ticket)
        self._serve(ticket)
        return ticket

    def _take(self, ticket: Ticket) -> None:
        """Out of those who wait."""
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
        return self.served < self.places and self._serving[tenant] < self.places - self.kept

    def _begin(self, tenant: str) -> float:
        """Where the tenant's next turn begins."""
        return max(self._now, self._ends.get(tenant, self._now))

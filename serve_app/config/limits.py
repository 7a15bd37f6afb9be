"""How much may each tenant and each key ask for, and how many turns are served at once?"""

from __future__ import annotations

from pydantic import Field

from serve_app.config.section import Section
from serve_app.values import Limits


class LimitSettings(Section):
    """What holds where nothing was said for a tenant, or for a key: no limit, because only the operator knows one."""

    tenant: Limits = Limits()
    """For each tenant, all of its keys together. A value that is set for a tenant of its own takes its place."""
    key: Limits = Limits()
    """For each key. A value that is set for a key of its own takes its place."""


class AdmissionSettings(Section):
    """How many turns one replica of Ingress serves at once, and what becomes of the others.

    `max_ongoing_requests` of Ingress in `serve_config.yaml` must be well above the first two together.
    """

    max_turns: int = Field(default=100, ge=1)
    """As many as one replica of Agent takes at once (its `max_ongoing_requests`): what is let in beyond that would wait
    behind the ingress, where nobody is fair. Two ingresses fill four agents to half."""
    max_waiting: int = Field(default=150, ge=0)
    """Turns that wait for a place, of all tenants; one tenant alone gets three fifths of it. A full queue is as
    long as the turns in flight and half as many again: it is served in less than two turns' time."""
    max_wait_s: float = Field(default=5, gt=0)
    """Then a turn that waits is refused: a user who has seen nothing for so long has left."""

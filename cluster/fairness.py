"""Whose task is next: priorities that age, and fair shares between tenants, in one number per task.

A task's key is a virtual arrival instant; queues run in the order of keys.

    key = max(now, the tenant's virtual time) − priority · ageing

A tenant's virtual time moves on by the work that it queues, divided by its share of the fleet: whoever asks for more
than its share is placed behind those who do not, and a tenant alone is served in order of arrival. A level of priority
is worth a fixed number of seconds, so keys never change while tasks wait, and no task is overtaken by one that arrives
later than its own key plus the head start: nothing starves.
"""

from collections.abc import Hashable, Mapping

AGEING_S = 30.0
"""Seconds of waiting that one level of priority is worth."""


class Shares:
    """The tenants' virtual times. `weights` are 1 unless given; `capacity` is the fleet's replicas."""

    def __init__(
        self, capacity: float, weights: Mapping[Hashable, float] | None = None, ageing_s: float = AGEING_S
    ) -> None:
        self.capacity = capacity
        self.ageing_s = ageing_s
        self._weights = dict(weights or {})
        self._virtual_s: dict[Hashable, float] = {}
        self._queued: dict[Hashable, int] = {}
        self._active_weight = 0.0

    def weight(self, tenant: Hashable) -> float:
        return self._weights.get(tenant, 1.0)

    def enter(self, tenant: Hashable, priority: int, work_s: float, now_s: float) -> float:
        """The key of a task that is queued now, which costs `work_s` replica-seconds."""
        queued = self._queued.get(tenant, 0)
        if not queued:
            self._active_weight += self.weight(tenant)
        self._queued[tenant] = queued + 1
        virtual_s = max(now_s, self._virtual_s.get(tenant, now_s))
        share = self.weight(tenant) / self._active_weight
        self._virtual_s[tenant] = virtual_s + work_s / (self.capacity * share)
        return virtual_s - priority * self.ageing_s

    def leave(self, tenant: Hashable) -> None:
        """A task of the tenant has started, or was withdrawn."""
        self._queued[tenant] -= 1
        if not self._queued[tenant]:
            self._active_weight -= self.weight(tenant)
            if self._active_weight < 1e-9:
                self._active_weight = 0.0

"""Whose task is next: fair shares between tenants, and priorities within each, in one number per task.

A task's fair key is a virtual instant; queues run in the order of keys.

    key = max(now, the tenant's virtual time) − head start

A tenant's virtual time moves on by the work that it queues, divided by its share of the fleet: whoever asks for more
than its share is placed behind those who do not, and a tenant alone is served in order of arrival. Keys never change
while tasks wait, so nothing starves.

Priority orders a tenant's own tasks (`order`): a level is worth `AGEING_S` of waiting. Between tenants it gives nothing
unless a tenant's limit allows some levels of head start; a negative one always gives way.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

AGEING_S = 30.0
"""Seconds of waiting that one level of priority is worth."""
_MOST_TENANTS = 10_000  # whose virtual times are kept although they are past


Number = TypeVar("Number", int, float)


class FairShares:
    """The tenants' virtual times. `weights` are 1 unless given; `capacity` is the fleet's replicas.

    `max_priority`: the levels by which a tenant's tasks may go ahead of other tenants', 0 unless given.
    """

    def __init__(
        self,
        capacity: float = 1.0,
        weights: Mapping[Hashable, float] | None = None,
        ageing_s: float = AGEING_S,
        max_priority: Mapping[Hashable, int] | None = None,
    ) -> None:
        self.capacity = capacity
        self.ageing_s = ageing_s
        self._weights = dict(weights or {})
        self._max_priority = dict(max_priority or {})
        self._virtual_s: dict[Hashable, float] = {}
        self._queued: dict[Hashable, int] = {}
        self._active_weight = 0.0

    def weight(self, tenant: Hashable) -> float:
        return self._weights.get(tenant, 1.0)

    def limit(self, tenant: Hashable, *, weight: float | None = None, max_priority: int | None = None) -> None:
        """A tenant's settings, from now on; what is None stays. Keys of tasks that wait do not change."""
        if weight is not None and weight != self.weight(tenant):
            if self._queued.get(tenant):
                self._active_weight += weight - self.weight(tenant)
            _set(self._weights, tenant, weight, usual=1.0)
        if max_priority is not None:
            _set(self._max_priority, tenant, max_priority, usual=0)

    def key(self, tenant: Hashable, priority: int, now_s: float) -> float:
        """The key of a task if it were queued now. Changes nothing."""
        levels = min(priority, self._max_priority.get(tenant, 0))
        return max(now_s, self._virtual_s.get(tenant, now_s)) - levels * self.ageing_s

    def order(self, priority: int, now_s: float) -> float:
        """Where a task that comes now stands among its tenant's."""
        return now_s - priority * self.ageing_s

    def enter(self, tenant: Hashable, priority: int, work_s: float, now_s: float) -> float:
        """The key of a task that is queued now, which costs `work_s` replica-seconds."""
        key_s = self.key(tenant, priority, now_s)
        queued = self._queued.get(tenant, 0)
        if not queued:
            self._active_weight += self.weight(tenant)
        self._queued[tenant] = queued + 1
        share = self.weight(tenant) / self._active_weight
        virtual_s = max(now_s, self._virtual_s.get(tenant, now_s))
        if len(self._virtual_s) > _MOST_TENANTS:
            self._virtual_s = {name: at_s for name, at_s in self._virtual_s.items() if at_s > now_s}
        # In whole microseconds: what two tenants came to by different sums is a tie, here and in a snapshot.
        self._virtual_s[tenant] = round(virtual_s + work_s / (self.capacity * share), 6)
        return key_s

    def leave(self, tenant: Hashable) -> None:
        """A task of the tenant has started, or was withdrawn."""
        self._queued[tenant] -= 1
        if not self._queued[tenant]:
            del self._queued[tenant]
            self._active_weight -= self.weight(tenant)
            if self._active_weight < 1e-9:
                self._active_weight = 0.0

    def snapshot(self, now_s: float) -> list[tuple[Hashable, float, int, float, int]]:
        """(tenant, virtual time, queued tasks, weight, levels of head start) of those whose next key depends on it."""
        known = set(self._queued) | {tenant for tenant, virtual_s in self._virtual_s.items() if virtual_s > now_s}
        known |= set(self._weights) | set(self._max_priority)
        return [
            (
                tenant,
                self._virtual_s.get(tenant, now_s),
                self._queued.get(tenant, 0),
                self.weight(tenant),
                self._max_priority.get(tenant, 0),
            )
            for tenant in sorted(known, key=str)
        ]

    def restore(self, tenant: Hashable, virtual_s: float, queued: int, weight: float, max_priority: int) -> None:
        """A tenant of a snapshot."""
        self.limit(tenant, weight=weight, max_priority=max_priority)
        self._virtual_s[tenant] = virtual_s
        if queued:
            self._queued[tenant] = queued
            self._active_weight += weight


def _set(kept: dict[Hashable, Number], tenant: Hashable, value: Number, *, usual: Number) -> None:
    """What is as usual is not kept: snapshots tell of every tenant that is."""
    if value == usual:
        kept.pop(tenant, None)
    else:
        kept[tenant] = value

"""Which of a tenant's tasks takes the tenant's next turn on a replica.

Turns belong to tenants (see fairness), so that no priority moves anybody else. A tenant whose waiting tasks are of one
priority takes its turns in the order of arrival, and nothing is kept for it but counts.
"""

from collections.abc import Hashable
from typing import NamedTuple

from sortedcontainers import SortedList

_LAST = 2**63
"""Above all numbers of tasks."""


class _Waiting(NamedTuple):
    tenant: Hashable
    priority: int
    order_s: float
    replica: Hashable
    key_s: float


class _Queue:
    """Of one tenant on one replica: its tasks as they go, and the keys of its turns."""

    __slots__ = ("keys", "tasks")

    def __init__(self) -> None:
        self.tasks: SortedList[tuple[float, int]] = SortedList()
        self.keys: SortedList[float] = SortedList()


class Precedence:
    """The waiting tasks of all tenants."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._of_tenant: dict[Hashable, dict[int, None]] = {}
        self._priorities: dict[Hashable, dict[int, int]] = {}
        self._mixed: dict[Hashable, dict[Hashable, _Queue]] = {}  # tenants with tasks of several priorities

    def add(self, task: int, tenant: Hashable, priority: int, order_s: float, replica: Hashable, key_s: float) -> None:
        """A task waits on a replica; its tenant has one more turn there, with this key."""
        self._waiting[task] = _Waiting(tenant, priority, order_s, replica, key_s)
        self._of_tenant.setdefault(tenant, {})[task] = None
        levels = self._priorities.setdefault(tenant, {})
        levels[priority] = levels.get(priority, 0) + 1
        if len(levels) > 1 and tenant not in self._mixed:
            return self._mix(tenant)
        if tenant in self._mixed:
            self._insert(task)
        return None

    def _mix(self, tenant: Hashable) -> None:
        """Keep the order of a tenant's tasks from now on, until none of them waits."""
        self._mixed[tenant] = {}
        for task in self._of_tenant[tenant]:
            self._insert(task)

    def _insert(self, task: int) -> None:
        waits = self._waiting[task]
        queue = self._mixed[waits.tenant].setdefault(waits.replica, _Queue())
        queue.tasks.add((waits.order_s, task))
        queue.keys.add(waits.key_s)

    def remove(self, task: int) -> None:
        """A task waits no more, and its turn is gone."""
        waits = self._waiting.pop(task)
        tenant = waits.tenant
        del self._of_tenant[tenant][task]
        levels = self._priorities[tenant]
        levels[waits.priority] -= 1
        if not levels[waits.priority]:
            del levels[waits.priority]
        if (mixed := self._mixed.get(tenant)) is not None:
            queue = mixed[waits.replica]
            queue.tasks.remove((waits.order_s, task))
            queue.keys.remove(waits.key_s)
        if not levels:
            del self._priorities[tenant], self._of_tenant[tenant]
            self._mixed.pop(tenant, None)

    def swap(self, one: int, other: int) -> None:
        """Two tasks of one tenant on one replica exchange their turns."""
        first, second = self._waiting[one], self._waiting[other]
        self._waiting[one] = first._replace(key_s=second.key_s)
        self._waiting[other] = second._replace(key_s=first.key_s)

    def may_overtake(self, tenant: Hashable, priority: int) -> bool:
        """Whether a task of this priority could go ahead of others of its tenant."""
        levels = self._priorities.get(tenant)
        if levels is None or (len(levels) == 1 and priority in levels):
            return False
        if tenant not in self._mixed:
            self._mix(tenant)
        return True

    def head(self, task: int) -> int:
        """Who takes the turn of this task, which is the next on its replica. Of a block of a snapshot's tasks
        nothing is known: it keeps its turn."""
        waits = self._waiting.get(task)
        if waits is None:
            return task
        mixed = self._mixed.get(waits.tenant)
        if mixed is None:
            return task
        first: int = mixed[waits.replica].tasks[0][1]
        return first

    def key_s(self, tenant: Hashable, order_s: float, replica: Hashable) -> float | None:
        """The key of the turn on a replica that a task would take from others of its tenant; None where it takes none.
        Ask `may_overtake` first."""
        queue = self._mixed[tenant].get(replica)
        if queue is None:
            return None
        place = queue.tasks.bisect_right((order_s, _LAST))
        return queue.keys[place] if place < len(queue.keys) else None

    def priority(self, task: int) -> int:
        return self._waiting[task].priority

    def order_s(self, task: int) -> float:
        return self._waiting[task].order_s

    def levels(self) -> dict[Hashable, int]:
        """How many tasks of each tenant wait."""
        return {tenant: len(tasks) for tenant, tasks in self._of_tenant.items()}

"""A plan as a value: what somebody else needs to preview where a task would go, as the planner itself would.

It is JSON-able and small: numbers are rounded to microseconds, and queues are told task by task only as long as that is
few thousand altogether; of longer ones neighbours are told as one. `PlanSnapshot.planner` makes a Planner of it, which
is the same code: whoever has accepted tasks since submits them there, so that a burst between two snapshots is quoted
behind itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from cluster.routing.router import Estimate, estimate_by_cost
from cluster.scheduling.memory import FixedMemory, Memory
from cluster.scheduling.planner import AcceleratorGroup, Planner
from cluster.scheduling.policy_config import PolicyConfig
from cluster.scheduling.replica_queue import ReplicaQueue
from cluster.scheduling.valuation import Spread
from cluster.scheduling.work_queue import Planned, WorkQueue
from schemas.catalog import Variant

_MOST_TASKS, _LEAST_A_REPLICA = 1500, 4


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupSnapshot(_Frozen):
    """An accelerator type."""

    accelerator: str
    price_usd_per_hour: float = 0.0
    vram_gib: float = 0.0
    speed: float = 1.0
    predicted_as: str | None = None


class TenantSnapshot(_Frozen):
    """A tenant that has work here, or has had more than its share."""

    name: str
    virtual_s: float
    queued: int = 0
    weight: float = 1.0
    max_priority: int = 0


class ReplicaSnapshot(_Frozen):
    """A replica and its queue. Instants are seconds after the snapshot's.

    Of each task: key, seconds (loads too, where several variants move), and, unless it stands for several, the tenant's
    place in the list and its order and priority there; then, if it has a deadline, the latest completion and the margin
    before the deadline.
    """

    name: str
    group: str
    until_s: float
    running: bool
    running_work_s: float = 0.0
    holds: int | None = None  # the one variant that it keeps for ever, else …
    loads_s: dict[int, float] = {}  # … what each takes to load now
    later_loads_s: dict[int, float] = {}  # … and after the queue
    adapters: tuple[str, ...] = ()  # that it holds, or will hold after the queue
    tasks: tuple[tuple[float | None, ...], ...] = ()


class PlanSnapshot(_Frozen):
    """A planner at an instant."""

    at_s: float
    variants: tuple[str, ...]
    groups: tuple[GroupSnapshot, ...]
    replicas: tuple[ReplicaSnapshot, ...]
    tenants: tuple[TenantSnapshot, ...]
    patience_s: float
    usual_s: float
    loading_s: float = 0.0  # of what waits
    promised_s: float = 0.0  # of what waits and has a deadline, the work

    @classmethod
    def of(cls, planner: Planner, now_s: float) -> Self:
        """What `planner` knows now."""
        timelines = planner.timelines
        tenants = planner.shares.snapshot(now_s)
        numbers = {name: number for number, (name, *_) in enumerate(tenants)}
        most = max(_LEAST_A_REPLICA, _MOST_TASKS // max(1, len(timelines.replicas)))
        return cls(
            at_s=now_s,
            variants=tuple(planner.names),
            groups=tuple(GroupSnapshot(**vars(group)) for group in planner.groups),
            replicas=tuple(
                _replica(planner, replica, numbers, now_s, most, len(planner.names)) for replica in timelines.replicas
            ),
            tenants=tuple(
                TenantSnapshot(
                    name=str(name), virtual_s=_us(virtual_s - now_s), queued=queued, weight=weight, max_priority=levels
                )
                for name, virtual_s, queued, weight, levels in tenants
            ),
            patience_s=planner.patience_s,
            usual_s=planner.usual_s,
            loading_s=_us(timelines.loading_s),
            promised_s=_us(timelines.promised_s),
        )

    def planner(
        self,
        variants: Sequence[Variant],
        *,
        estimate: Estimate = estimate_by_cost,
        spread: Spread | None = None,
        doubt: Callable[[], float] = lambda: 0.0,
        config: PolicyConfig | None = None,
    ) -> Planner:
        """A planner that previews as the one that the snapshot is of. What waits in it stands for tasks of others and
        has numbers below 0: it can be previewed over and submitted to, not run. Replicas of variants that are not
        among `variants` are left out."""
        groups = [AcceleratorGroup(**group.model_dump()) for group in self.groups]
        made = Planner(
            variants,
            groups,
            estimate=estimate,
            spread=spread,
            doubt=doubt,
            patience_s=self.patience_s,
            config=config,
        )
        made.usual_s = self.usual_s
        for tenant in self.tenants:
            made.shares.restore(
                tenant.name, self.at_s + tenant.virtual_s, tenant.queued, tenant.weight, tenant.max_priority
            )
        number_of = {place: made.numbers.get(name, -1) for place, name in enumerate(self.variants)}
        task = -_BELOW
        replicas = []
        for told in self.replicas:
            memory, plan = _memories(told, number_of)
            if memory is None or plan is None:
                continue
            only = [number_of[held] for held in ([told.holds] if told.holds is not None else told.loads_s)]
            queue: list[Planned] = []
            holding = memory.copy()
            for entry in told.tasks:
                task += 1
                planned = _planned(entry, task, only[0] if len(only) == 1 else -1, self)
                if len(only) == 1:
                    planned = planned._replace(load_s=holding.use(planned.variant))
                queue.append(planned)
            replica = ReplicaQueue(told.name, told.group, memory, plan, WorkQueue(queue))
            replica.pending_s = replica.queue.total_s
            replica.until_s = self.at_s + told.until_s
            replicas.append((replica, told.running_work_s if told.running else None))
            if told.adapters:
                made.timelines.adapters.use(told.name, told.adapters)
            for planned, entry in zip(queue, told.tasks, strict=True):
                if len(entry) > 2 and entry[2] is not None:
                    whose = self.tenants[int(entry[2])].name
                    order_s, priority = self.at_s + (entry[3] or 0.0), int(entry[4] or 0)
                    made.precedence.add(planned.task, whose, priority, order_s, told.name, planned.key_s)
        made.timelines.restore(replicas)
        made.timelines.loading_s, made.timelines.promised_s = self.loading_s, self.promised_s
        made.rearranged()
        return made


class _Loads:
    """What making a variant resident takes, by variant; it stays resident then."""

    def __init__(self, loads_s: dict[int, float]) -> None:
        self._loads_s = loads_s

    def load_s(self, variant: int) -> float:
        return self._loads_s.get(variant, math.inf)

    def use(self, variant: int) -> float:
        seconds = self._loads_s.get(variant, 0.0)
        if seconds:
            self._loads_s = {**self._loads_s, variant: 0.0}
        return seconds

    def copy(self) -> "_Loads":
        return _Loads(self._loads_s)


def _memories(told: ReplicaSnapshot, number_of: dict[int, int]) -> tuple[Memory | None, Memory | None]:
    if told.holds is not None:
        held = number_of[told.holds]
        return (FixedMemory(held), FixedMemory(held)) if held >= 0 else (None, None)
    now, later = (
        {number_of[place]: seconds for place, seconds in loads.items() if number_of[place] >= 0}
        for loads in (told.loads_s, told.later_loads_s)
    )
    return (_Loads(now), _Loads(later)) if now else (None, None)


def _planned(entry: tuple[float | None, ...], task: int, variant: int, snapshot: PlanSnapshot) -> Planned:
    key_s, seconds = snapshot.at_s + (entry[0] or 0.0), entry[1] or 0.0
    due_s = deadline_s = math.inf
    if len(entry) > 5:
        due_s = snapshot.at_s + (entry[5] or 0.0)
        deadline_s = due_s + (entry[6] or 0.0)
    return Planned(key_s, task, task, variant, seconds, 0.0, deadline_s, due_s)


_BELOW = 10**9
"""Lower numbers come first, and those of what is submitted later are above 0."""


def _replica(
    planner: Planner, replica: ReplicaQueue, tenants: dict[object, int], now_s: float, most: int, variants: int
) -> ReplicaSnapshot:
    loads: dict[str, dict[int, float]] = {}
    if not replica.fixed:
        for name, memory in (("loads_s", replica.memory), ("later_loads_s", replica.plan)):
            seconds = ((variant, memory.load_s(variant)) for variant in range(variants))
            loads[name] = {variant: _us(load_s) for variant, load_s in seconds if load_s < math.inf}
    moves = len(loads.get("loads_s", ())) > 1
    tasks = list(replica.queue)
    size = math.ceil(len(tasks) / most)
    told: list[tuple[float | None, ...]] = []
    for start in range(0, len(tasks), max(1, size)):
        told.append(_entry(planner, tasks[start : start + size], tenants, now_s, moves=moves))
    return ReplicaSnapshot(
        name=str(replica.name),
        group=replica.group,
        until_s=_us(replica.until_s - now_s),
        running=replica.running is not None,
        running_work_s=_us(replica.running_work_s(now_s)),
        holds=replica.memory.variant if isinstance(replica.memory, FixedMemory) and replica.fixed else None,
        tasks=tuple(told),
        adapters=planner.timelines.adapters.of(replica.name),
        **loads,
    )


def _entry(
    planner: Planner, tasks: list[Planned], tenants: dict[object, int], now_s: float, *, moves: bool
) -> tuple[float | None, ...]:
    seconds = sum(task.total_s if moves else task.work_s + task.bring_s for task in tasks)
    entry: tuple[float | None, ...] = (_us(tasks[len(tasks) // 2].key_s - now_s), _us(seconds))
    first = tasks[0]
    if len(tasks) == 1:
        tenant = planner.tenant(first.task)
        order_s, priority = planner.precedence.order_s(first.task), planner.precedence.priority(first.task)
        entry += (tenants.get(tenant), _us(order_s - now_s), priority)
    done_s, slack_s, margin_s = 0.0, math.inf, 0.0
    for task in tasks:
        done_s += task.total_s
        slack_s = min(slack_s, task.due_s - done_s)
        if task.due_s < math.inf:
            margin_s = max(margin_s, task.deadline_s - task.due_s)
    if slack_s < math.inf:
        entry += (None,) * (5 - len(entry))
        entry += (_us(slack_s + done_s - now_s), _us(margin_s))
    return entry


def _us(seconds: float) -> float:
    # Turns and slack are compared: of two keys less than a millisecond apart the order must stay.
    return round(seconds, 6)

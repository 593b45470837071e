"""The live policy: where an arriving task is queued, what a free replica runs next, what is refused.

The endpoint and the simulator drive the same Dispatcher. It touches nothing: the caller says what happened, it answers
what to start. Tasks are routed at arrival (`Router.choose`), planned onto a replica (`Timelines`) and can go elsewhere
until they start: to a replica that runs dry, or away from one that dies.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cluster.fairness import Shares
from cluster.habits import Habits, best_to_steal, leaves_room
from cluster.routing import Choice, Estimate, Router, estimate_by_cost
from cluster.story import Reason
from cluster.terms import Wanted
from cluster.timeline import Memory, Planned, Timelines
from schemas.catalog import Variant

Replica = Hashable


class Start(NamedTuple):
    """Run `task` as `variant` on `replica`; its model must be loaded first when `load_s` is not 0."""

    replica: Replica
    task: int
    variant: str
    load_s: float


@dataclass(frozen=True)
class Group:
    """Replicas of one accelerator type: what routing must know of them."""

    accelerator: str
    price_usd_per_hour: float = 0.0
    vram_gib: float = 0.0
    speed: float = 1.0


class _Ticket(NamedTuple):
    wanted: Wanted
    tenant: Hashable


class DispatchPool:
    """A variant on a group, as routing sees it."""

    __slots__ = ("_owner", "accelerator", "group", "healthy", "name", "number", "speed", "variant")

    def __init__(self, owner: "Dispatcher", variant: Variant, number: int, group: Group) -> None:
        self._owner = owner
        self.variant = variant
        self.number = number
        self.group = group
        self.accelerator = group.accelerator
        self.speed = group.speed
        self.name = f"{variant.name}/{group.accelerator}"
        self.healthy = True

    @property
    def price_usd_per_hour(self) -> float:
        return self.group.price_usd_per_hour

    @property
    def vram_gib(self) -> float:
        return self.group.vram_gib

    def start_s(self, now_s: float) -> float:
        return self._owner.starts(self.number, now_s).get(self.accelerator, _NEVER)[0]


_NEVER = (math.inf, -1)


class Dispatcher:
    """Queues and replicas of a fleet. `patience_s` is how long a user without a deadline is taken to wait."""

    def __init__(
        self,
        variants: Sequence[Variant],
        groups: Sequence[Group],
        *,
        estimate: Estimate = estimate_by_cost,
        shares: Shares | None = None,
        patience_s: float = 120.0,
        habits: Habits | None = None,
    ) -> None:
        self.timelines = Timelines(len(variants))
        self.names = [variant.name for variant in variants]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        pools = [DispatchPool(self, v, number, group) for number, v in enumerate(variants) for group in groups]
        self.pools = {pool.name: pool for pool in pools}
        self.router = Router(pools, estimate)
        self.shares = shares or Shares(1.0)
        self.habits = habits or Habits()
        self._patience_s = patience_s
        self._tickets: dict[int, _Ticket] = {}
        self._turn_s: dict[int, float] = {}  # keys of tasks that lost their replica, or are parked
        self._parked: dict[int, tuple[Wanted, Hashable, int]] = {}  # admitted, and nobody is up who could hold them
        self._usual_s = 0.0  # mean reference seconds of recent tasks
        self._starts: dict[int, dict[str, tuple[float, int]]] = {}
        self._asked_s, self._turn_asked_s = math.nan, math.inf  # what `_starts` was asked for; nan: it is stale
        self._dear = 0.0

    # -- replicas ------------------------------------------------------------------------------------------------

    def gained(self, replicas: Sequence[tuple[Replica, str, Memory]], now_s: float) -> list[Start]:
        """Replicas have come up: (name, accelerator, memory). They take over what they would do sooner."""
        self.timelines.add(replicas, now_s)
        self._rearranged()
        starts: list[Start] = []
        parked, self._parked = self._parked, {}
        for task, (wanted, tenant, priority) in parked.items():
            starts += self.submit(task, wanted, now_s, tenant=tenant, priority=priority, admitted=True)[1]
        for name, _, _ in replicas:
            if self.timelines.lanes[self.timelines.place[name]].running is None:
                starts += self._steal(self.timelines.place[name], now_s)
        return starts

    def lost(self, replicas: Sequence[Replica]) -> list[int]:
        """Replicas are gone: the tasks that ran or waited on them, to be submitted again as `admitted`.

        They keep their turn, and where a replica died at work all that it had moves up by one level of priority: each
        has waited in one queue already, and a model may have to be loaded for it first.
        """
        known = [replica for replica in replicas if replica in self.timelines.place]
        lanes = [self.timelines.lanes[self.timelines.place[replica]] for replica in known]
        died = {task.task for lane in lanes if lane.running is not None for task in (lane.running, *lane.queue)}
        dropped = self.timelines.drop(known)
        for planned in dropped:
            ticket = self._tickets.pop(planned.task, None)
            if ticket is not None:
                self.shares.leave(ticket.tenant)
            self._turn_s[planned.task] = planned.key_s - self.shares.ageing_s * (planned.task in died)
        self._rearranged()
        return [planned.task for planned in dropped]

    def _rearranged(self) -> None:
        self._asked_s = math.nan
        self.shares.capacity = max(
            1e-9, sum(self._speed(lane.group) for lane in self.timelines.lanes) if self.timelines.lanes else 1.0
        )
        for pool in self.pools.values():
            pool.healthy = pool.accelerator in self.timelines.groups

    def _speed(self, accelerator: str) -> float:
        return next(pool.speed for pool in self.pools.values() if pool.accelerator == accelerator)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        task: int,
        wanted: Wanted,
        now_s: float,
        *,
        tenant: Hashable = "",
        priority: int = 0,
        admitted: bool = False,
    ) -> tuple[Choice, list[Start]]:
        """Route a task and queue it, or refuse it. One that was `admitted` before is late rather than refused."""
        turn_s = self._turn_s.pop(task, math.inf)
        choice = self._decide(wanted, now_s, admitted, turn_s)
        if choice.pool is None:
            self._asked_s = math.nan
            if admitted:
                self._parked[task] = (wanted, tenant, priority)
                self._turn_s[task] = turn_s
            return choice, []
        pool = self.pools[choice.pool]
        _, place = self.starts(pool.number, now_s)[pool.accelerator]
        work_s = choice.completion_s - choice.start_s
        self._usual_s += 0.01 * (work_s * pool.speed - self._usual_s) if self._usual_s else work_s * pool.speed
        again = turn_s < math.inf  # its share was charged when it came first
        key_s = min(turn_s, self.shares.enter(tenant, priority, 0.0 if again else work_s * pool.speed, now_s))
        self._tickets[task] = _Ticket(wanted, tenant)
        done_s = self.timelines.enqueue(place, task, pool.number, work_s, key_s, now_s)
        self._asked_s = math.nan
        if abs(done_s - choice.completion_s) > _SAME_S:
            choice = replace(choice, completion_s=done_s, start_s=done_s - work_s)
        idle = self.timelines.lanes[place].running is None
        return choice, self._next(place, now_s) if idle else []

    def preview(self, wanted: Wanted, now_s: float, *, admitted: bool = False) -> Choice:
        """What `submit` would decide. Changes nothing: a quote may ask it."""
        return self._decide(wanted, now_s, admitted, math.inf)

    def _decide(self, wanted: Wanted, now_s: float, admitted: bool, turn_s: float) -> Choice:
        self._ask(now_s, turn_s)
        if admitted:
            choice = self.router.choose(wanted, now_s)
            return choice if choice.routed else self.router.choose(wanted._replace(deadline_s=math.inf), now_s)
        if wanted.deadline_s == math.inf:
            return self.router.choose(wanted, now_s)
        soft_s = now_s + self.habits.soft_share * (wanted.deadline_s - now_s)
        choice = self.router.choose(wanted._replace(soft_s=soft_s), now_s)
        if choice.pool is not None and choice.completion_s > soft_s:
            pressure = (choice.completion_s - soft_s) / max(1e-9, wanted.deadline_s - soft_s)
            work_s = (choice.completion_s - choice.start_s) * self.pools[choice.pool].speed
            if not leaves_room(pressure, work_s, self._usual_s, self.habits.spare_for_short):
                return replace(
                    choice, variant=None, pool=None, usd=0.0, reason=Reason.TOO_LATE, earliest_s=choice.completion_s
                )
        return choice

    def free(self, replica: Replica, now_s: float) -> list[Start]:
        """A replica has finished its task: what it does next, if anything."""
        place = self.timelines.place.get(replica)
        if place is None:
            return []
        self.timelines.finish(place, now_s)
        return self._next(place, now_s) or self._steal(place, now_s)

    def extend(self, replica: Replica, work_s: float, now_s: float) -> None:
        """What the replica has just started takes `work_s` in all: others of its kind joined it in one model call."""
        place = self.timelines.place.get(replica)
        if place is not None:
            self.timelines.extend(place, now_s + work_s)
            self._asked_s = math.nan

    def withdraw(self, task: int, now_s: float) -> None:
        """A queued task was cancelled, or one that found nobody who could hold it."""
        if self._parked.pop(task, None) is not None:
            del self._turn_s[task]
            return
        self.timelines.withdraw(task, now_s)
        self.shares.leave(self._tickets.pop(task).tenant)
        self._asked_s = math.nan

    def reestimate(self, now_s: float) -> None:
        """What the estimate is made of has changed: predict everything that waits anew. Reads the whole queue, so it
        is for new fits, not for every observation."""

        def work_s(planned: Planned, group: str) -> float:
            return self.router.estimate(self._pool(planned, group), self._tickets[planned.task].wanted)

        self.timelines.reestimate(work_s, now_s)
        self._asked_s = math.nan

    def starts(self, variant: int, now_s: float) -> dict[str, tuple[float, int]]:
        """When a task of `variant` would start in each group, and on which replica. Remembered within a decision.

        One that has lost its replica is placed by where its turn would come. It loads where it likes: it is late.
        """
        if now_s != self._asked_s:
            self._ask(now_s)
        found = self._starts.get(variant)
        if found is None:
            if self._turn_asked_s == math.inf:
                found = self.timelines.starts(variant, now_s, self._dear)
            else:
                found = self.timelines.starts_in_turn(variant, self._turn_asked_s, now_s)
            self._starts[variant] = found
        return found

    def _ask(self, now_s: float, turn_s: float = math.inf) -> None:
        self._starts.clear()
        self._asked_s, self._turn_asked_s = now_s, turn_s
        busy = self.timelines.backlog_s(now_s) / self._patience_s
        self._dear = self.habits.dear_load * min(1.0, 4 * busy)

    def _next(self, place: int, now_s: float) -> list[Start]:
        planned = self.timelines.start(place, now_s)
        if planned is None:
            return []
        self.shares.leave(self._tickets.pop(planned.task).tenant)
        return [Start(self.timelines.lanes[place].name, planned.task, self.names[planned.variant], planned.load_s)]

    def _steal(self, place: int, now_s: float) -> list[Start]:
        """A replica without work takes a queued task that it would finish sooner than the replica it waits for."""
        if not self.timelines.waiting:
            return []
        group = self.timelines.lanes[place].group

        def work_s(planned: Planned) -> float:
            pool, wanted = self._pool(planned, group), self._tickets[planned.task].wanted
            seconds = self.router.estimate(pool, wanted)
            return seconds if seconds * pool.price_usd_per_hour / 3600 <= wanted.max_usd else math.inf

        stolen = best_to_steal(self.timelines, place, now_s, work_s, self._dear, self.habits)
        if stolen is None:
            return []
        planned, seconds = stolen
        self.timelines.withdraw(planned.task, now_s)
        self.timelines.enqueue(place, planned.task, planned.variant, seconds, planned.key_s, now_s)
        self._asked_s = math.nan
        return self._next(place, now_s)

    def _pool(self, planned: Planned, group: str) -> DispatchPool:
        return self.pools[f"{self.names[planned.variant]}/{group}"]


_SAME_S = 1e-6

"""Which replica each waiting task is planned onto, what a free replica does next, and what is refused.

    submit ──▶ Router.choose over the queues ──▶ a replica's queue ──peek──▶ Start ──start──▶ running ──finish──▶

Questions (`preview`, `peek`, `completions`) change nothing; what they answer is applied by `submit` and `start` once
its caller has made it durable. A task is planned at arrival and can go elsewhere until it starts: to a replica that
runs dry, or away from one that dies. Knows no clock and no store.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.routing.router import Choice, Estimate, Router, estimate_by_cost
from cluster.routing.terms import RoutingRequest
from cluster.scheduling.fairness import FairShares
from cluster.scheduling.memory import Memory
from cluster.scheduling.policy_config import PolicyConfig, best_to_steal
from cluster.scheduling.pools import AcceleratorGroup, PlannedPool
from cluster.scheduling.precedence import Precedence
from cluster.scheduling.replica_queue import Turn, View
from cluster.scheduling.timelines import Timelines
from cluster.scheduling.valuation import BacklogValuation, Spread, valuation
from cluster.scheduling.work_queue import Planned
from schemas.catalog import Variant

__all__ = ["AcceleratorGroup", "PlannedPool", "Planner", "Replica", "Start"]

Replica = Hashable


class Start(NamedTuple):
    """Run `task` as `variant` on `replica`; its model must be loaded first when `load_s` is not 0."""

    replica: Replica
    task: int
    variant: str
    load_s: float


class _Ticket(NamedTuple):
    request: RoutingRequest
    tenant: Hashable


class _Again(NamedTuple):
    """The turn of a task that lost its replica, or is parked."""

    key_s: float
    order_s: float
    died: bool = False  # its replica did, at work


@dataclass
class _Question:
    """One task that is being routed: what is worked out for it on the way."""

    request: RoutingRequest
    view: View
    load_penalty: float
    keys: Callable[[Hashable], float | None] | None
    turns: dict[int, dict[str, Turn]]
    worth: BacklogValuation | None = None
    spares: bool = True  # goes behind those whose deadlines it would break


class Planner:
    """Queues and replicas of a fleet. `patience_s` is how long a user without a deadline is taken to wait."""

    def __init__(
        self,
        variants: Sequence[Variant],
        groups: Sequence[AcceleratorGroup],
        *,
        estimate: Estimate = estimate_by_cost,
        spread: Spread | None = None,
        doubt: Callable[[], float] = lambda: 0.0,
        shares: FairShares | None = None,
        patience_s: float = 120.0,
        config: PolicyConfig | None = None,
    ) -> None:
        self.config = config or PolicyConfig()
        self.timelines = Timelines(len(variants), self.config.overdue_growth, self.config.adapter_load_s)
        self.names = [variant.name for variant in variants]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        pools = [PlannedPool(self, v, number, group) for number, v in enumerate(variants) for group in groups]
        self.pools = {pool.name: pool for pool in pools}
        self.router = Router(pools, estimate)
        self.shares = shares or FairShares()
        self.groups = tuple(groups)
        self._speeds = {group.accelerator: group.speed for group in groups}
        self._spread: Spread = spread or (lambda pool, request: self.config.spread)
        self._doubt = doubt
        self.patience_s = patience_s
        self._tickets: dict[int, _Ticket] = {}
        self.precedence = Precedence()
        self._again: dict[int, _Again] = {}
        # Admitted, and nobody is up who could hold them.
        self._parked: dict[int, tuple[RoutingRequest, Hashable, int]] = {}
        self.usual_s = 0.0  # mean reference seconds of recent tasks, as they were asked for
        self._question: _Question | None = None
        # What was last previewed, and of which state: who is taken at once is not routed twice.
        self._previewed: tuple[tuple[object, ...], Choice, _Question] | None = None

    # -- replicas ------------------------------------------------------------------------------------------------

    def gained(self, replicas: Sequence[tuple[Replica, str, Memory]], now_s: float) -> None:
        """Replicas have come up: (name, accelerator, memory). Tasks that nobody could hold are planned again."""
        self.timelines.add(replicas, now_s)
        self.rearranged()
        parked, self._parked = self._parked, {}
        for task, (request, tenant, priority) in parked.items():
            self.submit(task, request, now_s, tenant=tenant, priority=priority, admitted=True)

    def lost(self, replicas: Sequence[Replica], now_s: float) -> list[int]:  # noqa: ARG002
        """Replicas are gone: the tasks that ran or waited on them, to be submitted again as `admitted`.

        They keep their turn, and where a replica died at work all that it had moves up by one level of priority: each
        has waited in one queue already, and a model may have to be loaded for it first.
        """
        known = [replica for replica in replicas if replica in self.timelines.place]
        gone = [self.timelines.replicas[self.timelines.place[replica]] for replica in known]
        died = {task.task for each in gone if each.running is not None for task in (each.running, *each.queue)}
        # What ran there once may wait elsewhere for its next attempt.
        dropped = [task for task in self.timelines.drop(known) if task.task not in self.timelines.waiting]
        for planned in dropped:
            ticket = self._tickets.pop(planned.task, None)
            order_s = planned.key_s
            if ticket is not None:
                order_s = self.precedence.order_s(planned.task)
                self.precedence.remove(planned.task)
                self.shares.leave(ticket.tenant)
            up_s = self.shares.ageing_s * (planned.task in died)
            self._again[planned.task] = _Again(planned.key_s - up_s, order_s - up_s, planned.task in died)
        self.rearranged()
        return [planned.task for planned in dropped]

    def rearranged(self) -> None:
        """The replicas are others."""
        self._question = None
        speeds = [self._speeds[replica.group] for replica in self.timelines.replicas]
        self.shares.capacity = sum(speeds) or 1.0
        for pool in self.pools.values():
            pool.healthy = pool.accelerator in self.timelines.groups

    # -- tasks ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        task: int,
        request: RoutingRequest,
        now_s: float,
        *,
        tenant: Hashable = "",
        priority: int = 0,
        admitted: bool = False,
    ) -> Choice:
        """Route a task and queue it, or refuse it. One that was `admitted` before is late rather than refused; where
        nobody is up who could hold it, it is parked until somebody is."""
        again = self._again.pop(task, None)
        previewed, self._previewed = self._previewed, None
        asked = self._asked(request, now_s, tenant, priority)
        if again is None and previewed is not None and previewed[0] == asked:
            _, choice, self._question = previewed
        else:
            choice = self._decide(request, now_s, tenant, priority, again, admitted=admitted)
        if choice.pool is None:
            self._question = None
            if admitted:
                self._parked[task] = (request, tenant, priority)
                if again is not None:
                    self._again[task] = again
            return choice
        pool = self.pools[choice.pool]
        turn = pool.turn()
        work_s = choice.completion_s - choice.start_s
        first = choice.candidates[0]
        if first.start_s < math.inf:
            self._learn_usual((first.completion_s - first.start_s) * self.pools[first.pool].speed)
        # The share of one that comes again was charged when it came first.
        self.shares.enter(tenant, priority, work_s * pool.speed if again is None else 0.0, now_s)
        order_s = self.shares.order(priority, now_s) if again is None else again.order_s
        due_s = math.inf
        assert self._question is not None
        if (worth := self._question.worth) is not None:
            due_s = request.deadline_s - worth.protected_s(pool, request, choice.start_s - now_s, work_s)
        key_s = turn.key_s if turn.key_s < math.inf else now_s
        self.timelines.enqueue(
            turn.place,
            task,
            pool.number,
            work_s,
            key_s,
            deadline_s=request.deadline_s,
            due_s=due_s,
            tenant=tenant,
            brings=request.brings,
        )
        self._tickets[task] = _Ticket(request, tenant)
        self.precedence.add(task, tenant, priority, order_s, self.timelines.waiting[task], key_s)
        self._question = None
        return choice

    def _learn_usual(self, reference_s: float) -> None:
        self.usual_s += 0.01 * (reference_s - self.usual_s) if self.usual_s else reference_s

    def preview(
        self,
        request: RoutingRequest,
        now_s: float,
        *,
        tenant: Hashable = "",
        priority: int = 0,
    ) -> Choice:
        """What `submit` would decide. Changes nothing: a quote may ask it."""
        choice = self._decide(request, now_s, tenant, priority, None, admitted=False)
        if choice.routed and self._question is not None:
            self._previewed = self._asked(request, now_s, tenant, priority), choice, self._question
        self._question = None
        return choice

    def _asked(self, request: RoutingRequest, now_s: float, tenant: Hashable, priority: int) -> tuple[object, ...]:
        """A question, and the state of which it is asked: of replicas, queues and the tenant's share."""
        return request, now_s, tenant, priority, self.shares.key(tenant, priority, now_s), self.timelines.changes

    def elsewhere(self, task: int, now_s: float) -> Choice:
        """What would be decided of a waiting task if it came now, with the turn that it has. Changes nothing."""
        ticket, again = self._tickets[task], self._turn_of(task)
        priority = self.precedence.priority(task)
        choice = self._decide(ticket.request, now_s, ticket.tenant, priority, again, admitted=True)
        self._question = None
        return choice

    def _turn_of(self, task: int) -> _Again:
        return _Again(self.timelines.planned(task).key_s, self.precedence.order_s(task))

    def _decide(
        self,
        request: RoutingRequest,
        now_s: float,
        tenant: Hashable,
        priority: int,
        again: _Again | None,
        *,
        admitted: bool,
    ) -> Choice:
        key_s = self.shares.key(tenant, priority, now_s)
        order_s = self.shares.order(priority, now_s)
        if again is not None:
            key_s, order_s = min(key_s, again.key_s), again.order_s
        keys = None
        if again is None and self.precedence.may_overtake(tenant, priority):
            precedence = self.precedence

            def keys(replica: Hashable) -> float | None:
                return precedence.key_s(tenant, order_s, replica)

        view = self.timelines.view(now_s, key_s, last=keys is None)
        question = self._question = _Question(request, view, self._load_penalty(view), keys, {})
        if request.deadline_s == math.inf:
            return self.router.choose(request, now_s)
        question.worth = worth = self._valuation(request, now_s)
        choice = self.router.choose(request, now_s, worth)
        if admitted and not choice.routed:
            if again is not None and again.died:
                # Behind every promise of others it would be the last one of all, and it has waited once already.
                question.spares, question.turns = False, {}
            choice = self.router.choose(
                request._replace(deadline_s=math.inf), now_s, worth._replace(deviations=0.0, discount=0.0)
            )
            if not choice.routed:
                choice = self.router.choose(request._replace(deadline_s=math.inf), now_s)
        return choice

    def _valuation(self, request: RoutingRequest, now_s: float) -> BacklogValuation:
        assert self._question is not None
        view = self._question.view
        allowed_s = request.deadline_s - now_s

        def work_ahead_s(pool: PlannedPool) -> float:
            return self.timelines.work_ahead_s(pool.turn(), now_s)

        return valuation(self.config, self._spread, view.wait_s, allowed_s, self.usual_s, self._doubt(), work_ahead_s)

    def _load_penalty(self, view: View) -> float:
        return self.config.load_penalty * min(1.0, 4 * view.wait_s / self.patience_s)

    def turns(self, variant: int) -> dict[str, Turn]:
        """Where the task that is being routed would start in each group, were it rendered by `variant`."""
        question = self._question
        assert question is not None
        found = question.turns.get(variant)
        if found is None:
            found = question.turns[variant] = self.timelines.starts(
                variant,
                question.view,
                question.load_penalty,
                work_s=(lambda group: self._seconds_on(variant, group)) if question.spares else None,
                keys=question.keys,
                brings=question.request.brings,
            )
        return found

    def _seconds_on(self, variant: int, group: str) -> float:
        assert self._question is not None
        return self.router.estimate(self.pools[f"{self.names[variant]}/{group}"], self._question.request)

    # -- what runs -------------------------------------------------------------------------------------------------

    def peek(self, replica: Replica, now_s: float, *, steal: bool = True) -> Start | None:
        """What the replica should begin now: the head of its queue, or else (`steal`) a task that it would finish
        sooner than the replica which that waits for. None when it is busy or there is nothing. Changes nothing."""
        place = self.timelines.place.get(replica)
        if place is None or self.timelines.replicas[place].running is not None:
            return None
        planned = self.timelines.replicas[place].queue.first
        if planned is not None:
            first = self.precedence.head(planned.task)
            if first != planned.task:
                planned = self.timelines.planned(first)
        elif steal and self.timelines.waiting and (stolen := self._to_steal(place, now_s)) is not None:
            planned, _ = stolen
        if planned is None:
            return None
        return Start(replica, planned.task, self.names[planned.variant], self.timelines.load_now_s(place, planned))

    def start(self, start: Start, now_s: float, work_s: float | None = None) -> None:
        """The replica has begun the task, wherever it waited, and takes `work_s` for it (else what was estimated)."""
        place = self.timelines.place[start.replica]
        replica = self.timelines.replicas[place]
        ticket = self._tickets.pop(start.task)
        self.shares.leave(ticket.tenant)
        if self.timelines.waiting[start.task] != start.replica:
            planned = self.timelines.withdraw(start.task)
            seconds = self.router.estimate(self._pool(planned, replica.group), ticket.request)
            self.timelines.enqueue(
                place, start.task, planned.variant, seconds, planned.key_s, brings=ticket.request.brings
            )
        elif (head := replica.queue.first) is not None and self.precedence.head(head.task) == start.task != head.task:
            self.timelines.swap(place, head.task, start.task)
            self.precedence.swap(head.task, start.task)
        self.precedence.remove(start.task)
        self.timelines.start(place, start.task, now_s, work_s)
        self._question = None

    def finish(self, replica: Replica, now_s: float) -> None:
        """The replica has nothing to do now."""
        place = self.timelines.place.get(replica)
        if place is not None:
            self.timelines.finish(place, now_s)

    def extend(self, replica: Replica, work_s: float, now_s: float) -> None:
        """What the replica has just started takes `work_s` in all: others of its kind joined it in one model call."""
        place = self.timelines.place.get(replica)
        if place is not None:
            self.timelines.extend(place, now_s + work_s)

    def occupy(self, replica: Replica, work_s: float, now_s: float) -> None:
        """The replica is busy with something that was not queued here, until it says that it is free."""
        place = self.timelines.place.get(replica)
        if place is not None:
            self.timelines.occupy(place, now_s + work_s)

    # -- questions -----------------------------------------------------------------------------------------------

    def tenant(self, task: int) -> Hashable:
        """Whose task it is that waits on a replica."""
        return self._tickets[task].tenant

    def holds(self, task: int) -> bool:
        """Whether the task waits here, on a replica or parked."""
        return task in self._tickets or task in self._parked

    @property
    def parked(self) -> tuple[int, ...]:
        """Tasks that wait for somebody to come up who could hold them."""
        return tuple(self._parked)

    def start_s(self, variant: str, accelerator: str, now_s: float) -> float:
        """When a task of `variant` that came now would start on the accelerators of one type; infinite for never."""
        found = self.timelines.starts(self.numbers[variant], self.timelines.view(now_s)).get(accelerator)
        return found.start_s if found is not None else math.inf

    def variant_planned(self, task: int) -> str | None:
        """The variant as which a waiting task is planned; None for one that is parked, or not here."""
        return self.names[self.timelines.planned(task).variant] if task in self.timelines.waiting else None

    def planned(self) -> Iterator[tuple[int, str, float]]:
        """(task, variant, seconds) of everything that waits on a replica."""
        for replica in self.timelines.replicas:
            for planned in replica.queue:
                yield planned.task, self.names[planned.variant], planned.work_s

    def completions(self, now_s: float) -> Iterator[tuple[int, float]]:
        """(task, predicted completion) of everything that waits on a replica, in one pass over the queues."""
        return self.timelines.completions(now_s)

    def withdraw(self, task: int, now_s: float, *, keeps_turn: bool = False) -> None:  # noqa: ARG002
        """A task was cancelled, or found nobody who could hold it; one that `keeps_turn` comes back."""
        if self._parked.pop(task, None) is not None:
            self._again.pop(task, None)
            return
        if keeps_turn:
            self._again[task] = self._turn_of(task)
        self.timelines.withdraw(task)
        self.precedence.remove(task)
        self.shares.leave(self._tickets.pop(task).tenant)

    def reestimate(self, now_s: float) -> None:  # noqa: ARG002
        """What the estimate is made of has changed: predict everything that waits anew. Reads the whole queue, so it
        is for new fits, not for every observation."""

        def work_s(planned: Planned, group: str) -> float:
            return self.router.estimate(self._pool(planned, group), self._tickets[planned.task].request)

        self.timelines.reestimate(work_s)

    def _to_steal(self, place: int, now_s: float) -> tuple[Planned, float] | None:
        group = self.timelines.replicas[place].group

        def work_s(planned: Planned) -> float:
            pool, request = self._pool(planned, group), self._tickets[planned.task].request
            seconds = self.router.estimate(pool, request)
            return seconds if seconds * pool.price_usd_per_hour / 3600 <= request.max_usd else math.inf

        view = self.timelines.view(now_s)
        return best_to_steal(self.timelines, place, view.free_s, now_s, work_s, self._load_penalty(view), self.config)

    def _pool(self, planned: Planned, group: str) -> PlannedPool:
        return self.pools[f"{self.names[planned.variant]}/{group}"]

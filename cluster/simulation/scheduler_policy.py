"""The Scheduler that the endpoint drives, as a policy of the simulator."""

import math

import numpy as np

from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling.attempts import LOST, AttemptRules
from cluster.scheduling.events import (
    Began,
    Ended,
    Rendered,
    Retry,
    Submitted,
    Tick,
    WorkerLost,
    WorkerUp,
    WorkRequested,
)
from cluster.scheduling.job import Call, Job, Lease
from cluster.scheduling.offer import Refusal
from cluster.scheduling.planner import AcceleratorGroup
from cluster.scheduling.policy_config import PolicyConfig
from cluster.scheduling.scheduler import Scheduler, SchedulerConfig
from cluster.scheduling.workers import ServedVariant
from cluster.simulation.fleet import Fleet
from cluster.simulation.policy_context import PolicyContext, Run, Verdict, own_name
from schemas.catalog import Latent, Needs, Variant
from schemas.clip import Status
from schemas.request import Mode
from schemas.shape import ShapeRule

_NEVER_GIVEN_UP = 10**6
_TICK_S = 2.0


class Rushes:
    """The Scheduler that the endpoint drives, over simulated machines: what it wants is granted at once."""

    learns = True

    def __init__(self, context: PolicyContext, config: PolicyConfig | None = None) -> None:
        self.c = context
        trace, fleet = context.trace, context.fleet
        allowed_s = trace.allowance_s[np.isfinite(trace.allowance_s)]
        self._pool = [pool.name for pool in fleet.pools]
        groups = [
            AcceleratorGroup(pool.name, pool.price_usd_per_hour, pool.vram_gib, pool.speed, predicted_as="")
            for pool in fleet.pools
            if pool.count
        ]
        variants = [variant_of(name, fleet) for name in context.variants.names]
        self.names = [variant.name for variant in variants]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.scheduler = Scheduler(
            [ServedVariant(variant, groups[0].accelerator) for variant in variants],
            groups,
            context.times,
            config=SchedulerConfig(
                AttemptRules(lease_s=math.inf, max_attempts=_NEVER_GIVEN_UP, retry_base_s=0.0),
                patience_s=float(np.median(allowed_s)) if len(allowed_s) else 60.0,
            ),
            policy=config,
        )
        self._terms = [Terms(variant=name) for name in self.names]
        self._calls: dict[tuple[int, int], dict[str, Call]] = {}
        self._priority: list[int] = trace.priority.tolist()
        self._ticked_s = 0.0
        self.up([machine.number for machine in context.machines], 0.0)

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict:
        scheduler = self.scheduler
        runs = self._tick(now_s)
        if admitted:  # it was retried with the worker that it lost
            runs += self._next([machine.number for machine in self.c.machines], now_s)
            return Verdict(True, math.nan, 0.0, runs)
        own, arrived_s = self.c.variant[task], float(self.c.trace.arrival_s[task])
        request = RoutingRequest(self._terms[own], deadline_s=self.c.deadline_s[task], task=task)
        job = Job(
            task,
            str(task),
            request,
            self._calls_of(task, own),
            self.names[own],
            self.c.tenant[task],
            self._priority[task],
            arrived_s,
        )
        found = scheduler.offer(job, now_s)
        if isinstance(found, Refusal):
            return Verdict(False, math.nan, 0.0, runs)
        scheduler.record(Submitted((job._replace(eta=found.eta),)), now_s)
        choice = found.choice
        machine = scheduler.planner.timelines.waiting.get(task)
        runs += self._next([int(str(machine))], now_s) if machine is not None else []
        return Verdict(True, choice.completion_s, choice.completion_s - choice.start_s, runs, found.eta)

    def completed(self, task: int, variant: int, machine: int, run_s: float, now_s: float) -> None:
        name = str(machine)
        held = self.scheduler.attempts.held(str(task))
        assert held is not None
        self.scheduler.record(Rendered(name, self.names[variant], held.job, 1, run_s), now_s)
        self.scheduler.apply(self.scheduler.ended(Ended(held.lease), now_s), Status.SUCCEEDED, now_s)

    def free(self, machine: int, now_s: float) -> list[Run]:
        runs = self._tick(now_s)
        self.scheduler.record(WorkRequested(str(machine)), now_s)
        return runs + self._next([machine], now_s)

    def down(self, machines: list[int], now_s: float) -> list[int]:
        scheduler = self.scheduler
        held = [one for machine in machines for one in scheduler.attempts.of(str(machine))]
        planned = {
            seq for seq, where in scheduler.planner.timelines.waiting.items() if int(str(where)) in set(machines)
        }
        for machine in machines:
            scheduler.record(WorkerLost(str(machine), "its pool died"), now_s)
        for one in held:
            scheduler.apply(Retry(one.lease, "its pool died", LOST, now_s, spent=True), Status.PENDING, now_s)
        return sorted(planned | {one.lease.seq for one in held})

    def up(self, machines: list[int], now_s: float) -> list[Run]:
        for machine in machines:
            hardware = self.c.machines[machine]
            up = WorkerUp(str(machine), self._pool[hardware.pool], hardware.copy())
            self.scheduler.record(up, now_s)
        return self._next(machines, now_s)

    def refitted(self, now_s: float) -> None:
        """The scheduler knows by itself."""

    def _tick(self, now_s: float) -> list[Run]:
        """What is due, and what idle machines got by it: tasks may have moved to them."""
        if now_s - self._ticked_s < _TICK_S:
            return []
        self._ticked_s = now_s
        self.scheduler.record(Tick(), now_s)
        return self._next([int(name) for name in self.scheduler.idle], now_s) if self.scheduler.waiting() else []

    def _next(self, machines: list[int], now_s: float) -> list[Run]:
        runs = []
        for machine in machines:
            grant = self.scheduler.next_lease(str(machine), now_s)
            if grant is not None:
                (seq,) = grant.seqs
                job = self.scheduler.job(seq)
                assert job is not None
                lease = Lease(job.id, seq, job.epoch + 1, job.attempts + 1)
                self.scheduler.apply(grant, (lease,), now_s)
                self.scheduler.record(Began(str(machine), frozenset({(job.id, lease.epoch)})), now_s)
                runs.append(Run(machine, seq, self.numbers[grant.variant]))
        return runs

    def _calls_of(self, task: int, own: int) -> dict[str, Call]:
        key = own, self.c.configuration[task]
        calls = self._calls.get(key)
        if calls is None:
            call = Call("", key[1])
            calls = self._calls[key] = {self.names[number]: call for number in self.c.chains[own]}
        return calls


def variant_of(name: str, fleet: Fleet) -> Variant:
    """A catalog entry for a variant of a trace: everything that routing does not ask for is open."""
    known = fleet.variants.get(name)
    # Unchecked: a trace's names need not be a catalog's.
    return Variant.model_construct(
        name=own_name(name),
        pipeline="",
        weights="",
        steps=1,
        fps=1.0,
        modes=(Mode.TEXT_TO_VIDEO,),
        shape=ShapeRule(divisor=1, max_frames=10**6, max_pixels=10**9, native=((16, 16, 1),)),
        latent=Latent(channels=1, spatial=1, temporal=1),
        needs=Needs(vram_gib=known.vram_gib if known else 0.0),
        fallbacks=tuple(map(own_name, known.fallbacks)) if known else (),
        quality=known.quality if known else 0.5,
        aliases=(),
        auto=True,
    )

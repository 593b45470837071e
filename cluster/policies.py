"""The policies that the simulator compares: the usual ones, each tuned fairly, and Rushes' own.

Fair means: ties go to the accelerator that has the model; work is predicted by the same predictor; `ect` plans with
the exact sequence of loads and falls back when the first choice would be late; nobody knows true service times.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from cluster.dispatch import Dispatcher, Group, Habits
from cluster.dispatch import Start as LiveStart
from cluster.fleet import Fleet
from cluster.machine import Machine
from cluster.predictor import Predictor
from cluster.terms import PoolView, Terms, Wanted
from cluster.trace import Trace
from schemas.catalog import Latent, Needs, Variant
from schemas.request import Mode
from schemas.shape import ShapeRule


class Run(NamedTuple):
    """Start `task` with `variant` on `machine`, now."""

    machine: int
    task: int
    variant: int


class Verdict(NamedTuple):
    """What became of an arrival. `forecast_s` is its predicted completion, nan where a policy makes no forecast."""

    admitted: bool
    forecast_s: float
    work_s: float
    runs: list[Run]


class Policy(Protocol):
    """What the simulator drives. Machines are shared with it: read them, do not change them."""

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict: ...
    def free(self, machine: int, now_s: float) -> list[Run]: ...
    def down(self, machines: list[int], now_s: float) -> list[int]: ...
    def up(self, machines: list[int], now_s: float) -> list[Run]: ...
    def refitted(self, now_s: float) -> None:
        """The predictor has been fitted anew."""
        ...


class Situation:
    """What every policy may know."""

    def __init__(self, trace: Trace, fleet: Fleet, machines: list[Machine], predictor: Predictor, seed: int) -> None:
        self.trace, self.fleet, self.machines, self.predictor = trace, fleet, machines, predictor
        self.variant: list[int] = trace.variant.tolist()
        self.deadline_s: list[float] = (trace.arrival_s + trace.allowance_s).tolist()
        self.random = np.random.default_rng(seed)
        number = {name: place for place, name in enumerate(trace.names)}
        known = fleet.variants
        self.chains = [
            (own, *(number[f] for f in known[name].fallbacks if f in number and number[f] != own))
            if name in known
            else (own,)
            for own, name in enumerate(trace.names)
        ]
        self.factor = [known[name].time_factor if name in known else 1.0 for name in trace.names]

    def work_s(self, task: int, variant: int) -> float:
        """Mean predicted seconds on the reference accelerator, were it rendered by `variant`."""
        own = self.variant[task]
        seconds = self.predictor.mean_s(task)
        return seconds if variant == own else seconds * self.factor[variant] / self.factor[own]


class Fifo:
    """One queue; whoever is free takes the head, by preference on a machine that has its model."""

    def __init__(self, situation: Situation) -> None:
        self.s = situation
        self.queue: deque[int] = deque()
        self.idle: dict[int, None] = {machine.number: None for machine in situation.machines}
        self.running: dict[int, int] = {}

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict:  # noqa: ARG002
        self.queue.append(task)
        return Verdict(True, math.nan, 0.0, self._runs())

    def free(self, machine: int, now_s: float) -> list[Run]:  # noqa: ARG002
        self.running.pop(machine, None)
        self.idle[machine] = None
        return self._runs()

    def down(self, machines: list[int], now_s: float) -> list[int]:  # noqa: ARG002
        for machine in machines:
            self.idle.pop(machine, None)
        return [self.running.pop(machine) for machine in machines if machine in self.running]

    def up(self, machines: list[int], now_s: float) -> list[Run]:  # noqa: ARG002
        self.idle.update(dict.fromkeys(machines))
        return self._runs()

    def refitted(self, now_s: float) -> None: ...

    def _runs(self) -> list[Run]:
        runs = []
        while self.queue and self.idle:
            task = self.queue[0]
            variant = self.s.variant[task]
            fit = [m for m in self.idle if self.s.machines[m].fits(variant)]
            if not fit:
                break
            machine = min(fit, key=lambda m: (self.s.machines[m].load_s(variant), -self.s.machines[m].speed, m))
            self.queue.popleft()
            del self.idle[machine]
            self.running[machine] = task
            runs.append(Run(machine, task, variant))
        return runs


class Bound:
    """Policies that bind a task to a machine at arrival. Subclasses only pick."""

    def __init__(self, situation: Situation) -> None:
        self.s = situation
        count = len(situation.machines)
        variants = range(len(situation.trace.names))
        self.queues: list[deque[tuple[int, int, float, float]]] = [deque() for _ in range(count)]
        self.running: dict[int, int] = {}
        self.length = np.zeros(count)
        self.free_s = np.zeros(count)  # predicted
        self.pending_s = [0.0] * count
        self.alive = np.ones(count, dtype=bool)
        self.speed = np.array([machine.speed for machine in situation.machines])
        self.plan = [machine.copy() for machine in situation.machines]
        self.loads = np.array([[machine.load_s(v) for machine in situation.machines] for v in variants])
        self.misfit = np.array([[not m.fits(v) for m in situation.machines] for v in variants])
        self.any_misfit = bool(self.misfit.any())
        self._variants = list(variants)

    def pick(self, task: int, now_s: float) -> tuple[int, int] | None:
        """(machine, variant); None refuses."""
        raise NotImplementedError

    def best(self, score: "np.ndarray[tuple[int], np.dtype[np.float64]]", variant: int) -> int:
        """The machine with the least score among those that are up and hold the variant."""
        if self.any_misfit:
            score = np.where(self.misfit[variant], np.inf, score)
        if not self.alive.all():
            score = np.where(self.alive, score, np.inf)
        return int(score.argmin())

    def able(self, variant: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The machines that hold the variant: those that are up, or when none is, all, to wait for one."""
        up = np.flatnonzero(self.alive & ~self.misfit[variant])
        return up if len(up) else np.flatnonzero(~self.misfit[variant])

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict:
        picked = self.pick(task, now_s)
        if picked is None and admitted:
            picked = self.soonest(task, self.s.variant[task], now_s)
        if picked is None:
            return Verdict(False, math.nan, 0.0, [])
        machine, variant = picked
        work_s = self.s.work_s(task, variant) / self.s.machines[machine].speed
        load_s = self.plan[machine].use(variant)
        for v in self._variants:
            self.loads[v, machine] = self.plan[machine].load_s(v)
        self.free_s[machine] = max(self.free_s[machine], now_s) + load_s + work_s
        self.length[machine] += 1
        self.queues[machine].append((task, variant, load_s, work_s))
        self.pending_s[machine] += load_s + work_s
        runs = [] if machine in self.running or not self.alive[machine] else self._next(machine, now_s)
        return Verdict(True, float(self.free_s[machine]), work_s, runs)

    def soonest(self, task: int, variant: int, now_s: float) -> tuple[int, int]:
        """Earliest predicted completion of one variant."""
        return self.best(self.completion_s(task, variant, now_s), variant), variant

    def completion_s(self, task: int, variant: int, now_s: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        work_s = self.s.work_s(task, variant)
        result: np.ndarray[tuple[int], np.dtype[np.float64]] = (
            np.maximum(self.free_s, now_s) + self.loads[variant] + work_s / self.speed
        )
        return result

    def free(self, machine: int, now_s: float) -> list[Run]:
        self.running.pop(machine, None)
        self.length[machine] -= 1
        self.free_s[machine] = now_s + self.pending_s[machine]
        return self._next(machine, now_s)

    def _next(self, machine: int, now_s: float) -> list[Run]:
        if not self.queues[machine]:
            return []
        task, variant, load_s, work_s = self.queues[machine].popleft()
        planned_s = load_s + work_s
        self.pending_s[machine] = self.pending_s[machine] - planned_s if self.queues[machine] else 0.0
        self.running[machine] = task
        self.free_s[machine] = now_s + planned_s + self.pending_s[machine]
        return [Run(machine, task, variant)]

    def down(self, machines: list[int], now_s: float) -> list[int]:
        lost = []
        for machine in machines:
            self.alive[machine] = False
            if machine in self.running:
                lost.append(self.running.pop(machine))
            lost += [entry[0] for entry in self.queues[machine]]
            self.queues[machine].clear()
            self.pending_s[machine] = self.length[machine] = 0.0
            self.free_s[machine] = now_s
        return lost

    def up(self, machines: list[int], now_s: float) -> list[Run]:
        runs = []
        for machine in machines:
            self.alive[machine] = True
            self.free_s[machine] = now_s + self.pending_s[machine]
            runs += self._next(machine, now_s)
        return runs

    def refitted(self, now_s: float) -> None:
        for machine, queue in enumerate(self.queues):
            if queue:
                speed, running_s = self.s.machines[machine].speed, self.free_s[machine] - self.pending_s[machine]
                self.queues[machine] = deque((t, v, load_s, self.s.work_s(t, v) / speed) for t, v, load_s, _ in queue)
                self.pending_s[machine] = math.fsum(load_s + work_s for _, _, load_s, work_s in self.queues[machine])
                self.free_s[machine] = max(now_s, running_s) + self.pending_s[machine]


class Random(Bound):
    def pick(self, task: int, now_s: float) -> tuple[int, int]:  # noqa: ARG002
        variant = self.s.variant[task]
        able = self.able(variant)
        return int(able[int(self.s.random.random() * len(able))]), variant


class RoundRobin(Bound):
    turn = -1

    def pick(self, task: int, now_s: float) -> tuple[int, int]:  # noqa: ARG002
        variant = self.s.variant[task]
        able = set(self.able(variant).tolist())
        while True:
            self.turn = (self.turn + 1) % len(self.alive)
            if self.turn in able:
                return self.turn, variant


class JoinShortestQueue(Bound):
    def pick(self, task: int, now_s: float) -> tuple[int, int]:  # noqa: ARG002
        variant = self.s.variant[task]
        return self.best(self.length + self.loads[variant] * 1e-6 - self.speed * 1e-9, variant), variant


class PowerOfTwo(Bound):
    """Two at random, the shorter queue of them; on a tie the one that loads less."""

    def pick(self, task: int, now_s: float) -> tuple[int, int]:  # noqa: ARG002
        variant = self.s.variant[task]
        able = self.able(variant)
        first, second = (int(able[int(draw * len(able))]) for draw in self.s.random.random(2))
        loads = self.loads[variant]
        return min((first, second), key=lambda m: (self.length[m], loads[m], -self.speed[m])), variant


class LeastWork(Bound):
    """The least predicted backlog in seconds; on a tie the one that loads less."""

    def pick(self, task: int, now_s: float) -> tuple[int, int]:
        variant = self.s.variant[task]
        score = np.maximum(self.free_s - now_s, 0.0) + self.loads[variant] * 1e-6 - self.speed * 1e-9
        return self.best(score, variant), variant


class EarliestCompletion(Bound):
    """Backlog, load and execution; a fallback when the first choice would be late and the fallback would not."""

    refuses = False

    def pick(self, task: int, now_s: float) -> tuple[int, int] | None:
        deadline_s = self.s.deadline_s[task]
        first: tuple[int, int] | None = None
        for variant in self.s.chains[self.s.variant[task]]:
            completion_s = self.completion_s(task, variant, now_s)
            machine = self.best(completion_s, variant)
            if completion_s[machine] <= deadline_s:
                return machine, variant
            first = first or (machine, variant)
        return None if self.refuses else first


class EarliestCompletionOrRefuse(EarliestCompletion):
    """As `ect`, and refuses what it could not do in time: not a usual baseline, but what admission alone gives."""

    refuses = True


class Rushes:
    """The Dispatcher that the endpoint drives, over simulated machines."""

    def __init__(self, situation: Situation, habits: Habits | None = None) -> None:
        self.s = situation
        trace, fleet = situation.trace, situation.fleet
        self._kind = [pool.name for pool in fleet.pools]
        groups = [
            Group(pool.name, pool.price_usd_per_hour, pool.vram_gib, pool.speed) for pool in fleet.pools if pool.count
        ]
        self.dispatcher = Dispatcher(
            [_variant(name, fleet) for name in trace.names],
            groups,
            estimate=self._estimate,
            patience_s=float(np.median(trace.allowance_s)) if len(trace) else 60.0,
            habits=habits,
        )
        self._variant_of = dict(self.dispatcher.numbers)
        self._place = {pool.name: (pool.number, pool.speed) for pool in self.dispatcher.pools.values()}
        self._terms = [Terms(variant=_own_name(name)) for name in trace.names]
        self._tenant: list[int] = trace.tenant.tolist()
        self._priority: list[int] = trace.priority.tolist()
        self.up([machine.number for machine in situation.machines], 0.0)

    def _estimate(self, pool: PoolView, wanted: Wanted) -> float:
        number, speed = self._place[pool.name]
        return self.s.work_s(wanted.task, number) / speed

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict:
        wanted = Wanted(self._terms[self.s.variant[task]], deadline_s=self.s.deadline_s[task], task=task)
        choice, starts = self.dispatcher.submit(
            task, wanted, now_s, tenant=self._tenant[task], priority=self._priority[task], admitted=admitted
        )
        if choice.pool is None:
            return Verdict(admitted, math.nan, 0.0, [])
        return Verdict(True, choice.completion_s, choice.completion_s - choice.start_s, self._runs(starts))

    def free(self, machine: int, now_s: float) -> list[Run]:
        return self._runs(self.dispatcher.free(machine, now_s))

    def down(self, machines: list[int], now_s: float) -> list[int]:  # noqa: ARG002
        return self.dispatcher.lost(machines)

    def up(self, machines: list[int], now_s: float) -> list[Run]:
        hardware = self.s.machines
        return self._runs(
            self.dispatcher.gained([(m, self._kind[hardware[m].pool], hardware[m].copy()) for m in machines], now_s)
        )

    def refitted(self, now_s: float) -> None:
        self.dispatcher.reestimate(now_s)

    def _runs(self, starts: list[LiveStart]) -> list[Run]:
        return [Run(int(start.replica), start.task, self._variant_of[start.variant]) for start in starts]  # type: ignore[call-overload]


def _own_name(name: str) -> str:
    """To routing `auto` is no variant; in a trace it is one like any other."""
    return "(auto)" if name == "auto" else name


def _variant(name: str, fleet: Fleet) -> Variant:
    """A catalog entry for a variant of a trace: everything that routing does not ask for is open."""
    known = fleet.variants.get(name)
    # Unchecked: a trace's names need not be a catalog's.
    return Variant.model_construct(
        name=_own_name(name),
        pipeline="",
        weights="",
        steps=1,
        fps=1.0,
        modes=(Mode.TEXT_TO_VIDEO,),
        shape=ShapeRule(divisor=1, max_frames=10**6, max_pixels=10**9, native=((16, 16, 1),)),
        latent=Latent(channels=1, spatial=1, temporal=1),
        needs=Needs(vram_gib=known.vram_gib if known else 0.0),
        fallbacks=tuple(map(_own_name, known.fallbacks)) if known else (),
        quality=known.quality if known else 0.5,
        aliases=(),
        auto=True,
    )


POLICIES: dict[str, Callable[[Situation], Policy]] = {
    "fifo": Fifo,
    "random": Random,
    "round_robin": RoundRobin,
    "jsq": JoinShortestQueue,
    "p2c": PowerOfTwo,
    "least_work": LeastWork,
    "ect": EarliestCompletion,
    "ect_refuse": EarliestCompletionOrRefuse,
    "rushes": Rushes,
}

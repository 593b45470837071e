"""The usual policies that Rushes' own is compared with, each tuned fairly.

Fair means: ties go to the accelerator that has the model; work is predicted by the same predictor; `ect` plans with
the exact sequence of loads and falls back when the first choice would be late; nobody knows true service times. Those
that are named `_refuse` also refuse what they predict to be late, and `ect_soft` falls back as early as Rushes may.
"""

import math
from collections import deque

import numpy as np

from cluster.simulation.policy_context import PolicyContext, Run, Verdict

SOFT_SHARE = 0.5


class _Taught:
    """A policy that the engine learns for."""

    learns = False

    def completed(self, task: int, variant: int, machine: int, run_s: float, now_s: float) -> None: ...


class Fifo(_Taught):
    """One queue; whoever is free takes the head, by preference on a machine that has its model."""

    def __init__(self, context: PolicyContext) -> None:
        self.s = context
        self.queue: deque[int] = deque()
        self.idle: dict[int, None] = {machine.number: None for machine in context.machines}
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


class Bound(_Taught):
    """Policies that bind a task to a machine at arrival. Subclasses only pick."""

    def __init__(self, context: PolicyContext) -> None:
        self.s = context
        count = len(context.machines)
        variants = range(len(context.names))
        self.queues: list[deque[tuple[int, int, float, float]]] = [deque() for _ in range(count)]
        self.running: dict[int, int] = {}
        self.length = np.zeros(count)
        self.free_s = np.zeros(count)  # predicted
        self.pending_s = [0.0] * count
        self.alive = np.ones(count, dtype=bool)
        self.all_alive = True
        self.speed = np.array([machine.speed for machine in context.machines])
        self.plan = [machine.copy() for machine in context.machines]
        self.loads = np.array([[machine.load_s(v) for machine in context.machines] for v in variants])
        self.misfit = np.array([[not m.fits(v) for m in context.machines] for v in variants])
        self.any_misfit = bool(self.misfit.any())
        self._variants = list(variants)

    def pick(self, task: int, now_s: float) -> tuple[int, int] | None:
        """(machine, variant); None refuses."""
        raise NotImplementedError

    def best(self, score: "np.ndarray[tuple[int], np.dtype[np.float64]]", variant: int) -> int:
        """The machine with the least score among those that hold the variant: of those that are up, if any is."""
        if self.any_misfit:
            score = np.where(self.misfit[variant], np.inf, score)
        if self.all_alive:
            return int(score.argmin())
        up = np.where(self.alive, score, np.inf)
        place = int(up.argmin())
        return place if up[place] < np.inf else int(score.argmin())

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
        plan = self.plan[machine]
        warm = plan.is_warm(variant)
        load_s = plan.use(variant)
        if load_s or not warm:  # else it holds what it held
            self.loads[:, machine] = [plan.load_s(v) for v in self._variants]
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
        self.all_alive = False
        return lost

    def up(self, machines: list[int], now_s: float) -> list[Run]:
        runs = []
        for machine in machines:
            self.alive[machine] = True
            self.free_s[machine] = now_s + self.pending_s[machine]
            runs += self._next(machine, now_s)
        self.all_alive = bool(self.alive.all())
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


class LeastWork(Bound):
    """The least predicted backlog in seconds; on a tie the one that loads less."""

    def pick(self, task: int, now_s: float) -> tuple[int, int]:
        variant = self.s.variant[task]
        score = np.maximum(self.free_s - now_s, 0.0) + self.loads[variant] * 1e-6 - self.speed * 1e-9
        return self.best(score, variant), variant


class Chain(Bound):
    """Policies that choose a machine for a variant, and fall back where that would be late. Subclasses only place."""

    falls_back = True
    refuses = False
    soft_share = 1.0  # of the time to the deadline: what would be done later than that looks for a fallback

    def place(self, task: int, variant: int, now_s: float) -> int:
        """The machine that this policy would give the task to, as this variant."""
        raise NotImplementedError

    def pick(self, task: int, now_s: float) -> tuple[int, int] | None:
        """The first of the chain that is done by the soft instant; else the one that is done first, if by the deadline;
        else the variant that was asked for, or nothing."""
        asked, deadline_s = self.s.variant[task], self.s.deadline_s[task]
        if not self.falls_back and not self.refuses:
            return self.place(task, asked, now_s), asked
        soft_s = now_s + self.soft_share * (deadline_s - now_s)
        first: tuple[int, int] | None = None
        soonest: tuple[int, int] | None = None
        soonest_s = math.inf
        for variant in self.s.chains[asked] if self.falls_back else (asked,):
            machine = self.place(task, variant, now_s)
            if not self.alive[machine] or self.misfit[variant, machine]:  # nobody is up who holds it
                first = first or (machine, variant)
                continue
            done_s = self.done_s(task, variant, machine, now_s)
            if done_s <= soft_s:
                return machine, variant
            first = first or (machine, variant)
            if done_s < soonest_s:
                soonest, soonest_s = (machine, variant), done_s
        if soonest_s <= deadline_s:
            return soonest
        return None if self.refuses else first

    def done_s(self, task: int, variant: int, machine: int, now_s: float) -> float:
        """Predicted completion on one machine."""
        work_s = self.s.work_s(task, variant) / self.speed[machine]
        return float(max(self.free_s[machine], now_s) + self.loads[variant, machine] + work_s)


class JoinShortestQueue(Chain):
    """The shortest queue; on a tie the one that loads less, then the faster one."""

    falls_back = False

    def place(self, task: int, variant: int, now_s: float) -> int:  # noqa: ARG002
        return self.best(self.length + self.loads[variant] * 1e-6 - self.speed * 1e-9, variant)


class JoinShortestQueueFallback(JoinShortestQueue):
    falls_back = True


class JoinShortestQueueOrRefuse(JoinShortestQueueFallback):
    refuses = True


class PowerOfTwo(Chain):
    """Two at random, the shorter queue of them; on a tie the one that loads less."""

    falls_back = False

    def place(self, task: int, variant: int, now_s: float) -> int:  # noqa: ARG002
        able = self.able(variant)
        first, second = (int(able[int(draw * len(able))]) for draw in self.s.random.random(2))
        loads = self.loads[variant]
        return min((first, second), key=lambda m: (self.length[m], loads[m], -self.speed[m]))


class PowerOfTwoFallback(PowerOfTwo):
    """Draws two anew for every variant of the chain."""

    falls_back = True


class PowerOfTwoOrRefuse(PowerOfTwoFallback):
    refuses = True


class EarliestCompletion(Chain):
    """Backlog, load and execution; a fallback when the first choice would be late and the fallback would not."""

    def place(self, task: int, variant: int, now_s: float) -> int:
        return self.best(self.completion_s(task, variant, now_s), variant)


class EarliestCompletionOrRefuse(EarliestCompletion):
    """As `ect`, and refuses what it could not do in time: not a usual baseline, but what admission alone gives."""

    refuses = True


class EarliestCompletionSoft(EarliestCompletionOrRefuse):
    """As `ect_refuse`, and falls back as soon as the first choice would take more than half of the time that there is:
    the rule by which Rushes keeps room for those to come."""

    soft_share = SOFT_SHARE

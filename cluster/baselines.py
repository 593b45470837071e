"""The usual policies that Rushes' own is compared with, each tuned fairly.

Fair means: ties go to the accelerator that has the model; work is predicted by the same predictor; `ect` plans with
the exact sequence of loads and falls back when the first choice would be late; nobody knows true service times.
"""

import math
from collections import deque

import numpy as np

from cluster.situation import Run, Situation, Verdict


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

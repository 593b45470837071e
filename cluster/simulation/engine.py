"""A discrete-event simulation of a fleet under a policy, driven by a trace.

Here are the clock and the heap of what is to come. The policy alone decides; what really happens is elsewhere: how
long a run takes (`service`), what a load takes (`machine`), which pools die (`outages`), what was promised
(`promises`), what is written down (`report`). The loop is lean on purpose: a heap of tuples, lists of numbers, no
object per task. Decisions take simulated time: the router is one server that spends `decision_s` on each arrival, and
a freed machine waits that long.
"""

import heapq
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster.simulation.fleet import Fleet, load_fleet
from cluster.simulation.machine import machines_of
from cluster.simulation.outages import Change, Failure, PoolEvent, check_failures, pool_events
from cluster.simulation.policies import POLICIES, PolicyFactory
from cluster.simulation.policy_context import PolicyContext
from cluster.simulation.promises import Promises
from cluster.simulation.report import ON_TIME_SHARE, Outcome, Report, SpeedPoint, judge, measure, summarise
from cluster.simulation.service import TrueServiceTimes
from cluster.simulation.trace import ASSUMED_LOADS, ASSUMED_SERVICES, Trace, load_trace
from cluster.simulation.variants import variant_table
from schemas.errors import ConfigError

MOST_TASKS_FOR_SEARCH = 60_000
MOST_NOISE = 5.0
"""Beyond it a lognormal's mean is of no meaning."""
_FIRST_FORECASTS, _FORECASTS_A_COMPLETION = 5000, 3
"""When predictions change, everything inside is predicted anew, so often that no more than so many are made in all: a
backlog that never ends must not make that a square."""


@dataclass(frozen=True)
class SimulationConfig:
    """One call of the simulator. Paths or values for trace and fleet."""

    trace: Path | Trace
    fleet: Path | Fleet
    policy: str | PolicyFactory = "rushes"  # by name, or anything that makes one
    speed: float = 1.0
    seeds: int = 1
    decision_s: float = 1e-4
    failures: tuple[Failure, ...] = ()
    service_noise: float = 0.0  # lognormal, on top of the trace's exec_s
    search_lambda90: bool | None = None  # None: when the trace is small enough for a dozen runs


def simulate(config: SimulationConfig) -> Report:
    """Run the trace at `speed` with every seed, and look for λ90 unless told not to.

    Raises ConfigError for a file that cannot be read, an unknown policy, or a variant that fits no accelerator.
    """
    trace = config.trace if isinstance(config.trace, Trace) else load_trace(config.trace)
    fleet = config.fleet if isinstance(config.fleet, Fleet) else load_fleet(config.fleet)
    check(trace, fleet, config)
    ran = with_deadlines(trace.sped_up(config.speed), fleet)
    measures = [measure(ran, fleet, run(trace, fleet, config, seed)) for seed in range(config.seeds)]
    search = config.search_lambda90
    if search is None:
        search = len(trace) <= MOST_TASKS_FOR_SEARCH and not config.failures
    # Requests that all come at one instant come at every speed at that instant.
    points = lambda90(trace, fleet, config) if search and trace.span_s else ()
    name = config.policy if isinstance(config.policy, str) else getattr(config.policy, "__name__", "made to order")
    return summarise(name, config.speed, ran, trace.deadlines, fleet, measures, points)


def check(trace: Trace, fleet: Fleet, config: SimulationConfig) -> None:
    """Refuse what could never run, before it runs."""
    if isinstance(config.policy, str) and config.policy not in POLICIES:
        raise ConfigError(f"unknown policy {config.policy!r}; available: {', '.join(POLICIES)}")
    if not (math.isfinite(config.speed) and config.speed > 0 and math.isfinite(trace.span_s / config.speed)):
        raise ConfigError(f"speed is {config.speed}, not a finite number above 0 that leaves the trace a finite length")
    if config.seeds < 1:
        raise ConfigError(f"seeds is {config.seeds}, not at least 1")
    if not (math.isfinite(config.decision_s) and config.decision_s >= 0):
        raise ConfigError(f"decision_s is {config.decision_s}, not a finite number of seconds, at least 0")
    if not 0 <= config.service_noise <= MOST_NOISE:  # nan is refused, too
        raise ConfigError(f"noise is {config.service_noise}, not a number from 0 to {MOST_NOISE:g}")
    check_failures(config.failures, (pool.name for pool in fleet.pools))
    variants = variant_table(trace.names, fleet)
    machines = machines_of(fleet, variants)
    for number, name in enumerate(trace.names):
        if not any(machine.fits(number) for machine in machines):
            have = ", ".join(f"{pool.name} {pool.vram_gib:g}" for pool in fleet.pools if pool.count)
            needs_gib = variants.vram_gib[number]
            raise ConfigError(
                f"variant {name!r} fits no accelerator of the fleet: it needs {needs_gib:g} GiB, of {have}"
            )


def with_deadlines(trace: Trace, fleet: Fleet) -> Trace:
    """A trace in which nobody has a deadline gets the assumed allowance, the same for every policy; in any other a task
    without one is never late."""
    missing = np.isnan(trace.allowance_s)
    if not missing.any():
        return trace
    assumed_s = math.inf
    if missing.all():
        cold_s = max(pool.load_cold_s for pool in fleet.pools if pool.count)
        assumed_s = ASSUMED_LOADS * cold_s + ASSUMED_SERVICES * float(np.median(trace.exec_s))
    return replace(trace, allowance_s=np.where(missing, assumed_s, trace.allowance_s))


def run(trace: Trace, fleet: Fleet, config: SimulationConfig, seed: int, speed: float | None = None) -> Outcome:
    """One simulation: every task of the trace to its end. The same arguments give the same outcome."""
    trace = with_deadlines(trace.sped_up(config.speed if speed is None else speed), fleet)
    outcome = _Engine(trace, fleet, config, seed).run()
    judge(trace, outcome)
    return outcome


def lambda90(trace: Trace, fleet: Fleet, config: SimulationConfig) -> tuple[SpeedPoint, ...]:
    """On-time shares over speeds, refined around the highest speed at which 90 % are on time. Speeds rise."""
    shares: dict[float, float] = {}

    def share(speed: float) -> float:
        if speed not in shares:
            done = [run(trace, fleet, config, seed, speed).on_time_share for seed in range(min(config.seeds, 3))]
            shares[speed] = float(np.mean(done))
        return shares[speed]

    low, high = None, None
    speed = max(config.speed, 1e-3)
    for _ in range(24):
        if share(speed) >= ON_TIME_SHARE:
            low = speed
            if high is not None:
                break
            speed *= 1.6
        else:
            high = speed
            if low is not None:
                break
            speed /= 1.6
    if low is not None and high is not None:
        while high / low > 1.02:
            middle = (low * high) ** 0.5
            if share(middle) >= ON_TIME_SHARE:
                low = middle
            else:
                high = middle
    return tuple(SpeedPoint(speed, shares[speed]) for speed in sorted(shares))


class _Engine:
    """One run. What it keeps for itself is who runs where; all else is asked of others and told to them."""

    def __init__(self, trace: Trace, fleet: Fleet, config: SimulationConfig, seed: int) -> None:
        variants = variant_table(trace.names, fleet)
        self.arrival_s: list[float] = trace.arrival_s.tolist()
        self.decision_s = config.decision_s
        self.machines = machines_of(fleet, variants)
        self.members = {
            pool.name: [machine.number for machine in self.machines if machine.pool == place]
            for place, pool in enumerate(fleet.pools)
        }
        self.service = TrueServiceTimes(trace, variants, config.service_noise, seed)
        self.context = PolicyContext(trace, fleet, variants, self.machines, seed)
        make = POLICIES[config.policy] if isinstance(config.policy, str) else config.policy
        self.policy = make(self.context)
        self.promises = Promises(self.context)
        self.outcome = Outcome(len(trace), len(self.machines))
        self.pool_events = pool_events(config.failures)[::-1]  # the next one last
        self.heap: list[tuple[float, int, int, int]] = []  # (done, order, machine, its epoch)
        self.epoch = [0] * len(self.machines)
        self.task_on = [-1] * len(self.machines)
        self.order = 0
        self.interrupted_s: dict[int, float] = {}  # tasks that have not started again, and when their pool died
        self.inside = 0  # tasks that are admitted and not done
        self.told = 0  # the version of predictions that the policy plans with
        self.forecasts_left = _FIRST_FORECASTS

    def run(self) -> Outcome:
        """To the end of every task that ends."""
        arrivals, decision_s, heap = self.arrival_s, self.decision_s, self.heap
        number, tasks = 0, len(arrivals)
        began = time.perf_counter()
        next_s = arrivals[0] + decision_s if tasks else math.inf
        while True:
            pool_s = self.pool_events[-1].at_s if self.pool_events else math.inf
            heap_s = heap[0][0] if heap else math.inf
            if pool_s <= heap_s and pool_s <= next_s:
                if pool_s == math.inf:
                    break
                self._change(self.pool_events.pop())
            elif heap_s <= next_s:
                done_s, _, machine, epoch = heapq.heappop(heap)
                if epoch == self.epoch[machine]:
                    self._complete(machine, done_s)
            else:
                self._arrive(number, next_s)
                number += 1
                next_s = max(arrivals[number], next_s) + decision_s if number < tasks else math.inf
        self.outcome.wall_s = time.perf_counter() - began
        self.outcome.never_restarted = len(self.interrupted_s)
        return self.outcome

    def _arrive(self, task: int, now_s: float) -> None:
        verdict = self.policy.arrive(task, now_s, admitted=False)
        if verdict.admitted:
            self.inside += 1
            self.promises.make(task, self.arrival_s[task], verdict)
        else:
            self.outcome.refused[task] = True
        for run_ in verdict.runs:
            self._start(*run_, now_s)

    def _start(self, machine: int, task: int, variant: int, now_s: float) -> None:
        hardware, outcome = self.machines[machine], self.outcome
        if not hardware.alive:  # nobody knows yet; the task will be found with the machine
            return
        warm = hardware.is_warm(variant)
        load_s = hardware.use(variant)
        run_s = self.service.run_s(task, variant, hardware)
        outcome.start_s[task] = now_s
        outcome.load_s[task] = load_s
        outcome.run_s[task] = run_s
        outcome.machine[task] = machine
        outcome.variant[task] = variant
        if load_s:
            outcome.loads_warm += warm
            outcome.loads_cold += not warm
        if self.interrupted_s:
            died_s = self.interrupted_s.pop(task, math.nan)
            if died_s == died_s:
                outcome.restarted_after_s.append(now_s - died_s)
        self.task_on[machine] = task
        self.order += 1
        heapq.heappush(self.heap, (now_s + load_s + run_s, self.order, machine, self.epoch[machine]))

    def _complete(self, machine: int, now_s: float) -> None:
        task = self.task_on[machine]
        self.task_on[machine] = -1
        outcome, hardware = self.outcome, self.machines[machine]
        variant = outcome.variant[task]
        outcome.done_s[task] = now_s
        outcome.completions.append(task)
        self.inside -= 1
        if self.policy.learns:
            self.policy.completed(task, variant, machine, outcome.run_s[task], now_s)
        else:
            self._learn(task, variant, outcome.run_s[task] * hardware.speed, now_s)
        self.promises.judge(task, variant, hardware.speed, now_s, outcome, learn=not self.policy.learns)
        for run_ in self.policy.free(machine, now_s):
            self._start(*run_, now_s + self.decision_s)

    def _learn(self, task: int, variant: int, reference_s: float, now_s: float) -> None:
        self.forecasts_left += _FORECASTS_A_COMPLETION
        self.context.observe(task, variant, reference_s)
        version = self.context.times.version
        if version != self.told and self.inside <= self.forecasts_left:
            self.told = version
            self.forecasts_left -= self.inside
            self.policy.refitted(now_s)

    def _change(self, event: PoolEvent) -> None:
        numbers = self.members[event.pool]
        if event.change is Change.DIES:
            for machine in numbers:
                self.epoch[machine] += 1
                self.machines[machine].alive = False
                task, self.task_on[machine] = self.task_on[machine], -1
                if task >= 0:
                    self.outcome.wasted(task, machine, event.at_s - self.outcome.start_s[task])
        elif event.change is Change.MISSED:
            orphans = self.policy.down(numbers, event.at_s)
            if self.pool_events and self.pool_events[-1][:3] == (event.at_s, Change.BACK, event.pool):
                self._change(self.pool_events.pop())  # missed because it registered anew: what it had may go to it
            for task in orphans:
                self.outcome.interrupted.append(task)
                self.interrupted_s[task] = event.died_s
                self.promises.forget(task, learn=not self.policy.learns)
            for task in orphans:
                for run_ in self.policy.arrive(task, event.at_s, admitted=True).runs:
                    self._start(*run_, event.at_s)
        else:
            for machine in numbers:
                self.machines[machine].restarted()
            for run_ in self.policy.up(numbers, event.at_s):
                self._start(*run_, event.at_s)

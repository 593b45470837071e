"""A discrete-event simulation of a fleet under a policy, driven by a trace.

The event loop is lean on purpose: a heap of tuples, lists of numbers, no object per task. `rushes` runs the Dispatcher,
the routing, the projection and the ETA book that the endpoint runs; nothing here re-implements them. Decisions take
simulated time: the router is one server that spends `decision_s` on each arrival, and a freed machine waits that long.
"""

import heapq
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.eta import Eta, EtaBook
from cluster.fleet import Fleet, load_fleet
from cluster.machine import machines_of
from cluster.policies import POLICIES
from cluster.predictor import Predictor
from cluster.report import ON_TIME_SHARE, Outcome, Report, SpeedPoint, judge, measure, summarise
from cluster.situation import Situation
from cluster.trace import ASSUMED_LOADS, ASSUMED_SERVICES, Trace, load_trace
from schemas.errors import ConfigError

MOST_TASKS_FOR_SEARCH = 60_000
_FEW_INSIDE, _TOLD_A_COMPLETION = 5000, 5


@dataclass(frozen=True)
class Failure:
    """A pool of the fleet dies, and comes back (empty) if it does."""

    pool: str
    at_s: float
    back_s: float | None = None
    detected_after_s: float = 5.0


@dataclass(frozen=True)
class SimulationConfig:
    """One call of the simulator. Paths or values for trace and fleet."""

    trace: Path | Trace
    fleet: Path | Fleet
    policy: str = "rushes"
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
    points = lambda90(trace, fleet, config) if search else ()
    return summarise(config.policy, config.speed, trace, fleet, measures, points)


def check(trace: Trace, fleet: Fleet, config: SimulationConfig) -> None:
    """Refuse what could never run, before it runs."""
    if config.policy not in POLICIES:
        raise ConfigError(f"unknown policy {config.policy!r}; available: {', '.join(POLICIES)}")
    if config.speed <= 0 or config.seeds < 1:
        raise ConfigError(f"speed must be positive and seeds at least 1, not {config.speed} and {config.seeds}")
    pools = {pool.name for pool in fleet.pools}
    for failure in config.failures:
        if failure.pool not in pools:
            raise ConfigError(f"unknown pool {failure.pool!r}; available: {', '.join(sorted(pools))}")
    machines = machines_of(fleet, trace.names)
    for number, name in enumerate(trace.names):
        if not any(machine.fits(number) for machine in machines):
            needs = machines[0].sizes_gib[number]
            have = ", ".join(f"{pool.name} {pool.vram_gib:g}" for pool in fleet.pools)
            raise ConfigError(f"variant {name!r} fits no accelerator of the fleet: it needs {needs:g} GiB, of {have}")


def with_deadlines(trace: Trace, fleet: Fleet) -> Trace:
    """Tasks without a deadline get the assumed allowance, the same for every policy."""
    missing = np.isnan(trace.allowance_s)
    if not missing.any():
        return trace
    cold_s = max(pool.load_cold_s for pool in fleet.pools)
    assumed_s = ASSUMED_LOADS * cold_s + ASSUMED_SERVICES * float(np.median(trace.exec_s))
    return Trace(**{**trace.__dict__, "allowance_s": np.where(missing, assumed_s, trace.allowance_s)})


def run(trace: Trace, fleet: Fleet, config: SimulationConfig, seed: int, speed: float | None = None) -> Outcome:
    """One simulation: every task of the trace to its end. The same arguments give the same outcome."""
    trace = with_deadlines(trace.sped_up(config.speed if speed is None else speed), fleet)
    noise = np.random.default_rng((seed, 1)).normal(size=len(trace))
    exec_s: list[float] = (trace.exec_s * np.exp(config.service_noise * noise)).tolist()
    outcome = _Engine(trace, fleet, config, seed, exec_s).run()
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
    def __init__(self, trace: Trace, fleet: Fleet, config: SimulationConfig, seed: int, exec_s: list[float]) -> None:
        self.trace, self.fleet, self.config = trace, fleet, config
        self.machines = machines_of(fleet, trace.names)
        self.predictor = Predictor(trace)
        self.situation = Situation(trace, fleet, self.machines, self.predictor, seed)
        self.policy = POLICIES[config.policy](self.situation)
        self.exec_s = exec_s
        tasks = len(trace)
        self.outcome = Outcome(tasks, len(self.machines))
        self.heap: list[tuple[float, int, int, int]] = []  # (done, order, machine, its epoch)
        self.epoch = [0] * len(self.machines)
        self.task_on = [-1] * len(self.machines)
        self.order = 0
        self.etas: dict[int, tuple[float, Eta]] = {}
        self.book = EtaBook()
        self.inside = 0  # tasks that are admitted and not done
        self.refitted = False  # since the policy was told of it last …
        self.completed = 0  # … and completions since then

    def run(self) -> Outcome:
        trace, outcome, decision_s = self.trace, self.outcome, self.config.decision_s
        arrivals: list[float] = trace.arrival_s.tolist()
        specials = sorted(
            [(failure.at_s, 0, index) for index, failure in enumerate(self.config.failures)]
            + [(f.at_s + f.detected_after_s, 1, index) for index, f in enumerate(self.config.failures)]
            + [(f.back_s, 2, index) for index, f in enumerate(self.config.failures) if f.back_s is not None],
            reverse=True,
        )
        heap, number, tasks = self.heap, 0, len(arrivals)
        router_s = 0.0  # the router is busy until then
        began = time.perf_counter()
        next_s = arrivals[0] + decision_s if tasks else float("inf")
        while True:
            special_s = specials[-1][0] if specials else float("inf")
            heap_s = heap[0][0] if heap else float("inf")
            if special_s <= heap_s and special_s <= next_s:
                if special_s == float("inf"):
                    break
                self._special(*specials.pop())
            elif heap_s <= next_s:
                done_s, _, machine, epoch = heapq.heappop(heap)
                if epoch == self.epoch[machine]:
                    self._complete(machine, done_s)
            else:
                self._arrive(number, next_s, arrivals[number], admitted=False)
                router_s = next_s
                number += 1
                next_s = max(arrivals[number], router_s) + decision_s if number < tasks else float("inf")
        outcome.wall_s = time.perf_counter() - began
        return outcome

    def _arrive(self, task: int, now_s: float, arrival_s: float, *, admitted: bool) -> None:
        admitted_s, forecast_s, work_s, runs = self.policy.arrive(task, now_s, admitted=admitted)
        if not admitted_s:
            self.outcome.refused[task] = True
            return
        self.inside += not admitted
        if forecast_s == forecast_s and not admitted:
            sigma = self.predictor.sigma(self.situation.variant[task])
            eta = self.book.admit(forecast_s - arrival_s, work_s, sigma)
            self.etas[task] = (arrival_s, eta)
        for run_ in runs:
            self._start(*run_, now_s)

    def _start(self, machine: int, task: int, variant: int, now_s: float) -> None:
        hardware, situation, outcome = self.machines[machine], self.situation, self.outcome
        if not hardware.alive:  # nobody knows yet; the task will be found with the machine
            return
        before = variant in hardware.cache
        load_s = hardware.use(variant)
        own = situation.variant[task]
        seconds = self.exec_s[task] / hardware.speed
        if variant != own:
            seconds *= situation.factor[variant] / situation.factor[own]
            outcome.downgraded[task] = True
        outcome.start_s[task] = now_s
        outcome.load_s[task] = load_s
        outcome.run_s[task] = seconds
        outcome.machine[task] = machine
        outcome.variant[task] = variant
        if load_s:
            outcome.loads_warm += before
            outcome.loads_cold += not before
        self.task_on[machine] = task
        self.order += 1
        heapq.heappush(self.heap, (now_s + load_s + seconds, self.order, machine, self.epoch[machine]))

    def _complete(self, machine: int, now_s: float) -> None:
        task = self.task_on[machine]
        self.task_on[machine] = -1
        outcome, situation = self.outcome, self.situation
        outcome.done_s[task] = now_s
        outcome.completions.append(task)
        hardware = self.machines[machine]
        own, used = situation.variant[task], outcome.variant[task]
        reference_s = outcome.run_s[task] * hardware.speed * situation.factor[own] / situation.factor[used]
        self.inside -= 1
        self.completed += 1
        self.refitted |= self.predictor.observe(task, reference_s)
        # Telling costs a prediction for every task inside: a backlog that never ends must not make that a square.
        if self.refitted and self.inside <= _FEW_INSIDE + _TOLD_A_COMPLETION * self.completed:
            self.refitted, self.completed = False, 0
            self.policy.refitted(now_s)
        known = self.etas.pop(task, None)
        if known is not None:
            said_s, eta = known
            outcome.estimate_s[task] = eta.estimate_s
            outcome.p90_s[task] = eta.p90_s
            outcome.raw_s[task] = eta.raw_s
            outcome.own_s[task] = eta.own_s
            own_now_s = situation.work_s(task, used) / hardware.speed
            self.book.complete(eta, now_s - said_s, own_now_s)
        for run_ in self.policy.free(machine, now_s):
            self._start(*run_, now_s + self.config.decision_s)

    def _special(self, at_s: float, kind: int, index: int) -> None:
        failure = self.config.failures[index]
        place = next(i for i, pool in enumerate(self.fleet.pools) if pool.name == failure.pool)
        numbers = [machine.number for machine in self.machines if machine.pool == place]
        if kind == 0:
            for machine in numbers:
                self.epoch[machine] += 1
                self.machines[machine].alive = False
                if self.task_on[machine] >= 0:
                    task = self.task_on[machine]
                    spent_s = at_s - self.outcome.start_s[task]
                    self.outcome.wasted(task, machine, spent_s)
                    self.task_on[machine] = -1
        elif kind == 1:
            self.outcome.killed_s = failure.at_s
            for task in self.policy.down(numbers, at_s):
                self.outcome.interrupted.append(task)
                self.etas.pop(task, None)
                self._arrive(task, at_s, float(self.trace.arrival_s[task]), admitted=True)
        else:
            for machine in numbers:
                self.machines[machine].alive = True
                self.machines[machine].resident.clear()
            for run_ in self.policy.up(numbers, at_s):
                self._start(*run_, at_s)

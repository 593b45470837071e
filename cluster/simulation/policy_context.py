"""What a simulated policy is shown and what it answers."""

from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from cluster.cost.service_times import CostKey, Prediction, ServiceTimes
from cluster.scheduling.eta import Eta
from cluster.simulation.fleet import Fleet
from cluster.simulation.machine import Machine
from cluster.simulation.trace import Trace
from cluster.simulation.trace_prior import TracePrior
from cluster.simulation.variants import VariantTable


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
    eta: Eta | None = None  # what it was promised, by a policy that promises itself


class Policy(Protocol):
    """What the simulator drives. Machines are shared with it: read them, do not change them."""

    learns: bool
    """Whether it observes completions and judges its promises itself (`completed`); else the engine does for it."""

    def completed(self, task: int, variant: int, machine: int, run_s: float, now_s: float) -> None: ...

    def arrive(self, task: int, now_s: float, *, admitted: bool) -> Verdict: ...
    def free(self, machine: int, now_s: float) -> list[Run]: ...
    def down(self, machines: list[int], now_s: float) -> list[int]: ...
    def up(self, machines: list[int], now_s: float) -> list[Run]: ...
    def refitted(self, now_s: float) -> None:
        """Predictions have changed: what is planned is worth planning again."""
        ...


def own_name(name: str) -> str:
    """To routing `auto` is no variant; in a trace it is one like any other."""
    return "(auto)" if name == "auto" else name


class PolicyContext:
    """What every policy may know. All predict by one class, the endpoint's."""

    def __init__(self, trace: Trace, fleet: Fleet, variants: VariantTable, machines: list[Machine], seed: int) -> None:
        self.trace, self.fleet, self.variants, self.machines = trace, fleet, variants, machines
        self.variant: list[int] = trace.variant.tolist()  # the one that each task asks for
        self.deadline_s: list[float] = (trace.arrival_s + trace.allowance_s).tolist()
        self.random = np.random.default_rng(seed)
        self.names, self.factor = tuple(map(own_name, variants.names)), variants.time_factor
        fits = [any(machine.fits(number) for machine in machines) for number in range(len(self.names))]
        self.chains = [tuple(number for number in chain if fits[number]) for chain in variants.chains]
        prior = TracePrior(replace(trace, names=self.names), variants.time_factor)
        self.times = ServiceTimes(prior)
        self.configuration = prior.configurations
        self.tenant = [trace.tenants[code] for code in trace.tenant.tolist()]
        self._own_keys: list[CostKey | None] = [None] * len(trace)
        self._asked = -1  # a decision asks of one task many times
        self._answers: dict[int, float] = {}
        self._spreads: dict[int, float] = {}

    def predict(self, task: int, variant: int) -> Prediction:
        """Of the task, rendered by `variant` on the reference accelerator."""
        return self.times.predict(self._key(task, variant), self.tenant[task])

    def work_s(self, task: int, variant: int) -> float:
        """The mean of `predict`."""
        if task != self._asked:
            self._asked, self._answers, self._spreads = task, {}, {}
        seconds = self._answers.get(variant)
        if seconds is None:
            found = self.predict(task, variant)
            seconds = self._answers[variant] = found.seconds
            self._spreads[variant] = found.sigma
        return seconds

    def spread(self, task: int, variant: int) -> float:
        """Of the logarithm of the seconds around `predict`."""
        self.work_s(task, variant)
        return self._spreads[variant]

    def observe(self, task: int, variant: int, reference_s: float) -> None:
        """The task has completed as `variant`, which would have taken so long on the reference accelerator."""
        self._asked = -1
        self.times.observe(self._key(task, variant), reference_s, self.tenant[task])

    def _key(self, task: int, variant: int) -> CostKey:
        if variant != self.variant[task]:
            return CostKey(self.names[variant], "", self.configuration[task])
        key = self._own_keys[task]
        if key is None:
            key = self._own_keys[task] = CostKey(self.names[variant], "", self.configuration[task])
        return key

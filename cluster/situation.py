"""What a simulated policy is shown and what it answers."""

from typing import NamedTuple, Protocol

import numpy as np

from cluster.fleet import Fleet
from cluster.machine import Machine
from cluster.predictor import Predictor
from cluster.trace import Trace


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

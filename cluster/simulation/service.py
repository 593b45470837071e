"""What really happens to a task on an accelerator: how long a run takes, which no policy is told beforehand."""

import numpy as np

from cluster.simulation.machine import Machine
from cluster.simulation.trace import Trace
from cluster.simulation.variants import VariantTable


class TrueServiceTimes:
    """True service seconds: the trace's, scattered by a lognormal of `noise` that depends on nothing but the seed."""

    def __init__(self, trace: Trace, variants: VariantTable, noise: float, seed: int) -> None:
        luck = np.random.default_rng((seed, 1)).normal(size=len(trace))
        self.reference_s: list[float] = (trace.exec_s * np.exp(noise * luck)).tolist()
        self._asked: list[int] = trace.variant.tolist()
        self._factor = variants.time_factor

    def run_s(self, task: int, variant: int, machine: Machine) -> float:
        """Without loading."""
        seconds = self.reference_s[task] / machine.speed
        asked = self._asked[task]
        return seconds if variant == asked else seconds * self._factor[variant] / self._factor[asked]

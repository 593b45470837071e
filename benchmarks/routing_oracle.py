"""What somebody would do who knows how long every task takes and when a pool is going to die.

It is `ect_soft` with both: it places nothing on an accelerator that dies before the task would be done, so that nothing
is interrupted. It does not plan arrivals that are yet to come.
"""

import numpy as np

from cluster.simulation.baselines import EarliestCompletionSoft
from cluster.simulation.outages import Failure
from cluster.simulation.policies import PolicyFactory
from cluster.simulation.policy_context import PolicyContext
from cluster.simulation.trace import Trace


class _Truth(PolicyContext):
    true_s: list[float]

    def work_s(self, task: int, variant: int) -> float:
        return self.true_s[task] * self.factor[variant] / self.factor[self.variant[task]]


class _Oracle(EarliestCompletionSoft):
    dies_s: "np.ndarray[tuple[int], np.dtype[np.float64]]"

    def completion_s(self, task: int, variant: int, now_s: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        completion_s = super().completion_s(task, variant, now_s)
        return np.where(completion_s > self.dies_s, np.inf, completion_s)


def oracle(trace: Trace, failure: Failure) -> PolicyFactory:
    """The policy for a run of this trace without service noise, in which the pool dies for good."""

    true_s: list[float] = trace.exec_s.tolist()

    def make(context: PolicyContext) -> _Oracle:
        knowing = _Truth(context.trace, context.fleet, context.variants, context.machines, seed=0)
        knowing.true_s = true_s
        policy = _Oracle(knowing)
        doomed = [context.fleet.pools[machine.pool].name == failure.pool for machine in context.machines]
        policy.dies_s = np.where(doomed, failure.at_s, np.inf)
        return policy

    return make

"""What a policy's forecasts become for a client: an estimate and a bound, frozen at admission, judged at completion."""

from cluster.scheduling.eta import Eta, EtaEstimator
from cluster.simulation.policy_context import PolicyContext, Verdict
from cluster.simulation.report import Outcome


class Promises:
    """The estimator that the endpoint uses, over a policy's forecasts. A policy that makes none promises nothing."""

    def __init__(self, context: PolicyContext) -> None:
        self._context = context
        self._estimator = EtaEstimator()
        self._made: dict[int, tuple[float, Eta]] = {}

    def make(self, task: int, arrival_s: float, verdict: Verdict) -> None:
        """The task was admitted."""
        if verdict.eta is not None:
            self._made[task] = (arrival_s, verdict.eta)
        elif verdict.forecast_s == verdict.forecast_s:
            sigma = self._context.predict(task, self._context.variant[task]).sigma
            eta = self._estimator.promise(verdict.forecast_s - arrival_s, verdict.work_s, sigma)
            self._estimator.admitted(eta)
            self._made[task] = (arrival_s, eta)

    def judge(
        self, task: int, variant: int, speed: float, now_s: float, outcome: Outcome, *, learn: bool = True
    ) -> None:
        """The task is done, as `variant` on an accelerator of this speed: write down what was said, and learn from it
        unless the policy does so itself."""
        made = self._made.pop(task, None)
        if made is None:
            return
        arrival_s, eta = made
        outcome.estimate_s[task] = eta.estimate_s
        outcome.p90_s[task] = eta.p90_s
        outcome.raw_s[task] = eta.raw_s
        outcome.own_s[task] = eta.own_s
        if learn:
            self._estimator.completed(eta, now_s - arrival_s, self._context.work_s(task, variant) / speed)

    def forget(self, task: int, *, learn: bool = True) -> None:
        """The task lost its accelerator: what was said of it is not judged."""
        made = self._made.pop(task, None)
        if made is not None and learn:
            self._estimator.withdrawn(made[1])

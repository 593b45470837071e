"""What a fleet with a backlog thinks of a candidate: seconds of capacity have a price, predictions a margin."""

import math
from collections.abc import Callable
from typing import NamedTuple

from cluster.routing.terms import PoolView, RoutingRequest
from cluster.scheduling.policy_config import PolicyConfig
from cluster.scheduling.pools import PlannedPool

Spread = Callable[[PoolView, RoutingRequest], float]
"""Spread of the logarithm of a task's seconds on a pool around what `Estimate` says."""


WorkAhead = Callable[[PlannedPool], float]
"""Of what a task waits for where it would go, the predicted work: without loads, whose seconds are known."""


class BacklogValuation(NamedTuple):
    """Of one task (`cluster.routing.router.Valuation`)."""

    config: PolicyConfig
    spread: Spread
    price_per_s: float  # of a reference second of capacity, in tasks rendered as asked and in time
    allowed_s: float
    deviations: float
    usual_s: float
    # The share of predicted work that may turn out not to be: refusing in doubt is a mistake that teaches nothing.
    discount: float = 0.0
    work_ahead_s: WorkAhead = lambda pool: 0.0

    def margin_s(self, pool: PoolView, request: RoutingRequest, wait_s: float, execution_s: float) -> float:
        """How long before the deadline a prediction must end for the deadline to be likely enough; below 0 where
        predictions are so doubtful that they may end after it."""
        assert isinstance(pool, PlannedPool)
        if self.discount:
            return -self.discount * (self.work_ahead_s(pool) + execution_s)
        return self._deviation_s(pool, request, wait_s, execution_s, self.deviations)

    def protected_s(self, pool: PoolView, request: RoutingRequest, wait_s: float, execution_s: float) -> float:
        """… when others are put ahead of it after it was admitted."""
        assert isinstance(pool, PlannedPool)
        return self._deviation_s(pool, request, wait_s, execution_s, self.config.protection)

    def _deviation_s(
        self, pool: PlannedPool, request: RoutingRequest, wait_s: float, execution_s: float, deviations: float
    ) -> float:
        if not deviations:
            return 0.0
        # What waits ahead are many tasks of the usual size, whose errors average out.
        squares = execution_s * execution_s + max(0.0, wait_s) * self.usual_s / pool.speed
        return deviations * self.spread(pool, request) * math.sqrt(squares)

    def worth(self, pool: PoolView, quality: float, wait_s: float, execution_s: float) -> float:
        """Of rendering it there, with such a share of the quality that was asked for."""
        assert isinstance(pool, PlannedPool)
        config = self.config
        seconds = wait_s + execution_s
        if self.discount:
            seconds -= config.candour * self.discount * (self.work_ahead_s(pool) + execution_s)
        used = seconds / self.allowed_s
        squared = used * used
        occupied_s = execution_s + config.load_share * pool.turn().load_s
        cost = self.price_per_s * occupied_s * pool.speed
        return quality - cost - config.delay_weight * used - config.risk_weight * squared * squared

    def declines(self, pool: PoolView, quality: float, execution_s: float) -> bool:
        """Whether even the best that could be done is better not done."""
        assert isinstance(pool, PlannedPool)
        return quality < self.config.refusal_share * self.price_per_s * execution_s * pool.speed


def valuation(
    config: PolicyConfig,
    spread: Spread,
    wait_s: float,
    allowed_s: float,
    usual_s: float,
    doubt: float = 0.0,
    work_ahead_s: WorkAhead = lambda pool: 0.0,
) -> BacklogValuation:
    """`wait_s` is the mean backlog of the replicas, `allowed_s` the time to the task's deadline, `usual_s` what a usual
    task takes on the reference accelerator, and `doubt` by how much all predictions may be off (log seconds)."""
    allowed_s = max(1e-3, allowed_s)
    discount = 1.0 - math.exp(-config.optimism * doubt)
    if discount < _LEAST_DISCOUNT:
        discount = 0.0
    pressure = min(1.0, (1.0 - config.candour * discount) * wait_s / allowed_s)
    price_per_s = config.price * pressure**config.price_power / usual_s if usual_s else 0.0
    # An idle fleet loses nothing by trying.
    deviations = config.confidence * min(1.0, 4 * pressure)
    return BacklogValuation(config, spread, price_per_s, allowed_s, deviations, usual_s, discount, work_ahead_s)


_LEAST_DISCOUNT = 0.1
"""Less is within what predictions are off by anyway."""

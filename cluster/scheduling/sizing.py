"""How many replicas each variant of the endpoint gets: demand against loads and limits, with hysteresis.

Pure and without memory: the same demands give the same sizes, and sizes that were taken over are given again. A
variant wants

    (arriving + backlog / horizon) / utilisation        horizon = max(drain_s, load_s)

replicas: a replica that loads for longer than the backlog lasts would come too late to help. It gives replicas back
only where a lower utilisation would still be kept without them, and the last one only after idling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VariantDemand:
    """What one variant is asked for, and has. Seconds of work are those of one replica, i.e. GPU-seconds / `gpus`."""

    name: str
    backlog_s: float = 0.0  # predicted seconds of everything that waits or runs
    arriving: float = 0.0  # predicted seconds of work that arrive a second, lately: 2.0 keeps two replicas busy
    load_s: float = 0.0  # until a new replica can work
    replicas: int = 0  # that are up or coming up
    idle_s: float = 0.0  # since the last work was done; 0 while there is some
    waited_s: float = 0.0  # how long its oldest waiting task has waited
    gpus: float = 1.0  # that one replica holds
    minimum: int = 0
    maximum: int = 1

    def __post_init__(self) -> None:
        seconds = (self.backlog_s, self.arriving, self.load_s, self.idle_s, self.waited_s, self.gpus)
        if not all(0 <= value < math.inf for value in seconds):
            raise ValueError(f"{self}: seconds and GPUs must be finite and at least 0")
        if self.replicas < 0 or not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"{self}: want 0 ≤ minimum ≤ maximum and replicas ≥ 0")


@dataclass(frozen=True, slots=True)
class SizingOptions:
    """How eager sizing is."""

    utilisation: float = 0.75  # busy share of the replicas beyond which one is added
    low_utilisation: float = 0.5  # … below which one is given back
    drain_s: float = 30.0  # a backlog is to be gone by then
    idle_s: float = 120.0  # after so long without work a variant goes to its minimum
    idle_loads: float = 4.0  # … and not before so many of its own load times
    patience_s: float = 60.0  # waiting for so long weighs as much as a whole replica of demand
    keep: float = 1.25  # where GPUs are short, what is loaded counts this much more

    def __post_init__(self) -> None:
        if not 0 < self.low_utilisation <= self.utilisation <= 1 or self.keep < 1:
            raise ValueError(f"{self}: want 0 < low_utilisation ≤ utilisation ≤ 1 and keep ≥ 1")
        if min(self.drain_s, self.patience_s) <= 0 or min(self.idle_s, self.idle_loads) < 0:
            raise ValueError(f"{self}: drain_s and patience_s must be positive, idle_s and idle_loads at least 0")


@dataclass(frozen=True, order=True)
class _Claim:
    """One variant's claim to its `nth` replica; the smallest is granted first."""

    tier: int
    pressure: float  # negative: the most pressing first
    name: str
    nth: int
    demand: VariantDemand = field(compare=False)


def size(demands: Sequence[VariantDemand], gpus: float, options: SizingOptions = SizingOptions()) -> dict[str, int]:
    """Replicas by variant, for all of `demands`.

    - Never above a variant's `maximum`; together never above `gpus`, where they hold GPUs at all.
    - Never below a variant's `minimum`, unless the minima together ask for more GPUs than there are.
    - A variant with a backlog gets at least one, as long as there are GPUs for that; those who wait longest go first.
    - Feeding the answer back in as `replicas` with the same demands gives the same answer.
    - Where GPUs are short they go, one by one, to the variant with the most demand a replica.

    The order of the demands does not matter. ValueError for two of one name.
    """
    if len({demand.name for demand in demands}) < len(demands):
        raise ValueError(f"variants must differ: {', '.join(sorted(demand.name for demand in demands))}")
    sizes = {demand.name: 0 for demand in demands}
    free = gpus
    for claim in sorted(claim for demand in demands for claim in _claims(demand, options)):
        # A claim that did not fit has left less than one replica's GPUs: the variant's next ones do not fit either.
        if claim.demand.gpus <= free + 1e-9:
            sizes[claim.name] += 1
            free -= claim.demand.gpus
    return sizes


def wanted(demand: VariantDemand, options: SizingOptions = SizingOptions()) -> tuple[int, int]:
    """(least, most) replicas that would do, were there GPUs enough: below the least one is added, above the most one
    is given back, between them nothing changes."""
    idle_s = max(options.idle_s, options.idle_loads * demand.load_s)
    idle = demand.backlog_s <= 0 and demand.idle_s >= idle_s
    # From nothing it starts for work that is there, not for a rate that is still fading.
    if idle or (demand.backlog_s <= 0 and not demand.replicas and not demand.minimum):
        return demand.minimum, demand.minimum
    work = _work(demand, options)
    least, most = (
        max(1, demand.minimum, math.ceil(work / share - 1e-9))
        for share in (options.utilisation, options.low_utilisation)
    )
    return min(least, demand.maximum), min(most, demand.maximum)


def _work(demand: VariantDemand, options: SizingOptions) -> float:
    return demand.arriving + demand.backlog_s / max(options.drain_s, demand.load_s)


def _claims(demand: VariantDemand, options: SizingOptions) -> list[_Claim]:
    least, most = wanted(demand, options)
    work = _work(demand, options)
    claims = []
    for nth in range(1, max(least, min(demand.replicas, most)) + 1):
        pressure = work / nth
        if nth <= demand.minimum:
            tier = 0
        elif nth == 1 and demand.backlog_s > 0:
            tier = 1
            pressure += demand.waited_s / options.patience_s
        else:
            tier = 2 if nth <= least else 3
        if nth <= demand.replicas:
            pressure *= options.keep
        claims.append(_Claim(tier, -pressure, demand.name, nth, demand))
    return claims

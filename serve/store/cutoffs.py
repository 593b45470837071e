"""How old rows may grow, and how many were pruned for their age."""

import math
from dataclasses import dataclass

BATCH_NOTES = ("batch/", "bulk/", "bulk-held/")
"""Notes of these names and a batch's id are that batch's, and go with it."""


@dataclass(frozen=True)
class Cutoffs:
    """What is older than its instant is pruned; -inf: nothing."""

    idempotency: float = -math.inf  # by when the key was used first
    deliveries: float = -math.inf  # by when it was delivered, or given up
    router_decisions: float = -math.inf
    tasks: float = -math.inf  # by their end, as with batches
    batches: float = -math.inf
    audit: float = -math.inf  # by when it happened: from the beginning of the log, up to the first that is young


@dataclass(frozen=True)
class Pruned:
    """How many rows."""

    idempotency: int = 0
    deliveries: int = 0
    router_decisions: int = 0
    tasks: int = 0
    batches: int = 0
    audit: int = 0

    @property
    def total(self) -> int:
        return sum(vars(self).values())

"""The pools of a planner, as routing sees them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.scheduling.replica_queue import Turn
from schemas.catalog import Variant


class Turns(Protocol):
    """Who knows where the task that is being routed would go."""

    def turns(self, variant: int) -> Mapping[str, Turn]:
        """By accelerator, were it rendered by `variant`."""
        ...


@dataclass(frozen=True)
class AcceleratorGroup:
    """Replicas of one accelerator type: what routing must know of them."""

    accelerator: str
    price_usd_per_hour: float = 0.0
    vram_gib: float = 0.0
    speed: float = 1.0  # times the accelerator that it is predicted by
    predicted_as: str | None = None  # another accelerator, by whose seconds it is predicted; None: by its own


class PlannedPool:
    """A variant on a group, as routing sees it."""

    __slots__ = (
        "_owner", "accelerator", "group", "healthy", "name", "number", "price_usd_per_hour", "speed", "variant"
    )  # fmt: skip

    def __init__(self, owner: Turns, variant: Variant, number: int, group: AcceleratorGroup) -> None:
        self._owner = owner
        self.variant = variant
        self.number = number
        self.group = group
        self.accelerator = group.accelerator
        self.speed = group.speed
        self.name = f"{variant.name}/{group.accelerator}"
        self.healthy = True
        # The variant's own price, or that of the accelerators.
        self.price_usd_per_hour = variant.price_usd_per_gpu_hour or group.price_usd_per_hour

    @property
    def vram_gib(self) -> float:
        return self.group.vram_gib

    def turn(self) -> Turn:
        """Where the task that is being routed would go here."""
        return self._owner.turns(self.number).get(self.accelerator, _NEVER)

    def start_s(self, now_s: float) -> float:  # noqa: ARG002  (the planner has been asked for this instant)
        return self.turn().start_s


_NEVER = Turn(math.inf, -1, math.inf, math.inf)

"""What is known of a served variant here, and what its replica costs before it is there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.timeline import FixedMemory
from schemas.catalog import Catalog, Variant
from serve.config import ServeConfig

_ARRIVALS_S = 60.0


class ColdMemory(FixedMemory):
    """A replica that is not there yet: its first task waits for the load."""

    def __init__(self, variant: int, start_s: float) -> None:
        super().__init__(variant)
        self.start_s = start_s

    def load_s(self, variant: int) -> float:
        return self.start_s if variant == self.variant else math.inf

    def use(self, variant: int) -> float:
        load_s, self.start_s = self.load_s(variant), 0.0
        return load_s

    def copy(self) -> "ColdMemory":
        return ColdMemory(self.variant, self.start_s)


@dataclass
class Kind:
    """What is known of a variant here."""

    variant: Variant
    accelerator: str
    start_s: float
    target: int = 0
    asked_at: float | None = None  # since when a replica is being started
    failures: int = 0
    last_failure: str = ""
    down_until: float = 0.0
    worked_at: float = 0.0  # never, so far: what nobody asks for need not stay loaded
    arriving: float = 0.0  # seconds of work a second, fading
    arrived_at: float = 0.0
    placeholder: bool = False
    failed_at: list[float] = field(default_factory=list)

    def asked(self, work_s: float, now: float) -> None:
        """Work has arrived."""
        self.arriving = self.arriving_at(now) + work_s / _ARRIVALS_S
        self.arrived_at = now

    def arriving_at(self, now: float) -> float:
        return self.arriving * math.exp((self.arrived_at - now) / _ARRIVALS_S)


def limits_of(config: ServeConfig, served: Catalog, name: str) -> tuple[int, int]:
    """(least, most) replicas of a variant; the first served one stays up. Names in the config may be aliases."""

    def said(table: dict[str, int], default: int) -> int:
        return next(
            (n for alias, n in table.items() if (v := served.find(alias)) is not None and v.name == name), default
        )

    least = said(config.pools.min_replicas, 1 if name == next(iter(served.variants)) else 0)
    return least, max(least, said(config.pools.max_replicas, 1))


def accelerator_for(variant: Variant, accelerators: Sequence[str]) -> str:
    """The type that a variant's replicas are on, of those that there are."""
    if not variant.needs.gpus:
        return "cpu"
    named = variant.needs.accelerator_type
    if named in accelerators:
        return str(named)
    return next((name for name in accelerators if name != "cpu"), "cpu")

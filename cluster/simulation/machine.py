"""A simulated accelerator: what is resident in its memory, what its host keeps, and what a load takes."""

import math

from cluster.simulation.fleet import Fleet, FleetPool
from cluster.simulation.variants import VariantTable


class Machine:
    """One accelerator of a simulated fleet. Weights are evicted least recently used first."""

    __slots__ = (
        "alive",
        "cache",
        "cache_gib",
        "cache_models",
        "cold_s",
        "number",
        "pool",
        "resident",
        "sizes_gib",
        "speed",
        "vram_gib",
        "warm_s",
        "weights",
    )

    def __init__(self, number: int, pool: int, kind: FleetPool, variants: VariantTable) -> None:
        self.number = number
        self.pool = pool
        self.speed = kind.speed
        self.vram_gib = kind.vram_gib or float("inf")
        self.warm_s = kind.load_warm_s
        self.cold_s = kind.load_cold_s
        self.cache_models = kind.host_cache
        self.cache_gib = kind.host_cache_gib
        self.sizes_gib = variants.vram_gib
        self.weights = variants.weights
        self.resident: dict[int, float] = {}  # weights and their GiB, the last ones used last
        self.cache: dict[int, float] = {}  # the same, in the host's memory
        self.alive = True

    def fits(self, variant: int) -> bool:
        return self.sizes_gib[variant] <= self.vram_gib

    def load_s(self, variant: int) -> float:
        """What starting a task of `variant` would take in loading, as things are."""
        weights = self.weights[variant]
        if weights in self.resident:
            return 0.0
        if self.sizes_gib[variant] > self.vram_gib:
            return math.inf
        return self.warm_s if weights in self.cache else self.cold_s

    def is_warm(self, variant: int) -> bool:
        """Whether the host keeps the variant's weights."""
        return self.weights[variant] in self.cache

    def use(self, variant: int) -> float:
        """Make `variant` resident; returns the seconds that it takes."""
        seconds = self.load_s(variant)
        weights, needs_gib = self.weights[variant], self.sizes_gib[variant]
        if self.resident.pop(weights, None) is None:
            while self.resident and not self._room_for(needs_gib):
                del self.resident[next(iter(self.resident))]
        self.resident[weights] = needs_gib
        if self.cache_models or self.cache_gib:
            self._remember(weights, needs_gib)
        return seconds

    def restarted(self) -> None:
        """It is back after an outage; the host still has its memory."""
        self.alive = True
        self.resident.clear()

    def copy(self) -> "Machine":
        """A machine to plan with."""
        twin = object.__new__(Machine)
        for name in Machine.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.resident, twin.cache = dict(self.resident), dict(self.cache)
        return twin

    def _room_for(self, needs_gib: float) -> bool:
        if not needs_gib:  # a model of unknown size fills its accelerator
            return False
        return sum(held_gib or self.vram_gib for held_gib in self.resident.values()) + needs_gib <= self.vram_gib

    def _remember(self, weights: int, size_gib: float) -> None:
        self.cache.pop(weights, None)
        self.cache[weights] = size_gib
        while self.cache_models and len(self.cache) > self.cache_models:
            del self.cache[next(iter(self.cache))]
        while self.cache_gib and len(self.cache) > 1 and sum(self.cache.values()) > self.cache_gib:
            del self.cache[next(iter(self.cache))]


def machines_of(fleet: Fleet, variants: VariantTable) -> list[Machine]:
    """The fleet's machines, all empty."""
    machines: list[Machine] = []
    for place, kind in enumerate(fleet.pools):
        for _ in range(kind.count):
            machines.append(Machine(len(machines), place, kind, variants))
    return machines

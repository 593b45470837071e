"""A simulated accelerator: what is resident in its memory, what its host keeps, and what a load takes."""

import math

from cluster.fleet import Fleet, FleetPool


class Machine:
    """One accelerator of a simulated fleet. Models are evicted least recently used first."""

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
    )

    def __init__(self, number: int, pool: int, kind: FleetPool, sizes_gib: list[float]) -> None:
        self.number = number
        self.pool = pool
        self.speed = kind.speed
        self.vram_gib = kind.vram_gib or float("inf")
        self.warm_s = kind.load_warm_s
        self.cold_s = kind.load_cold_s
        self.cache_models = kind.host_cache
        self.cache_gib = kind.host_cache_gib
        self.sizes_gib = sizes_gib
        self.resident: list[int] = []  # variants, the last one used last
        self.cache: list[int] = []
        self.alive = True

    def fits(self, variant: int) -> bool:
        return self.sizes_gib[variant] <= self.vram_gib

    def load_s(self, variant: int) -> float:
        """What starting a task of `variant` would take in loading, as things are."""
        if variant in self.resident:
            return 0.0
        if self.sizes_gib[variant] > self.vram_gib:
            return math.inf
        return self.warm_s if variant in self.cache else self.cold_s

    def use(self, variant: int) -> float:
        """Make `variant` resident; returns the seconds that it takes."""
        seconds = self.load_s(variant)
        if variant in self.resident:
            self.resident.remove(variant)
        else:
            while self.resident and not self._room_for(variant):
                del self.resident[0]
        self.resident.append(variant)
        self._remember(variant)
        return seconds

    def copy(self) -> "Machine":
        """A machine to plan with."""
        twin = object.__new__(Machine)
        for name in Machine.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.resident, twin.cache = list(self.resident), list(self.cache)
        return twin

    def _room_for(self, variant: int) -> bool:
        needs = self.sizes_gib[variant]
        if not needs:  # a model of unknown size fills its accelerator
            return False
        return sum(self.sizes_gib[held] or self.vram_gib for held in self.resident) + needs <= self.vram_gib

    def _remember(self, variant: int) -> None:
        if not self.cache_models and not self.cache_gib:
            return
        if variant in self.cache:
            self.cache.remove(variant)
        self.cache.append(variant)
        if self.cache_models:
            del self.cache[: max(0, len(self.cache) - self.cache_models)]
        while self.cache_gib and len(self.cache) > 1 and self._cached_gib() > self.cache_gib:
            del self.cache[0]

    def _cached_gib(self) -> float:
        return sum(self.sizes_gib[variant] for variant in self.cache)


def machines_of(fleet: Fleet, names: tuple[str, ...]) -> list[Machine]:
    """The fleet's machines; `names` are the trace's variants by number."""
    sizes_gib = [fleet.variants[name].vram_gib if name in fleet.variants else 0.0 for name in names]
    machines: list[Machine] = []
    for place, kind in enumerate(fleet.pools):
        for _ in range(kind.count):
            machines.append(Machine(len(machines), place, kind, sizes_gib))
    return machines

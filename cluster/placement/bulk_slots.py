"""What placement is given as GPUs for a bulk run: places for actors, and which of them a variant may take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.cost.accelerator import accelerator_named
from cluster.placement.plan import BulkPool
from cluster.topology import Topology
from schemas.catalog import Variant

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Slots:
    """What placement is given as GPUs: `each` real ones a slot (CPUs in the pool of that name)."""

    pools: tuple[BulkPool, ...]
    each: Mapping[str, float]
    gpus: Mapping[str, float]  # that there are, by accelerator


def slots_of(variants: Mapping[str, Variant], topology: Topology, device: str) -> Slots:
    """Where all variants hold the same number of GPUs a slot is an actor's place. Where they differ it is a GPU, and an
    actor of two takes two seconds of one for each of its own."""
    pools: list[BulkPool] = []
    each: dict[str, float] = {}
    sizes = {gpus_of(variant, device) for variant in variants.values()} - {0.0}
    gpus: dict[str, float] = {}
    if sizes:
        told = {name: count for name, count in topology.accelerators.items() if count > 0}
        whole = len(told) > 1 and math.isclose(sum(told.values()), topology.gpus)
        gpus = told if whole else {topology.accelerator: topology.gpus}
        unit = sizes.pop() if len(sizes) == 1 else 1.0
        for name, count in sorted(gpus.items()):
            chip = accelerator_named(name)
            pools.append(BulkPool(name, name, max(1, int(count / unit + 1e-9)), chip.vram_gib if chip else 0.0))
            each[name] = unit
    if any(not gpus_of(variant, device) for variant in variants.values()):
        mine = [variant.needs.cpus for variant in variants.values() if not gpus_of(variant, device)]
        unit = mine[0] if len(set(mine)) == 1 else 1.0
        pools.append(BulkPool(CPU, CPU, max(1, int(topology.cpus / unit + 1e-9)), 0.0))
        each[CPU] = unit
    return Slots(tuple(pools), each, gpus)


def allowed(variant: Variant, slots: Slots, device: str) -> tuple[str, ...]:
    """The pools that an actor may be in. Memory only decides between types: what fits none of them is tried."""
    each = gpus_of(variant, device)
    if not each:
        return (CPU,)
    there = [pool for pool in slots.pools if pool.name != CPU]
    kind = variant.needs.accelerator_type
    there = [pool for pool in there if pool.name == kind] or there
    enough = [pool for pool in there if slots.gpus[pool.name] + 1e-9 >= each] or there
    fit = [pool for pool in enough if not pool.vram_gib or variant.needs.vram_gib <= pool.vram_gib * max(1.0, each)]
    return tuple(pool.name for pool in fit or enough)


def gpus_of(variant: Variant, device: str) -> float:
    """What an actor of the variant holds."""
    return 0.0 if device == CPU else variant.needs.gpus

"""Which actor pools a bulk run has: how many actors of which variant on which accelerator type, in which order.

`cluster.placement.plan` says which GPU should render what. Ray Data's pools are coarser: an actor keeps one variant, a
pool keeps its actors until all of its work is done, and actors for which there is no room wait for another pool to
drain. So the plan becomes pools, with actors of both variants where two share a GPU or of one, the shortest first or
the longest first (better where pools take turns); what drains soonest is taken, and its time is what is quoted.
"""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.placement.bulk_slots import CPU, Slots, allowed, gpus_of, slots_of
from cluster.placement.plan import BulkGroup, BulkVariant, Plan, place
from cluster.topology import Topology
from schemas.catalog import Variant

# Beyond this many groups only their sums by variant are placed: pools have no more to go by.
_MOST_GROUPS = 128
# Actors that shorten the run by less than this are not worth their loads.
_WORTH_A_LOAD = 0.01


@dataclass(frozen=True, slots=True)
class BulkWork:
    """The render batches of one group. `batch_s` is an actor's seconds a batch, by accelerator."""

    group: str
    variant: str
    batches: int
    batch_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ActorPool:
    """`actors` actors of a variant, and the render batches by group that are theirs. `accelerator` is None where the
    cluster has one type only, or does not say which: then Ray may put them anywhere."""

    variant: str
    accelerator: str | None
    actors: int
    batches: Mapping[str, int]
    work_s: float
    load_s: float


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """The pools in the order in which they are to start. No schedule of single GPUs ends before `bound_s`."""

    pools: tuple[ActorPool, ...]
    wall_s: float
    bound_s: float

    @property
    def actors(self) -> dict[str, int]:
        """Actors by variant."""
        found: dict[str, int] = defaultdict(int)
        for pool in self.pools:
            found[pool.variant] += pool.actors
        return dict(found)


def plan_pools(
    works: Iterable[BulkWork],
    load_s: Mapping[str, Mapping[str, float]],
    variants: Mapping[str, Variant],
    topology: Topology,
    device: str = "auto",
) -> BulkPlan:
    """The pools for `works`; `load_s` is by variant and accelerator, and every variant can be placed (`why_not`)."""
    every = [work for work in works if work.batches > 0]
    if not every:
        return BulkPlan((), 0.0, 0.0)
    works = every if len(every) <= _MOST_GROUPS else _coarse(every)
    used = {name: variants[name] for name in sorted({work.variant for work in works})}
    slots = slots_of(used, topology, device)

    def each(name: str, kind: str) -> float:
        return (gpus_of(used[name], device) or used[name].needs.cpus) / slots.each[kind]

    plan = _placed(works, load_s, used, slots, each, device)
    most = {name: topology.most_actors(variant, device) for name, variant in used.items()}
    best: tuple[ActorPool, ...] = ()
    best_s = math.inf
    for sharing, longest_first in itertools.product((False, True), (False, True)):
        pools = _pools(plan, works, load_s, slots, each, most, sharing=sharing)
        pools = pools[::-1] if longest_first else pools
        wall_s = drain_s(pools, used, slots.gpus, topology.cpus, device)
        if wall_s < best_s * (1 - _WORTH_A_LOAD):
            best, best_s = pools, wall_s
    if works is not every:
        best = _fine(best, every)
    return BulkPlan(best, best_s, min(plan.bound_s, best_s))


def drain_s(
    pools: Sequence[ActorPool], variants: Mapping[str, Variant], gpus: Mapping[str, float], cpus: float, device: str
) -> float:
    """Seconds until the last pool is done, when each starts the actors for which there is room, the first pools
    first, hands its batches to whoever is free, and gives all its actors back at its end."""
    free_gpus, free_cpus, now_s = dict(gpus), cpus, 0.0
    missing = [pool.actors for pool in pools]
    ready: list[list[float]] = [[] for _ in pools]
    left = set(range(len(pools)))
    while left:
        for number in sorted(left):
            pool, needs = pools[number], variants[pools[number].variant].needs
            kind, each = pool.accelerator or next(iter(gpus), CPU), gpus_of(variants[pool.variant], device)
            room = free_cpus / needs.cpus if not each else min(free_cpus / needs.cpus, free_gpus[kind] / each)
            started = min(missing[number], int(room + 1e-9))
            if not started and not any(ready):
                started = 1  # larger than the cluster: `why_not` has said so
            missing[number] -= started
            free_cpus -= started * needs.cpus
            if each:
                free_gpus[kind] -= started * each
            ready[number] += [now_s + pool.load_s] * started
        now_s, first = min((_done_s(pools[number], ready[number]), number) for number in left if ready[number])
        left.remove(first)
        pool, needs = pools[first], variants[pools[first].variant].needs
        free_cpus += len(ready[first]) * needs.cpus
        if each := gpus_of(variants[pool.variant], device):
            free_gpus[pool.accelerator or next(iter(gpus), CPU)] += len(ready[first]) * each
        ready[first] = []
    return now_s


def _done_s(pool: ActorPool, ready_s: list[float]) -> float:
    """When actors that are ready at these instants have done the pool's work between them."""
    batches = sum(pool.batches.values())
    # Whole batches: three of them take two actors as long as four.
    work_s = pool.work_s * math.ceil(batches / len(ready_s)) * len(ready_s) / batches
    total_s = 0.0
    for count, at_s in enumerate(instants := sorted(ready_s), start=1):
        total_s += at_s
        done_s = (work_s + total_s) / count
        if count == len(instants) or done_s <= instants[count]:
            return done_s
    raise AssertionError("unreachable: there is an actor")


def _placed(
    works: Sequence[BulkWork],
    load_s: Mapping[str, Mapping[str, float]],
    variants: Mapping[str, Variant],
    slots: Slots,
    each: Callable[[str, str], float],
    device: str,
) -> Plan:
    may_be_in = {name: allowed(variant, slots, device) for name, variant in variants.items()}
    groups = [
        BulkGroup(
            work.group,
            work.variant,
            work.batches,
            {pool: max(work.batch_s[pool], 1e-6) * each(work.variant, pool) for pool in may_be_in[work.variant]},
        )
        for work in works
    ]
    bulk_variants = [
        BulkVariant(name, 0.0, {pool: load_s[name][pool] * each(name, pool) for pool in may_be_in[name]})
        for name in variants
    ]
    return place(groups, bulk_variants, slots.pools)


def _pools(
    plan: Plan,
    works: Sequence[BulkWork],
    load_s: Mapping[str, Mapping[str, float]],
    slots: Slots,
    each: Callable[[str, str], float],
    most: Mapping[str, int],
    *,
    sharing: bool,
) -> tuple[ActorPool, ...]:
    """The plan's split by variant and type, shortest pool first. With `sharing` every slot that the plan has a variant
    on is an actor of it; without, the slots of a type are dealt out so that its pools end together."""
    held: dict[tuple[str, str], int] = defaultdict(int)
    batches: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for schedule in plan.schedules:
        for name in dict.fromkeys(segment.variant for segment in schedule.segments):
            held[name, schedule.pool] += 1
        for segment in schedule.segments:
            mine = batches[segment.variant, schedule.pool]
            mine[segment.group] = mine.get(segment.group, 0) + segment.tasks
    batch_s = {work.group: work.batch_s for work in works}
    pools: dict[str, list[ActorPool]] = defaultdict(list)
    for (name, kind), mine in batches.items():
        pinned = kind if len(slots.gpus) > 1 and kind != CPU else None
        work_s = sum(count * batch_s[group][kind] for group, count in mine.items())
        actors = max(1, min(math.ceil(held[name, kind] / each(name, kind) - 1e-9), sum(mine.values()), most[name]))
        pools[kind].append(ActorPool(name, pinned, actors if sharing else 1, mine, work_s, load_s[name][kind]))
    if not sharing:
        counts = {pool.name: pool.gpus for pool in slots.pools}
        pools = {kind: _dealt(mine, counts[kind], kind, each, most) for kind, mine in pools.items()}
    found = [pool for mine in pools.values() for pool in mine]
    return tuple(sorted(found, key=lambda pool: (pool.work_s / pool.actors, pool.variant, pool.accelerator or "")))


def _dealt(
    pools: Sequence[ActorPool], slots: int, kind: str, each: Callable[[str, str], float], most: Mapping[str, int]
) -> list[ActorPool]:
    """One more actor to whichever pool would finish last, while there are slots."""
    free = slots - sum(each(pool.variant, kind) for pool in pools)
    sized = list(pools)
    queue = [(-(pool.load_s + pool.work_s), number) for number, pool in enumerate(pools)]
    heapq.heapify(queue)
    while queue:
        _, number = heapq.heappop(queue)
        pool = sized[number]
        slot = each(pool.variant, kind)
        if pool.actors >= min(most[pool.variant], sum(pool.batches.values())) or slot > free + 1e-9:
            continue
        sized[number] = larger = replace(pool, actors=pool.actors + 1)
        free -= slot
        heapq.heappush(queue, (-_done_s(larger, [larger.load_s] * larger.actors), number))
    return sized


def _coarse(works: Sequence[BulkWork]) -> list[BulkWork]:
    """The sum of each variant's groups."""
    by_variant: dict[str, list[BulkWork]] = defaultdict(list)
    for work in works:
        by_variant[work.variant].append(work)
    coarse = []
    for name, mine in by_variant.items():
        count = sum(work.batches for work in mine)
        where = set.intersection(*(set(work.batch_s) for work in mine))
        mean_s = {kind: sum(work.batches * work.batch_s[kind] for work in mine) / count for kind in where}
        coarse.append(BulkWork(name, name, count, mean_s))
    return coarse


def _fine(pools: Sequence[ActorPool], works: Sequence[BulkWork]) -> tuple[ActorPool, ...]:
    """Hand the groups out again, one after the other, to the pools that got their sums."""
    queues: dict[str, list[BulkWork]] = defaultdict(list)
    for work in works:
        queues[work.variant].append(work)
    left = {work.group: work.batches for work in works}
    fine = []
    for pool in pools:
        open_, mine = sum(pool.batches.values()), {}
        for work in queues[pool.variant]:
            count = min(open_, left[work.group])
            if count:
                mine[work.group] = count
                left[work.group] -= count
                open_ -= count
        fine.append(replace(pool, batches=mine))
    return tuple(fine)

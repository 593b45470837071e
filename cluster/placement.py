"""Placement for bulk: which GPU renders how many tasks of which group, in which order, and how near to the best it is.

`place` solves a linear program over pools for the bound and the split, fills the GPUs with whole tasks so that each
holds few variants, and improves the longest one by local search. Pure and deterministic.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.placement_bound import Instance, Ints, relax
from cluster.placement_search import whole_tasks


@dataclass(frozen=True, slots=True)
class BulkGroup:
    """`tasks` equal tasks of one variant. `task_s` is seconds a task by accelerator; it cannot run on others."""

    name: str
    variant: str
    tasks: int
    task_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BulkVariant:
    """What a variant needs: memory, and seconds to load by accelerator (it cannot run on others)."""

    name: str
    vram_gib: float
    load_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BulkPool:
    """`gpus` equal GPUs."""

    name: str
    accelerator: str
    gpus: int
    vram_gib: float


@dataclass(frozen=True, slots=True)
class Segment:
    """`tasks` tasks of one group, one after the other; `load_s` first, where the variant changes."""

    group: str
    variant: str
    tasks: int
    start_s: float
    load_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class GpuSchedule:
    """What one GPU of a pool (`index` from 0) does, in order, from instant 0."""

    pool: str
    index: int
    segments: tuple[Segment, ...]

    @property
    def finish_s(self) -> float:
        """When it is done; 0 where it has nothing to do."""
        return self.segments[-1].end_s if self.segments else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Every task on a GPU. No plan at all has a makespan below `bound_s`."""

    schedules: tuple[GpuSchedule, ...]
    makespan_s: float
    bound_s: float

    @property
    def ratio(self) -> float:
        """Makespan over bound: 1.02 is at most 2 % from the best there is."""
        return self.makespan_s / self.bound_s if self.bound_s else 1.0


def place(groups: Sequence[BulkGroup], variants: Iterable[BulkVariant], pools: Sequence[BulkPool]) -> Plan:
    """The plan for `groups` on `pools`. A GPU loads a variant once and renders all it has of it before the next.

    ValueError for times that are not positive, names that appear twice, and a group that no pool can render.
    """
    used = [pool for pool in pools if pool.gpus > 0]
    todo = [group for group in groups if group.tasks > 0]
    by_name = {variant.name: variant for variant in variants}
    _unique("group", [group.name for group in groups])
    _unique("pool", [pool.name for pool in pools])
    if not todo:
        idle = tuple(GpuSchedule(pool.name, index, ()) for pool in used for index in range(pool.gpus))
        return Plan(idle, 0.0, 0.0)
    names = sorted({group.variant for group in todo})
    instance = _instance(todo, names, by_name, used)
    relaxation = relax(instance)
    counts = whole_tasks(instance, relaxation.tasks, relaxation.bound_s)
    schedules = _schedules(todo, used, instance, counts)
    makespan_s = max(schedule.finish_s for schedule in schedules)
    # Sums of floats may fall a hair below a bound that is reached.
    return Plan(schedules, makespan_s, min(relaxation.bound_s, makespan_s))


def _unique(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{what} names must differ; twice: {', '.join(twice)}")


def _instance(
    groups: Sequence[BulkGroup], names: Sequence[str], variants: Mapping[str, BulkVariant], pools: Sequence[BulkPool]
) -> Instance:
    missing = sorted(set(names) - set(variants))
    if missing:
        raise ValueError(f"unknown variant {missing[0]!r}; available: {', '.join(sorted(variants))}")
    task_s = np.full((len(groups), len(pools)), np.inf)
    load_s = np.full((len(names), len(pools)), np.inf)
    for v, name in enumerate(names):
        variant = variants[name]
        for p, pool in enumerate(pools):
            if variant.vram_gib <= pool.vram_gib and pool.accelerator in variant.load_s:
                load_s[v, p] = variant.load_s[pool.accelerator]
                if not 0 <= load_s[v, p] < math.inf:
                    raise ValueError(f"variant {name!r}: {load_s[v, p]} s to load on {pool.accelerator}; want ≥ 0")
    of = np.array([names.index(group.variant) for group in groups], dtype=np.int64)
    for g, group in enumerate(groups):
        for p, pool in enumerate(pools):
            seconds = group.task_s.get(pool.accelerator)
            if seconds is None:
                continue
            if not 0 < seconds < math.inf:
                raise ValueError(f"group {group.name!r}: {seconds} s a task on {pool.accelerator}; want more than 0")
            if np.isfinite(load_s[of[g], p]):
                task_s[g, p] = seconds
        if not np.isfinite(task_s[g]).any():
            need = variants[group.variant].vram_gib
            have = ", ".join(f"{pool.name} ({pool.accelerator}, {pool.vram_gib:g} GiB)" for pool in pools) or "none"
            raise ValueError(f"no pool can render group {group.name!r} ({group.variant}, {need:g} GiB); pools: {have}")
    tasks = np.array([group.tasks for group in groups], dtype=np.int64)
    return Instance(task_s, load_s, tasks, of, np.array([pool.gpus for pool in pools], dtype=np.int64))


def _schedules(
    groups: Sequence[BulkGroup], pools: Sequence[BulkPool], instance: Instance, counts: Ints
) -> tuple[GpuSchedule, ...]:
    """Variants that take longest first, and in each the longest tasks first: what ends a run is then short tasks,
    which are easy to take over where a prediction was wrong."""
    schedules = []
    rows = iter(counts)
    for p, pool in enumerate(pools):
        for index in range(pool.gpus):
            row = next(rows)
            present = np.nonzero(row)[0].tolist()
            work_s: dict[int, float] = {}
            for g in present:
                v = int(instance.variant[g])
                work_s[v] = work_s.get(v, 0.0) + float(row[g] * instance.task_s[g, p])
            present.sort(key=lambda g: (-work_s[int(instance.variant[g])], instance.variant[g], -instance.task_s[g, p]))
            segments: list[Segment] = []
            now_s = 0.0
            for g in present:
                group = groups[g]
                switch = not segments or segments[-1].variant != group.variant
                load_s = float(instance.load_s[instance.variant[g], p]) if switch else 0.0
                end_s = now_s + load_s + int(row[g]) * float(instance.task_s[g, p])
                segments.append(Segment(group.name, group.variant, int(row[g]), now_s, load_s, end_s))
                now_s = end_s
            schedules.append(GpuSchedule(pool.name, index, tuple(segments)))
    return tuple(schedules)

"""Placement for bulk: which GPU renders how many tasks of which group, in which order, and how near to the best it is.

`place` solves a linear program over pools for the bound and the split, fills the GPUs with whole tasks so that each
holds few variants, and improves the longest one by local search. Pure and deterministic.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.placement.bound import relax
from cluster.placement.collapse import Collapsed, collapse
from cluster.placement.prices import Floats, Instance, Ints
from cluster.placement.search import whole_tasks

_UNNAMED = -math.inf


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
    collapsed = collapse(_instance(todo, names, by_name, used))
    relaxation = relax(collapsed.instance)
    counts = whole_tasks(collapsed.instance, relaxation.tasks, relaxation.bound_s)
    schedules = _schedules(todo, used, collapsed, counts)
    makespan_s = max(schedule.finish_s for schedule in schedules)
    # Sums of floats may fall a hair below a bound that is reached.
    return Plan(schedules, makespan_s, min(relaxation.bound_s, makespan_s))


def _unique(what: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{what} names must differ; twice: {', '.join(twice)}")


def _instance(
    groups: Sequence[BulkGroup], names: Sequence[str], variants: Mapping[str, BulkVariant], pools: Sequence[BulkPool]
) -> Instance:
    missing = sorted(set(names) - set(variants))
    if missing:
        raise ValueError(f"unknown variant {missing[0]!r}; available: {', '.join(sorted(variants))}")
    # Pools of one accelerator and size are looked at once.
    kinds = {(pool.accelerator, pool.vram_gib): pool for pool in pools}
    kind = {key: k for k, key in enumerate(kinds)}
    of_kind = np.array([kind[pool.accelerator, pool.vram_gib] for pool in pools], dtype=np.int64)
    accelerators = [pool.accelerator for pool in kinds.values()]
    used = [variants[name] for name in names]
    load_s = _seconds([variant.load_s for variant in used], accelerators)
    if (wrong := (load_s != _UNNAMED) & ~((load_s >= 0) & (load_s < math.inf))).any():
        v, k = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"variant {names[v]!r}: {load_s[v, k]} s to load on {accelerators[k]}; want ≥ 0")
    needs_gib = np.array([variant.vram_gib for variant in used])
    fits = needs_gib[:, None] <= np.array([pool.vram_gib for pool in kinds.values()])
    load_s = np.where(fits & (load_s != _UNNAMED), load_s, np.inf)
    task_s = _seconds([group.task_s for group in groups], accelerators)
    if (wrong := (task_s != _UNNAMED) & ~((task_s > 0) & (task_s < math.inf))).any():
        g, k = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"group {groups[g].name!r}: {task_s[g, k]} s a task on {accelerators[k]}; want more than 0")
    number = {name: v for v, name in enumerate(names)}
    of = np.array([number[group.variant] for group in groups], dtype=np.int64)
    task_s = np.where(np.isfinite(load_s)[of] & (task_s != _UNNAMED), task_s, np.inf)
    if (homeless := ~np.isfinite(task_s).any(axis=1)).any():
        group = groups[int(homeless.argmax())]
        need = variants[group.variant].vram_gib
        have = ", ".join(f"{pool.name} ({pool.accelerator}, {pool.vram_gib:g} GiB)" for pool in pools) or "none"
        raise ValueError(f"no pool can render group {group.name!r} ({group.variant}, {need:g} GiB); pools: {have}")
    tasks = np.array([group.tasks for group in groups], dtype=np.int64)
    gpus = np.array([pool.gpus for pool in pools], dtype=np.int64)
    return Instance(task_s[:, of_kind], load_s[:, of_kind], tasks, of, gpus)


def _seconds(rows: Sequence[Mapping[str, float]], accelerators: Sequence[str]) -> Floats:
    """By row and accelerator; `_UNNAMED` where a row does not name it."""
    found = [[row.get(accelerator, _UNNAMED) for accelerator in accelerators] for row in rows]
    return np.array(found, dtype=float).reshape(len(rows), len(accelerators))


def _schedules(
    groups: Sequence[BulkGroup], pools: Sequence[BulkPool], collapsed: Collapsed, counts: Ints
) -> tuple[GpuSchedule, ...]:
    """Variants that take longest first, and in each the longest tasks first: what ends a run is then short tasks,
    which are easy to take over where a prediction was wrong."""
    instance, members = collapsed.instance, collapsed.members()
    left = [group.tasks for group in groups]
    variant = instance.variant.tolist()
    schedules = []
    for p, pool, rows in zip(
        collapsed.pool.tolist(), pools, collapsed.gpus([pool.gpus for pool in pools]), strict=True
    ):
        task_s, load_s = instance.task_s[:, p].tolist(), instance.load_s[:, p].tolist()
        for index, m in enumerate(rows):
            present = np.nonzero(counts[m])[0].tolist()
            tasks = dict(zip(present, counts[m, present].tolist(), strict=True))
            work_s: dict[int, float] = {}
            for one in present:
                work_s[variant[one]] = work_s.get(variant[one], 0.0) + tasks[one] * task_s[one]
            present.sort(key=lambda one: (-work_s[variant[one]], variant[one], -task_s[one]))
            segments: list[Segment] = []
            now_s = 0.0
            for one in present:
                while tasks[one]:
                    g = members[one][-1]
                    count = min(tasks[one], left[g])
                    switch = not segments or segments[-1].variant != groups[g].variant
                    first_s = load_s[variant[one]] if switch else 0.0
                    end_s = now_s + first_s + count * task_s[one]
                    segments.append(Segment(groups[g].name, groups[g].variant, count, now_s, first_s, end_s))
                    now_s = end_s
                    tasks[one] -= count
                    left[g] -= count
                    if not left[g]:
                        members[one].pop()
            schedules.append(GpuSchedule(pool.name, index, tuple(segments)))
    return tuple(schedules)

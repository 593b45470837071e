"""From the fractions of the linear program to whole tasks on GPUs: fill, then improve the longest GPU."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.placement_bound import Floats, Instance, Ints

_CLOSE_ENOUGH = 1e-4
_MOST_STEPS = 3000
_SMALL_TASKS = 400
"""Up to here one task at a time is cheap to place, and rounding fractions is at its worst."""

_ORDERS = 6


@dataclass(frozen=True, eq=False)
class _Gpus:
    """The instance by GPU: seconds a task [M, G], seconds a load [M, V], and each GPU's pool [M]."""

    task_s: Floats
    load_s: Floats
    pool: Ints
    variant: Ints
    variants: int

    def finish_s(self, counts: Ints) -> Floats:
        """When each GPU is done: its tasks, and one load for each variant among them."""
        work = np.where(counts > 0, counts * np.where(counts > 0, self.task_s, 0.0), 0.0).sum(axis=1)
        held = self.held(counts) > 0
        return np.asarray(work + np.where(held, self.load_s, 0.0).sum(axis=1))

    def held(self, counts: Ints) -> Ints:
        """Tasks by GPU and variant [M, V]."""
        held = np.zeros((len(counts), self.variants), dtype=np.int64)
        np.add.at(held.T, self.variant, counts.T)
        return held


def whole_tasks(instance: Instance, split: Floats, bound_s: float) -> Ints:
    """Tasks by GPU and group [M, G], GPUs in the order of their pools; the best of a few starts, each improved.

    Deterministic. Stops early at a makespan within 0.01 % of `bound_s`.
    """
    pool = np.repeat(np.arange(len(instance.gpus)), instance.gpus)
    gpus = _Gpus(instance.task_s.T[pool], instance.load_s.T[pool], pool, instance.variant, len(instance.load_s))
    rounded = _round(instance, split)
    small = int(instance.tasks.sum()) <= _SMALL_TASKS
    best: Ints | None = None
    best_s = np.inf
    for start in range(_ORDERS + 1 if small else 1):
        counts = _longest_first(instance, gpus) if start == _ORDERS else _fill(instance, rounded, start)
        counts = _improve(gpus, counts, bound_s)
        makespan_s = float(gpus.finish_s(counts).max())
        if makespan_s < best_s:
            best, best_s = counts, makespan_s
        if best_s <= bound_s * (1 + _CLOSE_ENOUGH):
            break
    assert best is not None
    return best


def _round(instance: Instance, split: Floats) -> Ints:
    """Whole tasks by pool, the largest remainders rounded up; every group's sum is kept."""
    rounded = np.floor(split + 1e-9).astype(np.int64)
    for g, missing in enumerate(instance.tasks - rounded.sum(axis=1)):
        order = np.argsort(-(split[g] - rounded[g]), kind="stable")
        order = order[np.isfinite(instance.task_s[g, order])]
        for k in range(missing):
            rounded[g, order[k % len(order)]] += 1
    return rounded


def _fill(instance: Instance, rounded: Ints, rotation: int) -> Ints:
    """Each pool's GPUs filled one after the other, variant by variant, so that a variant is on neighbours only.

    The level is the lowest (by bisection) at which everything fits: McNaughton's wrap-around rule (1959) with loads,
    which costs one load a GPU and one more for each variant that begins in the middle of one.
    """
    parts = []
    for p, gpus in enumerate(instance.gpus):
        groups = np.nonzero(rounded[:, p])[0]
        variants = np.unique(instance.variant[groups])
        seconds = dict.fromkeys(variants.tolist(), 0.0)
        for g in groups.tolist():
            seconds[int(instance.variant[g])] += float(rounded[g, p] * instance.task_s[g, p])
        order = sorted(seconds, key=lambda v: (-seconds[v], v))
        turn = rotation % max(1, len(order))
        order = order[turn:] + order[:turn]
        queue = [
            (v, sorted((g for g in groups.tolist() if instance.variant[g] == v), key=lambda g: -instance.task_s[g, p]))
            for v in order
        ]
        low = sum(seconds.values()) / gpus
        high = 2 * (low + sum(float(instance.load_s[v, p]) for v in order) + _longest(instance, groups, p))
        counts = _fill_to(instance, queue, rounded[:, p], p, int(gpus), high)
        for _ in range(12):
            level = (low + high) / 2
            tried = _fill_to(instance, queue, rounded[:, p], p, int(gpus), level)
            if tried is None:
                low = level
            else:
                high, counts = level, tried
        assert counts is not None, "twice the average, all loads and a longest task always fit"
        parts.append(counts)
    return np.concatenate(parts)


def _longest(instance: Instance, groups: NDArray[np.intp], pool: int) -> float:
    return float(instance.task_s[groups, pool].max(initial=0.0))


def _fill_to(
    instance: Instance, queue: list[tuple[int, list[int]]], tasks: Ints, pool: int, gpus: int, level_s: float
) -> Ints | None:
    """One pool filled up to `level_s` a GPU, longest tasks of a variant first; None where it does not all fit."""
    counts = np.zeros((gpus, len(tasks)), dtype=np.int64)
    gpu, room_s = 0, level_s
    for variant, groups in queue:
        left = {g: int(tasks[g]) for g in groups}
        load_s = float(instance.load_s[variant, pool])
        while left:
            room_s -= load_s
            for g in groups:
                if g in left:
                    task_s = float(instance.task_s[g, pool])
                    placed = min(left[g], max(0, int(room_s / task_s)))
                    counts[gpu, g] += placed
                    room_s -= placed * task_s
                    left[g] -= placed
                    if not left[g]:
                        del left[g]
            if left:
                gpu, room_s = gpu + 1, level_s
                if gpu == gpus:
                    return None
    return counts


def _longest_first(instance: Instance, gpus: _Gpus) -> Ints:
    """One task at a time, longest first, each where it would be complete first, its load included."""
    counts = np.zeros((len(gpus.pool), len(instance.tasks)), dtype=np.int64)
    loaded = np.zeros((len(gpus.pool), gpus.variants), dtype=bool)
    finish = np.zeros(len(gpus.pool))
    for g in np.argsort(-instance.task_s.min(axis=1), kind="stable").tolist():
        v = instance.variant[g]
        for _ in range(int(instance.tasks[g])):
            done = finish + gpus.task_s[:, g] + np.where(loaded[:, v], 0.0, gpus.load_s[:, v])
            m = int(done.argmin())
            finish[m], loaded[m, v] = done[m], True
            counts[m, g] += 1
    return counts


def _improve(gpus: _Gpus, counts: Ints, bound_s: float) -> Ints:
    """Local search: tasks leave the longest GPU, alone or in exchange, while that shortens it and makes none as long.

    Of the exchanges that do, the one that lowers the sum of squares most: it balances and grudges added work at once.
    """
    counts = counts.copy()
    held = gpus.held(counts)
    finish = gpus.finish_s(counts)
    for _ in range(_MOST_STEPS):
        source = int(finish.argmax())
        if finish[source] <= bound_s * (1 + _CLOSE_ENOUGH):
            break
        found = _best_exchange(gpus, counts, held, finish, source)
        if found is None:
            break
        target, out, given, back, taken = found
        for group, moved, origin, to in ((out, given, source, target), (back, taken, target, source)):
            counts[origin, group] -= moved
            counts[to, group] += moved
            held[origin, gpus.variant[group]] -= moved
            held[to, gpus.variant[group]] += moved
        pair = [source, target]
        finish[pair] = _Gpus(
            gpus.task_s[pair], gpus.load_s[pair], gpus.pool[pair], gpus.variant, gpus.variants
        ).finish_s(counts[pair])
    return counts


def _best_exchange(
    gpus: _Gpus, counts: Ints, held: Ints, finish: Floats, source: int
) -> tuple[int, int, int, int, int] | None:
    """(target, group out, how many, group back, how many), or None where nothing shortens `source`."""
    variant = gpus.variant
    most = finish[source]
    out = np.nonzero(counts[source])[0][:, None]
    # Moves are exchanges for nothing: to every GPU; then for a group that the target has.
    target, back = np.nonzero(counts)
    others = target != source
    target, back = target[others], back[others]
    every = np.delete(np.arange(len(finish)), source)
    nothing = np.concatenate([np.ones(len(every), bool), np.zeros(len(target), bool)])
    target = np.concatenate([every, target])
    back = np.concatenate([np.zeros(len(every), np.int64), back])
    out_v, back_v = variant[out], variant[back]
    out_there_s = gpus.task_s[target, out]
    possible = np.isfinite(out_there_s) & (nothing | np.isfinite(gpus.task_s[source, back]))
    out_there_s = np.where(possible, out_there_s, 1.0)
    out_here_s = gpus.task_s[source, out]
    back_here_s = np.where(np.isfinite(gpus.task_s[source, back]), gpus.task_s[source, back], 1.0)
    back_there_s = np.where(nothing, 1.0, gpus.task_s[target, back])
    same = (out_v == back_v) & ~nothing
    possible &= ~((out == back) & ~nothing)
    load_there_s = np.where((held[target, out_v] == 0), gpus.load_s[target, out_v], 0.0)
    load_here_s = np.where(~nothing & (held[source, back_v] == 0), gpus.load_s[source, back_v], 0.0)
    possible &= np.isfinite(load_there_s) & np.isfinite(load_here_s)
    load_there_s = np.where(possible, load_there_s, 0.0)
    load_here_s = np.where(possible, load_here_s, 0.0)
    gap_s = most - finish[target]
    have, theirs = counts[source, out], np.where(nothing, 0, counts[target, back])
    # As many as would make both equally long: several out for one back (or for none), or one out for several back.
    one_back = np.where(nothing, 0, 1)
    level = gap_s - load_there_s + load_here_s
    several = np.floor((level + one_back * (back_here_s + back_there_s)) / (out_here_s + out_there_s) + 0.5)
    several_back = np.floor((out_here_s + out_there_s - level) / (back_here_s + back_there_s) + 0.5)
    best_score, best = 0.0, None
    for given, taken in (
        (np.clip(several, 1, have), one_back + np.zeros_like(several)),
        (np.ones_like(several), np.clip(several_back, np.minimum(one_back, theirs), theirs)),
    ):
        # A variant that leaves a GPU altogether takes its load along, unless its own kind comes in.
        free_here_s = np.where((given == held[source, out_v]) & ~same, gpus.load_s[source, out_v], 0.0)
        free_there_s = np.where(~nothing & (taken == held[target, back_v]) & ~same, gpus.load_s[target, back_v], 0.0)
        here = most - given * out_here_s - free_here_s + taken * back_here_s + load_here_s
        there = finish[target] + given * out_there_s + load_there_s - taken * back_there_s - free_there_s
        score = here * here + there * there - most * most - finish[target] ** 2
        good = possible & (np.maximum(here, there) < most * (1 - 1e-9))
        score = np.where(good, score, np.inf)
        at = int(score.argmin())
        a, b = divmod(at, score.shape[1])
        if score[a, b] < best_score:
            best_score = float(score[a, b])
            best = (int(target[b]), int(out[a, 0]), int(given[a, b]), int(back[b]), int(taken[a, b]))
    return best

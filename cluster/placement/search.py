"""From the fractions of the linear program to whole tasks on GPUs: fill, then improve the longest GPU."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.placement.prices import Floats, Instance, Ints

_CLOSE_ENOUGH = 1e-4
_EFFORT = 2_500_000
"""Exchanges that may be looked at in all, so that a plan takes about as long whatever it is asked: counted and not
timed, so that the same problem has the same plan on any machine."""

_EFFORT_A_STEP = 3_000
"""What a step costs beyond the exchanges that it looks at, in exchanges."""

_WIDEST_STEP = 100_000
_WIDEST_OUT = 64
_SMALL_TASKS = 400
"""Up to here rounding fractions is at its worst, and other orders of the variants are worth trying."""

_FEW_A_GPU = 5
_MOST_ONE_BY_ONE = 500_000
"""Up to so few tasks a GPU, and tasks times GPUs, so is a start of one task at a time."""

_ORDERS = 6
_MANY = 500
"""Groups and GPUs of a pool from which on its level is found less precisely: single tasks matter less there."""


class _Effort:
    """What is left of `_EFFORT`."""

    def __init__(self) -> None:
        self._left = _EFFORT

    def spend(self, exchanges: int) -> None:
        self._left -= exchanges + _EFFORT_A_STEP

    @property
    def spent(self) -> bool:
        return self._left <= 0


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
        starts = np.searchsorted(self.variant, np.arange(self.variants))
        return np.asarray(np.add.reduceat(counts, starts, axis=1))


def whole_tasks(instance: Instance, split: Floats, bound_s: float) -> Ints:
    """Tasks by GPU and group [M, G], GPUs in the order of their pools; the best of a few starts, each improved.

    Deterministic. Stops early at a makespan within 0.01 % of `bound_s`, or when it has tried enough.
    """
    pool = np.repeat(np.arange(len(instance.gpus)), instance.gpus)
    gpus = _Gpus(instance.task_s.T[pool], instance.load_s.T[pool], pool, instance.variant, len(instance.load_s))
    effort = _Effort()
    best: Ints | None = None
    best_s = np.inf
    for counts in _starts(instance, gpus, split):
        counts = _improve(gpus, counts, bound_s, effort)
        makespan_s = float(gpus.finish_s(counts).max())
        if makespan_s < best_s:
            best, best_s = counts, makespan_s
        if best_s <= bound_s * (1 + _CLOSE_ENOUGH) or effort.spent:
            break
    assert best is not None
    return best


def _starts(instance: Instance, gpus: _Gpus, split: Floats) -> Iterator[Ints]:
    """The split's whole tasks and then one after the other what is left of them; the split rounded; for few tasks other
    orders of the variants, and no split at all."""
    whole = np.floor(split + 1e-9).astype(np.int64)
    yield _longest_first(gpus, _fill(instance, whole, 0), instance.tasks - whole.sum(axis=1))
    rounded = _round(instance, split)
    yield _fill(instance, rounded, 0)
    tasks, count = int(instance.tasks.sum()), len(gpus.pool)
    if tasks <= _SMALL_TASKS or (tasks <= _FEW_A_GPU * count and tasks * count <= _MOST_ONE_BY_ONE):
        yield _longest_first(gpus, np.zeros((len(gpus.pool), len(instance.tasks)), dtype=np.int64), instance.tasks)
    if tasks <= _SMALL_TASKS:
        for rotation in range(1, _ORDERS):
            yield _fill(instance, rounded, rotation)


def _round(instance: Instance, split: Floats) -> Ints:
    """Whole tasks by pool, the largest remainders rounded up; every group's sum is kept."""
    rounded = np.floor(split + 1e-9).astype(np.int64)
    missing = instance.tasks - rounded.sum(axis=1)
    for g in np.nonzero(missing)[0].tolist():
        order = np.argsort(-(split[g] - rounded[g]), kind="stable")
        order = order[np.isfinite(instance.task_s[g, order])]
        for k in range(int(missing[g])):
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
        task_s = instance.task_s[groups, p].tolist()
        by_variant: dict[int, list[tuple[int, float]]] = {}
        for g, v, one_s in zip(groups.tolist(), instance.variant[groups].tolist(), task_s, strict=True):
            by_variant.setdefault(v, []).append((g, one_s))
        tasks = dict(zip(groups.tolist(), rounded[groups, p].tolist(), strict=True))
        seconds = {v: sum(tasks[g] * one_s for g, one_s in mine) for v, mine in by_variant.items()}
        order = sorted(seconds, key=lambda v: (-seconds[v], v))
        turn = rotation % max(1, len(order))
        order = order[turn:] + order[:turn]
        loads_s = instance.load_s[:, p].tolist()
        queue = [(loads_s[v], sorted(by_variant[v], key=lambda one: -one[1])) for v in order]
        low = sum(seconds.values()) / gpus
        high = 2 * (low + sum(load_s for load_s, _ in queue) + max(task_s, default=0.0))
        filled = _fill_to(queue, tasks, int(gpus), high)
        for _ in range(12 if len(groups) + gpus < _MANY else 6):
            level = (low + high) / 2
            tried = _fill_to(queue, tasks, int(gpus), level)
            if tried is None:
                low = level
            else:
                high, filled = level, tried
        assert filled is not None, "twice the average, all loads and a longest task always fit"
        counts = np.zeros((int(gpus), len(rounded)), dtype=np.int64)
        if filled:
            gpu, group, count = zip(*filled, strict=True)
            counts[gpu, group] = count
        parts.append(counts)
    return np.concatenate(parts)


def _fill_to(
    queue: Sequence[tuple[float, list[tuple[int, float]]]], tasks: Mapping[int, int], gpus: int, level_s: float
) -> list[tuple[int, int, int]] | None:
    """One pool filled up to `level_s` a GPU: (GPU, group, tasks), None where it does not all fit. `queue` has of each
    variant the load and the groups with their seconds a task, longest first."""
    filled = []
    gpu, room_s = 0, level_s
    for load_s, groups in queue:
        waiting = [(g, task_s, tasks[g]) for g, task_s in groups]
        while waiting:
            room_s -= load_s
            rest = []
            for g, task_s, count in waiting:
                placed = min(count, int(room_s / task_s)) if room_s > 0 else 0
                if placed:
                    filled.append((gpu, g, placed))
                    room_s -= placed * task_s
                if placed < count:
                    rest.append((g, task_s, count - placed))
            waiting = rest
            if waiting:
                gpu, room_s = gpu + 1, level_s
                if gpu == gpus:
                    return None
    return filled


def _longest_first(gpus: _Gpus, counts: Ints, tasks: Ints) -> Ints:
    """`tasks` [G] more on GPUs that have `counts`: one at a time, longest first, each where it would be complete first,
    its load included."""
    counts = counts.copy()
    loaded = gpus.held(counts) > 0
    finish = gpus.finish_s(counts)
    order = np.argsort(-gpus.task_s.min(axis=0), kind="stable")
    for g in order[tasks[order] > 0].tolist():
        v = gpus.variant[g]
        added = gpus.task_s[:, g] + np.where(loaded[:, v], 0.0, gpus.load_s[:, v])
        for _ in range(int(tasks[g])):
            m = int((finish + added).argmin())
            finish[m] += added[m]
            loaded[m, v] = True
            added[m] = gpus.task_s[m, g]
            counts[m, g] += 1
    return counts


def _improve(gpus: _Gpus, counts: Ints, bound_s: float, effort: _Effort) -> Ints:
    """Local search: tasks leave the longest GPU, alone or in exchange, while that shortens it and makes none as long.

    Of the exchanges that do, the one that lowers the sum of squares most: it balances and grudges added work at once.
    """
    counts = counts.copy()
    held = gpus.held(counts)
    finish = gpus.finish_s(counts)
    while not effort.spent:
        source = int(finish.argmax())
        if finish[source] <= bound_s * (1 + _CLOSE_ENOUGH):
            break
        found = _best_exchange(gpus, counts, held, finish, source, effort)
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
    gpus: _Gpus, counts: Ints, held: Ints, finish: Floats, source: int, effort: _Effort
) -> tuple[int, int, int, int, int] | None:
    """(target, group out, how many, group back, how many), or None where nothing shortens `source`."""
    variant = gpus.variant
    most = finish[source]
    out = np.nonzero(counts[source])[0]
    if len(out) > _WIDEST_OUT:
        # Of many, some of every length.
        lengths = out[np.argsort(gpus.task_s[source, out], kind="stable")]
        out = np.sort(lengths[np.linspace(0, len(out) - 1, _WIDEST_OUT).astype(int)])
    every = np.delete(np.arange(len(finish)), source)
    each = 1 + np.count_nonzero(counts, axis=1)[every]
    if len(out) * int(each.sum()) > _WIDEST_STEP:
        # And of many GPUs those that have most to spare.
        shortest = np.argsort(finish[every], kind="stable")
        near = np.searchsorted(each[shortest].cumsum(), _WIDEST_STEP // len(out), side="right")
        every = np.sort(every[shortest[: max(1, int(near))]])
    out = out[:, None]
    # Moves are exchanges for nothing: to every GPU; then for a group that the target has.
    row, back = np.nonzero(counts[every])
    target = every[row]
    effort.spend(len(out) * (len(every) + len(target)) + counts.size // 20)
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

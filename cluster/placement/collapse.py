"""Pools and groups that are alike are one: a problem's size is that of its differences.

Equal pools are one of more GPUs, equal groups of a variant one of more tasks. Neither changes the optimum or the bound;
what was planned for the one is then handed out among the many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.placement.prices import Instance


@dataclass(frozen=True, eq=False)
class Collapsed:
    """The smaller `instance`; `pool` [P] and `group` [G] say which of its pools and groups each of the many became."""

    instance: Instance
    pool: NDArray[np.intp]
    group: NDArray[np.intp]

    def gpus(self, gpus: Sequence[int]) -> list[range]:
        """The instance's GPUs, numbered through all of its pools, that each of the many pools holds."""
        starts = np.concatenate([[0], np.cumsum(self.instance.gpus)[:-1]]).tolist()
        found = []
        for one, count in zip(self.pool.tolist(), gpus, strict=True):
            found.append(range(starts[one], starts[one] + count))
            starts[one] += count
        return found

    def members(self) -> list[list[int]]:
        """By group of the instance, those that it stands for."""
        found: list[list[int]] = [[] for _ in self.instance.tasks]
        for g, one in enumerate(self.group.tolist()):
            found[one].append(g)
        return found


def collapse(instance: Instance) -> Collapsed:
    """`instance`, whose variants may come in any order, with everything that is alike taken together."""
    first, pool = _distinct(np.concatenate([instance.task_s, instance.load_s]).T)
    gpus = np.bincount(pool, weights=instance.gpus).astype(np.int64)
    task_s = instance.task_s[:, first]
    order = np.argsort(instance.variant, kind="stable")
    kept, sorted_group = _distinct(np.concatenate([instance.variant[:, None], task_s], axis=1)[order])
    kept = order[kept]
    group = np.empty_like(sorted_group)
    group[order] = sorted_group
    tasks = np.bincount(group, weights=instance.tasks).astype(np.int64)
    small = Instance(task_s[kept], instance.load_s[:, first], tasks, instance.variant[kept], gpus)
    return Collapsed(small, pool, group)


def _distinct(rows: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first of each kind of row, in their order, and each row's kind."""
    kinds: dict[bytes, int] = {}
    kind = [kinds.setdefault(row.tobytes(), len(kinds)) for row in rows]
    of = np.array(kind, dtype=np.intp)
    _, first = np.unique(of, return_index=True)
    return first, of

"""How much work is ahead of a key on every replica at once: a table of running totals at a few dozen keys."""

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cluster.scheduling.work_queue import WorkQueue

Floats = npt.NDArray[np.float64]

_EDGES = 48
_LEAST_CHANGES = 2000  # between two tables


class WorkTable:
    """Empty until it is filled, and again when so much has changed that its keys are far from those that wait."""

    def __init__(self) -> None:
        self._edges: list[float] = []
        self._totals_s: Floats = np.zeros((0, 0))  # [edge, replica] work with keys up to the edge
        self._changes = 0

    def __bool__(self) -> bool:
        return bool(self._edges)

    def clear(self) -> None:
        self._edges = []

    def fill(self, queues: Sequence[WorkQueue]) -> None:
        """Edges are quantiles of the keys that wait; above the last one there is only infinity."""
        counts = [len(queue) for queue in queues]
        waiting = [task for queue in queues for task in queue]
        keys = np.fromiter((task.key_s for task in waiting), np.float64, len(waiting))
        seconds = np.fromiter((task.work_s + task.load_s for task in waiting), np.float64, len(waiting))
        edges = np.unique(np.quantile(keys, np.linspace(0, 1, _EDGES - 1))) if waiting else np.zeros(0)
        self._edges = [*edges.tolist(), math.inf]
        cells = np.repeat(np.arange(len(counts)), counts) * len(self._edges) + np.searchsorted(edges, keys)
        totals_s = np.bincount(cells, weights=seconds, minlength=len(counts) * len(self._edges))
        by_replica = totals_s.reshape(len(counts), len(self._edges))
        self._totals_s = np.ascontiguousarray(np.cumsum(by_replica, axis=1).T)
        self._changes = 0

    def ahead_s(self, key_s: float) -> Floats:
        """Work ahead of the key on every replica, in proportion between the edges on either side."""
        at = bisect_left(self._edges, key_s)
        if at >= len(self._edges) - 1:
            return self._totals_s[-1]
        if not at:
            return self._totals_s[0]
        low_s, high_s = self._edges[at - 1], self._edges[at]
        below: Floats = self._totals_s[at - 1]
        return below + (key_s - low_s) / (high_s - low_s) * (self._totals_s[at] - below)

    def changed(self, place: int, key_s: float, seconds: float, waiting: int) -> None:
        """So much more work waits on a replica, with this key."""
        if self._edges:
            self._totals_s[bisect_left(self._edges, key_s) :, place] += seconds
            self._changes += 1
            if self._changes > max(_LEAST_CHANGES, waiting):
                self._edges = []

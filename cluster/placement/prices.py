"""Prices of pools and tasks: what proves a bound for any makespan, and which pairs of group and pool are worth solving.

Any prices prove a bound, good ones a good one. So the linear program may be solved for a part of its unknowns, or for a
simpler problem, and the prices that it ends with are held against all of them here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_HALVINGS = 20
_CHEAPEST = 1e-7
_SHARPEN = (4.0, 8.0, 16.0, 32.0, 64.0)
_ROUNDS_EACH = 6


@dataclass(frozen=True, eq=False)
class Instance:
    """A placement problem as arrays: G groups, V variants, P pools of equal GPUs.

    `task_s` [G, P] is infinite where the pool cannot render the group; `load_s` [V, P]; `tasks` and `variant` [G];
    `gpus` [P]. Every group has at least one task, every pool one GPU, and every group a pool. `variant` ascends and
    leaves no number out.
    """

    task_s: Floats
    load_s: Floats
    tasks: Ints
    variant: Ints
    gpus: Ints

    @property
    def starts(self) -> NDArray[np.intp]:
        """The first group of each variant."""
        return np.searchsorted(self.variant, np.arange(len(self.load_s)))

    @property
    def alone_s(self) -> Floats:
        """Seconds for a load and one task [G, P]."""
        return self.task_s + self.load_s[self.variant]


def most_tasks(instance: Instance, makespan_s: float) -> Floats:
    """The tasks of a group that one GPU can render within the makespan, its load included [G, P]: whole ones."""
    room_s = makespan_s * (1 + 1e-9) - instance.load_s[instance.variant]
    with np.errstate(invalid="ignore"):
        whole = np.floor(np.where(np.isfinite(room_s), room_s, 0.0) / instance.task_s * (1 + 1e-9))
    return np.clip(whole, 0, instance.tasks[:, None])


class Prices:
    """What a second of each pool costs, and what a task of each group earns, for makespans up to `makespan_s`.

    A GPU that takes up a variant pays for its load, and earns at most what the fractional knapsack of its tasks does in
    the seconds that are left. Where that is no profit anywhere, weak duality makes tasks times prices a lower bound.
    """

    def __init__(self, instance: Instance, makespan_s: float, pool_price: Floats, task_price: Floats) -> None:
        self._instance = instance
        # A solver's zeros are not quite zero: a pool that costs nothing at all would make every task in it worthless.
        price = np.maximum(pool_price, _CHEAPEST * pool_price.mean())
        self._price = price = price / float(price @ instance.gpus)
        total = float(task_price @ instance.tasks)
        self._earning = earning = np.where(task_price * instance.tasks > _CHEAPEST * total, task_price, 0.0)
        whole = most_tasks(instance, makespan_s)
        self._fits = fits = whole > 0
        task_s = np.where(fits, instance.task_s, 1.0)
        # By variant, and within one by what a second earns: the order in which the knapsack is filled.
        rate = np.where(fits, earning[:, None] / task_s, -1.0)
        self._order = order = np.lexsort((-rate, np.broadcast_to(instance.variant[:, None], rate.shape)), axis=0)
        self._columns = columns = np.arange(len(price))
        fill_s = np.where(fits, whole * task_s, 0.0)[order, columns]
        until_s = fill_s.cumsum(axis=0)
        starts = instance.starts
        before_s = np.where((starts > 0)[:, None], until_s[starts - 1], 0.0)[instance.variant]
        loads = np.isfinite(instance.load_s)
        room_s = np.where(loads, makespan_s * (1 + 1e-9) - instance.load_s, 0.0)[instance.variant]
        self._taken_s = np.clip(room_s - (until_s - fill_s - before_s), 0.0, fill_s)
        self._rate = np.where(fits, rate, 0.0)[order, columns]
        self._load = price * np.where(loads, instance.load_s, np.inf)

    def proven_s(self) -> float:
        """No plan whose makespan is `makespan_s` or less has one below this: each variant's task prices are scaled to
        the most at which no GPU makes a profit. In seconds, as a second of the whole fleet costs 1."""
        starts, earning = self._instance.starts, self._earning
        # At `high` one task alone pays for its seconds and its load somewhere.
        alone = np.where(self._fits & (earning > 0)[:, None], self._instance.alone_s, np.inf)
        high = (self._price * alone).min(axis=1) / np.where(earning > 0, earning, 1.0)
        high = np.minimum.reduceat(np.where(np.isfinite(high), high, 1.0), starts) * (1 + 1e-9)
        low = np.zeros_like(high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            sound = self._profit(middle).max(axis=1) <= 0
            low, high = np.where(sound, middle, low), np.where(sound, high, middle)
        return float(np.add.reduceat(self._instance.tasks * earning, starts) @ low)

    def profitable(self) -> Bools:
        """Pairs [G, P] in which a GPU makes a profit at these prices: what a restricted program lacks."""
        margin = self._rate > self._price
        pays = self._profit(np.ones(len(self._load))) > 1e-6 * np.where(np.isfinite(self._load), self._load, 0.0)
        found = np.zeros_like(margin)
        found[self._order, self._columns] = margin & (self._taken_s > 0) & pays[self._instance.variant]
        return found

    def _profit(self, scale: Floats) -> Floats:
        """Of one GPU that holds a variant [V, P], its tasks' prices scaled."""
        margin = np.maximum(0.0, scale[self._instance.variant][:, None] * self._rate - self._price)
        return np.asarray(np.add.reduceat(margin * self._taken_s, self._instance.starts, axis=0) - self._load)


def simple_cost_s(instance: Instance, makespan_s: float) -> Floats:
    """Seconds of a pool that all of a group takes there [G, P], with its share of the loads; infinite where it does not
    fit. A variant is loaded once, or as often as its work fills a GPU."""
    fits = most_tasks(instance, makespan_s) > 0
    load_s = np.where(np.isfinite(instance.load_s), instance.load_s, 0.0)
    room_s = np.maximum(makespan_s - load_s, 1e-9)
    task_s = np.where(fits, instance.task_s, 1.0)
    seconds = np.where(fits, instance.tasks[:, None] * task_s, 0.0)
    work_s = np.add.reduceat(seconds, instance.starts, axis=0)
    # Of whole tasks a GPU may hold less than its seconds would: one that takes most of the makespan needs its own.
    whole = np.maximum(np.floor(room_s[instance.variant] * (1 + 1e-9) / task_s), 1.0)
    loads = seconds / np.minimum(room_s, np.maximum(work_s, 1e-300))[instance.variant]
    loads = np.maximum(loads, instance.tasks[:, None] / whole)
    return np.where(fits, seconds + load_s[instance.variant] * loads, np.inf)


@dataclass(frozen=True, eq=False)
class Balance:
    """Prices at which about as much work is drawn to every GPU, and the makespan and the shares [G, P] that go with
    them: near a solution of the program, and found without solving it."""

    makespan_s: float
    price: Floats
    share: Floats


def balance(instance: Instance, low: float) -> Balance:
    """Groups go to cheap pools, more and more strictly, and prices follow the load; `low` bounds the makespan."""
    price = 1.0 / np.full(len(instance.gpus), float(instance.gpus.sum()))
    makespan_s = 1e300
    for sharp in _SHARPEN:
        cost_s = simple_cost_s(instance, makespan_s)
        with np.errstate(divide="ignore"):
            logs = -np.log(cost_s).astype(np.float32)
        finite_s = np.where(np.isfinite(cost_s), cost_s, 0.0)
        for _ in range(_ROUNDS_EACH):
            lure = sharp * (logs - np.log(price).astype(np.float32))
            share = np.exp(lure - lure.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            busy_s = (share * finite_s).sum(axis=0) / instance.gpus
            mean = busy_s.mean()
            price = price * ((busy_s + 0.01 * mean) / (1.01 * mean)) ** (1.0 / sharp)
        price /= float(price @ instance.gpus)
        needed_s = float((cost_s * price).min(axis=1).sum())
        # What is needed falls with the makespan, steeply where few tasks fit: then half way, in logarithms.
        steep = makespan_s < 1e300 and not 0.5 < needed_s / makespan_s < 2
        makespan_s = max(low, float(np.sqrt(makespan_s * needed_s)) if steep else needed_s)
    return Balance(makespan_s, price, share)

"""No plan is shorter than this: the linear program behind bulk placement, solved by HiGHS."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDS = 12
_CLOSE = 1e-5
_SOLVER_SLACK = 1e-6
"""Relative: HiGHS keeps constraints within 1e-7, so a bound gives that much away to stay one."""


@dataclass(frozen=True, eq=False)
class Instance:
    """A placement problem as arrays: G groups, V variants, P pools of equal GPUs.

    `task_s` [G, P] is infinite where the pool cannot render the group; `load_s` [V, P]; `tasks` and `variant` [G];
    `gpus` [P]. Every group has at least one task, every pool one GPU, and every group a pool.
    """

    task_s: Floats
    load_s: Floats
    tasks: Ints
    variant: Ints
    gpus: Ints


@dataclass(frozen=True, eq=False)
class Relaxation:
    """`bound_s` is a lower bound of every plan's makespan; `tasks` [G, P] the split, in fractions, that reaches it."""

    bound_s: float
    tasks: Floats


def relax(instance: Instance) -> Relaxation:
    """The bound and the fractional split by pool.

    In a plan of makespan T, a GPU that renders a variant spends at most T - load on it: so y GPUs do at most
    y·(T - load) seconds of it, at a cost of y·load. For a given T that is linear (y may be a fraction), and its
    optimum λ(T) falls as T grows. Hence min(T, λ(T)) is a lower bound for *every* T, and the best one is where the
    two meet; we walk there by secants and may stop anywhere.
    """
    with np.errstate(invalid="ignore"):
        alone_s = instance.task_s + instance.load_s[instance.variant]
    low = float(alone_s.min(axis=1).max())
    last_s, last = low, 0.0
    bound, high = low, np.inf
    at_s = low
    split = np.zeros_like(instance.task_s)
    for number in range(_ROUNDS):
        value, split = _solve(instance, at_s)
        bound = max(bound, min(at_s, value))
        # λ falls: where the two meet lies between any T and its λ(T).
        low, high = max(low, min(at_s, value)), min(high, max(at_s, value))
        if high - low <= _CLOSE * high:
            break
        over = value - at_s
        if number == 0:
            step_s = high
        else:
            step_s = at_s + over * (at_s - last_s) / (last - over) if last != over else at_s
            if not low < step_s < high:
                step_s = (low + high) / 2
        last_s, last, at_s = at_s, over, step_s
    return Relaxation(bound * (1 - _SOLVER_SLACK), split)


def _solve(instance: Instance, makespan_s: float) -> tuple[float, Floats]:
    """λ(makespan_s) and the split; pairs that do not fit into the makespan alone are left out, as no plan has them."""
    task_s, load_s, variant = instance.task_s, instance.load_s, instance.variant
    groups, pools = task_s.shape
    own_load_s = load_s[variant]
    g, p = np.nonzero(task_s + own_load_s <= makespan_s * (1 + 1e-9))
    keys, y = np.unique(variant[g] * pools + p, return_inverse=True)
    y_variant, y_pool = keys // pools, keys % pools
    xs, ys = len(g), len(keys)
    x_at, y_at, last = np.arange(xs), xs + np.arange(ys), xs + ys
    seconds, n = task_s[g, p], instance.tasks[g]
    ones, y_load = np.ones, load_s[y_variant, y_pool]
    row_of_link, row_of_cover = pools, pools + ys
    row_of_use = row_of_cover + int(variant.max()) + 1
    rows_total = row_of_use + xs
    entries = (
        # The seconds of a pool: rendering and loading, within count × λ.
        (p, x_at, seconds),
        (y_pool, y_at, y_load),
        (np.arange(pools), np.full(pools, last), -instance.gpus.astype(float)),
        # The seconds of a variant in a pool: within what its loads leave.
        (row_of_link + y, x_at, seconds / makespan_s),
        (row_of_link + np.arange(ys), y_at, -(makespan_s - y_load) / makespan_s),
        # A variant is loaded at least once, and at least as often as any of its groups' shares.
        (row_of_cover + y_variant, y_at, -ones(ys)),
        (row_of_use + x_at, x_at, 1 / n),
        (row_of_use + x_at, xs + y, -ones(xs)),
    )
    rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
    limits = np.zeros(rows_total)
    limits[row_of_cover + np.unique(variant)] = -1.0
    cost = np.zeros(last + 1)
    cost[last] = 1.0
    program: dict[str, Any] = {
        "A_ub": coo_array((values, (rows, columns)), shape=(rows_total, last + 1)).tocsr(),
        "b_ub": limits,
        "A_eq": coo_array((ones(xs), (g, x_at)), shape=(groups, last + 1)).tocsr(),
        "b_eq": instance.tasks.astype(float),
    }
    # A vertex first: few groups are then split between pools. Presolve can mistake loads of nanoseconds for an
    # infeasible program, and is left out on the second try.
    for presolve in (True, False):
        answer = linprog(cost, method="highs-ds", options={"presolve": presolve}, **program)
        if answer.x is not None:
            break
    else:
        raise RuntimeError(f"the placement program was not solved: {answer.message}")
    split = np.zeros((groups, pools))
    split[g, p] = answer.x[:xs]
    return float(answer.fun or 0.0), split

"""No plan is shorter than this: the linear program behind bulk placement, solved by HiGHS.

Up to `_SMALL` pairs of group and pool the program is solved as it is. Beyond, only for the pairs that prices say are
worth it; what is then proven is what its prices prove for all pairs.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from cluster.placement.prices import Balance, Bools, Floats, Instance, Prices, balance, most_tasks, simple_cost_s

_ROUNDS = 12
_CLOSE = 1e-5
_SOLVER_SLACK = 1e-6
"""Relative: HiGHS keeps constraints within 1e-7, so a bound gives that much away to stay one."""

_SMALL = 1600
_PAIRS = 1800
"""Pairs of the restricted program: it takes a tenth of a second, and is solved a few times."""

_PAIRS_SIMPLE = 12_000
_LARGE_ROUNDS = 8
_LARGE_CLOSE = 5e-4
_STEP = 1.5
_MANY_PAIRS = 100_000
_CHEAPEST = 1e-7
_SIMPLE_ROUNDS = 3
_ITERATIONS = 4500
"""Of the simplex method in all restricted programs: counted and not timed, so that every machine has the same plan."""

_OUT_OF_ITERATIONS = 1
_MOST_GROUPS_SIMPLE = 3000
_MOST_GROUPS = 600
"""Beyond, each group has too few pairs in the restricted program; the simple one is all that is solved."""


@dataclass(frozen=True, eq=False)
class Relaxation:
    """`bound_s` is a lower bound of every plan's makespan; `tasks` [G, P] the split, in fractions, that reaches it."""

    bound_s: float
    tasks: Floats


@dataclass(frozen=True, eq=False)
class _Solved:
    """`value_s` is λ; what a second of a pool costs and what a task of a group earns are the program's duals."""

    value_s: float
    tasks: Floats
    pool_price: Floats
    task_price: Floats
    iterations: int = 0


def relax(instance: Instance) -> Relaxation:
    """The bound and the fractional split by pool.

    In a plan of makespan T, a GPU that renders a variant spends at most T - load on it: so y GPUs do at most
    y·(T - load) seconds of it and, of each group, y times the whole tasks that fit into them, at a cost of y·load. For
    a given T that is linear (y may be a fraction), and its optimum λ(T) falls as T grows. Hence min(T, λ(T)) is a lower
    bound for *every* T, and the best one is where the two meet; we walk there by secants and may stop anywhere.
    """
    low = float(instance.alone_s.min(axis=1).max())
    if np.isfinite(instance.task_s).sum() <= _SMALL:
        return _exact(instance, low)
    return _priced(instance, low)


def _exact(instance: Instance, low: float) -> Relaxation:
    bound, high, at_s = low, np.inf, low
    last_s, last = low, 0.0
    split = np.zeros_like(instance.task_s)
    for number in range(_ROUNDS):
        solved = _solve(instance, at_s, most_tasks(instance, at_s) > 0)
        assert solved is not None, "it had no limit"
        value, split = solved.value_s, solved.tasks
        bound = max(bound, min(at_s, value))
        # λ falls: where the two meet lies between any T and its λ(T).
        low, high = max(low, min(at_s, value)), min(high, max(at_s, value))
        if high - low <= _CLOSE * high:
            break
        over = value - at_s
        step_s = high if number == 0 else _secant(last_s, last, at_s, over)
        if number and not low < step_s < high:
            step_s = (low + high) / 2
        last_s, last, at_s = at_s, over, step_s
    return Relaxation(bound * (1 - _SOLVER_SLACK), split)


def _secant(last_s: float, last: float, at_s: float, over: float) -> float:
    return at_s + over * (at_s - last_s) / (last - over) if last != over else at_s


def _priced(instance: Instance, low: float) -> Relaxation:
    """For many pairs: a simple program for a first makespan and for prices, then the real one for the best pairs."""
    start = balance(instance, low)
    solved = (
        _solve_simple(instance, start) if len(instance.tasks) <= _MOST_GROUPS_SIMPLE else _unsolved(instance, start)
    )
    at_s = start.makespan_s
    bound = max(low, _best_proven_s(instance, at_s, solved))
    if len(instance.tasks) > _MOST_GROUPS:
        return Relaxation(bound * (1 - _SOLVER_SLACK), solved.tasks)
    at_s = max(at_s, bound)
    pairs = solved.tasks > 0
    # The quickest pool of each group makes every makespan from `low` on possible.
    pairs[np.arange(len(pairs)), instance.alone_s.argmin(axis=1)] = True
    below, above, seen_s, iterations = low, np.inf, 0.0, _ITERATIONS
    for _ in range(_LARGE_ROUNDS):
        if not math.isclose(at_s, seen_s, rel_tol=0.02):
            pairs |= _pairs(simple_cost_s(instance, at_s), start.price, _PAIRS)
            seen_s = at_s
        found = _solve(instance, at_s, pairs & (most_tasks(instance, at_s) > 0), iterations)
        if found is None:
            break
        solved, value = found, found.value_s
        iterations -= found.iterations
        bound = max(bound, _best_proven_s(instance, at_s, solved))
        # The restricted λ is no lower bound, but it is an upper one of where the whole program's two meet.
        above = min(above, max(at_s, value))
        if bound >= above * (1 - _LARGE_CLOSE):
            break
        prices = Prices(instance, at_s, solved.pool_price, solved.task_price)
        pairs |= prices.profitable()
        if value <= at_s or bound >= at_s:
            below = max(bound, below)
            # λ is near its other end, unless whole tasks make a step there: then by halves.
            at_s = (
                value if below < value < min(above, 1.05 * at_s) else float(np.sqrt(below * min(above, _STEP * below)))
            )
    return Relaxation(bound * (1 - _SOLVER_SLACK), solved.tasks)


def _best_proven_s(instance: Instance, at_s: float, solved: _Solved) -> float:
    """The best of min(T, what the prices prove for T); the second falls with T."""
    best, low, high = 0.0, 0.0, np.inf
    for number in range(6 if instance.task_s.size < _MANY_PAIRS else 2):
        proven = Prices(instance, at_s, solved.pool_price, solved.task_price).proven_s()
        best = max(best, min(at_s, proven))
        low, high = max(low, min(at_s, proven)), min(high, max(at_s, proven))
        if high - low <= _LARGE_CLOSE / 4 * high:
            break
        # It hardly falls where loads are short.
        at_s = proven if number == 0 else (low + high) / 2
    return best


def _pairs(cost_s: Floats, price: Floats, most: int) -> Bools:
    """About `most` pairs that cost least at these prices: for each group two, and more the more of the fleet it
    needs; for each pool those two that it suits best."""
    cost = np.where(np.isfinite(cost_s), cost_s * np.maximum(price, _CHEAPEST * price.mean()), np.inf)
    least = cost.min(axis=1)
    spare = max(0, most - 2 * sum(cost.shape))
    each = 2 + np.ceil(spare * least / least.sum()).astype(int)
    rank = np.empty(cost.shape, dtype=np.int64)
    np.put_along_axis(rank, cost.argsort(axis=1), np.broadcast_to(np.arange(cost.shape[1]), cost.shape), axis=1)
    chosen = rank < each[:, None]
    suits = (cost / least[:, None]).argsort(axis=0)[:2]
    np.put_along_axis(chosen, suits, True, axis=0)
    return np.asarray(chosen & np.isfinite(cost_s))


def _unsolved(instance: Instance, start: Balance) -> _Solved:
    """Where even the simple program is too large: the balance as it is, without shares of less than a tenth."""
    share = np.where(start.share >= np.minimum(0.1, start.share.max(axis=1, keepdims=True)), start.share, 0.0)
    share /= share.sum(axis=1, keepdims=True)
    cost_s = simple_cost_s(instance, start.makespan_s)
    earned = (cost_s * start.price).min(axis=1) / instance.tasks
    return _Solved(start.makespan_s, share * instance.tasks[:, None], start.price, earned)


def _solve_simple(instance: Instance, start: Balance) -> _Solved:
    """Loads as a share of each group's seconds: one row a group and one a pool, so many more pairs may be solved."""
    cost_s = simple_cost_s(instance, start.makespan_s)
    groups, pools = cost_s.shape
    price = start.price
    pairs = np.zeros_like(cost_s, dtype=bool)
    answer: Any = None
    for _ in range(_SIMPLE_ROUNDS):
        pairs |= _pairs(cost_s, price, _PAIRS_SIMPLE)
        g, p = np.nonzero(pairs)
        xs = len(g)
        rows = np.concatenate([p, np.arange(pools)])
        columns = np.concatenate([np.arange(xs), np.full(pools, xs)])
        values = np.concatenate([cost_s[g, p], -instance.gpus.astype(float)])
        cost = np.zeros(xs + 1)
        cost[xs] = 1.0
        program: dict[str, Any] = {
            "A_ub": coo_array((values, (rows, columns)), shape=(pools, xs + 1)).tocsr(),
            "b_ub": np.zeros(pools),
            "A_eq": coo_array((np.ones(xs), (g, np.arange(xs))), shape=(groups, xs + 1)).tocsr(),
            "b_eq": np.ones(groups),
        }
        answer = _highs(cost, program)
        assert answer is not None, "it had no limit"
        dual = np.maximum(0.0, -answer.ineqlin.marginals)
        reached = float((cost_s * np.maximum(dual, 1e-12)).min(axis=1).sum())
        if reached >= answer.fun * (1 - _LARGE_CLOSE):
            break
        # Half way: the duals of few pairs are wild.
        price = (price + dual) / 2
    split = np.zeros_like(cost_s)
    split[g, p] = answer.x[:xs] * instance.tasks[g]
    earned = np.maximum(0.0, answer.eqlin.marginals) / instance.tasks
    return _Solved(float(answer.fun), split, dual, earned)


def _solve(instance: Instance, makespan_s: float, pairs: Bools, iterations: int | None = None) -> _Solved | None:
    """λ(makespan_s) and the split, tasks only where `pairs` [G, P] says; None where the simplex method needs more
    `iterations`."""
    task_s, load_s, variant = instance.task_s, instance.load_s, instance.variant
    groups, pools = task_s.shape
    g, p = np.nonzero(pairs)
    keys, y = np.unique(variant[g] * pools + p, return_inverse=True)
    y_variant, y_pool = keys // pools, keys % pools
    xs, ys = len(g), len(keys)
    x_at, y_at, last = np.arange(xs), xs + np.arange(ys), xs + ys
    seconds, most = task_s[g, p], most_tasks(instance, makespan_s)[g, p]
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
        # A variant is loaded at least once, and as often as any of its groups needs GPUs there.
        (row_of_cover + y_variant, y_at, -ones(ys)),
        (row_of_use + x_at, x_at, 1 / most),
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
    answer = _highs(cost, program, iterations)
    if answer is None:
        return None
    split = np.zeros((groups, pools))
    split[g, p] = answer.x[:xs]
    prices = np.maximum(0.0, -answer.ineqlin.marginals[:pools])
    return _Solved(float(answer.fun or 0.0), split, prices, np.maximum(0.0, answer.eqlin.marginals), answer.nit)


def _highs(cost: Floats, program: dict[str, Any], iterations: int | None = None) -> Any | None:
    """SciPy's answer, with a solution; None where the simplex method needs more `iterations`."""
    # A vertex first: few groups are then split between pools. Presolve can mistake loads of nanoseconds for an
    # infeasible program, and is left out on the second try.
    for presolve in (True, False):
        options: Any = {"presolve": presolve} | ({} if iterations is None else {"maxiter": max(1, iterations)})
        answer: Any = linprog(cost, method="highs-ds", options=options, **program)
        if answer.status == _OUT_OF_ITERATIONS:
            return None
        if answer.x is not None:
            return answer
    raise RuntimeError(f"the placement program was not solved: {answer.message}")

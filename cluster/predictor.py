"""Service times learnt from finished tasks: what the cost model does for variants that have no architecture.

Two levels. What all variants have in common is a robust ridge regression of log seconds on the logarithms of the
numeric features, their squares and products, with a level per variant, and corrections per category and per kind of
task (all features alike). What a variant does differently is a ridge regression of what that leaves, held towards
nothing as firmly as leaving one observation out says: a rare variant is predicted by the others' shape and its own
level. Only `observe` sees true seconds, and only of tasks that are complete.
"""

import math
from dataclasses import dataclass

import numpy as np

from cluster.trace import Floats, Ints, Trace

_WINDOW = 4000
_BLOCK = 512
_MOST_PRODUCTS = 5
_FIRST_FIT = 8
_UNKNOWN_SIGMA = 0.5
_BEYOND = 0.7  # of log seconds: how far outside of what was seen a prediction may go
_RIDGE = 0.3
_OWN_RIDGES = (0.3, 3.0, 30.0, 300.0, 3000.0)
_LEVEL_PRIOR, _CODE_PRIOR = 0.5, 3.0  # observations that say nothing of a variant's level, of a category


class _Observed:
    """Finished tasks of one variant, or of all."""

    __slots__ = ("count", "logs", "next_fit", "rows")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.logs: list[float] = []
        self.count = 0
        self.next_fit = 1

    def add(self, row: int, log_s: float) -> bool:
        """True when it is time to fit again."""
        self.rows.append(row)
        self.logs.append(log_s)
        self.count += 1
        if len(self.rows) >= 2 * _WINDOW:  # forgetting: the last few thousand say how it is now
            del self.rows[:-_WINDOW], self.logs[:-_WINDOW]
        return self.count >= self.next_fit

    def last(self) -> tuple[Ints, Floats]:
        return np.array(self.rows[-_WINDOW:]), np.array(self.logs[-_WINDOW:])


@dataclass(frozen=True)
class _Fit:
    """Log seconds = level + slopes · features + what the codes add, held to `span`, on top of `base`."""

    level: float
    slopes: Floats
    centre: Floats
    scale: Floats
    codes: tuple[Floats, ...]  # for each column of codes, what each adds
    sigma: float
    span: tuple[float, float]
    base: "_Fit | None" = None


class Predictor:
    """Predicted seconds on the reference accelerator, by the task's number in the trace."""

    def __init__(self, trace: Trace, prior_s: float = 10.0) -> None:
        self._design = _design(trace.features, len(trace))
        # The variant first: its levels are fitted with the slopes, the others' after them.
        self._codes: list[Ints] = [trace.variant, *trace.categories.values(), *_kinds(trace)]
        self._code_counts = [int(codes.max(initial=-1)) + 1 for codes in self._codes]
        variants = len(trace.names)
        self._observed = [_Observed() for _ in range(variants)]
        self._fits: list[_Fit | None] = [None] * variants
        self._observed_all = _Observed()
        self._fit_all: _Fit | None = None
        self._sigmas = [_UNKNOWN_SIGMA] * variants
        self._means = [_mean_over_median(_UNKNOWN_SIGMA)] * variants
        self._positions = [np.flatnonzero(trace.variant == v) for v in range(variants)]
        self._upto = [0] * variants  # predictions of a variant's tasks are made up to there
        self._done = [0] * variants  # its last completed task
        place = np.zeros(len(trace), dtype=np.int64)
        for positions in self._positions:
            place[positions] = np.arange(len(positions))
        self._place_of: list[int] = place.tolist()
        self._variant: list[int] = trace.variant.tolist()
        self._seconds: list[float] = [prior_s] * len(trace)

    def seconds(self, task: int) -> float:
        """The median prediction. Constant from a task's first question on, until the variant is fitted again."""
        variant = self._variant[task]
        if self._place_of[task] >= self._upto[variant]:
            self._fill(variant, self._place_of[task])
        return self._seconds[task]

    def mean_s(self, task: int) -> float:
        """The mean prediction: times scatter as a lognormal does."""
        return self.seconds(task) * self._means[self._variant[task]]

    def sigma(self, variant: int) -> float:
        """Spread of log seconds around the prediction."""
        return self._sigmas[variant]

    def observe(self, task: int, exec_s: float) -> bool:
        """A task has completed: on the reference accelerator it would have taken `exec_s`. True where that has led to a
        new fit of all tasks, so that predictions made before are worth making again."""
        log_s = math.log(max(exec_s, 1e-3))
        variant = self._variant[task]
        self._done[variant] = self._place_of[task]
        again = self._observed_all.add(task, log_s)
        due = self._observed[variant].add(task, log_s)
        if again:
            self._fit_all = self._fitted(self._observed_all, None)
            self._upto = [min(upto, done) for upto, done in zip(self._upto, self._done, strict=True)]
        # What all have in common settles: until then, what is different is different from something else each time.
        unsettled = again and self._observed_all.count <= _WINDOW
        for known, observed in enumerate(self._observed) if again else [(variant, self._observed[variant])]:
            if (known == variant and due) or (unsettled and observed.count):
                assert self._fit_all is not None  # the first completion of all has made it
                self._fits[known] = self._fitted(observed, self._fit_all)
                self._upto[known] = min(self._upto[known], self._done[known])
            fit = self._fits[known] if observed.count >= _FIRST_FIT else self._fit_all
            self._sigmas[known] = fit.sigma if fit else _UNKNOWN_SIGMA
            self._means[known] = _mean_over_median(self._sigmas[known])
        return again

    def _fitted(self, observed: _Observed, base: _Fit | None) -> _Fit:
        """All tasks without a base; with one, what a variant does differently."""
        observed.next_fit = observed.count + max(1, min(observed.count // 2, 1000))
        rows, logs = observed.last()
        enough = len(rows) >= _FIRST_FIT
        wanted = logs if base is None else logs - self._evaluate(base, rows)
        design = self._design[rows] if enough else np.zeros((len(rows), 0))
        centre, scale = design.mean(axis=0), design.std(axis=0)
        scale = np.where(scale > 1e-9, scale, np.inf)
        columns = (design - centre) / scale
        levels = self._codes[0][rows] if base is None else np.zeros(len(rows), dtype=np.int64)
        slopes, of_level, residuals, weights = _regressed(columns, wanted, levels, _RIDGE if base is None else None)
        counts = np.bincount(levels, weights=weights, minlength=len(of_level))
        level = float(counts @ of_level / counts.sum()) if base is None else 0.0
        shrunk = (of_level - level) * counts / (counts + _LEVEL_PRIOR)
        added: list[Floats] = []
        if base is None:
            added.append(np.pad(shrunk, (0, self._code_counts[0] - len(shrunk))))
            for codes, many in zip(self._codes[1:], self._code_counts[1:], strict=True):
                sums = np.bincount(codes[rows], weights=residuals * weights, minlength=many)
                adds = sums / (np.bincount(codes[rows], weights=weights, minlength=many) + _CODE_PRIOR)
                residuals = residuals - adds[codes[rows]]
                added.append(adds)
        else:
            level = float(shrunk[0])
        width = self._design.shape[1]
        return _Fit(
            level,
            slopes if enough else np.zeros(width),
            centre if enough else np.zeros(width),
            scale if enough else np.ones(width),
            tuple(added),
            1.4826 * float(np.median(np.abs(residuals))) if enough else _UNKNOWN_SIGMA,
            (float(wanted.min()) - _BEYOND, float(wanted.max()) + _BEYOND),
            base,
        )

    def _fill(self, variant: int, start: int) -> None:
        positions = self._positions[variant][start : start + _BLOCK]
        fit = self._fits[variant] or self._fit_all
        if fit is None:
            return
        for position, value in zip(positions.tolist(), np.exp(self._evaluate(fit, positions)).tolist(), strict=True):
            self._seconds[position] = value
        self._upto[variant] = start + len(positions)

    def _evaluate(self, fit: _Fit, positions: Ints) -> Floats:
        # Beyond what was seen a quadratic runs away: hold the features at a few deviations.
        columns = np.clip((self._design[positions] - fit.centre) / fit.scale, -4, 4)
        log_s: Floats = fit.level + columns @ fit.slopes
        for codes, adds in zip(self._codes, fit.codes, strict=False):
            log_s = log_s + adds[codes[positions]]
        log_s = np.clip(log_s, *fit.span)
        return log_s if fit.base is None else log_s + self._evaluate(fit.base, positions)


def _regressed(
    columns: Floats, wanted: Floats, levels: Ints, ridge: float | None
) -> tuple[Floats, Floats, Floats, Floats]:
    """(slopes, a level each, residuals, weights) by least squares that outliers do not bend; without a ridge, the one
    that predicts each value best from the others."""
    weights = np.ones(len(wanted))
    for _ in range(4):  # Huber by reweighting: a cold start must not bend the fit
        counts = np.maximum(np.bincount(levels, weights=weights), 1e-12)
        of_wanted = np.bincount(levels, weights=weights * wanted) / counts
        of_columns = np.array([np.bincount(levels, weights=weights * column) / counts for column in columns.T])
        of_columns = of_columns.T.reshape(len(counts), columns.shape[1])
        inner, target = columns - of_columns[levels], wanted - of_wanted[levels]
        square, moment = inner.T @ (inner * weights[:, None]), inner.T @ (weights * target)
        if ridge is None:
            slopes = _left_out(inner, target, weights, square, moment)
        else:
            slopes = np.linalg.solve(square + ridge * np.eye(len(moment)), moment)
        of_level = of_wanted - of_columns @ slopes
        residuals = target - inner @ slopes
        spread = 1.4826 * float(np.median(np.abs(residuals))) + 1e-4
        weights = np.minimum(1.0, 1.5 * spread / np.maximum(np.abs(residuals), 1e-12))
    return slopes, of_level, residuals, weights


def _left_out(inner: Floats, target: Floats, weights: Floats, square: Floats, moment: Floats) -> Floats:
    """The slopes of the ridge by which each value is predicted best from the others."""
    best, least = np.zeros(len(moment)), float(weights @ target**2)
    values, vectors = np.linalg.eigh(square)
    turned, turned_moment = (inner @ vectors) ** 2, vectors.T @ moment
    for ridge in _OWN_RIDGES:
        shrink = 1 / (np.maximum(values, 0.0) + ridge)
        slopes = vectors @ (shrink * turned_moment)
        leverage = np.minimum(weights * (turned @ shrink), 0.99)
        off = float(weights @ ((target - inner @ slopes) / (1 - leverage)) ** 2)
        if off < least:
            best, least = slopes, off
    return best


def _mean_over_median(sigma: float) -> float:
    """Of a lognormal; held where a fit that knows little would promise ages."""
    return math.exp(min(sigma * sigma, 1.0) / 2)


def _kinds(trace: Trace) -> list[Ints]:
    """Which tasks are alike in every feature, where most have others like them."""
    features = [*trace.features.values(), *trace.categories.values()]
    if not features:
        return []
    found, codes = np.unique(np.column_stack(features), axis=0, return_inverse=True)
    return [codes.reshape(-1)] if 4 * len(found) <= len(trace) else []


def _design(features: dict[str, Floats], rows: int) -> Floats:
    logs = [np.sign(values) * np.log1p(np.abs(values)) for values in features.values() if np.ptp(values) > 0]
    if not logs:
        return np.zeros((rows, 0))
    columns = list(logs)
    if len(logs) <= _MOST_PRODUCTS:
        columns += [logs[a] * logs[b] for a in range(len(logs)) for b in range(a, len(logs))]
    return np.column_stack(columns)

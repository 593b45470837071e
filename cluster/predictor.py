"""Service times learnt from finished tasks: what the cost model does for variants that have no architecture.

Per variant a robust ridge regression of log seconds on the logarithms of the numeric features, their squares and
products, plus a correction per category. A variant with few observations borrows from a model of all of them.
Only `observe` sees true seconds, and only of tasks that are complete.
"""

import math

import numpy as np

from cluster.trace import Floats, Ints, Trace

_WINDOW = 4000
_BLOCK = 512
_MOST_PRODUCTS = 5
_FIRST_FIT = 8


class _Fit:
    """Observations of one variant (or of all), and the last fit to them."""

    __slots__ = ("centre", "coefficients", "count", "deltas", "logs", "next_fit", "rows", "scale", "sigma", "span")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.logs: list[float] = []
        self.count = 0
        self.next_fit = 1
        self.coefficients: Floats | None = None
        self.centre: Floats = np.zeros(0)
        self.scale: Floats = np.ones(0)
        self.sigma = 0.5
        self.span = (-math.inf, math.inf)
        self.deltas: list[dict[int, float]] = []

    def add(self, row: int, log_s: float) -> bool:
        """True when it is time to fit again."""
        self.rows.append(row)
        self.logs.append(log_s)
        self.count += 1
        if len(self.rows) >= 2 * _WINDOW:  # forgetting: the last few thousand say how it is now
            del self.rows[:-_WINDOW], self.logs[:-_WINDOW]
        return self.count >= self.next_fit


class Predictor:
    """Predicted seconds on the reference accelerator, by the task's number in the trace."""

    def __init__(self, trace: Trace, prior_s: float = 10.0) -> None:
        self._trace_variant = trace.variant
        self._design = _design(trace.features, len(trace))
        self._categories: list[Ints] = list(trace.categories.values())
        self._log_s = np.full(len(trace), math.log(prior_s))
        self._fits = [_Fit() for _ in trace.names]
        self._all = _Fit()
        self._sigmas = [self._all.sigma] * len(trace.names)
        self._means = [_mean_over_median(self._all.sigma)] * len(trace.names)
        self._positions = [np.flatnonzero(trace.variant == v) for v in range(len(trace.names))]
        self._upto = [0] * len(trace.names)  # predictions of a variant's tasks are made up to there
        self._done = [0] * len(trace.names)  # its last completed task
        self._place = np.zeros(len(trace), dtype=np.int64)
        for positions in self._positions:
            self._place[positions] = np.arange(len(positions))
        self._place_of: list[int] = self._place.tolist()
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
        again = self._all.add(task, log_s)
        if again:
            self._refit(self._all)
            self._upto = [min(upto, done) for upto, done in zip(self._upto, self._done, strict=True)]
        variant = self._variant[task]
        self._done[variant] = self._place_of[task]
        fit = self._fits[variant]
        if fit.add(task, log_s):
            self._refit(fit)
            self._upto[variant] = min(self._upto[variant], self._place_of[task])
        for known in range(len(self._fits)) if again else (variant,):
            own = self._fits[known]
            self._sigmas[known] = own.sigma if own.count >= _FIRST_FIT else self._all.sigma
            self._means[known] = _mean_over_median(self._sigmas[known])
        return again

    def _refit(self, fit: _Fit) -> None:
        fit.next_fit = fit.count + max(1, min(fit.count // 2, 1000))
        rows = np.array(fit.rows[-_WINDOW:])
        logs = np.array(fit.logs[-_WINDOW:])
        fit.span = (float(logs.min()) - 0.7, float(logs.max()) + 0.7)
        design = self._design[rows]
        fit.centre = design.mean(axis=0)
        scale = design.std(axis=0)
        fit.scale = np.where(scale > 1e-9, scale, np.inf)
        columns = np.hstack([np.ones((len(rows), 1)), (design - fit.centre) / fit.scale])
        if len(rows) < _FIRST_FIT:
            columns = columns[:, :1]
        weights = np.ones(len(rows))
        ridge = np.diag([1e-6] + [0.3] * (columns.shape[1] - 1))
        coefficients = np.zeros(columns.shape[1])
        residuals = logs
        for _ in range(4):  # Huber by reweighting: a cold start must not bend the fit
            weighted = columns * weights[:, None]
            coefficients = np.linalg.solve(columns.T @ weighted + ridge, weighted.T @ logs)
            residuals = logs - columns @ coefficients
            spread = 1.4826 * float(np.median(np.abs(residuals))) + 1e-4
            weights = np.minimum(1.0, 1.5 * spread / np.maximum(np.abs(residuals), 1e-12))
        padded = np.zeros(self._design.shape[1] + 1)
        padded[: len(coefficients)] = coefficients
        fit.coefficients = padded
        fit.deltas = []
        for codes in self._categories:
            of_rows = codes[rows]
            sums = np.bincount(of_rows, weights=residuals * weights)
            counts = np.bincount(of_rows, weights=weights)
            deltas = sums / (counts + 3.0)
            residuals = residuals - deltas[of_rows]
            fit.deltas.append({int(code): float(deltas[code]) for code in np.flatnonzero(counts)})
        fit.sigma = 1.4826 * float(np.median(np.abs(residuals))) if len(rows) >= _FIRST_FIT else 0.5

    def _fill(self, variant: int, start: int) -> None:
        positions = self._positions[variant][start : start + _BLOCK]
        own, everyone = self._fits[variant], self._all
        enough = _FIRST_FIT + 2 * self._design.shape[1]
        if own.coefficients is not None and own.count >= enough:
            log_s = self._evaluate(own, positions)
        elif everyone.coefficients is not None:
            log_s = self._evaluate(everyone, positions)
            if own.rows:
                # How this variant differs from the rest, believed more with every observation.
                seen = np.array(own.rows)
                differs = float(np.median(np.array(own.logs) - self._evaluate(everyone, seen)))
                log_s = log_s + differs * len(seen) / (len(seen) + 0.5)
        else:
            return
        self._log_s[positions] = log_s
        for position, value in zip(positions.tolist(), np.exp(log_s).tolist(), strict=True):
            self._seconds[position] = value
        self._upto[variant] = start + len(positions)

    def _evaluate(self, fit: _Fit, positions: Ints) -> Floats:
        assert fit.coefficients is not None
        columns = (self._design[positions] - fit.centre) / fit.scale
        # Beyond what was seen a quadratic runs away: hold the features at a few deviations.
        log_s: Floats = fit.coefficients[0] + np.clip(columns, -4, 4) @ fit.coefficients[1:]
        for codes, deltas in zip(self._categories, fit.deltas, strict=True):
            log_s = log_s + np.array([deltas.get(code, 0.0) for code in codes[positions].tolist()])
        return np.clip(log_s, *fit.span)


def _mean_over_median(sigma: float) -> float:
    """Of a lognormal; held where a fit that knows little would promise ages."""
    return math.exp(min(sigma * sigma, 1.0) / 2)


def _design(features: dict[str, Floats], rows: int) -> Floats:
    logs = [np.sign(values) * np.log1p(np.abs(values)) for values in features.values() if np.ptp(values) > 0]
    if not logs:
        return np.zeros((rows, 0))
    columns = list(logs)
    if len(logs) <= _MOST_PRODUCTS:
        columns += [logs[a] * logs[b] for a in range(len(logs)) for b in range(a, len(logs))]
    return np.column_stack(columns)

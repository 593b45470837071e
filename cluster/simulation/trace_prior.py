"""What a trace's features say of service times: the prior of `ServiceTimes` for variants without a known architecture.

Two levels. What all variants have in common is a robust ridge regression of log seconds on the logarithms of the
numeric features, their squares and products, with a level per variant, and corrections per category and per kind of
task (all features alike). What a variant does differently is a ridge regression of what that leaves, held towards
nothing as firmly as leaving one observation out says: a rare variant is predicted by the others' shape and its own
level. Tasks of one variant whose features are all alike share a configuration: the number of the first of them. Only
`observe` sees true seconds, and only of tasks that are complete.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.cost.model import Load
from cluster.cost.service_times import CostKey
from cluster.simulation.trace import Floats, Ints, Trace

_WINDOW = 4000
_BLOCK = 512
_MOST_PRODUCTS = 5
_FIRST_FIT = 8
_BEYOND = 0.7  # of log seconds: how far outside of what was seen a prediction may go
_RIDGE = 0.3
_OWN_RIDGES = (0.3, 3.0, 30.0, 300.0, 3000.0)
_LEVEL_PRIOR, _CODE_PRIOR = 0.5, 12.0  # observations that say nothing of a variant's level, of a category
_FIRST_REFITS, _REFITS = 3, 20_000  # the next fit is after such a part more observations, at most so many


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
    span: tuple[float, float]
    base: "_Fit | None" = None


class TracePrior:
    """Of one trace. `factors` are the variants' seconds relative to each other, for tasks that fall back; `speeds` are
    the accelerators' relative to the trace's reference. What is missing is 1."""

    doubt, doubt_of_configurations = 1.0, 0.1

    def __init__(
        self,
        trace: Trace,
        factors: Sequence[float] = (),
        speeds: dict[str, float] | None = None,
        prior_s: float = 10.0,
    ) -> None:
        self._design = _design(trace.features, len(trace))
        # The variant first: its levels are fitted with the slopes, the others' after them.
        self._codes: list[Ints] = [trace.variant, *trace.categories.values(), *_feature_classes(trace)]
        self._code_counts = [int(codes.max(initial=-1)) + 1 for codes in self._codes]
        variants = len(trace.names)
        self._factor = dict(zip(trace.names, factors or [1.0] * variants, strict=True))
        self._own_factor = [self._factor[name] for name in trace.names]
        self._speeds = speeds or {}
        self._observed = [_Observed() for _ in range(variants)]
        self._fits: list[_Fit | None] = [None] * variants
        self._observed_all = _Observed()
        self._fit_all: _Fit | None = None
        columns = [trace.variant, *trace.features.values(), *trace.categories.values()]
        self.configurations: list[int] = _equal_rows(columns)[0].tolist()
        """Of each task."""
        first = np.flatnonzero(np.array(self.configurations) == np.arange(len(trace)))
        self._positions = [first[trace.variant[first] == v] for v in range(variants)]
        self._filled: set[tuple[int, int]] = set()  # blocks whose predictions are those of the present fits
        self._place_of = {task: place for tasks in self._positions for place, task in enumerate(tasks.tolist())}
        self._variant: list[int] = trace.variant.tolist()
        self._seconds = dict.fromkeys(self._place_of, prior_s)

    def identity(self, variant: str) -> str | None:
        """A trace says nothing of its variants but their names."""
        return "" if variant in self._factor else None

    def doubt_of(self, variant: str) -> float:  # noqa: ARG002
        """How far variants are from each other, beyond their features."""
        return 0.7

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:  # noqa: ARG002
        """A trace says nothing of loads."""
        return 0.0

    def seconds(self, key: CostKey) -> float:
        """The median, for a task of the key's configuration rendered by the key's variant on its accelerator."""
        task = key.configuration
        assert isinstance(task, int)
        variant = self._variant[task]
        block = self._place_of[task] // _BLOCK
        if (variant, block) not in self._filled:
            self._fill(variant, block)
        factor = self._factor[key.variant] / self._own_factor[variant]
        return self._seconds[task] * factor / self._speeds.get(key.accelerator, 1.0)

    def observe(self, key: CostKey, seconds: float) -> bool:
        """A task of the configuration has completed. True where that has led to new fits."""
        task = key.configuration
        assert isinstance(task, int)
        variant = self._variant[task]
        factor = self._factor[key.variant] / self._own_factor[variant]
        log_s = math.log(max(seconds * self._speeds.get(key.accelerator, 1.0) / factor, 1e-3))
        self._observed[variant].add(task, log_s)
        if not self._observed_all.add(task, log_s):
            return False
        # All at once: what a variant does differently is different from what all have in common.
        self._fit_all = self._fitted(self._observed_all, None)
        for known, observed in enumerate(self._observed):
            if observed.count >= _FIRST_FIT and (observed.count >= observed.next_fit or observed.count < _WINDOW):
                self._fits[known] = self._fitted(observed, self._fit_all)
        self._filled.clear()
        return True

    def _fitted(self, observed: _Observed, base: _Fit | None) -> _Fit:
        """All tasks without a base; with one, what a variant does differently."""
        observed.next_fit = observed.count + max(1, min(observed.count // _FIRST_REFITS, _REFITS))
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
            (float(wanted.min()) - _BEYOND, float(wanted.max()) + _BEYOND),
            base,
        )

    def _fill(self, variant: int, block: int) -> None:
        self._filled.add((variant, block))
        fit = self._fits[variant] or self._fit_all
        if fit is None:
            return
        positions = self._positions[variant][block * _BLOCK : (block + 1) * _BLOCK]
        for position, value in zip(positions.tolist(), np.exp(self._evaluate(fit, positions)).tolist(), strict=True):
            self._seconds[position] = value

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


def _equal_rows(columns: Sequence[npt.NDArray[Any]]) -> tuple[Ints, Ints]:
    """(the first row like each row, a number for rows that are alike)."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        _, values = np.unique(column, return_inverse=True)
        values = values.reshape(-1)
        codes = np.unique(codes * (int(values.max(initial=0)) + 1) + values, return_inverse=True)[1].reshape(-1)
    _, first = np.unique(codes, return_index=True)
    return first[codes], codes


def _feature_classes(trace: Trace) -> list[Ints]:
    """Which tasks are alike in every feature, whatever the variant, where most have others like them."""
    features = [*trace.features.values(), *trace.categories.values()]
    if not features:
        return []
    codes = _equal_rows(features)[1]
    return [codes] if 4 * (int(codes.max(initial=0)) + 1) <= len(trace) else []


def _design(features: dict[str, Floats], rows: int) -> Floats:
    logs = [np.sign(values) * np.log1p(np.abs(values)) for values in features.values() if np.ptp(values) > 0]
    if not logs:
        return np.zeros((rows, 0))
    columns = list(logs)
    if len(logs) <= _MOST_PRODUCTS:
        columns += [logs[a] * logs[b] for a in range(len(logs)) for b in range(a, len(logs))]
    return np.column_stack(columns)

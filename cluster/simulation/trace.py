"""A trace: who asked for what and when, and how long it really took.

CSV or Parquet with `arrival_s`, `variant` and `exec_s` (true service seconds on the reference accelerator), optionally
`deadline_s`, `priority` and `tenant`. A task without a deadline (an empty cell, or inf) is never late; where no task
has one, the simulation assumes them. Every further column is a feature that may be known at arrival: numbers as they
are, anything else as a category.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from schemas.errors import ConfigError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_OWN = ("arrival_s", "variant", "exec_s", "deadline_s", "priority", "tenant")
_MOST_CATEGORIES = 1000
_MOST_S = 1e12
"""Thirty thousand years: seconds beyond it are an error of unit, and their sums lose the milliseconds."""
_MOST_SAID = f"no more than {_MOST_S:g}"
_MOST_PRIORITY = 1000

ASSUMED_LOADS = 2.0
"""A task without a deadline counts as on time within this many cold loads …"""
ASSUMED_SERVICES = 5.0
"""… plus this many times the median service of its trace."""


@dataclass(frozen=True)
class Trace:
    """Columns of one length, in order of arrival. `allowance_s` is deadline − arrival: inf where a task has none, nan
    where one is to be assumed."""

    arrival_s: Floats
    variant: Ints
    names: tuple[str, ...]
    exec_s: Floats
    allowance_s: Floats
    priority: Ints
    tenant: Ints
    tenants: tuple[str, ...] = ("",)
    features: dict[str, Floats] = field(default_factory=dict)
    categories: dict[str, Ints] = field(default_factory=dict)
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def deadlines(self) -> str:
        """Whose they are: nobody has one (they are assumed), some have none (and are never late), or all have one."""
        if np.isnan(self.allowance_s).all():
            return "assumed"
        without = int((~np.isfinite(self.allowance_s)).sum())
        return f"from the trace; {without} tasks have none" if without else "from the trace"

    @property
    def span_s(self) -> float:
        return float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) else 0.0

    def sped_up(self, speed: float) -> "Trace":
        """The same requests, `speed` times as dense; service times and allowances stay."""
        return replace(self, arrival_s=self.arrival_s / speed)


def load_trace(path: Path) -> Trace:
    """Read a trace file by its suffix. Raises ConfigError naming file, column and row."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            # One block, so that a column that turns from 1 to 1.5 in the millionth row is numbers from the start.
            whole = pyarrow.csv.ReadOptions(block_size=min(max(path.stat().st_size + 1, 2**20), 2**31 - 1))
            table = pyarrow.csv.read_csv(path, read_options=whole)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return trace_from(table, str(path))


def trace_from(table: pa.Table, where: str) -> Trace:
    """Check and sort an Arrow table. `deadline_s` is read as instants when they keep up with the arrivals, else as
    allowances."""
    for column in ("arrival_s", "variant", "exec_s"):
        if column not in table.column_names:
            raise ConfigError(f"{where}: no column {column!r}; available: {', '.join(table.column_names)}")
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise ConfigError(f"{where}: column {twice[0]!r} is there twice")
    if not table.num_rows:
        raise ConfigError(f"{where}: no rows")
    arrival_s = _floats(table, "arrival_s", where)
    exec_s = _floats(table, "exec_s", where)
    _refuse(where, "arrival_s", arrival_s, ~(np.abs(arrival_s) <= _MOST_S), f"a finite number of seconds, {_MOST_SAID}")
    wrong = ~((exec_s >= 0) & (exec_s <= _MOST_S))
    _refuse(where, "exec_s", exec_s, wrong, f"a finite number of seconds, at least 0, {_MOST_SAID}")
    named = np.array([value is not None and str(value).strip() != "" for value in table["variant"].to_pylist()])
    _refuse(where, "variant", named, ~named, "a name", said="nothing")
    order = np.argsort(arrival_s, kind="stable")
    variant, names = _codes(table, "variant")
    tenant, tenants = _codes(table, "tenant") if "tenant" in table.column_names else (np.zeros(len(order), int), ("",))
    priority = np.zeros(len(order))
    if "priority" in table.column_names:
        priority = _floats(table, "priority", where)
        priority[np.isnan(priority)] = 0  # an empty cell
        wrong = ~((np.abs(priority) <= _MOST_PRIORITY) & (priority == np.round(priority)))
        _refuse(where, "priority", priority, wrong, f"a whole number from -{_MOST_PRIORITY} to {_MOST_PRIORITY}")
    allowance_s = np.full(len(order), np.nan)
    if "deadline_s" in table.column_names:
        allowance_s = _allowance_s(arrival_s, _floats(table, "deadline_s", where), where)
    features: dict[str, Floats] = {}
    categories: dict[str, Ints] = {}
    for name in table.column_names:
        if name in _OWN:
            continue
        kind = table.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            features[name] = np.nan_to_num(_floats(table, name, where)[order])
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
            codes, values = _codes(table, name)
            if len(values) <= _MOST_CATEGORIES:  # more is an identifier or a prompt: nothing to learn from
                categories[name] = codes[order]
    return Trace(
        arrival_s=arrival_s[order] - arrival_s[order][0],
        variant=variant[order],
        names=names,
        exec_s=exec_s[order],
        allowance_s=allowance_s[order],
        priority=priority[order].astype(np.int64),
        tenant=tenant[order],
        tenants=tenants,
        features=features,
        categories=categories,
    )


def _refuse(
    where: str, column: str, values: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], want: str, said: str = ""
) -> None:
    """ConfigError for the first wrong value; rows are counted from 1, a header is none."""
    if wrong.any():
        row = int(wrong.argmax())
        more = f" (and {int(wrong.sum()) - 1} more rows)" if wrong.sum() > 1 else ""
        raise ConfigError(f"{where}: row {row + 1}: {column} is {said or values[row]}, not {want}{more}")


def _floats(table: pa.Table, name: str, where: str) -> Floats:
    try:
        column = table[name].cast(pa.float64())
        return np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError(f"{where}: column {name!r} is not numbers: {error}") from error


def _codes(table: pa.Table, name: str) -> tuple[Ints, tuple[str, ...]]:
    values = ["" if value is None else str(value) for value in table[name].to_pylist()]
    names = tuple(sorted(set(values)))
    place = {value: index for index, value in enumerate(names)}
    return np.array([place[value] for value in values], dtype=np.int64), names


def _allowance_s(arrival_s: Floats, deadline_s: Floats, where: str) -> Floats:
    """Instants vary far less around the arrivals than by themselves; allowances do not."""
    _refuse(where, "deadline_s", deadline_s, deadline_s == -np.inf, "a number of seconds")
    given = np.isfinite(deadline_s)
    if not given.any():
        # Where inf says that there is none, none is assumed.
        return np.full(len(arrival_s), np.inf if (deadline_s == np.inf).any() else np.nan)
    gap_s = deadline_s - arrival_s
    instants = float(np.std(gap_s[given])) < 0.5 * float(np.std(deadline_s[given]))
    allowance_s = np.where(given, gap_s if instants else deadline_s, np.inf)
    what = "an instant after its arrival" if instants else "above 0"
    _refuse(where, "deadline_s", deadline_s, ~(allowance_s > 0), what)
    return allowance_s

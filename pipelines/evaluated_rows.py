"""The rows of a run as an evaluation reads them: in which group each is, and which distinct clips there are."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from schemas.clip import Status
from schemas.errors import ConfigError, ObjectMissingError
from storage import keys
from storage.store import ObjectStore

NONE = "(none)"
"""The group of rows that do not say."""
MOST_GROUPS = 50
OWN_COLUMNS = ("variant", "mode", "revision", "width", "height", "frames", "fps", "seed", "prompt", "file")
"""What may be compared by beside the manifest's own columns."""
_READ = [*OWN_COLUMNS, "prompts", "motion", "row", "id", "status", "uri", "sha256", "fingerprint", "metadata"]
_ROWS_AT_ONCE = 1024
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Place:
    """Where a row counts: its group in each column, and its pair."""

    groups: Mapping[str, str]
    pair: str | None = None


@dataclass(frozen=True)
class EvaluatedClip:
    """A distinct clip, and every place in which it counts: once, however many rows share it there."""

    key: str
    sha256: str
    row: Mapping[str, Any]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Page:
    """Some rows: their statuses by place, and the clips that are new with them."""

    statuses: tuple[tuple[Place, str], ...]
    clips: tuple[EvaluatedClip, ...]


@dataclass(frozen=True)
class RunTable:
    """The results of one run. `note` is its `run.json`, where that is of the same run."""

    store: ObjectStore = field(repr=False)
    run_id: str
    parts: tuple[str, ...]
    note: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """How many there are, read off the files' ends."""
        total = 0
        for part in self.parts:
            with closing(self.store.open(part)) as file:
                total += pq.ParquetFile(file).metadata.num_rows
        return total

    def check(self, by: Sequence[str], paired_by: str | None = None) -> None:
        """Raises ConfigError for a column that no row has, or that has too many values to be an attribute."""
        known: dict[str, None] = {}
        columns = [*by, *([paired_by] if paired_by else [])]
        groups: dict[str, set[str]] = {column: set() for column in columns}
        for part in self.parts:
            for row in self._rows(part, ["metadata", *(c for c in OWN_COLUMNS if c in columns)]):
                said = metadata_of(row)
                known |= dict.fromkeys(list(said)[:_NAMES_SHOWN] if len(known) < _NAMES_SHOWN else ())
                for column, values in groups.items():
                    if (value := _value(row, said, column)) is not None and len(values) <= MOST_GROUPS:
                        values.add(value)
        for column, values in groups.items():
            if not values:
                choices = ", ".join((*known, *OWN_COLUMNS))
                option = "--by" if column in by else "--paired-by"
                raise ConfigError(f"{option} {column}: no row of run {self.run_id} has it; available: {choices}")
            if len(values) > MOST_GROUPS and column in by:
                raise ConfigError(
                    f"--by {column}: more than {MOST_GROUPS} values, such as {min(values)!r}; an attribute has few: "
                    "put ranges or classes into a column of the manifest"
                )

    def pages(self, by: Sequence[str], paired_by: str | None = None) -> Iterator[Page]:
        """All rows, a thousand or so at a time."""
        for part in self.parts:
            # Rows that share a clip share a part: what was seen need not be remembered beyond it.
            seen: set[tuple[str, ...]] = set()
            for rows in self._batches(part, _READ):
                statuses: list[tuple[Place, str]] = []
                fresh: dict[str, tuple[Mapping[str, Any], list[Place]]] = {}
                for row in rows:
                    said = metadata_of(row)
                    place = Place(
                        {column: _value(row, said, column) or NONE for column in by},
                        _value(row, said, paired_by) if paired_by else None,
                    )
                    statuses.append((place, row["status"]))
                    fingerprint = row["fingerprint"]
                    counted = (fingerprint, place.pair or "", *place.groups.values())
                    if row["status"] == Status.SUCCEEDED.value and row["uri"] and counted not in seen:
                        seen.add(counted)
                        fresh.setdefault(fingerprint, (row, []))[1].append(place)
                yield Page(tuple(statuses), tuple(_clip(row, places) for row, places in fresh.values()))

    def _rows(self, part: str, columns: list[str]) -> Iterator[dict[str, Any]]:
        for rows in self._batches(part, columns):
            yield from rows

    def _batches(self, part: str, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
        with closing(self.store.open(part)) as file:
            for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=columns):
                yield batch.to_pylist()


def run_table(store: ObjectStore, run_id: str | None = None) -> RunTable:
    """The table of a run, by default of the last one there. Raises ConfigError where there is none."""
    where = str(store.address)
    try:
        note = json.loads(store.get(keys.RUN))
    except (ObjectMissingError, ValueError):
        note = {}
    last = note.get("run_id") if isinstance(note, dict) else None
    there = sorted({info.key.split("/")[1] for info in store.list(keys.RESULTS)})
    wanted = run_id or last or (there[0] if len(there) == 1 else None)
    if wanted is None or wanted not in there:
        if not there:
            raise ConfigError(f"{where}: no results of `rushes render`; a run writes them when it ends")
        raise ConfigError(f"{where}: no results of run {wanted}; available with --run: {', '.join(there)}")
    parts = tuple(sorted(info.key for info in store.list(keys.results_prefix(wanted))))
    return RunTable(store, wanted, parts, note if last == wanted else {})


def _clip(row: Mapping[str, Any], places: list[Place]) -> EvaluatedClip:
    # By its name and not by its address: a folder that was copied elsewhere is looked at where it is.
    key = keys.clip(row["variant"], row["fingerprint"], row["uri"].rpartition(".")[2])
    return EvaluatedClip(key, row["sha256"] or "", row, tuple(places))


def metadata_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a row says beside the fields."""
    said = json.loads(row["metadata"]) if row["metadata"] else {}
    return said if isinstance(said, dict) else {}


def _value(row: Mapping[str, Any], said: Mapping[str, Any], column: str) -> str | None:
    value = said.get(column)
    if value is None and column in OWN_COLUMNS:
        value = row.get(column)
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)

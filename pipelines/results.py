"""The results table: every manifest row beside what became of it, joined range by range.

Row parts and the compacted ledger are both sorted by fingerprint, so one range of fingerprints is a merge of two
slices and no step ever holds the whole of either. Ranges are cut so that one is about `_ROWS_A_PART` rows.
"""

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run_plan import RunPlan
from pipelines.streaming import streamed
from schemas.clip import Status
from schemas.errors import RushesError
from storage import keys
from storage.compaction import compact
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.tables import RESULT_SCHEMA, findings_json, findings_of, read_table, write_table

_ROWS_A_PART = 200_000
_REASONS, _REASONS_A_PART, _REASON_CHARS = 5, 1000, 160
# Of a finding: "violence 0.97 by words".
_SCORE = re.compile(r" \d\.\d\d(?= by )")
_BILLED = ("billed_gpu_s", "billed_usd", "billed_finish_usd")
_NOT_DONE = "the run ended before this task was rendered"
_INTERRUPTED = "the run was interrupted before this task was rendered; the same command renders it"


class ResultStage:
    """Ray Data's face of the join: a range of fingerprints in, counts of what was written out."""

    def __init__(
        self, out: str, run_id: str, row_parts: tuple[str, ...], first_rows: tuple[int, ...], interrupted: bool = False
    ) -> None:
        self._out = out
        self._run_id = run_id
        self._row_parts = row_parts
        self._first_rows = first_rows
        self._interrupted = interrupted

    def __call__(self, item: tuple[int, str, str]) -> tuple[dict[str, float], Counter[str]]:
        """Write the results of fingerprints in [least, below); '' sorts first, so rejects are in the first range."""
        index, least, below = item
        store = open_store(self._out)
        rows = self._rows(store, least, below)
        records = Ledger(store).load(least, below)
        table = join(rows, records, self._run_id, self._interrupted)
        if table.num_rows:
            write_table(store, keys.results_part(self._run_id, index), table.sort_by("row"))
        return _counts(table), Counter(dict(_reasons(table).most_common(_REASONS_A_PART)))

    def _rows(self, store: ObjectStore, least: str, below: str) -> pa.Table:
        found = []
        keep = (pc.field("fingerprint") >= least) & (pc.field("fingerprint") < below)
        for part, first_row in zip(self._row_parts, self._first_rows, strict=True):
            table = read_table(store, part, filters=keep)
            at = table.schema.get_field_index("row")
            found.append(table.set_column(at, "row", pc.add(table.column("row"), first_row)))
        return pa.concat_tables(found)


def join(rows: pa.Table, records: pa.Table, run_id: str, interrupted: bool = False) -> pa.Table:
    """Every row with its record. A row without one FAILED (the run broke), is PENDING (it was interrupted) or was
    REJECTED (it never became a task).

    A task's seconds and money stand on the first of the rows that share it; its twins were reused and cost nothing.
    """
    # A revocation is no outcome: its task is waiting again.
    records = records.filter(pc.not_equal(records.column("status"), Status.PENDING.value))
    joined = rows.join(records, keys="fingerprint", join_type="left outer", right_suffix="_of_record")
    joined = joined.sort_by([("fingerprint", "ascending"), ("row", "ascending")])
    fingerprint = joined.column("fingerprint").combine_chunks()
    rejected = pc.is_valid(joined.column("reject"))
    without = Status.PENDING if interrupted else Status.FAILED
    status = pc.if_else(rejected, Status.REJECTED.value, pc.fill_null(joined.column("status"), without.value))
    twin = _repeats(fingerprint)
    missing = pc.and_(pc.invert(rejected), pc.is_null(joined.column("status")))
    columns: dict[str, Any] = {name: joined.column(name) for name in RESULT_SCHEMA.names if name in joined.column_names}
    columns["run_id"] = pa.array([run_id] * joined.num_rows, pa.string())
    columns["status"] = status
    columns["error_class"] = pc.if_else(
        rejected, "InvalidRequestError", pc.if_else(missing, "NotRendered", joined.column("error_class"))
    )
    columns["error"] = pc.if_else(
        rejected,
        joined.column("reject"),
        pc.if_else(missing, _INTERRUPTED if interrupted else _NOT_DONE, joined.column("error")),
    )
    columns["failure_code"] = pc.coalesce(joined.column("reject_code"), joined.column("failure_code"))
    columns["moderation"] = _both(joined.column("text_moderation"), joined.column("moderation"))
    for name in ("queue_s", "load_s", "render_s", "finish_s", "encode_s", "store_s", *_BILLED):
        columns[name] = pc.if_else(twin, 0.0, pc.fill_null(joined.column(name), 0.0))
    for name in ("quoted_gpu_s", "quoted_usd", "quoted_finish_usd"):
        columns[name] = pc.if_else(twin, 0.0, pc.fill_null(joined.column(name), 0.0))
    columns["attempts"] = pc.fill_null(joined.column("attempts"), 0)
    arrays = [
        (columns[f.name] if f.name in columns else pa.nulls(joined.num_rows, f.type)).cast(f.type)
        for f in RESULT_SCHEMA
    ]
    return pa.table(arrays, schema=RESULT_SCHEMA)


def _both(of_text: pa.ChunkedArray, of_pictures: pa.ChunkedArray) -> pa.ChunkedArray:
    """What was found of a row's prompt when it was planned, and of its pictures when it was rendered."""
    both = pc.and_(pc.is_valid(of_text), pc.is_valid(of_pictures))
    if not pc.any(both).as_py():
        return pc.coalesce(of_text, of_pictures)
    pairs = zip(of_text.to_pylist(), of_pictures.to_pylist(), strict=True)
    return pa.chunked_array([pa.array([findings_json(findings_of(a) + findings_of(b)) for a, b in pairs], pa.string())])


def _repeats(sorted_values: pa.Array) -> pa.Array:
    """True where a value equals the one before it."""
    if len(sorted_values) < 2:
        return pa.array([False] * len(sorted_values), pa.bool_())
    same = pc.equal(sorted_values[1:], sorted_values[:-1])
    same = pc.and_(same, pc.not_equal(sorted_values[1:], ""))
    return pa.concat_arrays([pa.array([False]), same])


@dataclass(frozen=True)
class Totals:
    """What a results table adds up to. `reasons` are why rows have no clip, the commonest first."""

    counts: dict[str, float]
    reasons: tuple[tuple[str, int], ...] = ()

    def __getitem__(self, name: str) -> float:
        return self.counts[name]


def _reasons(table: pa.Table) -> Counter[str]:
    status, error, kind = (table.column(name).to_pylist() for name in ("status", "error", "error_class"))
    without = [
        (text or "no reason told", name)
        for text, what, name in zip(error, status, kind, strict=True)
        if what in (Status.FAILED.value, Status.CANCELLED.value, Status.REJECTED.value)
    ]
    return Counter(_short(text, name) for text, name in without)


def _short(error: str, kind: str | None) -> str:
    """A reason as it is counted: numbers and names in it would make every row's its own."""
    if kind == "InvalidRequestError":
        error = "; ".join(json.loads(error))
    error = _SCORE.sub("", error)
    return error.splitlines()[0][:_REASON_CHARS] if error.strip() else str(kind)


def _counts(table: pa.Table) -> dict[str, float]:
    def of(status: Status) -> int:
        return int(pc.sum(pc.equal(table.column("status"), status.value)).as_py() or 0)

    refused = table.num_rows - table.column("failure_code").null_count
    return {
        "rows": table.num_rows,
        "succeeded": of(Status.SUCCEEDED),
        "failed": of(Status.FAILED) + of(Status.CANCELLED),
        "rejected": of(Status.REJECTED),
        "pending": of(Status.PENDING),
        "refused": refused,
        "flagged": table.filter(pc.is_null(table.column("failure_code"))).column("moderation").drop_null().length(),
        "billed_gpu_s": pc.sum(table.column("billed_gpu_s")).as_py() or 0.0,
        "quoted_gpu_s": pc.sum(table.column("quoted_gpu_s")).as_py() or 0.0,
        "quoted_usd": pc.sum(table.column("quoted_usd")).as_py() or 0.0,
        "billed_usd": pc.sum(table.column("billed_usd")).as_py() or 0.0,
        "billed_finish_usd": pc.sum(table.column("billed_finish_usd")).as_py() or 0.0,
    }


def write_results(out: str, run_id: str, plan: RunPlan, interrupted: bool = False) -> Totals:
    """Fold the ledger together and write `results/<run_id>/`; returns the totals. Of a run that was `interrupted`, what
    is not rendered is pending.

    Raises RushesError when the rows written are not the rows planned: the books must balance.
    """
    store = open_store(out)
    compact(Ledger(store))
    store.delete([info.key for info in store.list(keys.results_prefix(run_id))])
    row_parts = tuple(keys.plan(plan.plan_id or run_id, f"rows-{i:05d}.parquet") for i in range(len(plan.chunk_rows)))
    first_rows = tuple(sum(plan.chunk_rows[:i]) for i in range(len(plan.chunk_rows)))
    stage = ResultStage(out, run_id, row_parts, first_rows, interrupted)
    totals: defaultdict[str, float] = defaultdict(float)
    reasons: Counter[str] = Counter()
    for counts, why in streamed(stage, _ranges(max(1, -(-plan.quote.rows // _ROWS_A_PART)))):
        for name, value in counts.items():
            totals[name] += value
        reasons.update(why)
    if totals["rows"] != plan.quote.rows or totals["rows"] != sum(
        totals[name] for name in ("succeeded", "failed", "rejected", "pending")
    ):
        raise RushesError(f"{out}: the results do not add up: {plan.quote.rows} rows planned, written {totals}")
    return Totals(dict(totals), tuple(reasons.most_common(_REASONS)))


def _ranges(parts: int) -> list[tuple[int, str, str]]:
    edges = ["", *(f"{i * 65536 // parts:04x}" for i in range(1, parts)), "g"]  # 'g' sorts behind every hex digit
    return [(index, edges[index], edges[index + 1]) for index in range(parts)]

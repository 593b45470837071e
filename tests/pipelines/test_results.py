"""The join of rows and records: nothing lost, nothing twice, nothing billed twice."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.parts import ROW_SCHEMA
from pipelines.results import join, write_results
from pipelines.run_plan import RunPlan
from schemas.clip import Clip, Record, Status, Timings
from schemas.errors import RushesError
from schemas.run import RunQuote
from storage import keys
from storage.ledger import Ledger
from storage.store import open_store
from storage.tables import RESULT_SCHEMA, read_table, records_to_table, write_table

DIGITS = "0123456789abcdef"


def fingerprint(number: int) -> str:
    return DIGITS[number % 16] * 32


def row(position: int, number: int | None) -> dict[str, object]:
    """A planned row of task `number`, or a rejected one."""
    return {
        "fingerprint": "" if number is None else fingerprint(number),
        "row": position,
        "file": "m.jsonl",
        "line": position + 1,
        "id": f"r{position}",
        "variant": None if number is None else "small",
        "prompt": "x",
        "seed": number,
        "quoted_gpu_s": None if number is None else 2.0,
        "quoted_usd": None if number is None else 0.01,
        "reject": '["prompt: missing"]' if number is None else None,
    }


def record(number: int, status: Status) -> Record:
    clip = Clip(uri=f"s3://b/{number}", sha256="0", clip_bytes=1, width=64, height=64, frames=5, fps=8)
    failed = status is not Status.SUCCEEDED
    return Record(
        fingerprint=fingerprint(number),
        status=status,
        variant="small",
        seed=number,
        clip=None if failed else clip,
        timings=Timings(render_s=1.0),
        billed_gpu_s=0.0 if failed else 1.0,
        error_class="RenderError" if failed else None,
        error="it raised" if failed else None,
    )


def rows_table(numbers: list[int | None]) -> pa.Table:
    rows = [{name: row(i, n).get(name) for name in ROW_SCHEMA.names} for i, n in enumerate(numbers)]
    return pa.Table.from_pylist(rows, ROW_SCHEMA).sort_by([("fingerprint", "ascending"), ("row", "ascending")])


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 7)), max_size=30),
    st.dictionaries(st.integers(0, 7), st.sampled_from([Status.SUCCEEDED, Status.FAILED])),
)
def test_every_row_comes_out_once_with_the_outcome_of_its_task(
    numbers: list[int | None], outcomes: dict[int, Status]
) -> None:
    records = records_to_table([record(n, status) for n, status in sorted(outcomes.items())])
    table = join(rows_table(numbers), records, "run").sort_by("row")
    assert table.schema == RESULT_SCHEMA
    assert table.column("row").to_pylist() == list(range(len(numbers)))
    expected = [Status.REJECTED if n is None else outcomes.get(n, Status.FAILED) for n in numbers]
    assert table.column("status").to_pylist() == [status.value for status in expected]
    done = {n for n in numbers if n is not None and outcomes.get(n) is Status.SUCCEEDED}
    assert sum(table.column("billed_gpu_s").to_pylist()) == len(done), "twins are billed once"
    for n, uri, error in zip(numbers, table.column("uri").to_pylist(), table.column("error").to_pylist(), strict=True):
        assert (uri == f"s3://b/{n}") == (n in done)
        assert (error is None) == (n in done)


def plan_of(store_uri: str, numbers: list[int | None], said_rows: int | None = None) -> RunPlan:
    write_table(open_store(store_uri), keys.plan("run", "rows-00000.parquet"), rows_table(numbers))
    quote = RunQuote(
        rows=said_rows if said_rows is not None else len(numbers),
        to_render=0,
        already_done=0,
        duplicates=0,
        rejected=0,
        groups=(),
        actors={},
        gpu_s=0.0,
        usd=0.0,
        wall_s=0.0,
        measured=True,
    )
    return RunPlan(quote, {}, (len(numbers),), ())


def test_the_results_are_written_in_the_manifests_order(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    Ledger(store).write(record(3, Status.SUCCEEDED))
    totals = write_results(str(tmp_path), "run", plan_of(str(tmp_path), [5, None, 3, 3]))
    assert (totals["rows"], totals["succeeded"], totals["failed"], totals["rejected"]) == (4, 2, 1, 1)
    table = read_table(store, keys.results_part("run", 0))
    assert table.column("id").to_pylist() == ["r0", "r1", "r2", "r3"]
    assert table.column("error_class").to_pylist() == ["NotRendered", "InvalidRequestError", None, None]


def test_books_that_do_not_balance_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RushesError, match="do not add up: 9 rows planned"):
        write_results(str(tmp_path), "run", plan_of(str(tmp_path), [5, None], said_rows=9))

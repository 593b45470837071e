"""The tables of a run: records there and back, and files that data tools read."""

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from schemas.clip import Status
from schemas.errors import ObjectMissingError
from storage import keys
from storage.store import ObjectStore, open_store
from storage.tables import RECORD_SCHEMA, RESULT_SCHEMA, read_table, records_to_table, table_to_records, write_table
from tests.storage.records import record

RECORDS = [record("aa" * 16), record("bb" * 16, Status.FAILED, quarantined=True), record("cc" * 16, attempts=3)]


def test_records_go_to_a_table_and_back() -> None:
    table = records_to_table(RECORDS)
    assert table.schema == RECORD_SCHEMA
    assert table_to_records(table) == RECORDS


def test_a_table_is_stored_and_read_in_part(store: ObjectStore) -> None:
    key = keys.results_part("run", 0)
    write_table(store, key, records_to_table(RECORDS))
    assert read_table(store, key).equals(records_to_table(RECORDS))
    assert read_table(store, key, columns=["seed"]).column_names == ["seed"]
    assert read_table(store, key, filters=[("fingerprint", ">=", "bb")]).num_rows == 2
    with pytest.raises(ObjectMissingError):
        read_table(store, "no.parquet")


def test_results_are_read_by_pandas_and_duckdb(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([{"row": 0, "status": "SUCCEEDED"}, {"row": 1, "status": "FAILED"}], RESULT_SCHEMA)
    store = open_store(str(tmp_path))
    for index in range(2):
        write_table(store, keys.results_part("run", index), rows)
    folder = tmp_path / keys.results_prefix("run")
    assert len(pd.read_parquet(folder)) == 4
    counted = duckdb.sql(f"select status, count(*) from '{folder}/*.parquet' group by 1 order by 1").fetchall()
    assert counted == [("FAILED", 2), ("SUCCEEDED", 2)]

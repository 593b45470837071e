"""Manifests of every format, whole and in chunks, say the same rows with their lines."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.read import Rows, find_chunks, read_chunk
from schemas.errors import ConfigError

ROWS = [
    {"id": f"r{i}", "prompt": f"a red circle,\n number {i} — größer", "width": 64, "height": 64, "shot": i}
    for i in range(50)
]


def read_all(manifest: str, chunk_bytes: int = 1 << 20) -> list[Rows]:
    return [read_chunk(chunk) for chunk in find_chunks(manifest, chunk_bytes=chunk_bytes)]


def write_jsonl(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ROWS[0].keys())
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=15)


@pytest.mark.parametrize(
    ("name", "write"), [("m.jsonl", write_jsonl), ("m.csv", write_csv), ("m.parquet", write_parquet)]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, write: object) -> None:
    write(tmp_path / name)  # type: ignore[operator]
    parts = read_all(str(tmp_path / name))
    prompts = [p for rows in parts for p in rows.columns["prompt"]]
    assert prompts == [row["prompt"] for row in ROWS]
    shots = [int(m["shot"]) for rows in parts for m in rows.columns["metadata"]]
    assert shots == list(range(50))


@pytest.mark.parametrize("chunk_bytes", [1, 64, 200, 1000, 10**6])
def test_a_jsonl_file_cut_anywhere_keeps_its_lines(tmp_path: Path, chunk_bytes: int) -> None:
    write_jsonl(tmp_path / "m.jsonl")
    parts = read_all(str(tmp_path / "m.jsonl"), chunk_bytes)
    assert [line for rows in parts for line in rows.lines] == list(range(1, 51))
    assert [i for rows in parts for i in rows.columns["id"]] == [row["id"] for row in ROWS]


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('\n{"prompt": "a"}\n\n  \n{"prompt": "b"}\n')
    (rows,) = read_all(str(tmp_path / "m.jsonl"))
    assert rows.lines == [2, 5]


def test_the_line_of_a_csv_row_is_where_it_starts(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('prompt,seed\n"two\nlines",1\nplain,2\n')
    (rows,) = read_all(str(tmp_path / "m.csv"))
    assert rows.lines == [2, 4]


def test_a_csv_row_with_too_many_fields_is_broken_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("prompt,seed\na,1,2,3\nb,2\n")
    (rows,) = read_all(str(tmp_path / "m.csv"))
    assert rows.broken == [(0, "", "2 more fields than the header has")]
    assert rows.columns["prompt"][1] == "b"


def test_a_folder_and_a_glob_are_all_their_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps({"prompt": name}) + "\n")
    for manifest in (str(tmp_path), str(tmp_path / "*.jsonl")):
        assert [r.columns["prompt"][0] for r in read_all(manifest)] == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("limit", [1, 7, 15, 16, 50, 99])
def test_a_limit_reads_no_more_chunks_than_it_needs(tmp_path: Path, limit: int) -> None:
    write_parquet(tmp_path / "m.parquet")
    chunks = find_chunks(str(tmp_path / "m.parquet"), limit)
    assert len(chunks) == min(4, -(-limit // 15))


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.jsonl"):
        find_chunks(str(tmp_path / "none.jsonl"))


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "m.xlsx").write_text("x")
    with pytest.raises(ConfigError, match=r"'\.xlsx'; available: \.jsonl"):
        find_chunks(str(tmp_path / "m.xlsx"))


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("")
    with pytest.raises(ConfigError, match="empty"):
        find_chunks(str(tmp_path / "m.jsonl"))

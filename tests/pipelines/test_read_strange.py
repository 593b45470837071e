"""Manifests as people have them: every row is in what is read, or told of."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.read import find_chunks, read_chunk
from pipelines.rows import Rows, nearest_field, unknown_columns
from schemas.errors import ConfigError

CHUNKS = [1 << 20, 16]  # in one chunk, and in one for nearly every row


def read(path: Path, data: bytes | None = None, chunk_bytes: int = 1 << 20, **more: Any) -> list[Rows]:
    if data is not None:
        path.write_bytes(data)
    return [read_chunk(chunk) for chunk in find_chunks(str(path), chunk_bytes=chunk_bytes, **more)]


def prompts(parts: list[Rows]) -> list[str | None]:
    return [p for rows in parts for p in rows.columns.get("prompt", [None] * len(rows))]


def lines(parts: list[Rows]) -> list[int]:
    return [line for rows in parts for line in rows.lines]


def broken(parts: list[Rows]) -> list[tuple[int, str]]:
    return [(rows.lines[position], why) for rows in parts for position, _, why in rows.broken]


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_text_is_read_in_the_encoding_it_was_written_in(
    tmp_path: Path, name: str, encoding: str, chunk_bytes: int
) -> None:
    wanted = ["ein größerer Kreis läuft", "un café crème, déjà vu", "plain", "naïve “quotes” – and a dash"]
    text = "prompt\n" + "".join(f'"{p}"\n' for p in wanted)
    if name.endswith("jsonl"):
        text = "".join(json.dumps({"prompt": p}, ensure_ascii=False) + "\n" for p in wanted)
    assert prompts(read(tmp_path / name, text.encode(encoding), chunk_bytes)) == wanted


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("красный круг движется влево по синему полю", "cp1251"),
        ("zażółć gęślą jaźń, czerwone koło", "cp1250"),
        ("赤い円が青い背景の上を左へ動く", "shift_jis"),
        ("红色的圆圈在蓝色背景上向左移动", "gb18030"),
    ],
)
def test_other_encodings_are_told_apart(tmp_path: Path, text: str, encoding: str) -> None:
    assert prompts(read(tmp_path / "m.csv", f'prompt\n"{text}"\n'.encode(encoding))) == [text]


def test_an_encoding_can_be_given(tmp_path: Path) -> None:
    data = "prompt\nκόκκινος\n".encode("cp1253")
    assert prompts(read(tmp_path / "m.csv", data, encoding="cp1253")) == ["κόκκινος"]
    with pytest.raises(ConfigError, match="--encoding: unknown 'klingon'"):
        read(tmp_path / "m.csv", encoding="klingon")


@pytest.mark.parametrize(("name", "head"), [("m.csv", b"prompt\n"), ("m.jsonl", b"")])
def test_one_damaged_line_is_no_other_encoding(tmp_path: Path, name: str, head: bytes) -> None:
    good = ["größer", "schön"]
    rows = (
        [p.encode() for p in good] if head else [json.dumps({"prompt": p}, ensure_ascii=False).encode() for p in good]
    )
    bad = b"gr\xf6\xdfer" if head else b'{"prompt": "gr\xf6\xdfer"}'
    parts = read(tmp_path / name, head + rows[0] + b"\n" + bad + b"\n" + rows[1] + b"\n")
    assert prompts(parts) == [good[0], None, good[1]]
    assert [line for line, _ in broken(parts)] == [3 if head else 2]


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_packed_text_is_read(tmp_path: Path, kind: str, suffix: str, chunk_bytes: int) -> None:
    rows = [f"prompt {i}" for i in range(50)]
    text = "prompt\n" + "\n".join(rows) if kind == "csv" else "\n".join(json.dumps({"prompt": p}) for p in rows)
    half = len(text) // 2
    pack = gzip.compress if suffix == ".gz" else lambda data: pa.compress(data, "zstd", asbytes=True)
    # Put together of two, as `cat a.gz b.gz` does.
    data = pack(text[:half].encode()) + pack(text[half:].encode())
    parts = read(tmp_path / f"m.{kind}{suffix}", data, chunk_bytes)
    assert prompts(parts) == rows
    assert lines(parts) == list(range(1 + (kind == "csv"), 51 + (kind == "csv")))
    with pytest.raises(ConfigError, match=f"m.{kind}{suffix}: not (gzip|zstd) to its end"):
        read(tmp_path / f"m.{kind}{suffix}", data[:-5])


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_a_cell_of_any_size_is_a_cell(tmp_path: Path, chunk_bytes: int) -> None:
    data = b"prompt,seed\n" + b"x" * 200_000 + b",1\nb,2\nc,3\n"
    parts = read(tmp_path / "m.csv", data, chunk_bytes)
    assert lines(parts) == [2, 3, 4]
    assert [p and len(p) for p in prompts(parts)] == [200_000, 1, 1]


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize(
    ("text", "wanted", "wrong"),
    [
        ('"never closed,1\nb,2\nc,3\n', [None, "b", "c"], [2]),
        ('a,1\n"never closed,2\n"b, c",3\nd,4\n', ["a", None, "b, c", "d"], [3]),
        ('"two\nlines",1\n"an "inner" quote",2\nc,3\n', ["two\nlines", None, "c"], [4]),
        ('a 5" screen,1\nb,2\n', ['a 5" screen', "b"], []),
        ("a,1,,\nb,2,3\nc\n,,\n   \n\n", ["a", None, "c"], [3]),
        ("a,1\r\nb,2\r\n", ["a", "b"], []),
        ("a,1\rb,2\r", ["a", "b"], []),
    ],
)
def test_no_csv_row_is_lost_behind_a_broken_one(
    tmp_path: Path, text: str, wanted: list[str | None], wrong: list[int], chunk_bytes: int
) -> None:
    parts = read(tmp_path / "m.csv", b"prompt,seed\n" + text.encode(), chunk_bytes)
    assert prompts(parts) == wanted
    assert [line for line, _ in broken(parts)] == wrong


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_counts_rows_and_not_lines_without_values(tmp_path: Path, limit: int) -> None:
    (tmp_path / "m.csv").write_text("prompt,seed\n,,\na,1\n,,\nb,2\n,,\n,,\nc,3\n")
    chunks = find_chunks(str(tmp_path / "m.csv"), limit)
    assert prompts([read_chunk(chunk) for chunk in chunks]) == ["a", "b", "c"][:limit]


@pytest.mark.parametrize(
    "text",
    [
        "prompt;Seed;guidance_scale\na;1;2,5\n",
        "Prompt\tSEED\tguidanceScale\na\t1\t2.5\n",
        "prompt|seed|guidance-scale\na|1|2.5\n",
        "sep=;\nprompt;seed;guidance scale\na;1;2.5\n",
        "prompt, seed, guidance_scale\na, 1, 2.5\n",
        "\n\nprompt,seed,guidance_scale,,\na,1,2.5,,\n",
    ],
)
def test_csv_of_other_tools_is_read_by_its_header(tmp_path: Path, text: str) -> None:
    (rows,) = read(tmp_path / "m.csv", text.encode())
    assert rows.columns == {"prompt": ["a"], "seed": ["1"], "guidance_scale": ["2.5"]}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", "a red circle,1\nb,2\n", "the first line must name the columns"),
        ("m.csv", "prompt,prompt\na,b\n", "the column 'prompt' is there twice"),
        ("m.json", '[{"prompt": "a"},\n {"prompt": "b"}\n', "not JSON: ',' or ']' expected: line 3"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: .*{said}"):
        read(tmp_path / name, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '[\n{"prompt": "a"},\n{"promptText": "b"}\n]\n',
        '{\n"prompt": "a"}\n{"prompt": "b"}',
        '[{"prompt": "a"},\n\n{"prompt": "b"}]',
    ],
)
def test_a_json_array_and_objects_over_lines_are_rows(tmp_path: Path, text: str) -> None:
    assert prompts(read(tmp_path / "m.json", text.encode())) == ["a", "b"]


def test_what_a_json_array_cannot_say_breaks_its_own_row(tmp_path: Path) -> None:
    text = '[{"prompt": "\\ud800"}, {"prompt": "b", "seed": %s}, 7, {"prompt": "c"}]' % ("9" * 5000)
    parts = read(tmp_path / "m.json", text.encode())
    assert prompts(parts) == [None, "b", None, "c"]
    assert len(broken(parts)) == 2


def test_jsonl_lines_end_as_every_system_ends_them(tmp_path: Path) -> None:
    parts = read(tmp_path / "m.jsonl", b'\xef\xbb\xbf{"prompt":"a"}\r\n{"prompt":"b"}\r\r\xef\xbb\xbf{"prompt":"c"}\n')
    assert (prompts(parts), lines(parts)) == (["a", "b", "c"], [1, 2, 4])


def test_hidden_files_are_no_matches_of_a_glob_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "._a.jsonl").write_bytes(b"\0\5\26\7")
    assert len(find_chunks(str(tmp_path / "*.jsonl"))) == 1
    assert len(find_chunks(str(tmp_path / "._*.jsonl"))) == 1


def test_what_runs_wrote_below_a_manifest_s_folder_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    for out in (tmp_path, tmp_path / "earlier"):
        (out / "rejects" / "abc").mkdir(parents=True)
        (out / "rejects" / "abc" / "part-00000.jsonl").write_text('{"reason": "x"}\n')
        (out / "run.json").write_text("{}")
    assert len(find_chunks(str(tmp_path))) == 1
    (tmp_path / "run.json").unlink()  # a run that was killed while it planned
    for out in (str(tmp_path), tmp_path.as_uri(), f"{tmp_path}/"):
        assert len(find_chunks(str(tmp_path), out=out)) == 1


# -- Parquet -----------------------------------------------------------------------------------------------------------


def parquet(path: Path, columns: dict[str, Any], **more: Any) -> list[Rows]:
    pq.write_table(pa.table(columns), path, **more)
    return read(path)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 40 + b"PAR1", b"not Parquet at all"])
def test_a_parquet_file_that_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"m\.parquet: not a Parquet file that can be read"):
        read(tmp_path / "m.parquet", data)


def test_one_column_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), tmp_path / "m.parquet")
    with pytest.raises(ConfigError, match=r"m\.parquet: the column 'prompt' is there twice"):
        read(tmp_path / "m.parquet")


def test_no_column_to_render_is_refused_with_the_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column prompt, template, image or video \(got 'caption'\); available: "):
        parquet(tmp_path / "m.parquet", {"caption": ["a"]})


def test_a_damaged_row_group_is_rows_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(
        pa.table({"prompt": [f"p{i}" * 40 for i in range(30)]}), path, row_group_size=10, compression="snappy"
    )
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 60] = b"\xff" * 60
    parts = read(path, bytes(data))
    assert lines(parts) == list(range(1, 31))
    assert [line for line, _ in broken(parts)] == list(range(11, 21))


def test_texts_of_any_arrow_type_are_texts_and_gaps_are_gaps(tmp_path: Path) -> None:
    (rows,) = parquet(
        tmp_path / "m.parquet",
        {
            "prompt": pa.array([b"a", b"gr\xc3\xb6\xc3\x9fer", b"\xff"], pa.binary()),
            "negative_prompt": pa.array(["x", "y", None]).dictionary_encode(),
            "seed": pa.array([1.0, float("nan"), None]),
            "made": pa.array([1, 2, 3], pa.timestamp("ns")),
        },
    )
    assert rows.columns["prompt"] == ["a", "größer", None]
    assert rows.columns["negative_prompt"] == ["x", "y", None]
    assert rows.columns["seed"] == [1.0, None, None]
    assert [why for _, why in broken([rows])] == ["not UTF-8: invalid start byte"]


def test_text_that_is_not_utf8_breaks_its_own_row(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff"))
    (rows,) = parquet(tmp_path / "m.parquet", {"prompt": bad})
    assert rows.columns["prompt"] == ["a", None]
    assert [line for line, _ in broken([rows])] == [2]


def test_a_row_group_of_images_is_read_in_parts(tmp_path: Path) -> None:
    images = [{"bytes": bytes([i]) * (3 << 20), "path": None} for i in range(50)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({"image": pa.array(images, kind), "shot": list(range(50))}), tmp_path / "m.parquet", compression="none"
    )
    chunks = find_chunks(str(tmp_path / "m.parquet"))
    assert len(chunks) > 2
    parts = [read_chunk(chunk) for chunk in chunks]
    assert [image[:1] for rows in parts for image in rows.columns["image"]] == [bytes([i]) for i in range(50)]
    assert [m["shot"] for rows in parts for m in rows.columns["metadata"]] == list(range(50))


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("steps", "num_inference_steps"),
        ("frames", "num_frames"),
        ("guidance", "guidance_scale"),
        ("sead", "seed"),
        ("promt", "prompt"),
        ("Negative_Promt", "negative_prompt"),
        ("campaign", None),
        ("shot", None),
    ],
)
def test_an_unknown_column_is_told_of_with_the_field_it_looks_like(name: str, field: str | None) -> None:
    assert nearest_field(name) == field


def test_unknown_columns_are_counted_and_said_once(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "steps": 3}, {"prompt": "b", "steps": 4, "shot": 1}, {"prompt": "c", "steps": None}]
    (found,) = read(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert found.unknown == Counter(steps=2, shot=1)
    (said,) = unknown_columns(found.unknown.items())
    assert said == "column 'steps' (2 rows) is no field and was kept as metadata; did you mean 'num_inference_steps'?"

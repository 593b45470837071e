"""Clips to train on, wherever they lie."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rushes.training_data import on_this_machine
from schemas.errors import MediaError
from storage.store import open_store
from tests.s3_server import S3Server
from training.finetune.clips import find_examples


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket("rushes-training")
    return "s3://rushes-training/some data"


def results(folder: Path, places: list[str | None]) -> Path:
    """A results table in two parts, as a run leaves it."""
    folder.mkdir(parents=True)
    for index, place in enumerate(places):
        row = {"prompt": f"prompt {index}", "uri": place, "status": "SUCCEEDED" if place else "FAILED"}
        table = pa.Table.from_pylist([row], pa.schema([(name, pa.string()) for name in row]))
        pq.write_table(table, folder / f"part-{index:05d}.parquet")
    return folder


def test_a_folder_of_this_machine_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    assert on_this_machine(str(tmp_path), tmp_path / "scratch") == tmp_path


def test_a_results_folder_of_a_run_is_read_part_by_part(tmp_path: Path) -> None:
    clip = tmp_path / "a clip.mp4"
    clip.write_bytes(b"clip")
    parts = results(tmp_path / "run", [f"file://{clip}", None, str(clip)])
    found = find_examples(on_this_machine(str(parts), tmp_path / "scratch"))
    assert [(e.prompt, e.path) for e in found] == [("prompt 0", clip), ("prompt 2", clip)]


def test_a_row_without_a_clip_names_its_table(tmp_path: Path) -> None:
    table = tmp_path / "m.jsonl"
    table.write_text('{"prompt": "one"}\n')
    with pytest.raises(MediaError, match="m.jsonl:1: a clip is missing"):
        on_this_machine(str(table), tmp_path / "scratch")


@pytest.mark.s3
def test_clips_that_a_local_table_names_in_a_bucket_are_fetched(bucket: str, tmp_path: Path) -> None:
    open_store(bucket).put("clips/a.mp4", b"from the bucket")
    table = tmp_path / "m.jsonl"
    table.write_text(json.dumps({"prompt": "one", "uri": f"{bucket}/clips/a.mp4"}) + "\n")
    found = find_examples(on_this_machine(str(table), tmp_path / "scratch"))
    assert [(e.prompt, e.path.read_bytes()) for e in found] == [("one", b"from the bucket")]


@pytest.mark.s3
def test_a_folder_in_a_bucket_is_fetched_with_its_captions(bucket: str, tmp_path: Path) -> None:
    store = open_store(f"{bucket}/folder")
    store.put("a.mp4", b"clip")
    store.put("a.txt", b"a caption")
    store.put("notes.md", b"no part of it")
    path = on_this_machine(f"{bucket}/folder", tmp_path / "scratch")
    assert [(e.prompt, e.path.name) for e in find_examples(path)] == [("a caption", "a.mp4")]
    assert not (path / "notes.md").exists()


@pytest.mark.s3
def test_the_results_of_a_run_in_a_bucket_are_fetched_whole(bucket: str, tmp_path: Path) -> None:
    store = open_store(f"{bucket}/run")
    store.put("clips/a.mp4", b"clip")
    parts = results(tmp_path / "made", [store.uri("clips/a.mp4"), None])
    for part in parts.iterdir():
        store.put(f"results/r1/{part.name}", part)
    found = find_examples(on_this_machine(f"{bucket}/run/results/r1", tmp_path / "scratch"))
    assert [(e.prompt, e.path.read_bytes()) for e in found] == [("prompt 0", b"clip")]

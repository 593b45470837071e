"""Manifests and media by URI: a file, a folder, a glob; here or in S3."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigError, ObjectMissingError
from storage.store import ObjectStore
from storage.uris import head_uri, list_uris, open_object, read_range, read_uri

NAMES = ["a.jsonl", "b.csv", "deep/c.JSONL", "deep/er/d.jsonl", "_tmp/e.jsonl", ".hidden/f.jsonl", "take[1].jsonl"]


@pytest.fixture
def folder(store: ObjectStore) -> str:
    """A folder of manifests, as a URI (for folders a plain path: that is how they are shown)."""
    for name in NAMES:
        store.put(name, name.encode())
    return store.uri("x").rpartition("/")[0]


def names(uri: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    return [read_uri(file.uri).decode() for file in list_uris(uri, suffixes)]


def test_a_file_leads_to_itself(folder: str) -> None:
    assert names(f"{folder}/b.csv", ("jsonl",)) == ["b.csv"]
    (file,) = list_uris(f"{folder}/a.jsonl")
    assert file.size_bytes == 7
    assert file.suffix == ".jsonl"


def test_a_folder_leads_to_its_visible_files_at_any_depth(folder: str) -> None:
    for uri in (folder, f"{folder}/"):
        assert names(uri) == ["a.jsonl", "b.csv", "deep/c.JSONL", "deep/er/d.jsonl", "take[1].jsonl"]
    assert names(folder, (".jsonl",)) == ["a.jsonl", "deep/c.JSONL", "deep/er/d.jsonl", "take[1].jsonl"]


def test_a_glob_stays_in_its_folder_unless_it_has_two_stars(store: ObjectStore, folder: str) -> None:
    assert names(f"{folder}/*.jsonl") == ["a.jsonl", "take[1].jsonl"]
    assert names(f"{folder}/**/*.jsonl") == [
        "_tmp/e.jsonl",
        "a.jsonl",
        "deep/er/d.jsonl",
        "take[1].jsonl",
    ]
    assert names(f"{folder}/d*/?.JSONL") == ["deep/c.JSONL"]
    assert names(f"{folder}/[ab].*") == ["a.jsonl", "b.csv"]
    assert names(f"{folder}/[!a].*") == ["b.csv"]
    assert store.head("take[1].jsonl") is not None


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: str) -> None:
    assert names(f"{folder}/take[1].jsonl") == ["take[1].jsonl"]


def test_nothing_found_names_what_was_looked_for(folder: str) -> None:
    for uri in (f"{folder}/no.jsonl", f"{folder}/no*", f"{folder}/nowhere/"):
        with pytest.raises(ObjectMissingError, match="no such file"):
            list_uris(uri)
    with pytest.raises(ObjectMissingError, match=r"with \.parquet"):
        list_uris(folder, ("parquet",))
    with pytest.raises(ConfigError, match="unknown scheme"):
        list_uris("gs://b/*.jsonl")
    assert head_uri(f"{folder}/no.jsonl") is None


def test_parts_of_an_object_are_read(store: ObjectStore, folder: str) -> None:
    assert read_range(f"{folder}/a.jsonl", 2, 4) == b"js"
    buffer = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["a", "b"], "seed": [1, 2]}), buffer)
    store.put("m.parquet", buffer.getvalue())
    with open_object(f"{folder}/m.parquet") as file:
        assert pq.ParquetFile(file).read(columns=["seed"]).to_pydict() == {"seed": [1, 2]}


def test_plain_and_relative_paths_are_uris_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in 1").mkdir()
    (tmp_path / "in 1" / "a%20.jsonl").write_bytes(b"x")
    for uri in ("in 1/a%20.jsonl", "in 1", "in 1/*", "*/*.jsonl", (tmp_path / "in 1").as_uri()):
        assert [file.uri for file in list_uris(uri)] == [str(tmp_path / "in 1" / "a%20.jsonl")]

"""What counts as done, and which clips are there."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.clip import Record, Status
from schemas.errors import StorageError
from storage import keys
from storage.address import FolderAddress
from storage.compaction import compact
from storage.done_tasks import DoneTasks, done_tasks, pack, stored_clips
from storage.ledger import Ledger
from storage.local import LocalStore
from storage.store import ObjectStore
from storage.tables import table_to_records
from tests.storage.records import CLIP, record

A, B, C = "aa" * 16, "bb" * 16, "cc" * 16


def told(done: DoneTasks) -> dict[str, int]:
    names = [bytes(one).ljust(16, b"\0").hex() for one in done.fingerprints]
    return dict(zip(names, done.clip_bytes.tolist(), strict=True))


def rendered_again(at: str) -> Record:
    return record(A, at=at, clip=CLIP.model_copy(update={"sha256": "cd" * 32, "clip_bytes": 2000}))


def test_a_done_task_is_told_with_the_bytes_of_its_clip(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A))
    ledger.write(record(B, Status.FAILED))
    ledger.write_many([record(C, Status.FAILED, quarantined=True), record("dd" * 16)])
    for _ in range(2):
        assert told(done_tasks(ledger)) == {A: 1000, "dd" * 16: 1000}
        assert told(done_tasks(ledger, with_quarantined=True)) == {A: 1000, C: -1, "dd" * 16: 1000}
        compact(ledger, min_loose=1)


def test_what_moderation_refused_is_done_with_as_long_as_it_is_the_same(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A, Status.FAILED, refused_by="these"))
    ledger.write_many([record(B, Status.FAILED, refused_by="those"), record(C)])
    for _ in range(2):
        assert told(done_tasks(ledger)) == {C: 1000}
        assert told(done_tasks(ledger, refused_by="these")) == {A: -1, C: 1000}
        compact(ledger, min_loose=1)
    ledger.write(record(A, at="2026-02-01T00:00:00+00:00"))
    assert told(done_tasks(ledger, refused_by="these")) == {A: 1000, C: 1000}


def test_names_of_records_alone_tell_what_is_done_but_no_sizes(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A))
    ledger.write(record(B, Status.FAILED))
    assert told(done_tasks(ledger, by_keys=True)) == {A: -2}


def test_the_digests_of_clips_are_told_when_asked_for(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write(record(A))
    found = done_tasks(ledger, with_sha256=True).sha256
    assert found is not None
    assert bytes(found[0]).hex() == CLIP.sha256


@pytest.mark.parametrize("fold", [False, True])
def test_a_revoked_success_counts_no_more_until_the_task_succeeds_again(store: ObjectStore, fold: bool) -> None:
    ledger = Ledger(store)
    ledger.write(record(A))
    ledger.write(record(B))
    if fold:
        compact(ledger, min_loose=1)
    ledger.write(record(A, Status.PENDING, at="2026-02-01T00:00:00+00:00"))
    assert told(done_tasks(ledger)) == {B: 1000}
    ledger.write(record(A, Status.FAILED, at="2026-02-02T00:00:00+00:00"))
    if fold:
        compact(ledger, min_loose=1)
    assert told(done_tasks(ledger)) == {B: 1000}
    assert [r.status for r in table_to_records(ledger.load())] == [Status.FAILED, Status.SUCCEEDED]
    assert ledger.write(rendered_again("2026-02-03T00:00:00+00:00"))
    assert told(done_tasks(ledger)) == {A: 2000, B: 1000}
    found = ledger.get(A)
    assert found is not None
    assert found.clip is not None
    assert found.clip.sha256 == "cd" * 32


def test_a_damaged_record_is_a_task_that_is_not_done(store: ObjectStore) -> None:
    ledger = Ledger(store)
    for body in (b"", b"\0" * 700, b'{"fingerprint": "aa'):
        store.put(keys.succeeded_record(A), body)
        assert told(done_tasks(ledger)) == {}
    assert ledger.write(record(A))
    assert told(done_tasks(ledger)) == {A: 1000}


def test_a_damaged_line_of_a_segment_costs_its_own_task(store: ObjectStore) -> None:
    ledger = Ledger(store)
    ledger.write_many([record(A), record(B)])
    (segment,) = [info.key for info in store.list(keys.SEGMENTS)]
    store.put(segment, store.get(segment).replace(b'"fingerprint":"aa', b'"fingerprint:"aa'))
    assert told(done_tasks(ledger)) == {B: 1000}
    compact(ledger, min_loose=1)
    assert told(done_tasks(Ledger(store))) == {B: 1000}
    assert store.head(segment), "what could not be read is left where it is"


def test_a_damaged_compacted_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    store = LocalStore(FolderAddress(tmp_path))
    Ledger(store).write(record(A))
    key = compact(Ledger(store), min_loose=1).key
    assert key is not None
    store.put(key, store.get(key)[:-20])
    with pytest.raises(StorageError, match=r"parquet: damaged .*delete it"):
        done_tasks(Ledger(store))


def test_records_of_many_threads_are_all_kept(store: ObjectStore) -> None:
    ledger = Ledger(store)
    tasks = [f"{i:032x}" for i in range(200)]
    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ledger.write, map(record, tasks)))
    assert sorted(told(done_tasks(ledger))) == tasks
    assert {f: ledger.get(f) for f in tasks[:5]} == {f: record(f) for f in tasks[:5]}


def test_clips_are_known_by_a_listing_and_posters_are_none(store: ObjectStore) -> None:
    store.put(keys.clip("small", A), b"12345")
    store.put(keys.poster("small", A), b"1")
    store.put(keys.clip("a/b", B, "zip"), b"")
    store.put(keys.clip("other", C), b"1")
    found = stored_clips(store, ["small", "a/b"])
    assert found.fingerprints.tolist() == pack([A, B]).tolist()
    assert found.clip_bytes.tolist() == [5, 0]


def test_what_a_folder_stores_is_flushed_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    flush = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    LocalStore(FolderAddress(tmp_path / "out")).put("a/b/c", b"x")
    folders = [str(tmp_path), str(tmp_path / "out"), str(tmp_path / "out/a"), str(tmp_path / "out/a/b")]
    assert sorted(set(flushed) & set(folders)) == folders
    assert any("/.rushes-tmp-" in path for path in flushed)

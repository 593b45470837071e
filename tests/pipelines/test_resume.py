"""The same command again: what is there stays, what is missing or damaged is rendered again."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.topology import Topology
from pipelines.audit import RunAuditLog
from pipelines.estimate import estimate
from pipelines.run import render
from pipelines.run_lock import run_lock
from pipelines.watcher import Watcher
from schemas.clip import Status
from schemas.errors import ConfigError
from schemas.run import RunOptions, RunStatus
from storage import keys
from storage.ledger import Ledger
from storage.store import ObjectStore, open_store
from storage.tables import read_table, table_to_records
from tests.pipelines.catalogs import TWO_VARIANTS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TASKS = 6


def told(folder: Path, **more: Any) -> RunOptions:
    rows = [{"id": f"t{i}", "prompt": f"clip {i}", "variant": "swift", "num_frames": 5} for i in range(TASKS)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "catalog.toml").write_text(TWO_VARIANTS)
    catalog, out = str(folder / "catalog.toml"), str(folder / "out")
    # One actor: to start another takes longer than to render all of it.
    return RunOptions(manifest=str(folder / "m.jsonl"), out=out, catalog=catalog, max_concurrent=3, **more)


def clips(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(keys.CLIPS) if keys.fingerprint_of_clip(info.key)]


def flip(store: ObjectStore, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 0xFF
    store.put(key, bytes(data))


def damage_record(store: ObjectStore, fingerprint: str) -> None:
    """As a power cut may: zeros where the record was, alone or among those that were written with it."""
    for info in list(store.list("ledger/")):
        lines = store.get(info.key).splitlines()
        if any(fingerprint.encode() in line for line in lines):
            store.put(info.key, b"\n".join(bytes(100) if fingerprint.encode() in line else line for line in lines))


def test_clips_and_records_that_are_gone_or_damaged_are_made_again(tmp_path: Path, ray_cluster: Topology) -> None:
    options = told(tmp_path)
    assert render(options).rendered == TASKS
    store = open_store(options.out)
    before = {key: store.get(key) for key in clips(store)}
    gone, empty, cut, unrecorded, flipped, _ = sorted(before)
    store.delete([gone])
    store.put(empty, b"")
    store.put(cut, before[cut][:-50])
    damage_record(store, keys.fingerprint_of_clip(unrecorded) or "")
    assert estimate(options).quote.to_render == 4
    again = render(options)
    assert (again.rendered, again.reused, again.succeeded) == (4, 2, TASKS)
    assert sorted(clips(store)) == sorted(before)
    for record in table_to_records(Ledger(store).load()):
        assert record.status is Status.SUCCEEDED
        info = store.head(keys.clip("swift", record.fingerprint))
        assert record.clip is not None
        assert info is not None
        assert info.size_bytes == record.clip.clip_bytes > 0

    # Of the same size, only reading it tells.
    flip(store, flipped)
    assert render(options).rendered == 0
    verified = render(options.model_copy(update={"verify": True}))
    assert (verified.rendered, verified.succeeded) == (1, TASKS)
    assert render(options.model_copy(update={"verify": True})).rendered == 0
    report = RunAuditLog(store).verify()
    assert (report.faults, report.notes) == ((), ()), "five runs, each of which tells of the chains before it"


def test_an_interrupted_run_says_so_and_leaves_the_table_of_what_is_there(
    tmp_path: Path, ray_cluster: Topology
) -> None:
    options = told(tmp_path)
    render(options.model_copy(update={"limit": 2}))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(options, Watcher(quoted=lambda plan: None, confirm=lambda quote: True, started=interrupt))
    store = open_store(options.out)
    note = json.loads(store.get(keys.RUN))
    assert note["status"] == RunStatus.INTERRUPTED
    assert note["so_far"] == {"rows": TASKS, "succeeded": 2, "failed": 0, "rejected": 0, "pending": TASKS - 2}
    table = read_table(store, keys.results_part(options.run_id, 0))
    assert table.column("status").to_pylist().count("PENDING") == TASKS - 2
    assert store.head(keys.RUN_LOCK) is None
    assert render(options).rendered == TASKS - 2


def test_two_runs_into_one_folder_are_one_too_many(tmp_path: Path, ray_cluster: Topology) -> None:
    options = told(tmp_path)
    with (
        run_lock(open_store(options.out), "first", "first.jsonl"),
        pytest.raises(ConfigError, match=r"run first of first\.jsonl"),
    ):
        render(options)

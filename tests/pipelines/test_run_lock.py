"""One run at a time in a folder."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.run_lock import Holder, run_lock
from schemas.errors import ConfigError
from storage import keys
from storage.objects import ObjectInfo
from storage.store import ObjectStore, open_store

OTHER = Holder("t", "abc", "prompts.jsonl", "elsewhere", 1, 1.0, "2026-01-01T00:00:00+00:00")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "out"))


def held_by(store: ObjectStore, holder: Holder) -> None:
    store.put(keys.RUN_LOCK, json.dumps(asdict(holder)).encode())


def test_a_second_run_is_refused_and_told_of_the_first(store: ObjectStore) -> None:
    with (
        run_lock(store, "abc", "prompts.jsonl"),
        pytest.raises(ConfigError, match=rf"run abc of prompts\.jsonl \(process {os.getpid()} on .* is going on here$"),
        run_lock(store, "abc", "prompts.jsonl"),
    ):
        pass
    with run_lock(store, "abc", "prompts.jsonl"):
        pass
    assert store.head(keys.RUN_LOCK) is None


def test_a_run_whose_process_is_gone_holds_nothing(tmp_path: Path, store: ObjectStore) -> None:
    code = (
        "import os, sys\nfrom pipelines.run_lock import run_lock\nfrom storage.store import open_store\n"
        "with run_lock(open_store(sys.argv[1]), 'abc', 'm'): os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert store.head(keys.RUN_LOCK)
    with run_lock(store, "abc", "m"):
        pass


def test_a_process_number_that_was_given_out_again_is_not_the_run(store: ObjectStore) -> None:
    with run_lock(store, "abc", "m"):
        mine = Holder(**json.loads(store.get(keys.RUN_LOCK)))
    held_by(store, replace(mine, process_started_s=mine.process_started_s - 1000))
    with run_lock(store, "abc", "m"):
        pass


def test_a_run_on_another_machine_holds_until_it_has_been_quiet_for_long(tmp_path: Path, store: ObjectStore) -> None:
    held_by(store, OTHER)
    with pytest.raises(ConfigError, match="on elsewhere, .*if it died, try again in 90 s"), run_lock(store, "d", "m"):
        pass
    long_ago = (datetime.now(UTC) - timedelta(seconds=120)).timestamp()
    os.utime(tmp_path / "out" / keys.RUN_LOCK, (long_ago, long_ago))
    with run_lock(store, "d", "m"):
        info = store.head(keys.RUN_LOCK)
        assert isinstance(info, ObjectInfo)


def test_a_lock_that_was_cut_off_is_none(store: ObjectStore) -> None:
    store.put(keys.RUN_LOCK, b"")
    with run_lock(store, "abc", "m"):
        pass

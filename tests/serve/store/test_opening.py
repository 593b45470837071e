"""Opening a store: what is refused, and what processes that start together make of an empty database."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from serve.errors import StoreUnavailableError
from serve.store.engine import open_store
from tests.serve.store.samples import new_task

ROOT = Path(__file__).resolve().parents[3]
OPENER = "import sys; from serve.store.engine import open_store; open_store(sys.argv[1]).notes.write(sys.argv[2], 1)"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://root:secret@db/tasks", "unknown kind 'mysql'; available: sqlite:///FILE, postgresql://"),
        ("tasks.sqlite", "not a URL; available: sqlite:///FILE"),
        ("sqlite://", "forgets what was accepted"),
        ("sqlite:///:memory:", "forgets what was accepted"),
    ],
)
def test_what_is_no_store_is_refused_with_what_would_be_one(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert told in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to look at" * 50)
    with pytest.raises(ConfigError, match="not a database"):
        open_store(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        open_store(f"sqlite:///{tmp_path / 'file' / 'tasks.sqlite'}")


def test_a_server_that_is_away_is_worth_another_try() -> None:
    with pytest.raises(StoreUnavailableError) as away:
        open_store("postgresql://rushes:secret@127.0.0.1:1/rushes?connect_timeout=1")
    assert "secret" not in str(away.value)
    assert "127.0.0.1" not in str(away.value)


def test_what_was_stored_is_there_when_it_is_opened_again(store_url: str) -> None:
    task = new_task()
    store = open_store(store_url)
    store.tasks.submit([task], 1.0)
    store.close()
    again = open_store(store_url)
    assert again.tasks.get(task.id) is not None
    again.close()


def test_sqlite_is_durable_and_its_readers_do_not_wait(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
    store.tasks.submit([task := new_task()], 1.0)
    writer = sqlite3.connect(tmp_path / "tasks.sqlite", isolation_level=None)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.execute("BEGIN IMMEDIATE")
    assert store.tasks.get(task.id) is not None
    assert store.tasks.counts() is not None
    writer.execute("ROLLBACK")
    writer.close()
    store.close()


def test_processes_that_start_together_open_the_same_tables(store_url: str) -> None:
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, store_url, f"p{n}"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    for process in starting:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    store = open_store(store_url)
    assert set(store.notes.read_many("p")) == {"p0", "p1", "p2", "p3"}
    store.close()

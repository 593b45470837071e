"""How SQLite answers what is asked often, or of large tables: by which index, and without a look at a row."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from schemas.clip import Status
from serve.store.contract import Store
from serve.store.cutoffs import Cutoffs
from serve.store.database import Database
from serve.store.engine import open_store
from tests.serve.store.samples import NOW, new_task

LIVE = (Status.PENDING, Status.THROTTLED, Status.RUNNING)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
    store.tasks.submit([new_task()], NOW)
    yield store
    store.close()


def plans(store: Store, path: Path, ask: Callable[[], object]) -> list[str]:
    """The steps that pass over a table, of every statement that is executed while it is asked."""
    database: Database = store._db  # type: ignore[attr-defined]
    asked: list[str] = []

    def keep(*told: object) -> None:
        asked.append(str(told[2]))

    for engine in (database._reader, database._writer):
        event.listen(engine, "before_cursor_execute", keep)
    ask()
    for engine in (database._reader, database._writer):
        event.remove(engine, "before_cursor_execute", keep)
    connection = sqlite3.connect(path / "tasks.sqlite")
    steps = [
        row[-1]
        for statement in asked
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * statement.count("?"))
    ]
    connection.close()
    return [step for step in steps if step.startswith(("SEARCH", "SCAN"))]


def index(step: str) -> str:
    found = re.search(r"USING (COVERING INDEX \w+|INDEX \w+)", step)
    return found.group(1) if found else step


def test_those_ahead_are_counted_without_a_look_at_a_row(sqlite_store: Store, tmp_path: Path) -> None:
    tasks = sqlite_store.tasks.pending()
    steps = plans(sqlite_store, tmp_path, lambda: sqlite_store.tasks.positions(tasks))
    assert {index(step) for step in steps if "tasks" in step} == {"COVERING INDEX tasks_ahead"}


def test_live_tasks_are_listed_from_their_index_alone(sqlite_store: Store, tmp_path: Path) -> None:
    steps = plans(sqlite_store, tmp_path, lambda: sqlite_store.tasks.live_index(5, 9))
    assert steps == ["SEARCH tasks USING COVERING INDEX tasks_live (seq>?)"]


def test_messages_are_counted_from_small_indexes_alone(sqlite_store: Store, tmp_path: Path) -> None:
    steps = plans(sqlite_store, tmp_path, sqlite_store.deliveries.counts)
    assert sorted(map(index, steps)) == [
        "COVERING INDEX deliveries_delivered",
        "COVERING INDEX deliveries_due",
        "COVERING INDEX deliveries_given_up",
    ]


def test_live_tasks_are_counted_without_those_that_have_ended(sqlite_store: Store, tmp_path: Path) -> None:
    steps = plans(sqlite_store, tmp_path, lambda: sqlite_store.tasks.counts(statuses=LIVE))
    assert steps == [
        "SEARCH tasks USING COVERING INDEX tasks_by_status (status=?)",
        "SCAN tasks USING COVERING INDEX tasks_dead",
    ]


def test_what_is_old_is_found_by_its_age(sqlite_store: Store, tmp_path: Path) -> None:
    steps = plans(sqlite_store, tmp_path, lambda: sqlite_store.prune(Cutoffs(NOW, NOW, NOW, NOW, NOW)))
    assert [index(step).split()[-1] for step in steps if "batches USING INDEX sqlite_auto" not in step] == [
        "idempotency_by_age",
        "deliveries_delivered",
        "deliveries_given_up",
        "decisions_by_age",
        "tasks_ended",
        "batches_ended",
        "tasks_by_batch",
    ]


def test_objects_that_are_still_to_be_removed_are_found_by_their_index(sqlite_store: Store, tmp_path: Path) -> None:
    steps = plans(sqlite_store, tmp_path, sqlite_store.tasks.unpurged)
    assert list(map(index, steps)) == ["INDEX tasks_unpurged"]

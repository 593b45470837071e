"""Databases of an earlier rushes are migrated with what is in them; those of a later one are left alone."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text

from schemas.clip import Status
from schemas.errors import ConfigError
from serve.store import tables
from serve.store.contract import Idempotency, Store
from serve.store.engine import open_store
from serve.tasks import StoredTask
from tests.serve.store.samples import NOW, failure, leased, new_task, success
from tests.serve.store.test_opening import OPENER, ROOT

SCHEMAS = Path(__file__).parent / "schemas"
DONE, DEAD, HIDDEN, RUNS, WAITS = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))


@pytest.fixture
def old_url(store_url: str) -> str:
    """A database as the code without migrations left it, rows of every table in it."""
    kind = store_url.partition(":")[0].partition("+")[0]
    script = (SCHEMAS / f"version_1.{'sqlite' if kind == 'sqlite' else 'postgres'}.sql").read_text()
    if kind == "sqlite":
        path = Path(store_url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True)
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()
        return store_url
    engine = create_engine(store_url)
    with engine.begin() as opened:
        opened.connection.cursor().execute(script)
    engine.dispose()
    return store_url


def task(store: Store, task_id: str) -> StoredTask:
    (found,) = store.tasks.get_many([task_id])
    return found


def test_the_rows_of_an_old_database_are_there_after_it_was_opened(old_url: str) -> None:
    store = open_store(old_url)
    assert task(store, DONE).outcome == success()
    assert task(store, DEAD).outcome == failure(dead=True)
    assert (task(store, HIDDEN).deleted, store.tasks.get(HIDDEN)) == (True, None)
    assert [row.id for row in store.tasks.live_index()] == [RUNS, WAITS]
    assert store.tasks.counts().dead == 1
    assert store.tasks.usage("key-a", NOW - 1, NOW + 1) == (("2023-11-14", "gen4_turbo", 5, pytest.approx(0.08)),)
    assert store.tasks.replay("key-a", Idempotency("k1", "digest")) == (task(store, DONE),)
    batch = store.batches.get("b1")
    assert batch is not None
    assert (batch.status, batch.counts) == (Status.SUCCEEDED, {"SUCCEEDED": 1})
    assert store.deliveries.counts() == {"waiting": 1, "delivered": 0, "given_up": 0}
    assert store.keys.find("digest-a") is not None
    assert store.routers.decisions("r1", 9, None)[0][0].id == "d1"
    assert store.uploads.get("u1") is not None
    assert store.notes.read("fleet") == {"pools": []}
    store.close()


def test_work_goes_on_in_a_migrated_database(old_url: str) -> None:
    open_store(old_url).close()
    store = open_store(old_url)
    assert store.tasks.finish(RUNS, 1, success(), NOW + 9) is Status.SUCCEEDED
    assert leased(store, task(store, WAITS)).epoch == 1
    (fresh,) = store.tasks.submit([new_task()], NOW).tasks
    assert fresh.seq > task(store, WAITS).seq
    store.close()


def test_two_processes_that_open_an_old_database_at_once_both_can(old_url: str) -> None:
    starting = [
        subprocess.Popen([sys.executable, "-c", OPENER, old_url, f"p{n}"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    for process in starting:
        _, told = process.communicate(timeout=200)
        assert process.returncode == 0, told
    store = open_store(old_url)
    assert set(store.notes.read_many("p")) == {"p0", "p1"}
    assert task(store, DONE).outcome == success()
    store.close()


@pytest.mark.parametrize(
    ("newer", "told"),
    [
        ("UPDATE rushes_revision SET version_num = '0999'", "of version 0999, newer than this rushes knows"),
        ("UPDATE rushes_schema SET version = 99; DROP TABLE rushes_revision", "of version 0099, newer"),
    ],
)
def test_a_database_of_a_later_rushes_is_refused_and_left_alone(store_url: str, newer: str, told: str) -> None:
    open_store(store_url).close()
    engine = create_engine(store_url)
    with engine.begin() as connection:
        for statement in newer.split("; "):
            connection.execute(text(statement))
    before = described(engine)
    with pytest.raises(ConfigError, match=told):
        open_store(store_url)
    assert described(engine) == before
    engine.dispose()


def test_a_rushes_without_migrations_refuses_a_migrated_database(store_url: str) -> None:
    open_store(store_url).close()
    engine = create_engine(store_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT version FROM rushes_schema")).scalar_one() != 1
    engine.dispose()


def test_migrations_make_what_the_tables_module_says(store_url: str, request: pytest.FixtureRequest) -> None:
    """Both ways into a database of its own, and the same comes out."""
    open_store(store_url).close()
    migrated = create_engine(store_url)
    made = described(migrated)
    with migrated.begin() as connection:
        connection.execute(text("DROP TABLE rushes_revision"))
        tables.metadata.drop_all(connection)
        tables.metadata.create_all(connection)
    assert made == described(migrated)
    migrated.dispose()


def test_the_last_migration_is_the_one_that_the_code_needs() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "serve" / "store" / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == tables.REVISION


def described(engine: Engine) -> dict[str, object]:
    """Tables, columns, keys, and indexes with their conditions; not the order of columns that were added later."""
    there = inspect(engine)
    names = [name for name in there.get_table_names() if name != tables.revisions.name]
    found: dict[str, object] = {}
    for name in names:
        columns = {str(c["name"]): (repr(c["type"]), c["nullable"], c["default"]) for c in there.get_columns(name)}
        keys = there.get_pk_constraint(name)["constrained_columns"]
        foreign = [(f["constrained_columns"], f["referred_table"], f["options"]) for f in there.get_foreign_keys(name)]
        unique = sorted(str(u["column_names"]) for u in there.get_unique_constraints(name))
        found[name] = columns, keys, foreign, unique
    if engine.dialect.name == "sqlite":
        ask = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        ask = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
    with engine.connect() as connection:
        indexes = {name: sql.replace('"', "") for name, sql in connection.execute(text(ask)) if "rushes_" not in name}
    return {**found, "indexes": indexes}

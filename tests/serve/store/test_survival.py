"""Processes die, servers go away, other processes want the same: what was acknowledged stays true."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text

from schemas.errors import PermanentError
from serve.errors import StoreUnavailableError
from serve.store.contract import Store
from serve.store.database import Database
from serve.store.engine import open_store
from tests.serve.store.postgres_server import PostgresServer, find_postgres
from tests.serve.store.samples import NOW, leased, new_task, now_of, submitted, success

ROOT = Path(__file__).resolve().parents[3]


def started(url: str, what: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.serve.store.submitter", url, what]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> Iterator[str]:
    """Its whole lines: a last one that it died on is none."""
    assert process.stdout is not None
    return (line.strip() for line in process.stdout if line.endswith("\n"))


def test_every_acknowledged_task_is_there_after_sigkills_in_the_middle_of_submits(store_url: str) -> None:
    acknowledged: list[str] = []
    for _ in range(2):
        processes = [started(store_url, "submit") for _ in range(2)]
        for process in processes:
            lines = said(process)
            acknowledged += [next(lines) for _ in range(30)]
        for process in processes:
            process.kill()
        for process in processes:
            acknowledged += said(process)
            process.wait(timeout=120)
    store = open_store(store_url)
    assert len(acknowledged) == len(set(acknowledged)) >= 120
    assert {task.id for task in store.tasks.get_many(acknowledged)} == set(acknowledged)
    assert set(acknowledged) <= {task.id for task in store.tasks.pending(limit=10**6)}
    submitted(store)  # nobody holds a lock
    store.close()


def test_two_processes_never_lease_the_same_task(store_url: str) -> None:
    store = open_store(store_url)
    tasks = submitted(store, 100)
    processes = [started(store_url, "take") for _ in range(2)]
    outputs = [said(process) for process in processes]
    for output in outputs:
        assert next(output) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    with ThreadPoolExecutor(2) as threads:
        taken = [task_id for ids in threads.map(list, outputs) for task_id in ids]
    assert sorted(taken) == sorted(task.id for task in tasks)
    for process in processes:
        assert process.wait(timeout=120) == 0
    store.close()


def test_a_lock_that_another_process_keeps_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tasks.sqlite'}"
    store = open_store(url)
    other = create_engine(url)
    connection = other.connect()
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(submitted, store)
        assert store.tasks.pending() == ()  # a reader passes it by
        assert not waits.done()
        connection.exec_driver_sql("ROLLBACK")
        assert waits.result(timeout=120) == store.tasks.pending()
    connection.close()
    other.dispose()
    store.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    if find_postgres() is None:
        pytest.skip("no Postgres server")
    with PostgresServer() as server:
        yield server


def test_a_server_that_restarts_costs_no_task_and_no_restart_of_ours(own_server: PostgresServer) -> None:
    store = open_store(own_server.fresh_url())
    (task,) = submitted(store)
    lease = leased(store, task)
    with ThreadPoolExecutor(4) as threads:  # several connections, all of which will be dead
        list(threads.map(lambda _: store.tasks.get(task.id), range(16)))
    own_server.kill()
    with pytest.raises(StoreUnavailableError):
        store.tasks.get(task.id)
    with pytest.raises(StoreUnavailableError):
        store.tasks.submit([new_task()], NOW)
    own_server.start()
    assert store.tasks.finish(task.id, lease.epoch, success(), NOW + 2)
    assert now_of(store, task).outcome == success()
    store.close()


def test_connections_that_were_cut_are_replaced_without_an_error(own_server: PostgresServer) -> None:
    store = open_store(own_server.fresh_url())
    (task,) = submitted(store)
    own_server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert store.tasks.get(task.id) == task
    own_server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert len(submitted(store)) == 1
    store.close()


def test_a_server_that_takes_no_writes_for_a_while_is_no_lost_store(own_server: PostgresServer) -> None:
    store = open_store(own_server.fresh_url())
    (task,) = submitted(store)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    for off, on in (
        (lambda: own_server.takes_writes(False), lambda: own_server.takes_writes(True)),
        # Sessions keep what was so when they began: those of the outage must not be used after it.
        (
            lambda: own_server.sql("ALTER ROLE rushes SET default_transaction_read_only = on"),
            lambda: own_server.sql("ALTER ROLE rushes RESET ALL"),
        ),
    ):
        off()
        own_server.sql(cut)
        with pytest.raises(StoreUnavailableError, match="ReadOnlySqlTransaction"):
            store.tasks.submit([new_task()], NOW)
        assert store.tasks.get(task.id) == task, "what is there can be read"
        on()
        assert len(submitted(store)) == 1
    store.close()


def test_of_two_transactions_that_wait_for_each_other_both_are_done(own_server: PostgresServer) -> None:
    store = open_store(own_server.fresh_url())
    for name in ("a", "b"):
        store.notes.write(name, 0)
    database: Database = store._db  # type: ignore[attr-defined]
    both_hold_one = threading.Barrier(2)
    rounds = {"ab": 0, "ba": 0}

    def swap(order: str) -> None:
        def work(connection) -> None:  # type: ignore[no-untyped-def]
            rounds[order] += 1
            for place, name in enumerate(order):
                connection.execute(
                    text("UPDATE notes SET value = (value::int + 1)::text WHERE name = :name"), {"name": name}
                )
                if place == 0 and rounds[order] == 1:
                    both_hold_one.wait(timeout=120)

        database.write(work)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(swap, ["ab", "ba"]))
    assert store.notes.read_many("") == {"a": 2, "b": 2}
    assert sorted(rounds.values()) == [1, 2]
    store.close()


def test_a_commit_of_which_nobody_knows_is_not_tried_again(own_server: PostgresServer) -> None:
    store = open_store(own_server.fresh_url())
    database: Database = store._db  # type: ignore[attr-defined]
    tried = []

    def cut(connection) -> None:  # type: ignore[no-untyped-def]
        own_server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    event.listen(database._writer, "commit", cut)

    def work(connection) -> None:  # type: ignore[no-untyped-def]
        tried.append(connection.execute(text("INSERT INTO notes VALUES ('a', '1')")))

    with pytest.raises(StoreUnavailableError, match="during a commit"):
        database.write(work)
    assert len(tried) == 1
    event.remove(database._writer, "commit", cut)
    assert store.notes.read("a") is None
    store.close()


def test_every_error_of_the_database_leaves_as_one_of_ours(database_store: Store) -> None:
    database: Database = database_store._db  # type: ignore[attr-defined]
    with pytest.raises(PermanentError, match="refuses") as refused:
        database.read(lambda connection: connection.execute(text("SELECT secret FROM nowhere")))
    assert "nowhere" not in str(refused.value)

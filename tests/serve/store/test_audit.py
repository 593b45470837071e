"""The audit log of a database: what is told of, in which transaction, its chain, what is found, pruned and erased."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from schemas.audit import Action, AuditFilter, AuditPrompts, AuditSettings, Entry, Head, Told, instant
from schemas.clip import Status
from schemas.errors import ConfigError, PermanentError
from serve.audit_log import EndpointAuditLog
from serve.errors import SpendLimitError
from serve.store.attempts import Finished, Returned
from serve.store.contract import ApiKey, Batch, ChainedRecord, Idempotency, RouterConfig, Store, Upload
from serve.store.cutoffs import Cutoffs, Pruned
from serve.store.engine import open_store
from tests.serve.store.samples import NOW, ended, failure, leased, new_task, submitted, success
from tests.serve.store.test_survival import said, started
from trust.actor import os_user
from trust.audit_chain import AuditReport, Fault
from trust.redaction import matches, words_of

ROOT = Path(__file__).resolve().parents[3]
WORDS = words_of("a fox 🦊 in the snow")


@pytest.fixture
def store(database_store: Store) -> Store:
    """A database: the one in memory keeps no log."""
    return database_store


@pytest.fixture
def database(store_url: str) -> Iterator[Engine]:
    """The same database, as whoever wants to change it sees it."""
    engine = create_engine(store_url)
    yield engine
    engine.dispose()


def chained(store: Store) -> list[ChainedRecord]:
    while store.audit.chain(7):
        pass
    return list(store.audit.records(limit=10_000))


def told(store: Store, subject: str | None = None) -> list[Entry]:
    return [one.record.entry for one in chained(store) if subject in (None, one.record.entry.subject)]


def actions(entries: list[Entry]) -> list[str]:
    return [entry.action.value for entry in entries]


def verified(store: Store, *heads: Head) -> AuditReport:
    return EndpointAuditLog(store, None).verify(heads)


def faults(report: AuditReport) -> list[tuple[Fault, int]]:
    return [(one.fault, one.position) for one in report.faults]


def a_log(store: Store, tasks: int = 3) -> Head:
    """So many tasks that have ended: three records each."""
    for task in submitted(store, tasks):
        ended(store, task)
    chained(store)
    head = store.audit.head()
    assert head is not None
    return head


class TestTelling:
    def test_a_tasks_life_from_its_request_to_its_clip(self, store: Store) -> None:
        (task,) = submitted(store, batch_id=None, router_id="r1")
        lease = leased(store, task)
        store.tasks.give_back(task.id, lease.epoch, "out of memory", NOW + 2)
        lease = leased(store, task)
        store.tasks.finish(task.id, lease.epoch, success(0.03), NOW + 4)
        created, first, back, second, done = told(store, f"task:{task.id}")
        assert (created.actor, created.key_id, created.action) == ("key:key-a", "key-a", Action.TASK_CREATED)
        assert created.decision == "embedded"
        assert created.details["variant_asked"] == "auto"
        assert (created.details["model"], created.details["quoted_usd"]) == ("gen4_turbo", "0.050000")
        assert (created.details["router"], created.details["shape"]) == ("r1", "256x144x17")
        assert (first.action, first.details["attempt"], first.details["holder"]) == (
            Action.TASK_STARTED,
            1,
            "replica-1",
        )
        assert (back.action, back.reason) == (Action.TASK_RETURNED, "out of memory")
        assert (second.details["attempt"], second.actor) == (2, os_user())
        assert (done.action, done.details["billed_usd"]) == (Action.TASK_SUCCEEDED, "0.030000")
        assert done.clip is not None
        assert (done.clip.sha256, done.clip.uri) == ("0" * 64, "s3://clips/a.mp4")

    def test_who_cancels_and_deletes(self, store: Store) -> None:
        waits, runs, failed = submitted(store, 3)
        lease = leased(store, runs)
        ended(store, failed, failure())
        store.tasks.cancel(waits.id, "key-a", NOW + 2)
        store.tasks.cancel(runs.id, None, NOW + 2)
        store.tasks.cancel(runs.id, "key-a", NOW + 3)
        store.tasks.finish(runs.id, lease.epoch, success(), NOW + 4)
        assert store.tasks.delete(waits.id, "key-a")
        assert not store.tasks.delete(waits.id, "key-a")
        entries = told(store, f"task:{waits.id}")
        assert actions(entries)[1:] == ["task.cancel_requested", "task.cancelled", "task.deleted"]
        assert (entries[1].actor, entries[1].decision, entries[3].actor) == ("key:key-a", "PENDING", "key:key-a")
        entries = told(store, f"task:{runs.id}")
        assert actions(entries)[2:] == ["task.cancel_requested", "task.cancelled"], "asked for twice, told once"
        assert entries[2].actor == os_user()
        entries = told(store, f"task:{failed.id}")
        assert (entries[-1].action, entries[-1].decision) == (Action.TASK_FAILED, "INTERNAL")
        assert entries[-1].reason == "The model failed."

    def test_what_is_stale_or_replayed_is_told_once(self, store: Store) -> None:
        key = Idempotency("k1", "digest")
        (task,) = store.tasks.submit([new_task()], NOW, idempotency=key).tasks
        assert store.tasks.submit([new_task()], NOW, idempotency=key).replayed
        lease = leased(store, task)
        store.tasks.settle([Finished(task.id, 9, success()), Returned(task.id, 9, "x", NOW)], NOW)
        for _ in range(2):
            store.tasks.finish(task.id, lease.epoch, success(), NOW + 4)
        assert actions(told(store)) == ["task.created", "task.started", "task.succeeded"]

    def test_what_is_refused_by_the_store_is_not_told_as_done(self, store: Store) -> None:
        with pytest.raises(SpendLimitError):
            store.tasks.submit([new_task()], NOW, max_month_usd=0.01)
        store.keys.add(ApiKey("key-a", "Ann", NOW), "digest")
        with pytest.raises(PermanentError):
            store.keys.add(ApiKey("key-a", "Ann", NOW), "other")
        assert actions(told(store)) == ["key.created"]

    def test_keys_with_what_they_were_before(self, store: Store) -> None:
        key = ApiKey("key-a", "Ann", NOW, max_concurrent=2)
        store.keys.add(key, "digest")
        store.keys.change(replace(key, max_concurrent=None, weight=2.5))
        assert store.keys.revoke("key-a", NOW + 5)
        assert not store.keys.revoke("key-a", NOW + 6)
        assert not store.keys.change(key)
        made, changed, revoked = told(store, "key:key-a")
        assert actions([made, changed, revoked]) == ["key.created", "key.changed", "key.revoked"]
        assert made.details == {"name": "Ann", "max_concurrent": "2"}
        assert changed.details == {
            "name": "Ann",
            "weight": "2.5",
            "weight_before": "none",
            "max_concurrent_before": "2",
        }
        assert {entry.actor for entry in (made, changed, revoked)} == {os_user()}
        assert "digest" not in json.dumps([entry.canonical for entry in told(store)])

    def test_batches_with_the_rows_that_were_refused(self, store: Store) -> None:
        rejected = [{"index": 3, "issues": [{"code": "too_long", "message": "is too long"}]}]
        details = {"rejected": rejected, "rejectedRows": 1}
        batch = Batch("b1", "key-a", NOW, 1, 0.05, details=details, model="auto")  # type: ignore[arg-type]
        (task,) = store.tasks.submit([new_task(batch_id="b1")], NOW, batch=batch).tasks
        ended(store, task)
        created, refused, over = told(store, "batch:b1")
        assert (created.action, created.details["rows"], created.details["rejected"]) == (Action.BATCH_CREATED, 1, 1)
        assert (refused.action, refused.decision, refused.reason) == (Action.TASK_REFUSED, "too_long", "is too long")
        assert refused.details == {"row": 3}
        assert (over.decision, over.details["counts"]) == ("SUCCEEDED", ("SUCCEEDED=1",))

    def test_bulk_runs(self, store: Store) -> None:
        store.batches.begin(Batch("b1", "key-a", NOW, 0, 0.0, run_uri="s3://runs/1", manifest_uri="s3://m.jsonl"))
        store.batches.planned("b1", 100, 2.0)
        store.batches.cancel("b1", "key-a", NOW + 1)
        store.batches.update("b1", Status.CANCELLED, {"succeeded": 3}, 0.5, NOW + 2)
        entries = told(store, "batch:b1")
        assert actions(entries) == ["batch.created", "batch.planned", "batch.cancel_requested", "batch.ended"]
        assert entries[0].details["manifest"] == "s3://m.jsonl"
        assert entries[1].details == {"rows": 100, "quoted_usd": "2.000000"}
        assert entries[3].details["billed_usd"] == "0.500000"

    def test_uploads_and_routers(self, store: Store) -> None:
        store.uploads.add(Upload("u1", "key-a", "a.png", "uploads/u1", NOW, NOW + 9))
        store.uploads.complete("u1", "image/png", 99)
        for _ in range(2):
            store.uploads.remove("u1")
        router = RouterConfig("r1", "key-a", "fast", "Fast", None, {"optimizeFor": "cost"}, 1, NOW, NOW)
        assert store.routers.create(router)
        assert not store.routers.create(replace(router, id="r2"))
        assert store.routers.update(replace(router, version=2), 1)
        assert not store.routers.update(replace(router, version=3), 1)
        assert store.routers.delete("key-a", "r1")
        assert not store.routers.delete("key-a", "r1")
        assert actions(told(store, "upload:u1")) == ["upload.created", "upload.received", "upload.removed"]
        entries = told(store, "router:r1")
        assert actions(entries) == ["router.created", "router.changed", "router.deleted"]
        assert (entries[0].decision, entries[0].details["settings"]) == ("fast", ("optimizeFor=cost",))

    def test_what_is_pruned_from_other_tables(self, store: Store) -> None:
        ended(store, submitted(store)[0])
        store.prune(Cutoffs(tasks=NOW + 99))
        (pruned,) = told(store, "store:endpoint")
        assert (pruned.action, pruned.decision, pruned.details) == (Action.STORE_PRUNED, "tasks", {"rows": 1})


class TestPrompts:
    @pytest.mark.parametrize("keep", list(AuditPrompts))
    def test_words_lie_beside_the_log_only_where_they_are_kept(self, store_url: str, keep: AuditPrompts) -> None:
        store = open_store(store_url, AuditSettings(prompts=keep))
        submitted(store)
        (found,) = chained(store)
        assert "fox" not in found.record.text
        assert found.prompt is not None
        assert (found.prompt.words == WORDS) is (keep is AuditPrompts.KEEP)
        assert matches(found.record.entry.prompt_sha256, found.prompt, WORDS), "equal prompts are found either way"
        assert verified(store).is_whole
        store.close()

    def test_a_prompt_is_erased_and_the_chain_tells_of_it_and_holds(self, store: Store) -> None:
        one, two = submitted(store, 2)
        subject = f"task:{one.id}"
        assert store.audit.erase(subject, NOW + 5, "user:me@here") == 1, "also while it waits to be chained"
        assert store.audit.erase(subject, NOW + 5, "user:me@here") == 0
        assert store.audit.erase("task:nobody", NOW + 5, "user:me@here") == 0
        beside = {found.record.entry.subject: found.prompt for found in chained(store)[:2]}
        assert beside[f"task:{one.id}"] is None
        assert beside[f"task:{two.id}"] is not None
        last = told(store)[-1]
        assert (last.action, last.subject, last.actor) == (Action.PROMPT_ERASED, f"task:{one.id}", "user:me@here")
        assert verified(store).is_whole


class TestChain:
    def test_what_waits_is_chained_in_the_order_in_which_it_was_told(self, store: Store) -> None:
        assert store.audit.head() is None
        assert store.audit.chain() == 0
        tasks = submitted(store, 5)
        assert store.audit.waiting() == 5
        assert [store.audit.chain(2) for _ in range(4)] == [2, 2, 1, 0]
        assert store.audit.waiting() == 0
        assert [entry.subject for entry in told(store)] == [f"task:{task.id}" for task in tasks]
        assert verified(store).records == 5

    def test_many_who_chain_and_tell_at_once_make_one_chain(self, store: Store) -> None:
        def work(number: int) -> None:
            for _ in range(5):
                ended(store, submitted(store, key_id=f"key-{number}")[0])
                store.audit.chain(3)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        entries = told(store)
        assert len(entries) == 4 * 5 * 3
        report = verified(store)
        assert (report.faults, report.records, report.waiting) == ((), 60, 0)
        for subject in {entry.subject for entry in entries}:
            assert actions([e for e in entries if e.subject == subject]) == [
                "task.created",
                "task.started",
                "task.succeeded",
            ]

    def test_it_is_found_by_key_task_kind_and_time(self, store: Store) -> None:
        one, two = submitted(store), submitted(store, key_id="key-b")
        ended(store, one[0])
        chained(store)

        def found(**of: Any) -> list[int]:
            return [record.record.position for record in store.audit.records(of=AuditFilter(**of))]

        assert found(key_id="key-b") == [2]
        assert found(subject=f"task:{one[0].id}") == [1, 3, 4]
        assert found(action="task.started") == [3]
        assert found(since=NOW + 1) == [3, 4]
        assert found(before=NOW + 1, key_id=two[0].key_id) == [2]
        assert [one.record.position for one in store.audit.records(after=1, limit=2)] == [2, 3]

    def test_without_records_there_is_nothing_to_verify(self, store: Store) -> None:
        store.audit.tell([Told(Entry(at=instant(NOW), actor="user:x@y", action=Action.TASK_REFUSED))])
        with pytest.raises(ConfigError, match="no records yet; 1 wait"):
            verified(store)

    def test_acknowledged_tasks_are_told_of_and_the_chain_holds_after_sigkills(self, store_url: str) -> None:
        """Processes are killed while they store tasks, and while they chain."""
        open_store(store_url).close()
        acknowledged: list[str] = []
        chainer = started(store_url, "chain")
        submitters = [started(store_url, "submit") for _ in range(2)]
        for process in submitters:
            lines = said(process)
            acknowledged += [next(lines) for _ in range(30)]
        next(said(chainer))
        for process in (chainer, *submitters):
            process.kill()
        for process in submitters:
            acknowledged += said(process)
        for process in (chainer, *submitters):
            process.wait(timeout=120)
        store = open_store(store_url)
        created = [entry.subject.removeprefix("task:") for entry in told(store)]
        assert len(created) == len(set(created))
        assert set(acknowledged) <= set(created)
        assert {task.id for task in store.tasks.get_many(created)} == set(created), "nothing is told that is not so"
        assert verified(store).is_whole
        store.close()


TAMPERING = {
    "an entry is changed": ("UPDATE audit_log SET entry = replace(entry, 'key-a', 'key-b') WHERE position = 4", 4),
    "a record is removed": ("DELETE FROM audit_log WHERE position = 4", 4),
    "records change places": (
        "UPDATE audit_log SET position = -4 WHERE position = 4; UPDATE audit_log SET position = 4 WHERE position = 5; "
        "UPDATE audit_log SET position = 5 WHERE position = -4",
        4,
    ),
    "a record is doubled": (
        "INSERT INTO audit_log SELECT 10, at, action, subject, key_id, entry, previous, hash FROM audit_log "
        "WHERE position = 9",
        10,
    ),
    "a hash is changed": ("UPDATE audit_log SET hash = previous WHERE position = 4", 4),
    "a link is changed": ("UPDATE audit_log SET previous = hash WHERE position = 4", 4),
    "the end is cut off": ("DELETE FROM audit_log WHERE position > 7", 8),
    "all is removed": ("DELETE FROM audit_log", 1),
    "the beginning is removed": ("DELETE FROM audit_log WHERE position < 4", 1),
    "the beginning is removed as if it were pruned": (
        "UPDATE audit_head SET floor_position = 3, floor_hash = (SELECT hash FROM audit_log WHERE position = 3); "
        "DELETE FROM audit_log WHERE position < 4",
        3,
    ),
    "it is filed under another task": ("UPDATE audit_log SET subject = 'task:other' WHERE position = 4", 4),
    "it is filed under another key": ("UPDATE audit_log SET key_id = '' WHERE position = 4", 4),
    "it is filed under another time": ("UPDATE audit_log SET at = at + 1 WHERE position = 4", 4),
    "its head is taken away": ("DELETE FROM audit_head", 1),
    "its head is put back": ("UPDATE audit_head SET position = 8", 9),
    "it has another name": ("UPDATE audit_head SET log = 'x'", 0),
    "the words of a prompt are changed": ("UPDATE audit_prompts SET words = 'x' WHERE position = 1", 1),
}


class TestTampering:
    @pytest.mark.parametrize("what", TAMPERING)
    def test_it_is_found_at_its_place(self, store: Store, database: Engine, what: str) -> None:
        a_log(store)
        assert verified(store).is_whole
        statements, place = TAMPERING[what]
        with database.begin() as connection:
            for statement in statements.split("; "):
                connection.execute(text(statement))
        report = verified(store)
        assert not report.is_whole
        assert report.faults[0].position == place
        assert str(place) in str(report.faults[0])

    def test_an_end_that_was_cut_off_with_its_head_is_found_by_a_head_that_was_noted(
        self, store: Store, database: Engine
    ) -> None:
        head = a_log(store)
        with database.begin() as connection:
            connection.execute(text("DELETE FROM audit_log WHERE position > 7"))
            told = "UPDATE audit_head SET position = 7, hash = (SELECT hash FROM audit_log WHERE position = 7)"
            connection.execute(text(told))
        assert verified(store).is_whole, "nobody could know"
        assert faults(verified(store, head)) == [(Fault.TRUNCATED, 8)]
        a_log(store, 1)  # and the log goes on as if nothing had been
        assert (Fault.REWRITTEN, head.position) in faults(verified(store, head))


class TestPruning:
    def test_old_records_go_and_the_rest_is_whole(self, store: Store) -> None:
        a_log(store)  # three at NOW, then at NOW + 1 and NOW + 2 in turn
        assert store.prune(Cutoffs(audit=NOW + 1), limit=2) == Pruned(audit=2)
        assert store.prune(Cutoffs(audit=NOW + 1), limit=2) == Pruned(audit=1)
        assert store.prune(Cutoffs(audit=NOW + 1)) == Pruned()
        records = chained(store)
        assert records[0].record.position == 4
        last = records[-1].record.entry
        assert (last.action, last.details["through"], last.details["records"]) == (Action.LOG_PRUNED, 3, 1)
        report = verified(store)
        assert (report.faults, report.chains[0].floor.position) == ((), 3)

    def test_it_goes_on_after_all_of_it_was_pruned(self, store: Store) -> None:
        head = a_log(store)
        assert store.prune(Cutoffs(audit=NOW + 99)).audit == head.position
        a_log(store, 1)
        report = verified(store, head)
        assert (report.faults, report.records) == ((), 4), "what tells of the pruning, and three more"

    def test_what_was_removed_before_is_not_hidden_by_pruning(self, store: Store, database: Engine) -> None:
        a_log(store)
        with database.begin() as connection:
            connection.execute(text("DELETE FROM audit_log WHERE position = 1"))
        assert store.prune(Cutoffs(audit=NOW + 1)) == Pruned()
        assert faults(verified(store)) == [(Fault.MISSING, 1)]

    def test_prompts_go_with_their_records(self, store: Store, database: Engine) -> None:
        a_log(store)
        store.prune(Cutoffs(audit=NOW + 99))
        with database.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM audit_prompts")).scalar_one() == 0


def test_a_process_without_a_user_still_has_a_name(tmp_path: Path) -> None:
    script = (
        "import os; os.environ.clear(); os.getuid = lambda: 4242424; from trust.actor import os_user; print(os_user())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("user:4242424@")

"""Batches, and the webhooks that the ends of tasks and batches set off. On both databases and in memory."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.clip import Status
from schemas.errors import PermanentError
from serve.errors import DailyLimitError, IdempotencyError, SpendLimitError
from serve.store.contract import Batch, Idempotency, Store
from serve.store.cutoffs import Cutoffs
from tests.serve.store.samples import NOW, ended, failure, leased, new_task, now_of, submitted, success

HOOK = "https://example.com/hook"


def made(store: Store, total: int = 3, **other: object) -> Batch:
    batch = Batch(id="b1", key_id="key-a", created_at=NOW, total=total, quote_usd=1.5, **other)  # type: ignore[arg-type]
    store.batches.create(batch)
    return batch


def now(store: Store) -> Batch:
    batch = store.batches.get("b1")
    assert batch is not None
    return batch


class TestProgress:
    def test_it_is_counted_from_the_tasks(self, store: Store) -> None:
        batch = made(store)
        assert now(store) == batch
        one, two, three = submitted(store, 3, batch_id="b1")
        assert (now(store).status, now(store).counts) == (Status.PENDING, {"PENDING": 3})
        ended(store, one, success(0.5))
        leased(store, two)
        found = now(store)
        assert (found.status, found.billed_usd, found.finished_at) == (Status.RUNNING, 0.5, None)
        assert found.counts == {"SUCCEEDED": 1, "RUNNING": 1, "PENDING": 1}
        store.tasks.finish(two.id, 1, failure(), NOW + 5)
        ended(store, three, success(0.25))
        found = now(store)
        assert (found.status, found.billed_usd, found.finished_at) == (Status.SUCCEEDED, 0.75, NOW + 2)
        assert found.counts == {"SUCCEEDED": 2, "FAILED": 1}

    def test_one_of_which_nothing_came_has_failed(self, store: Store) -> None:
        made(store, total=1)
        ended(store, submitted(store, batch_id="b1")[0], failure())
        assert now(store).status is Status.FAILED

    def test_it_is_not_over_before_all_of_it_was_submitted(self, store: Store) -> None:
        made(store, total=2, webhook_url=HOOK)
        ended(store, submitted(store, batch_id="b1")[0])
        assert (now(store).status, now(store).finished_at) == (Status.RUNNING, None)
        ended(store, submitted(store, batch_id="b1")[0])
        assert now(store).finished_at == NOW + 2
        assert len(store.deliveries.due(NOW + 9)) == 1

    def test_another_keys_batch_does_not_exist(self, store: Store) -> None:
        made(store)
        (task,) = submitted(store, batch_id="b1")
        assert store.batches.get("b1", "key-b") is None
        assert store.batches.cancel("b1", "key-b", NOW) == 0
        assert now_of(store, task).status is Status.PENDING
        assert store.batches.get("b1", "key-a") is not None

    def test_its_tasks_are_listed(self, store: Store) -> None:
        made(store)
        tasks = submitted(store, 3, batch_id="b1")
        submitted(store)
        assert store.tasks.recent(batch_id="b1") == tasks[::-1]

    def test_a_task_of_a_batch_that_was_never_stored_is_refused(self, store: Store) -> None:
        with pytest.raises(PermanentError, match="refuses"):
            submitted(store, batch_id="nowhere")


class TestCancel:
    def test_what_waits_ends_and_what_runs_is_marked(self, store: Store) -> None:
        made(store, total=4, webhook_url=HOOK)
        done, runs, *wait = submitted(store, 4, batch_id="b1")
        ended(store, done)
        leased(store, runs)
        assert store.batches.cancel("b1", "key-a", NOW + 3) == 3
        assert store.batches.cancel("b1", "key-a", NOW + 4) == 0
        assert [now_of(store, task).status for task in wait] == [Status.CANCELLED, Status.CANCELLED]
        assert now_of(store, runs).cancelled
        assert now(store).status is Status.RUNNING
        assert store.tasks.finish(runs.id, 1, success(), NOW + 5)
        assert (now(store).status, now(store).counts) == (Status.CANCELLED, {"SUCCEEDED": 1, "CANCELLED": 3})
        assert len(store.deliveries.due(NOW + 9)) == 1


class TestRuns:
    def test_a_bulk_run_says_itself_what_became_of_it(self, store: Store) -> None:
        made(store, total=5000, run_uri="s3://runs/1", manifest_uri="s3://m.jsonl", webhook_url=HOOK)
        assert [batch.id for batch in store.batches.unfinished_runs()] == ["b1"]
        store.batches.update("b1", Status.RUNNING, {"SUCCEEDED": 10}, 0.5, NOW + 1)
        found = now(store)
        assert (found.status, found.counts, found.billed_usd) == (Status.RUNNING, {"SUCCEEDED": 10}, 0.5)
        store.batches.update("b1", Status.FAILED, {"SUCCEEDED": 11}, 0.6, NOW + 2, "the disk is full")
        store.batches.update("b1", Status.RUNNING, {}, 0.0, NOW + 3)
        found = now(store)
        assert (found.status, found.counts, found.finished_at) == (Status.FAILED, {"SUCCEEDED": 11}, NOW + 2)
        assert found.failure == "the disk is full"
        assert store.batches.unfinished_runs() == ()
        (message,) = store.deliveries.due(NOW + 9)
        data = json.loads(message.payload)["data"]
        assert data == {
            "id": "b1",
            "status": "FAILED",
            "total": 5000,
            "counts": {"SUCCEEDED": 11},
            "failure": "the disk is full",
        }

    def test_a_batch_of_queued_tasks_is_no_run(self, store: Store) -> None:
        made(store)
        assert store.batches.unfinished_runs() == ()


class TestWebhooks:
    def test_the_end_of_a_task_makes_its_message_due(self, store: Store) -> None:
        made(store)
        (task,) = submitted(store, webhook_url=HOOK, batch_id="b1")
        assert store.deliveries.due(NOW + 99) == ()
        ended(store, task, failure())
        (message,) = store.deliveries.due(NOW + 2)
        assert (message.id, message.url, message.key_id) == (f"msg_{task.id}", HOOK, "key-a")
        assert json.loads(message.payload) == {
            "type": "task.failed",
            "timestamp": "2023-11-14T22:13:22.000Z",
            "data": {
                "id": task.id,
                "status": "FAILED",
                "kind": "text_to_video",
                "model": "gen4_turbo",
                "variant": "embedded",
                "failureCode": "INTERNAL",
                "failure": "The model failed.",
                "batchId": "b1",
            },
        }

    def test_a_success_tells_no_address_of_the_clip(self, store: Store) -> None:
        (task,) = submitted(store, webhook_url=HOOK)
        ended(store, task)
        (message,) = store.deliveries.due(NOW + 2)
        assert json.loads(message.payload)["type"] == "task.succeeded"
        assert "s3://" not in message.payload

    def test_a_cancel_is_an_end(self, store: Store) -> None:
        (task,) = submitted(store, webhook_url=HOOK)
        store.tasks.cancel(task.id, None, NOW)
        (message,) = store.deliveries.due(NOW)
        assert json.loads(message.payload)["type"] == "task.cancelled"

    def test_a_task_without_a_webhook_says_nothing(self, store: Store) -> None:
        ended(store, submitted(store)[0])
        assert store.deliveries.counts() == {"waiting": 0, "delivered": 0, "given_up": 0}

    @pytest.mark.parametrize("attempt", range(3))
    def test_of_last_tasks_that_end_together_one_ends_the_batch(self, store: Store, attempt: int) -> None:
        made(store, total=12, webhook_url=HOOK)
        tasks = store.tasks.submit([new_task(batch_id="b1") for _ in range(12)], NOW).tasks
        for task in tasks:
            leased(store, task)
        with ThreadPoolExecutor(12) as threads:
            list(threads.map(lambda task: store.tasks.finish(task.id, 1, success(), NOW + 3), tasks))
        assert (now(store).finished_at, now(store).counts) == (NOW + 3, {"SUCCEEDED": 12})
        (message,) = store.deliveries.due(NOW + 9)
        assert message.id == "msg_b1"
        assert json.loads(message.payload)["type"] == "batch.finished"


class TestRunsOfAKey:
    """Batches of bulk runs, whose rows are no tasks here. On both databases."""

    def run(self, number: int = 1, **other: object) -> Batch:
        fields: dict[str, object] = {"run_uri": f"s3://b/{number}", "created_at": NOW, "total": 10, "quote_usd": 0.0}
        return Batch(id=f"r{number}", key_id="key-a", **(fields | other))  # type: ignore[arg-type]

    def test_the_same_key_and_body_is_the_same_run(self, database_store: Store) -> None:
        key = Idempotency("k", "digest")
        with ThreadPoolExecutor(6) as threads:
            runs = list(threads.map(lambda n: database_store.batches.begin(self.run(n), idempotency=key), range(6)))
        assert len({run.id for run in runs}) == 1
        assert len(database_store.batches.unfinished_runs()) == 1
        assert database_store.batches.replay("key-a", key) == runs[0]
        assert database_store.batches.replay("key-b", key) is None
        with pytest.raises(IdempotencyError):
            database_store.batches.begin(self.run(9), idempotency=Idempotency("k", "other"))

    def test_its_rows_count_towards_the_day_and_single_tasks_towards_its_own(self, database_store: Store) -> None:
        database_store.batches.begin(self.run(), max_since=(NOW, 12))
        with pytest.raises(DailyLimitError, match="12 tasks a day, 10 made"):
            submitted_within(database_store, 3, 12)
        submitted_within(database_store, 2, 12)
        with pytest.raises(DailyLimitError):
            database_store.batches.begin(self.run(2, total=0), max_since=(NOW, 12))
        with pytest.raises(DailyLimitError):
            database_store.batches.planned("r1", 11, 0.0, max_since=(NOW, 12))
        assert now_of_run(database_store).total == 10

    def test_its_quote_is_held_until_its_bill_takes_its_place(self, database_store: Store) -> None:
        database_store.batches.begin(self.run())
        with pytest.raises(SpendLimitError):
            database_store.batches.planned("r1", 10, 0.5, max_month_usd=0.4)
        database_store.batches.planned("r1", 10, 0.5, max_month_usd=0.5)
        with pytest.raises(SpendLimitError):
            database_store.tasks.submit([new_task()], NOW, max_month_usd=0.52)
        database_store.batches.update("r1", Status.SUCCEEDED, {"succeeded": 10}, 0.25, NOW + 5)
        database_store.tasks.submit([new_task()], NOW, max_month_usd=0.32)

    def test_its_bill_is_in_the_usage_also_after_it_was_pruned(self, database_store: Store) -> None:
        late = NOW // 86_400 * 86_400 + 86_399.7
        database_store.batches.begin(self.run(model="gen4.5", created_at=late))
        database_store.batches.update("r1", Status.SUCCEEDED, {"succeeded": 10}, 0.25, late + 5)
        submitted(database_store, model="gen4.5")
        before = database_store.tasks.usage("key-a", NOW - 1, NOW * 2)
        assert before == (("2023-11-14", "gen4.5", 11, 0.25),)
        assert database_store.prune(Cutoffs(batches=NOW * 2)).batches == 1
        assert database_store.tasks.usage("key-a", 0.0, NOW * 2) == before

    def test_while_one_is_open_the_other_tasks_of_a_limited_key_wait(self, database_store: Store) -> None:
        database_store.batches.begin(self.run())
        (waits,) = database_store.tasks.submit([new_task()], NOW, max_live=5).tasks
        assert waits.status is Status.THROTTLED
        assert database_store.tasks.release("key-a", 5, NOW) == ()
        database_store.batches.update("r1", Status.CANCELLED, {}, 0.0, NOW)
        assert len(database_store.tasks.release("key-a", 5, NOW)) == 1


def submitted_within(store: Store, n: int, most: int) -> None:
    store.tasks.submit([new_task() for _ in range(n)], NOW, max_since=(NOW, most))


def now_of_run(store: Store) -> Batch:
    batch = store.batches.get("r1")
    assert batch is not None
    return batch

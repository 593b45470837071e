"""What is pruned by age, what stays, and that the usage does not change by it. On both databases and in memory."""

import math

import pytest

from schemas.clip import Status
from serve.bulk import HOLD_NOTE
from serve.http.batches import NOTE as OPTIONS_OF_BATCH
from serve.store.contract import Batch, Delivery, Idempotency, RouterConfig, RouterDecision, Store
from serve.store.cutoffs import BATCH_NOTES, Cutoffs, Pruned
from serve.tasks import StoredTask
from tests.serve.store.samples import NOW, ended, failure, leased, new_task, submitted, success

DAY = 86_400.0
EVERYTHING = Cutoffs(math.inf, math.inf, math.inf, math.inf, math.inf)


def there(store: Store, *tasks: StoredTask) -> list[bool]:
    found = {task.id for task in store.tasks.get_many([task.id for task in tasks])}
    return [task.id in found for task in tasks]


class TestTasks:
    def test_those_that_ended_before_go_and_the_others_stay(self, store: Store) -> None:
        old, young, waits, runs = submitted(store, 4)
        ended(store, old)  # at NOW + 2
        leased(store, young)
        store.tasks.finish(young.id, 1, failure(), NOW + 9)
        leased(store, runs)
        assert store.prune(Cutoffs(tasks=NOW + 5)) == Pruned(tasks=1)
        assert there(store, old, young, waits, runs) == [False, True, True, True]
        assert store.prune(EVERYTHING).tasks == 1
        assert there(store, young, waits, runs) == [False, True, True]
        assert store.prune(EVERYTHING) == Pruned()

    def test_nothing_is_pruned_unless_it_was_asked_for(self, store: Store) -> None:
        ended(store, submitted(store)[0])
        assert store.prune(Cutoffs()) == Pruned()

    def test_the_usage_stays_as_it_was_to_the_day(self, store: Store) -> None:
        for at, model, usd in ((NOW, "a", 0.25), (NOW, "b", 0.5), (NOW + 1, "b", 0.125), (NOW + DAY, "a", 1.0)):
            (task,) = store.tasks.submit([new_task(model=model)], at).tasks
            ended(store, task, success(billed_usd=usd))
        (cancelled,) = submitted(store, model="a")
        store.tasks.cancel(cancelled.id, None, NOW)
        submitted(store, model="a")
        midnight = NOW // DAY * DAY
        spans = ((midnight, midnight + DAY), (midnight + DAY, midnight + 2 * DAY), (midnight, NOW + 2 * DAY))
        before = [store.tasks.usage("key-a", *span) for span in spans]
        assert before[0] == (("2023-11-14", "a", 3, 0.25), ("2023-11-14", "b", 2, 0.625))
        for _ in range(5):
            store.prune(EVERYTHING, limit=1)
            assert [store.tasks.usage("key-a", *span) for span in spans] == before
        assert store.prune(EVERYTHING) == Pruned()
        assert len(store.tasks.recent()) == 1
        assert store.tasks.usage("key-b", 0.0, NOW * 2) == ()

    def test_no_more_at_once_than_the_limit_oldest_first(self, store: Store) -> None:
        tasks = submitted(store, 5)
        for place, task in enumerate(tasks):
            leased(store, task)
            store.tasks.finish(task.id, 1, success(), NOW + 10 - place)
        assert store.prune(EVERYTHING, limit=2).tasks == 2
        assert there(store, *tasks) == [True, True, True, False, False]

    def test_one_of_an_open_batch_stays_until_that_has_ended(self, store: Store) -> None:
        store.batches.create(Batch("b1", "key-a", NOW, 2, 1.0))
        one, two = submitted(store, 2, batch_id="b1")
        ended(store, one)
        assert store.prune(EVERYTHING).total == 0
        ended(store, two)
        assert store.prune(EVERYTHING).tasks == 2
        batch = store.batches.get("b1")
        assert batch is None or batch.counts == {"SUCCEEDED": 2}

    def test_a_deleted_one_stays_until_its_objects_are_gone(self, store: Store) -> None:
        (task,) = submitted(store)
        ended(store, task)
        store.tasks.delete(task.id, None)
        assert store.prune(EVERYTHING).total == 0
        store.tasks.purged([task.id])
        assert store.prune(EVERYTHING).tasks == 1


class TestOthers:
    def test_old_idempotency_keys_go_before_the_tasks_that_they_name(self, store: Store) -> None:
        for place in range(3):
            key = Idempotency(f"k{place}", "digest")
            (task,) = store.tasks.submit([new_task()], NOW + place, idempotency=key).tasks
            ended(store, task)
        assert store.prune(EVERYTHING, limit=2) == Pruned(idempotency=2)
        assert store.prune(EVERYTHING, limit=2) == Pruned(idempotency=1, tasks=2)
        assert store.tasks.replay("key-a", Idempotency("k0", "digest")) is None
        assert not store.tasks.submit([new_task()], NOW, idempotency=Idempotency("k0", "other")).replayed

    def test_messages_that_were_delivered_or_given_up_go_and_what_is_due_stays(self, store: Store) -> None:
        for name in ("sent", "lost", "waits", "young"):
            store.deliveries.add(Delivery(name, "https://example.com/hook", "key-a", "{}", NOW, NOW))
        store.deliveries.delivered("sent", NOW + 1)
        store.deliveries.failed("lost", "HTTP 410", None)
        store.deliveries.delivered("young", NOW + 9)
        assert store.prune(Cutoffs(deliveries=NOW + 5)) == Pruned(deliveries=2)
        assert store.deliveries.counts() == {"waiting": 1, "delivered": 1, "given_up": 0}

    def test_an_ended_batch_goes_with_its_notes_after_its_tasks(self, store: Store) -> None:
        store.batches.create(Batch("b1", "key-a", NOW, 1, 1.0))
        store.batches.create(Batch("b2", "key-a", NOW, 1, 1.0, run_uri="s3://runs/2"))
        for batch_id in ("b1", "b2"):
            for prefix in BATCH_NOTES:
                store.notes.write(prefix + batch_id, 1)
        ended(store, submitted(store, batch_id="b1")[0])
        assert store.prune(Cutoffs(batches=math.inf)) == Pruned()
        assert store.prune(EVERYTHING) == Pruned(tasks=1, batches=1)
        assert store.batches.get("b1") is None
        assert set(store.notes.read_many("b")) == {prefix + "b2" for prefix in BATCH_NOTES}
        store.batches.update("b2", Status.SUCCEEDED, {"SUCCEEDED": 1}, 0.5, NOW + 2)
        assert store.prune(EVERYTHING) == Pruned(batches=1)
        assert store.notes.read_many("b") == {}

    def test_the_notes_of_a_batch_are_those_that_are_written_for_it(self) -> None:
        assert set(BATCH_NOTES) == {OPTIONS_OF_BATCH, "bulk/", HOLD_NOTE}

    def test_old_entries_of_a_routers_log_go_and_the_router_stays(self, database_store: Store) -> None:
        store = database_store
        store.routers.create(RouterConfig("r1", "key-a", "fast", "Fast", None, {}, 1, NOW, NOW))
        for place in range(3):
            store.routers.log(RouterDecision(f"d{place}", "r1", NOW + place, {}))
        assert store.prune(Cutoffs(router_decisions=NOW + 2)) == Pruned(router_decisions=2)
        assert [entry.id for entry in store.routers.decisions("r1", 9, None)[0]] == ["d2"]
        assert store.routers.get("key-a", "r1") is not None


class TestPurging:
    def test_deleted_tasks_that_somebody_began_are_unpurged_until_that_is_said(self, store: Store) -> None:
        done, never_begun, runs, kept, again = submitted(store, 5)
        for task in (done, kept):
            ended(store, task)
        leased(store, runs)
        leased(store, again)
        store.tasks.give_back(again.id, 1, "lost", NOW)
        for task in (done, never_begun, runs, again):
            store.tasks.cancel(task.id, None, NOW + 3)
            assert store.tasks.delete(task.id, "key-a")
        assert store.tasks.unpurged() == (done.id, again.id), "the one that runs may still store its clip"
        store.tasks.finish(runs.id, 1, success(), NOW + 5)
        assert store.tasks.unpurged(limit=2) == (done.id, runs.id)
        store.tasks.purged([done.id, kept.id, "nobody"])
        store.tasks.purged([done.id])
        store.tasks.purged([])
        assert store.tasks.unpurged() == (runs.id, again.id)
        store.tasks.delete(kept.id, None)
        assert kept.id in store.tasks.unpurged(), "it was not deleted when somebody said so"


class TestCounting:
    @pytest.mark.parametrize("key_id", [None, "key-a"])
    def test_only_the_statuses_that_are_asked_for_are_counted(self, store: Store, key_id: str | None) -> None:
        one, two = submitted(store, 2)
        ended(store, one, failure(dead=True))
        counts = store.tasks.counts(key_id, statuses=[Status.PENDING, Status.THROTTLED])
        assert counts.by_status == {Status.PENDING: 1, Status.THROTTLED: 0}
        assert counts.dead == 1
        assert two.status is Status.PENDING

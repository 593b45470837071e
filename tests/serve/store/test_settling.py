"""The ends of several attempts in one transaction, ends without a lease, and what a scheduler reconciles with."""

import uuid

import pytest

from schemas.clip import Status
from schemas.errors import PermanentError
from serve.store.attempts import Finished, GivenUp, Returned
from serve.store.contract import Batch, LiveRow, Store
from tests.serve.store.samples import NOW, ended, failure, leased, new_task, now_of, submitted, success


class TestSettle:
    def test_each_end_is_answered_in_its_place_and_a_stale_one_stops_nobody(self, store: Store) -> None:
        done, back, gone, stale, waits = submitted(store, 5)
        for task in (done, back, gone, stale):
            leased(store, task)
        store.tasks.cancel(gone.id, None, NOW + 1)
        answers = store.tasks.settle(
            [
                Finished(stale.id, 7, success()),
                Finished(done.id, 1, success()),
                Returned(back.id, 1, "out of memory", NOW + 5),
                Returned(gone.id, 1, "lost", NOW + 5),
                Finished("nobody", 1, success()),
                GivenUp(waits.id, 0, failure(dead=True)),
            ],
            NOW + 2,
        )
        assert answers == (None, Status.SUCCEEDED, Status.PENDING, Status.CANCELLED, None, Status.FAILED)
        assert now_of(store, done).outcome == success()
        assert (now_of(store, back).not_before, now_of(store, back).last_error) == (NOW + 5, "out of memory")
        assert now_of(store, gone).status is Status.CANCELLED
        assert now_of(store, stale).status is Status.RUNNING
        assert now_of(store, waits).outcome == failure(dead=True)

    def test_a_task_that_is_named_twice_is_judged_by_what_the_first_end_made_of_it(self, store: Store) -> None:
        one, two = submitted(store, 2)
        leased(store, one)
        leased(store, two)
        ends = [
            Finished(one.id, 1, success()),
            Returned(two.id, 1, "lost", NOW),
            Finished(one.id, 1, success()),
            Finished(two.id, 1, success()),
            Finished(one.id, 1, failure()),
        ]
        assert store.tasks.settle(ends, NOW + 2) == (Status.SUCCEEDED, Status.PENDING, Status.SUCCEEDED, None, None)
        assert (now_of(store, one).status, now_of(store, two).status) == (Status.SUCCEEDED, Status.PENDING)

    def test_whoever_gives_up_a_task_that_was_cancelled_while_it_ran_changes_nothing(self, store: Store) -> None:
        (task,) = submitted(store)
        leased(store, task)
        store.tasks.cancel(task.id, None, NOW + 1)
        assert store.tasks.settle([Finished(task.id, 1, failure())], NOW + 2) == (Status.CANCELLED,)
        before = now_of(store, task)
        assert store.tasks.settle([GivenUp(task.id, 1, failure(dead=True))], NOW + 3) == (None,)
        assert now_of(store, task) == before

    def test_nothing_to_settle_is_nothing_settled(self, store: Store) -> None:
        assert store.tasks.settle([], NOW) == ()

    def test_the_last_ends_of_a_batch_end_it_once(self, store: Store) -> None:
        hook = "https://example.com/hook"
        store.batches.create(Batch("b1", "key-a", NOW, 3, 1.0, webhook_url=hook))
        tasks = store.tasks.submit([new_task(batch_id="b1", webhook_url=hook) for _ in range(3)], NOW).tasks
        for task in tasks:
            leased(store, task)
        store.tasks.settle([Finished(task.id, 1, success(0.25)) for task in tasks], NOW + 2)
        batch = store.batches.get("b1")
        assert batch is not None
        assert (batch.finished_at, batch.counts, batch.billed_usd) == (NOW + 2, {"SUCCEEDED": 3}, 0.75)
        assert len(store.deliveries.due(NOW + 9)) == 4

    def test_all_ends_are_stored_or_none(self, store: Store) -> None:
        one, two = submitted(store, 2, webhook_url="https://example.com/hook")
        leased(store, one)
        leased(store, two)
        # A message with the id of the second task's is there already: a mistake that the database refuses.
        store.deliveries.add(_message_of(two.id))
        with pytest.raises(PermanentError, match="refuses"):
            store.tasks.settle([Finished(one.id, 1, success()), Finished(two.id, 1, success())], NOW + 2)
        assert {now_of(store, task).status for task in (one, two)} == {Status.RUNNING}
        assert len(store.deliveries.due(NOW + 9)) == 1


class TestGiveUp:
    def test_a_task_that_waits_ends_without_a_lease(self, store: Store) -> None:
        (task,) = submitted(store, webhook_url="https://example.com/hook")
        assert store.tasks.give_up(task.id, 0, failure(dead=True), NOW + 2) is Status.FAILED
        found = now_of(store, task)
        assert (found.status, found.finished_at, found.outcome) == (Status.FAILED, NOW + 2, failure(dead=True))
        assert (found.attempts, found.epoch) == (0, 0)
        assert store.tasks.counts().dead == 1
        assert len(store.deliveries.due(NOW + 9)) == 1
        assert store.tasks.give_up(task.id, 0, failure(dead=True), NOW + 3) is Status.FAILED, "told again"
        assert now_of(store, task).finished_at == NOW + 2

    def test_one_that_was_leased_meanwhile_or_is_over_stays_as_it_is(self, store: Store) -> None:
        runs, again, cancelled, throttled = (
            *submitted(store, 3),
            *store.tasks.submit([new_task()], NOW, max_live=0).tasks,
        )
        leased(store, runs)
        leased(store, again)
        store.tasks.give_back(again.id, 1, "lost", NOW)
        store.tasks.cancel(cancelled.id, None, NOW)
        for task, epoch in ((runs, 0), (runs, 1), (again, 0), (cancelled, 0), (throttled, 0)):
            before = now_of(store, task)
            assert store.tasks.give_up(task.id, epoch, failure(dead=True), NOW + 2) is None
            assert now_of(store, task) == before
        assert store.tasks.give_up(again.id, 1, failure(dead=True), NOW + 2) is Status.FAILED
        assert store.tasks.give_up(str(uuid.uuid4()), 0, failure(), NOW) is None


class TestLiveIndex:
    def test_it_names_what_waits_and_what_runs_in_order_and_nothing_else(self, store: Store) -> None:
        waits, runs, done, again, cancelled = submitted(store, 5)
        store.tasks.submit([new_task()], NOW, max_live=0)
        leased(store, runs, until=NOW + 8)
        store.tasks.cancel(runs.id, None, NOW + 2)
        ended(store, done)
        leased(store, again)
        store.tasks.give_back(again.id, 1, "lost", NOW + 5)
        store.tasks.cancel(cancelled.id, None, NOW)
        assert store.tasks.live_index() == (
            LiveRow(waits.seq, waits.id, Status.PENDING, 0, 0, "", 0.0, 0.0, False),
            LiveRow(runs.seq, runs.id, Status.RUNNING, 1, 1, "replica-1", NOW + 8, 0.0, True),
            LiveRow(again.seq, again.id, Status.PENDING, 1, 1, "", 0.0, NOW + 5, False),
        )

    def test_it_goes_on_from_a_seq(self, store: Store) -> None:
        tasks = submitted(store, 6)
        for task in tasks[::2]:
            leased(store, task)
        seen: list[str] = []
        after = 0
        while rows := store.tasks.live_index(after, limit=2):
            seen += [row.id for row in rows]
            after = rows[-1].seq
        assert seen == [task.id for task in tasks]
        assert store.tasks.live_index(after_seq=tasks[-1].seq) == ()


def _message_of(task_id: str):  # type: ignore[no-untyped-def]
    from serve.store.messages import delivery

    return delivery(task_id, "key-a", "https://example.com/hook", "{}", NOW)

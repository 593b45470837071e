"""Who may finish a task. On both databases and in memory."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.clip import Status
from serve.store.contract import Progress, Store
from serve.tasks import Outcome
from tests.serve.store.samples import NOW, failure, group, leased, new_task, now_of, submitted, success


def test_a_lease_makes_a_task_running_for_its_holder(store: Store) -> None:
    tasks = submitted(store, 3)
    leases = store.tasks.lease([tasks[2].seq, tasks[0].seq], "replica-1", "embedded", NOW + 8, NOW + 1)
    assert [lease.task_id for lease in leases] == [tasks[2].id, tasks[0].id]
    assert [(lease.epoch, lease.attempt) for lease in leases] == [(1, 1), (1, 1)]
    found = now_of(store, tasks[0])
    assert (found.status, found.holder, found.variant) == (Status.RUNNING, "replica-1", "embedded")
    assert (found.lease_until, found.started_at, found.attempts, found.epoch) == (NOW + 8, NOW + 1, 1, 1)
    assert store.tasks.running() == (now_of(store, tasks[0]), now_of(store, tasks[2]))


def test_what_is_gone_is_left_out(store: Store) -> None:
    tasks = submitted(store, 3)
    leased(store, tasks[0])
    store.tasks.cancel(tasks[1].id, None, NOW)
    leases = store.tasks.lease([task.seq for task in tasks] + [10**9], "replica-2", "embedded", NOW + 8, NOW)
    assert [lease.task_id for lease in leases] == [tasks[2].id]
    assert store.tasks.lease([], "replica-2", "embedded", NOW + 8, NOW) == ()


def test_a_task_that_goes_to_another_variant_keeps_its_new_group_and_the_reason(store: Store) -> None:
    one, two = submitted(store, 2)
    store.tasks.lease(
        [one.seq, two.seq],
        "replica-1",
        "turbo",
        NOW + 8,
        NOW,
        groups={one.seq: group("turbo").model_dump_json()},
        fallback={one.seq: "embedded is down"},
    )
    found = now_of(store, one)
    assert (found.group, found.variant, found.fallback) == (group("turbo"), "turbo", "embedded is down")
    assert (now_of(store, two).group, now_of(store, two).fallback) == (group("embedded"), "")


def test_two_leasers_never_get_the_same_task(store: Store) -> None:
    tasks = submitted(store, 40)
    seqs = [task.seq for task in tasks]

    def take(place: int) -> list[str]:
        mine = seqs if place % 2 else seqs[::-1]
        chunks = [mine[start : start + 4] for start in range(0, len(mine), 4)]
        return [
            lease.task_id
            for chunk in chunks
            for lease in store.tasks.lease(chunk, f"replica-{place}", "embedded", NOW + 8, NOW)
        ]

    with ThreadPoolExecutor(6) as threads:
        taken = [task_id for ids in threads.map(take, range(6)) for task_id in ids]
    assert sorted(taken) == sorted(task.id for task in tasks)
    assert {task.epoch for task in store.tasks.running()} == {1}


class TestRenew:
    def test_a_heartbeat_prolongs_the_lease_and_keeps_the_progress(self, store: Store) -> None:
        (task,) = submitted(store)
        leased(store, task)
        assert store.tasks.renew([Progress(task.id, 1, 0.5, "rendering")], NOW + 20) == ()
        found = now_of(store, task)
        assert (found.lease_until, found.progress, found.stage) == (NOW + 20, 0.5, "rendering")

    def test_the_holder_is_told_to_stop_what_was_cancelled_and_keeps_it_until_it_says_so(self, store: Store) -> None:
        stays, goes = submitted(store, 2)
        for task in (stays, goes):
            leased(store, task)
        store.tasks.cancel(goes.id, None, NOW + 2)
        beat = [Progress(task.id, 1, 0.5, "rendering") for task in (goes, stays)]
        assert store.tasks.renew(beat, NOW + 20) == (goes.id,)
        assert now_of(store, goes).lease_until == NOW + 20

    def test_a_stale_holder_is_told_to_stop_and_prolongs_nothing(self, store: Store) -> None:
        (task,) = submitted(store)
        leased(store, task)
        assert store.tasks.give_back(task.id, 1, "lost", NOW)
        leased(store, task, until=NOW + 30)
        beat = [Progress(task.id, 1, 0.9, "encoding"), Progress("nobody", 1, 0.1, "rendering")]
        assert store.tasks.renew(beat, NOW + 99) == (task.id, "nobody")
        found = now_of(store, task)
        assert (found.lease_until, found.progress) == (NOW + 30, 0.0)

    def test_nothing_to_say_is_nothing_to_stop(self, store: Store) -> None:
        assert store.tasks.renew([], NOW) == ()


class TestFinish:
    @pytest.mark.parametrize("outcome", [success(), failure(), failure(dead=True)])
    def test_the_holder_ends_its_task(self, store: Store, outcome: Outcome) -> None:
        (task,) = submitted(store)
        lease = leased(store, task)
        assert store.tasks.finish(task.id, lease.epoch, outcome, NOW + 2)
        found = store.tasks.get(task.id)
        assert found is not None
        assert (found.status, found.outcome, found.finished_at) == (outcome.status, outcome, NOW + 2)
        assert found.progress == (1.0 if outcome.status is Status.SUCCEEDED else 0.0)
        assert store.tasks.running() == ()

    def test_a_stale_epoch_changes_nothing(self, store: Store) -> None:
        (task,) = submitted(store)
        leased(store, task)
        store.tasks.give_back(task.id, 1, "lost", NOW)
        leased(store, task)
        before = now_of(store, task)
        for epoch in (0, 1, 3):
            assert not store.tasks.finish(task.id, epoch, success(), NOW + 2)
            assert not store.tasks.give_back(task.id, epoch, "x", NOW)
        assert now_of(store, task) == before
        assert store.tasks.finish(task.id, 2, success(), NOW + 2)

    def test_a_task_that_waits_again_cannot_be_finished_by_its_last_holder(self, store: Store) -> None:
        (task,) = submitted(store)
        leased(store, task)
        store.tasks.give_back(task.id, 1, "lost", NOW)
        assert not store.tasks.finish(task.id, 1, success(), NOW + 2)
        assert now_of(store, task).status is Status.PENDING

    def test_the_same_end_told_twice_is_one_end(self, store: Store) -> None:
        (task,) = submitted(store, webhook_url="https://example.com/hook")
        lease = leased(store, task)
        assert store.tasks.finish(task.id, lease.epoch, success(), NOW + 2)
        assert store.tasks.finish(task.id, lease.epoch, success(), NOW + 3)
        assert not store.tasks.finish(task.id, lease.epoch, failure(), NOW + 3)
        assert now_of(store, task).finished_at == NOW + 2
        assert len(store.deliveries.due(NOW + 5)) == 1

    @pytest.mark.parametrize("outcome", [success(0.04), failure(dead=True)])
    def test_a_cancel_that_came_first_wins_and_the_bill_stays(self, store: Store, outcome: Outcome) -> None:
        (task,) = submitted(store)
        lease = leased(store, task)
        store.tasks.cancel(task.id, None, NOW + 1)
        assert store.tasks.finish(task.id, lease.epoch, outcome, NOW + 2)
        found = now_of(store, task)
        assert found.outcome is not None
        assert (found.status, found.outcome.status) == (Status.CANCELLED, Status.CANCELLED)
        assert (found.outcome.billed_usd, found.outcome.failure) == (outcome.billed_usd, "")
        assert store.tasks.counts().dead == 0
        assert store.tasks.usage("key-a", NOW, NOW + 1)[0][3] == outcome.billed_usd

    def test_of_cancel_and_finish_at_once_each_is_answered_by_what_is_stored(self, store: Store) -> None:
        tasks = submitted(store, 20)
        for task in tasks:
            leased(store, task)
        with ThreadPoolExecutor(8) as threads:
            said = [
                (
                    threads.submit(store.tasks.finish, task.id, 1, success(), NOW),
                    threads.submit(store.tasks.cancel, task.id, None, NOW),
                )
                for task in tasks
            ]
        for task, (finished, cancelled) in zip(tasks, said, strict=True):
            assert finished.result()
            before = cancelled.result()
            assert before in (Status.RUNNING, Status.SUCCEEDED)
            ends = Status.CANCELLED if before is Status.RUNNING else Status.SUCCEEDED
            assert now_of(store, task).status is ends


class TestGiveBack:
    def test_a_failed_attempt_waits_for_its_next_one(self, store: Store) -> None:
        (task,) = submitted(store)
        lease = leased(store, task)
        assert store.tasks.give_back(task.id, lease.epoch, "out of memory", NOW + 5)
        found = now_of(store, task)
        assert (found.status, found.holder, found.last_error) == (Status.PENDING, "", "out of memory")
        assert (found.attempts, found.not_before, found.started_at) == (1, NOW + 5, None)
        assert store.tasks.waiting_again(NOW + 4) == ()
        assert store.tasks.waiting_again(NOW + 5) == (found,)
        assert (leased(store, task).epoch, now_of(store, task).attempts) == (2, 2)

    def test_what_nobody_began_waits_as_before_and_its_lease_is_over_for_good(self, store: Store) -> None:
        (task,) = submitted(store)
        lease = leased(store, task)
        assert store.tasks.give_back(task.id, lease.epoch, "never arrived", NOW, spent=False)
        found = now_of(store, task)
        assert (found.status, found.attempts, found.last_error) == (Status.PENDING, 0, "never arrived")
        assert not store.tasks.take_up(task.id, lease.epoch, "r", NOW + 9, NOW)
        again = leased(store, task)
        assert (again.attempt, again.epoch > lease.epoch) == (1, True)

    def test_a_lease_that_was_given_back_goes_on_while_nobody_else_has_the_task(self, store: Store) -> None:
        (task,) = submitted(store)
        lease = leased(store, task)
        store.tasks.give_back(task.id, lease.epoch, "lost", NOW)
        assert store.tasks.take_up(task.id, lease.epoch, "slow", NOW + 9, NOW + 1)
        found = now_of(store, task)
        assert (found.status, found.attempts, found.epoch) == (Status.RUNNING, 1, lease.epoch)
        assert (found.holder, found.lease_until, found.started_at) == ("slow", NOW + 9, NOW + 1)
        assert store.tasks.finish(task.id, lease.epoch, success(), NOW + 2)
        assert not store.tasks.take_up(task.id, lease.epoch, "slow", NOW + 9, NOW + 3), "it has ended"

    @pytest.mark.parametrize("what", ["leased again", "cancelled"])
    def test_a_lease_does_not_go_on_where_the_task_has_gone_its_way(self, store: Store, what: str) -> None:
        (task,) = submitted(store)
        lease = leased(store, task)
        store.tasks.give_back(task.id, lease.epoch, "lost", NOW)
        if what == "leased again":
            leased(store, task)
        else:
            store.tasks.cancel(task.id, None, NOW)
        before = now_of(store, task)
        assert not store.tasks.take_up(task.id, lease.epoch, "slow", NOW + 9, NOW + 1)
        assert now_of(store, task) == before

    def test_new_tasks_are_not_waiting_again(self, store: Store) -> None:
        submitted(store)
        assert store.tasks.waiting_again(NOW + 99) == ()

    def test_a_cancelled_attempt_is_not_tried_again(self, store: Store) -> None:
        (task,) = submitted(store, webhook_url="https://example.com/hook")
        lease = leased(store, task)
        store.tasks.cancel(task.id, None, NOW + 2)
        assert store.tasks.give_back(task.id, lease.epoch, "lost", NOW + 9)
        found = now_of(store, task)
        assert (found.status, found.finished_at) == (Status.CANCELLED, NOW + 2)
        assert len(store.deliveries.due(NOW + 9)) == 1

    def test_leases_that_ran_out_are_found(self, store: Store) -> None:
        soon, late = submitted(store, 2)
        leased(store, soon, until=NOW + 5)
        leased(store, late, until=NOW + 50)
        assert store.tasks.expired(NOW + 4) == ()
        assert [task.id for task in store.tasks.expired(NOW + 6)] == [soon.id]


def test_leases_renewals_and_batch_cancels_at_once_end_without_a_deadlock(store: Store) -> None:
    from serve.store.contract import Batch

    store.batches.create(Batch("b1", "key-a", NOW, 60, 1.0))
    tasks = store.tasks.submit([new_task(batch_id="b1") for _ in range(60)], NOW).tasks
    seqs = [task.seq for task in tasks]

    def hold(place: int) -> None:
        for start in range(0, 60, 10):
            mine = seqs[start : start + 10][:: 1 if place % 2 else -1]
            leases = store.tasks.lease(mine, f"replica-{place}", "embedded", NOW + 8, NOW)
            beat = [Progress(lease.task_id, lease.epoch, 0.1, "rendering") for lease in leases][::-1]
            store.tasks.renew(beat, NOW + 9)
            for lease in leases:
                store.tasks.finish(lease.task_id, lease.epoch, success(), NOW + 3)

    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(hold, place) for place in range(6)]
        jobs.append(threads.submit(store.batches.cancel, "b1", None, NOW))
    for job in jobs:
        job.result()
    batch = store.batches.get("b1")
    assert batch is not None
    assert sum(batch.counts.values()) == 60
    assert batch.finished_at is not None

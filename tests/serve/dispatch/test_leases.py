"""Who holds a task: replicas that are silent, slow, or new to a broker that was started again."""

import pytest

from schemas.clip import Status
from serve.dispatch.messages import WAITING, Beat, Ended, Hello, Results
from serve.store.contract import Progress
from tests.serve.dispatch.endpoint import Endpoint, silent_then_another


def test_a_silent_replica_loses_its_task_which_another_renders_and_the_first_cannot_finish(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    stale, fresh = silent_then_another(endpoint)
    assert fresh.leases[0].epoch > stale.leases[0].epoch
    endpoint.finish(stale, "r1")
    assert endpoint.statuses([task]) == [Status.RUNNING]
    endpoint.finish(fresh, "r2")
    after = endpoint.stored(task)
    assert (after.status, after.attempts) == (Status.SUCCEEDED, 2)


def test_an_answer_that_never_arrived_is_given_again(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    lost = endpoint.pull(begin=False)
    assert lost is not None
    again = endpoint.pull(begin=False)
    assert again == lost
    endpoint.finish(lost)
    assert endpoint.pull() is None, "not once more"
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.SUCCEEDED, 1)


def test_a_replica_that_asks_for_more_while_it_has_what_it_was_given_gets_something_else(endpoint: Endpoint) -> None:
    endpoint.submit(6)
    first = endpoint.pull(begin=False)
    assert first is not None
    more = endpoint.driver.pull(Hello("r1", "small", holds=first.leases))
    assert more is not None
    assert {lease.task_id for lease in more.leases}.isdisjoint(lease.task_id for lease in first.leases)


@pytest.mark.parametrize("knows", ["silent", "said so"])
def test_work_that_its_replica_never_began_goes_to_another_and_was_no_attempt(endpoint: Endpoint, knows: str) -> None:
    (task,) = endpoint.submit()
    lost = endpoint.pull("r1", begin=False)
    assert lost is not None
    if knows == "silent":
        endpoint.after(endpoint.config.queue.lease_s + 1)
    else:
        endpoint.driver.gone("r1")
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.PENDING, 0)
    work = endpoint.pull("r2")
    assert work is not None
    endpoint.finish(lost, "r1")
    assert endpoint.statuses([task]) == [Status.RUNNING], "what was taken back is nobody's any more"
    endpoint.finish(work, "r2")
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.SUCCEEDED, 1)


def test_a_batch_that_waits_for_the_one_before_it_is_not_begun_by_heartbeats(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    held = endpoint.pull(begin=False)
    assert held is not None
    assert endpoint.beat(held, stage=WAITING) == ()
    endpoint.after(2 * endpoint.config.queue.lease_s)
    assert endpoint.stored(task).attempts == 0


@pytest.mark.parametrize("told", ["before", "by a heartbeat"])
def test_a_task_that_ends_its_replica_each_time_it_is_begun_is_given_up(endpoint: Endpoint, told: str) -> None:
    (task,) = endpoint.submit()
    for number in range(endpoint.config.queue.max_attempts):
        work = endpoint.pull(f"r{number}", begin=told == "before")
        assert work is not None
        if told != "before":
            endpoint.beat(work, f"r{number}")
        endpoint.after(endpoint.config.queue.lease_s + 1)
        endpoint.after(30)
    after = endpoint.stored(task)
    assert (after.status, after.attempts) == (Status.FAILED, endpoint.config.queue.max_attempts)


def test_a_task_that_is_lost_again_and_again_before_anybody_begins_ends_all_the_same(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    lost = 0
    while endpoint.pull(f"r{lost}", begin=False) is not None:
        lost += 1
        assert lost < 100
        endpoint.after(endpoint.config.queue.lease_s + 1)
        endpoint.after(30)
    after = endpoint.stored(task)
    assert after.status is Status.FAILED
    assert after.outcome is not None
    assert after.outcome.dead
    assert lost > 2 * endpoint.config.queue.max_attempts


def test_a_replica_that_was_only_slow_goes_on_with_what_nobody_else_took(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.after(endpoint.config.queue.lease_s + 1)
    endpoint.after(endpoint.config.queue.retry_base_s + 1)
    assert endpoint.statuses([task]) == [Status.PENDING]
    assert endpoint.beat(work) == ()
    assert endpoint.pull("r2") is None, "it waits no more"
    endpoint.finish(work)
    after = endpoint.stored(task)
    assert (after.status, after.attempts, after.epoch) == (Status.SUCCEEDED, 1, 1)


def test_a_slow_replica_that_asks_for_more_first_keeps_what_it_has(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.after(endpoint.config.queue.lease_s + 1)
    endpoint.after(endpoint.config.queue.retry_base_s + 1)
    assert endpoint.driver.pull(Hello("r1", "small", holds=work.leases)) is None
    endpoint.finish(work)
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.SUCCEEDED, 1)


def test_an_end_that_comes_late_counts_where_nobody_else_took_the_task(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.after(endpoint.config.queue.lease_s + 1)
    endpoint.finish(work)
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.SUCCEEDED, 1)


def test_a_slow_replica_is_told_to_stop_what_was_cancelled_or_failed_meanwhile(endpoint: Endpoint) -> None:
    cancelled, failed = endpoint.submit(2)
    work = endpoint.pull()
    assert work is not None
    lease = next(lease for lease in work.leases if lease.task_id == failed.id)
    endpoint.driver.done(Results("r1", work.batch.group, (Ended(lease, None, "no memory", "OutOfMemoryError"),)))
    endpoint.after(endpoint.config.queue.lease_s + 1)
    endpoint.store.tasks.cancel(cancelled.id, None, endpoint.clock.at)
    assert set(endpoint.beat(work)) == {cancelled.id, failed.id}
    assert endpoint.stored(failed).status is Status.PENDING


def test_heartbeats_keep_a_lease_for_as_long_as_they_come(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    for step in range(20):
        endpoint.clock.at += 1
        told = endpoint.driver.beat(Beat("r1", (Progress(task.id, 1, step / 20, "rendering"),)))
        endpoint.driver.pump()
        assert told == ()
    after = endpoint.stored(task)
    assert (after.status, after.epoch, after.progress) == (Status.RUNNING, 1, pytest.approx(0.95))


def test_a_new_broker_goes_on_where_the_old_one_died(endpoint: Endpoint) -> None:
    running, *waiting = endpoint.submit(3, width=96, height=64)
    others = endpoint.submit(2)
    held = endpoint.pull("r1")
    assert held is not None
    endpoint.driver = endpoint.started()
    endpoint.driver.pump()
    for _ in range(12):  # longer than a lease: the replica beats, though this broker never saw it
        endpoint.clock.at += 1
        beats = tuple(Progress(lease.task_id, lease.epoch, 0.5, "rendering") for lease in held.leases)
        assert endpoint.driver.beat(Beat("r1", beats)) == ()
        endpoint.driver.pump()
    endpoint.finish(held, "r1")
    while work := endpoint.pull("r1"):
        endpoint.finish(work, "r1")
    tasks = [running, *waiting, *others]
    assert set(endpoint.statuses(tasks)) == {Status.SUCCEEDED}
    assert {endpoint.stored(task).attempts for task in tasks} == {1}


def test_a_new_broker_lets_replicas_be_heard_before_it_takes_their_tasks_away(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.clock.at += 60  # nobody was there to beat to
    endpoint.driver = endpoint.started()
    endpoint.after(1)
    assert endpoint.statuses([task]) == [Status.RUNNING]
    assert endpoint.driver.beat(Beat("r1", (Progress(task.id, work.leases[0].epoch, 0.5, "rendering"),))) == ()
    endpoint.after(endpoint.config.queue.lease_s - 0.5)
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.RUNNING, 1)
    endpoint.after(endpoint.config.queue.lease_s)
    assert endpoint.statuses([task]) == [Status.PENDING], "that was a heartbeat too few"

"""Where tasks go: to another replica, to another variant, and how many replicas that takes."""

from collections.abc import Callable

import pytest

from schemas.clip import Status
from serve.config import Queue
from serve.dispatch.fleet import CALIBRATION
from serve.dispatch.messages import Beat, Ended, LoadFailure, Results
from serve.store.contract import Progress
from serve.tasks import StoredTask
from tests.serve.dispatch.endpoint import Endpoint, succeeded


def test_nothing_waits_behind_a_call_that_takes_longer_than_was_said_while_a_replica_is_free(
    endpoint: Endpoint,
) -> None:
    endpoint.pull("r1")
    endpoint.pull("r2")
    endpoint.submit(num_frames=5)
    busy, idle = ("r1", "r2") if endpoint.pull("r1") is not None else ("r2", "r1")
    for _ in range(20):  # far longer than predicted
        endpoint.after(1.0)
        lease = endpoint.store.tasks.running()[0]
        endpoint.driver.beat(Beat(busy, (Progress(lease.id, lease.epoch, 0.5, "rendering"),)))
        endpoint.driver.beat(Beat(idle))
    endpoint.submit(num_frames=9)
    assert endpoint.pull(idle) is not None


def behind_a_slow_call(endpoint: Endpoint, **wanted: object) -> StoredTask:
    """A task that waits for `small`, whose call takes a minute more than was said, while `swift` has become free."""
    endpoint.pull("r1", "small")
    endpoint.pull("s1", "swift")
    endpoint.submit(variant="small", num_frames=33, fall_back=False)
    endpoint.submit(variant="swift", num_inference_steps=400, fall_back=False)
    slow, other = endpoint.pull("r1", "small"), endpoint.pull("s1", "swift")
    assert slow is not None
    assert other is not None
    (task,) = endpoint.submit(num_frames=5, **wanted)
    endpoint.finish(other, "s1")
    assert endpoint.pull("s1", "swift") is None, "it waits for small"
    for _ in range(60):
        endpoint.after(1.0)
        endpoint.beat(slow, "r1")
        endpoint.driver.beat(Beat("s1"))
    return task


def test_a_task_that_would_break_its_promise_goes_to_a_variant_that_has_become_free(endpoint: Endpoint) -> None:
    task = behind_a_slow_call(endpoint, variant="auto")
    assert task.offer.variant == "small"
    work = endpoint.pull("s1", "swift")
    assert work is not None
    assert [one.fingerprint for one in work.batch.tasks] == [task.id]
    after = endpoint.stored(task)
    assert (after.variant, after.attempts, after.group.variant) == ("swift", 1, "swift")
    assert "swift instead" in after.fallback


@pytest.mark.parametrize("wanted", [{"variant": "small"}, {"variant": "auto", "deny": ("swift",)}], ids=str)
def test_a_late_task_goes_nowhere_that_its_client_did_not_allow(endpoint: Endpoint, wanted: dict[str, object]) -> None:
    task = behind_a_slow_call(endpoint, **wanted)
    assert endpoint.pull("s1", "swift") is None
    assert endpoint.statuses([task]) == [Status.PENDING]


def test_a_task_waits_for_its_variant_rather_than_fall_back_when_that_is_sooner(endpoint: Endpoint) -> None:
    assert endpoint.pull("s1", "swift") is None
    endpoint.after(1)  # a placeholder for `small` stands beside the replica of `swift`
    (task,) = endpoint.submit(fall_back=False)
    assert endpoint.pull("s1", "swift") is None
    work = endpoint.pull("r1")
    assert work is not None
    assert endpoint.stored(task).fallback == ""


def test_a_variant_that_cannot_be_loaded_is_replaced_by_its_fallback_and_the_task_says_why(endpoint: Endpoint) -> None:
    endpoint.after(1)
    endpoint.driver.failed_to_load(LoadFailure("r1", "small", "no such file", permanent=True))
    (task,) = endpoint.submit()
    work = endpoint.pull("s1", "swift")
    assert work is not None
    after = endpoint.stored(task)
    assert (after.variant, after.group.variant) == ("swift", "swift")
    assert "small is down" in after.fallback
    assert any(entry["type"] == "rank" and entry["outcome"] == "fallback" for entry in after.story)


def test_a_task_that_falls_back_takes_nobody_along_who_waits_for_its_own_variant(endpoint: Endpoint) -> None:
    endpoint.pull("r1")
    endpoint.submit(num_frames=5)
    assert endpoint.pull("r1") is not None
    endpoint.pull("s1", "swift")
    (patient,) = endpoint.submit(num_frames=9)
    (impatient,) = endpoint.submit(num_frames=9, skip_busy=True)
    work = endpoint.pull("s1", "swift")
    assert work is not None
    assert [task.fingerprint for task in work.batch.tasks] == [impatient.id]
    assert endpoint.statuses([patient]) == [Status.PENDING]


def test_without_a_fallback_it_fails_once_loading_has_failed_again_and_again(endpoint: Endpoint) -> None:
    for _ in range(3):
        endpoint.driver.failed_to_load(LoadFailure("r1", "small", "no such file", permanent=True))
    (task,) = endpoint.submit(fall_back=False)
    after = endpoint.stored(task)
    assert after.status is Status.FAILED
    assert after.outcome is not None
    assert "cannot be loaded" in after.outcome.failure
    assert "no such file" not in after.outcome.failure


def test_work_planned_onto_a_replica_that_leaves_goes_to_another(endpoint: Endpoint) -> None:
    endpoint.pull("r1")
    tasks = endpoint.submit(8)
    endpoint.pull("r1")
    endpoint.driver.gone("r1")
    done = 0
    while work := endpoint.pull("r2"):
        endpoint.finish(work, "r2")
        done += len(work.batch.tasks)
    assert done == 4
    assert endpoint.statuses(tasks).count(Status.SUCCEEDED) == 4


def test_what_is_asked_for_is_scaled_up_and_what_idles_is_given_back(make: Callable[..., Endpoint]) -> None:
    endpoint = make(queue=Queue(lease_s=1e6))
    assert endpoint.driver.sizes(0, 4) == {"small": 1, "swift": 0}
    (task,) = endpoint.submit(variant="swift", fall_back=False)
    assert endpoint.driver.sizes(0, 4)["swift"] == 1
    work = endpoint.pull("s1", "swift")
    assert work is not None
    endpoint.finish(work, "s1")
    assert endpoint.statuses([task]) == [Status.SUCCEEDED]
    assert endpoint.driver.sizes(0, 4)["swift"] == 1  # not at once
    endpoint.after(endpoint.config.pools.idle_to_zero_s + 60)
    assert endpoint.driver.sizes(0, 4) == {"small": 1, "swift": 0}


def test_a_replica_that_still_renders_for_a_broker_of_before_is_not_scaled_away(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit(variant="swift", fall_back=False)
    work = endpoint.pull("s1", "swift")
    assert work is not None
    endpoint.driver = endpoint.started()
    assert endpoint.driver.sizes(0, 4)["swift"] == 0  # nothing is known of it
    endpoint.driver.beat(Beat("s1", (Progress(task.id, 1, 0.5, "rendering"),), "swift"))
    assert endpoint.driver.sizes(0, 4)["swift"] == 1
    endpoint.clock.at += endpoint.config.queue.lease_s + 400
    assert endpoint.driver.sizes(0, 4)["swift"] == 0  # it was not heard again


def test_replicas_never_ask_for_more_cpus_than_there_are(endpoint: Endpoint) -> None:
    endpoint.submit(200, variant="swift", fall_back=False)
    endpoint.submit(200)
    assert sum(endpoint.driver.sizes(0, 2).values()) == 2


def test_what_calls_took_is_kept_and_changes_the_next_quote(endpoint: Endpoint) -> None:
    before = endpoint.driver.report().pools
    for _ in range(12):
        endpoint.submit(1)
        work = endpoint.pull("r1")
        assert work is not None
        ended = tuple(Ended(lease, succeeded("small")) for lease in work.leases)
        endpoint.driver.done(Results("r1", work.batch.group, ended, 20.0))
    endpoint.after(11)
    assert endpoint.store.notes.read(CALIBRATION)
    again = endpoint.started()
    endpoint.driver = again
    endpoint.pull("r1")
    endpoint.submit(2, width=96, height=64)
    endpoint.submit(1)
    backlog_s = next(pool.backlog_s for pool in again.report().pools if pool.variant == "small")
    assert backlog_s > 20
    assert next(pool.backlog_s for pool in before if pool.variant == "small") < 1

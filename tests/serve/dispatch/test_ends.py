"""How tasks end: finished, cancelled, tried again, given up; and what is left of them."""

from collections.abc import Callable

import pytest

from schemas.clip import Status
from schemas.moderation import Finding, ModeratedPart, Moderation, ModerationOutcome, ModerationSettings
from serve.dispatch.messages import Beat, Ended, Results
from serve.store.contract import Progress
from serve.tasks import Outcome
from tests.serve.dispatch.endpoint import Endpoint, silent_then_another, succeeded


def test_a_finished_task_is_finished_once_and_a_late_second_end_changes_nothing(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.finish(work)
    endpoint.driver.done(Results("r1", work.batch.group, (Ended(work.leases[0], None, "too late", "Late"),)))
    after = endpoint.stored(task)
    assert (after.status, after.attempts) == (Status.SUCCEEDED, 1)


def test_a_cancelled_running_task_is_named_at_the_next_heartbeat(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    endpoint.pull()
    endpoint.store.tasks.cancel(task.id, None, endpoint.clock.at)
    assert endpoint.driver.beat(Beat("r1", (Progress(task.id, 1, 0.5, "rendering"),))) == (task.id,)


def test_what_was_stored_for_a_task_that_was_cancelled_meanwhile_is_to_be_removed(endpoint: Endpoint) -> None:
    kept, gone = endpoint.submit(2)
    work = endpoint.pull()
    assert work is not None
    endpoint.store.tasks.cancel(gone.id, None, endpoint.clock.at)
    endpoint.finish(work)
    assert endpoint.statuses([kept, gone]) == [Status.SUCCEEDED, Status.CANCELLED]
    assert endpoint.leftovers == [gone.id]
    outcome = endpoint.stored(gone).outcome
    assert outcome is not None
    assert (outcome.clip, outcome.billed_usd) == (None, 0.01), "what was done is billed"


def test_what_a_lost_replica_may_have_stored_is_to_be_removed_when_its_task_was_cancelled(endpoint: Endpoint) -> None:
    (gone,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.store.tasks.cancel(gone.id, None, endpoint.clock.at)
    endpoint.after(endpoint.config.queue.lease_s + 1)
    assert endpoint.statuses([gone]) == [Status.CANCELLED]
    assert endpoint.leftovers == [gone.id]
    endpoint.finish(work)
    assert endpoint.leftovers == [gone.id] * 2, "it stored its clip only now"


def test_a_clip_that_another_attempt_has_made_is_never_removed(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    stale, fresh = silent_then_another(endpoint)
    endpoint.finish(fresh, "r2")
    endpoint.store.tasks.cancel(task.id, None, endpoint.clock.at)
    endpoint.finish(stale, "r1")
    assert endpoint.statuses([task]) == [Status.SUCCEEDED]
    assert endpoint.leftovers == []


def test_a_task_that_was_cancelled_while_it_waited_is_never_given_out(endpoint: Endpoint) -> None:
    gone, kept = endpoint.submit(2)
    endpoint.store.tasks.cancel(gone.id, None, endpoint.clock.at)
    work = endpoint.pull()
    assert work is not None
    assert [task.fingerprint for task in work.batch.tasks] == [kept.id]
    assert endpoint.pull() is None


def test_many_cancelled_tasks_leave_the_plan_by_themselves(endpoint: Endpoint) -> None:
    endpoint.pull("r1")
    endpoint.pull("r2", "swift")
    tasks = endpoint.submit(40)
    endpoint.pull("r1")
    for task in tasks:
        endpoint.store.tasks.cancel(task.id, None, endpoint.clock.at)
    endpoint.after(11)
    assert sum(pool.queued for pool in endpoint.driver.report().pools) == 0


def test_a_transient_failure_is_tried_again_later_and_alone(endpoint: Endpoint) -> None:
    tasks = endpoint.submit(3)
    work = endpoint.pull()
    assert work is not None
    first, *rest = work.leases
    ended = (Ended(first, None, "out of memory", "OutOfMemoryError"), *(Ended(x, succeeded("small")) for x in rest))
    endpoint.driver.done(Results("r1", work.batch.group, ended))
    more = endpoint.submit(2)
    again = endpoint.pull()
    assert again is not None
    assert {task.fingerprint for task in again.batch.tasks} == {task.id for task in more}
    endpoint.after(2)
    alone = endpoint.pull()
    assert alone is not None
    assert [task.fingerprint for task in alone.batch.tasks] == [tasks[0].id]
    assert alone.leases[0].attempt == 2


def test_a_task_that_fails_every_time_ends_as_a_dead_letter(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    for _ in range(endpoint.config.queue.max_attempts):
        work = endpoint.pull()
        assert work is not None
        endpoint.driver.done(Results("r1", work.batch.group, (Ended(work.leases[0], None, "boom", "Boom"),)))
        endpoint.after(30)
        endpoint.driver.beat(Beat("r1"))
    after = endpoint.stored(task)
    assert after.status is Status.FAILED
    assert after.outcome is not None
    assert after.outcome.dead
    assert "3 attempts" in after.outcome.failure


@pytest.mark.parametrize("billed", [False, True])
def test_a_refused_input_ends_its_task_for_good_and_is_billed_as_the_settings_say(
    make: Callable[..., Endpoint], billed: bool
) -> None:
    endpoint = make(moderation=ModerationSettings(frame_classifier="/models/x", bill_refused_input=billed))
    (task,) = endpoint.submit(public_figures="low")
    work = endpoint.pull()
    assert work is not None
    assert work.batch.tasks[0].public_figures == "low"
    finding = Finding(part=ModeratedPart.INPUT_IMAGE, outcome=ModerationOutcome.REFUSE, scorer="x", category="gore")
    outcome = Outcome(
        status=Status.FAILED,
        variant="small",
        failure_code="SAFETY.INPUT.IMAGE",
        moderation=Moderation(findings=(finding,)),
    )
    results = Results("r1", work.batch.group, (Ended(work.leases[0], outcome),))
    endpoint.driver.done(results)
    text = endpoint.driver.metrics.text().decode()
    assert 'rushes_moderated_tasks_total{category="gore",outcome="refuse",part="INPUT.IMAGE"} 1.0' in text
    after = endpoint.stored(task)
    endpoint.driver.done(results)
    assert endpoint.stored(task) == after, "told again, nothing changes"
    assert (after.status, after.attempts) == (Status.FAILED, 1)
    assert after.outcome is not None
    assert after.outcome.failure_code == "SAFETY.INPUT.IMAGE"
    assert after.outcome.billed_usd == (task.offer.usd if billed else 0.0)
    assert task.offer.usd > 0
    endpoint.after(endpoint.config.queue.lease_s + 1)
    assert endpoint.pull() is None, "no other attempt, on no other variant"
    assert endpoint.pull("r2", "swift") is None
    assert all(pool.healthy for pool in endpoint.report().pools)

"""The broker over a real store, with replicas that are only names: who renders what, when, and after what."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from schemas.catalog import Catalog, parse_catalog
from schemas.clip import Clip, Status, Timings
from schemas.request import Request
from serve.admission import Admission
from serve.broker import Broker
from serve.config import Limits, Pools, Queue, ServeConfig
from serve.fleet import CALIBRATION, NOTE, FleetReport
from serve.messages import WAITING, Beat, Begun, Ended, Hello, LoadFailure, Results, Work
from serve.names import served_catalog
from serve.store.contract import Progress, Store
from serve.store.engine import open_store
from serve.tasks import Constraints, Outcome, StoredTask
from tests.pipelines.catalogs import TWO_VARIANTS

CATALOG = TWO_VARIANTS.replace('aliases = ["petit"]', 'aliases = ["petit"]\nfallbacks = ["swift"]')
START = 1_700_000_000.0


@dataclass
class Clock:
    at: float = START

    def __call__(self) -> float:
        return self.at


@dataclass
class Endpoint:
    """One broker, restartable, over a store that stays."""

    store: Store
    config: ServeConfig
    served: Catalog
    clock: Clock = field(default_factory=Clock)
    woken: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = self.started()

    def started(self) -> Broker:
        told = {"on_work": self.woken.append, "on_cancelled": self.leftovers.append}
        return Broker(self.config, self.served, self.store, now=self.clock, **told)

    def submit(self, count: int = 1, variant: str = "small", key: str = "key-a", **other: object) -> list[StoredTask]:
        limits = {name: other.pop(name) for name in list(other) if name in Constraints.model_fields}
        admission = Admission(self.config, self.served, None, self.clock)
        tasks = [
            admission.decide(
                Request.model_validate({"variant": variant, "prompt": f"prompt {n}"} | other),
                Constraints.model_validate(limits),
                key_id=key,
                kind="text_to_video",
            )
            for n in range(count)
        ]
        most = self.config.limits.max_concurrent
        stored = list(self.store.tasks.submit(tasks, self.clock.at, max_live=most).tasks)
        self.broker.pump()
        return stored

    def after(self, seconds: float) -> None:
        self.clock.at += seconds
        self.broker.pump()

    def pull(self, replica: str = "r1", variant: str = "small", *, begin: bool = True) -> Work | None:
        """What the replica gets, and begins."""
        work = self.broker.pull(Hello(replica, variant, 1.0))
        if work is not None and begin:
            self.begin(work, replica)
        return work

    def begin(self, work: Work, replica: str = "r1") -> None:
        self.broker.begun(Begun(replica, frozenset((lease.task_id, lease.epoch) for lease in work.leases)))

    def beat(self, work: Work, replica: str = "r1", stage: str = "rendering") -> tuple[str, ...]:
        progress = tuple(Progress(lease.task_id, lease.epoch, 0.5, stage) for lease in work.leases)
        return self.broker.beat(Beat(replica, progress, work.batch.group.variant))

    def finish(self, work: Work, replica: str = "r1", **other: object) -> None:
        ended = tuple(Ended(lease, succeeded(work.batch.group.variant)) for lease in work.leases)
        self.broker.done(Results(replica, work.batch.group, ended, 1.0))

    def stored(self, task: StoredTask) -> StoredTask:
        found = self.store.tasks.get(task.id)
        assert found is not None
        return found

    def statuses(self, tasks: list[StoredTask]) -> list[Status]:
        return [self.stored(task).status for task in tasks]


def succeeded(variant: str) -> Outcome:
    clip = Clip(uri="file:///clip.mp4", sha256="0" * 64, clip_bytes=1, width=64, height=64, frames=17, fps=8.0)
    return Outcome(status=Status.SUCCEEDED, variant=variant, clip=clip, timings=Timings(render_s=1.0), billed_usd=0.01)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    opened: list[Store] = []

    def made(**config: object) -> Endpoint:
        store = open_store(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
        opened.append(store)
        pools = Pools(variants=("small", "swift"), max_replicas={"small": 2, "swift": 2})
        settings = ServeConfig.model_validate({"out": str(tmp_path), "pools": pools} | config)
        return Endpoint(store, settings, served_catalog(settings, parse_catalog(CATALOG, "test.toml")))

    yield made
    for store in opened:
        store.close()


@pytest.fixture
def endpoint(make: Callable[..., Endpoint]) -> Endpoint:
    return make()


def test_a_task_waits_until_a_replica_pulls_and_is_then_leased_to_it(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    assert endpoint.statuses([task]) == [Status.PENDING]
    work = endpoint.pull()
    assert work is not None
    held = endpoint.stored(task)
    assert (held.status, held.holder, held.epoch, held.variant) == (Status.RUNNING, "r1", 1, "small")
    assert work.batch.tasks[0].fingerprint == task.id


def test_a_waiting_replica_is_told_when_work_comes(endpoint: Endpoint) -> None:
    assert endpoint.pull() is None
    endpoint.submit()
    assert endpoint.woken == ["r1"]
    assert endpoint.pull() is not None


def test_tasks_of_one_group_share_a_call_up_to_the_best_batch(endpoint: Endpoint) -> None:
    endpoint.submit(6)
    first, second = endpoint.pull(), endpoint.pull()
    assert first is not None
    assert second is not None
    assert (len(first.batch.tasks), len(second.batch.tasks)) == (4, 2)


def test_tasks_of_different_shapes_never_share_a_call(endpoint: Endpoint) -> None:
    endpoint.submit(2)
    endpoint.submit(2, width=96, height=64, num_frames=17)
    while work := endpoint.pull():
        assert len({endpoint.store.tasks.get(task.fingerprint).group.key for task in work.batch.tasks}) == 1  # type: ignore[union-attr]
        assert len(work.batch.tasks) == 2


def test_a_finished_task_is_finished_once_and_a_late_second_end_changes_nothing(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    work = endpoint.pull()
    assert work is not None
    endpoint.finish(work)
    endpoint.broker.done(Results("r1", work.batch.group, (Ended(work.leases[0], None, "too late", "Late"),)))
    after = endpoint.stored(task)
    assert (after.status, after.attempts) == (Status.SUCCEEDED, 1)


def silent_then_another(endpoint: Endpoint) -> tuple[Work, Work]:
    """What `r1` pulled and kept for longer than its lease, and what `r2` then got."""
    stale = endpoint.pull("r1")
    assert stale is not None
    endpoint.after(endpoint.config.queue.lease_s + 1)
    endpoint.after(endpoint.config.queue.retry_base_s + 1)
    fresh = endpoint.pull("r2")
    assert fresh is not None
    return stale, fresh


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
    more = endpoint.broker.pull(Hello("r1", "small", holds=first.leases))
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
        endpoint.broker.gone("r1")
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
    assert endpoint.broker.pull(Hello("r1", "small", holds=work.leases)) is None
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
    endpoint.broker.done(Results("r1", work.batch.group, (Ended(lease, None, "no memory", "OutOfMemoryError"),)))
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
        told = endpoint.broker.beat(Beat("r1", (Progress(task.id, 1, step / 20, "rendering"),)))
        endpoint.broker.pump()
        assert told == ()
    after = endpoint.stored(task)
    assert (after.status, after.epoch, after.progress) == (Status.RUNNING, 1, pytest.approx(0.95))


def test_a_cancelled_running_task_is_named_at_the_next_heartbeat(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit()
    endpoint.pull()
    endpoint.store.tasks.cancel(task.id, None, endpoint.clock.at)
    assert endpoint.broker.beat(Beat("r1", (Progress(task.id, 1, 0.5, "rendering"),))) == (task.id,)


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
    assert sum(pool.queued for pool in endpoint.broker.report().pools) == 0


def test_a_new_broker_goes_on_where_the_old_one_died(endpoint: Endpoint) -> None:
    running, *waiting = endpoint.submit(3, width=96, height=64)
    others = endpoint.submit(2)
    held = endpoint.pull("r1")
    assert held is not None
    endpoint.broker = endpoint.started()
    endpoint.broker.pump()
    for _ in range(12):  # longer than a lease: the replica beats, though this broker never saw it
        endpoint.clock.at += 1
        beats = tuple(Progress(lease.task_id, lease.epoch, 0.5, "rendering") for lease in held.leases)
        assert endpoint.broker.beat(Beat("r1", beats)) == ()
        endpoint.broker.pump()
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
    endpoint.broker = endpoint.started()
    endpoint.after(1)
    assert endpoint.statuses([task]) == [Status.RUNNING]
    assert endpoint.broker.beat(Beat("r1", (Progress(task.id, work.leases[0].epoch, 0.5, "rendering"),))) == ()
    endpoint.after(endpoint.config.queue.lease_s - 0.5)
    assert (endpoint.stored(task).status, endpoint.stored(task).attempts) == (Status.RUNNING, 1)
    endpoint.after(endpoint.config.queue.lease_s)
    assert endpoint.statuses([task]) == [Status.PENDING], "that was a heartbeat too few"


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
        endpoint.broker.beat(Beat(busy, (Progress(lease.id, lease.epoch, 0.5, "rendering"),)))
        endpoint.broker.beat(Beat(idle))
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
        endpoint.broker.beat(Beat("s1"))
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


def test_a_transient_failure_is_tried_again_later_and_alone(endpoint: Endpoint) -> None:
    tasks = endpoint.submit(3)
    work = endpoint.pull()
    assert work is not None
    first, *rest = work.leases
    ended = (Ended(first, None, "out of memory", "OutOfMemoryError"), *(Ended(x, succeeded("small")) for x in rest))
    endpoint.broker.done(Results("r1", work.batch.group, ended))
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
        endpoint.broker.done(Results("r1", work.batch.group, (Ended(work.leases[0], None, "boom", "Boom"),)))
        endpoint.after(30)
        endpoint.broker.beat(Beat("r1"))
    after = endpoint.stored(task)
    assert after.status is Status.FAILED
    assert after.outcome is not None
    assert after.outcome.dead
    assert "3 attempts" in after.outcome.failure


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
    endpoint.broker.failed_to_load(LoadFailure("r1", "small", "no such file", permanent=True))
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
        endpoint.broker.failed_to_load(LoadFailure("r1", "small", "no such file", permanent=True))
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
    endpoint.broker.gone("r1")
    done = 0
    while work := endpoint.pull("r2"):
        endpoint.finish(work, "r2")
        done += len(work.batch.tasks)
    assert done == 4
    assert endpoint.statuses(tasks).count(Status.SUCCEEDED) == 4


def test_higher_priority_goes_first(endpoint: Endpoint) -> None:
    endpoint.pull("r1")
    endpoint.submit(1)
    endpoint.pull("r1")  # busy with the first
    low = endpoint.submit(4, width=96, height=64)
    (high,) = endpoint.submit(1, priority=5)
    work = endpoint.pull("r1")
    assert work is not None
    assert [task.fingerprint for task in work.batch.tasks] == [high.id]
    assert endpoint.statuses(low) == [Status.PENDING] * 4


def test_a_key_over_its_limit_is_throttled_and_released_as_its_tasks_end(make: Callable[..., Endpoint]) -> None:
    endpoint = make(limits=Limits(max_concurrent=2))
    tasks = endpoint.submit(5)
    assert endpoint.statuses(tasks).count(Status.THROTTLED) == 3
    rendered = 0
    while rendered < 5:
        work = endpoint.pull("r1")
        assert work is not None
        assert len(work.batch.tasks) <= 2
        endpoint.finish(work, "r1")
        rendered += len(work.batch.tasks)
        endpoint.after(1)
    assert set(endpoint.statuses(tasks)) == {Status.SUCCEEDED}


def test_a_draining_broker_gives_out_nothing_and_keeps_what_waits(endpoint: Endpoint) -> None:
    tasks = endpoint.submit(2)
    endpoint.broker.drain()
    assert endpoint.pull("r1") is None
    assert endpoint.statuses(tasks) == [Status.PENDING] * 2
    assert FleetReport.model_validate(endpoint.store.notes.read(NOTE)).draining


def test_what_is_asked_for_is_scaled_up_and_what_idles_is_given_back(make: Callable[..., Endpoint]) -> None:
    endpoint = make(queue=Queue(lease_s=1e6))
    assert endpoint.broker.sizes(0, 4) == {"small": 1, "swift": 0}
    (task,) = endpoint.submit(variant="swift", fall_back=False)
    assert endpoint.broker.sizes(0, 4)["swift"] == 1
    work = endpoint.pull("s1", "swift")
    assert work is not None
    endpoint.finish(work, "s1")
    assert endpoint.statuses([task]) == [Status.SUCCEEDED]
    assert endpoint.broker.sizes(0, 4)["swift"] == 1  # not at once
    endpoint.after(endpoint.config.pools.idle_to_zero_s + 60)
    assert endpoint.broker.sizes(0, 4) == {"small": 1, "swift": 0}


def test_a_replica_that_still_renders_for_a_broker_of_before_is_not_scaled_away(endpoint: Endpoint) -> None:
    (task,) = endpoint.submit(variant="swift", fall_back=False)
    work = endpoint.pull("s1", "swift")
    assert work is not None
    endpoint.broker = endpoint.started()
    assert endpoint.broker.sizes(0, 4)["swift"] == 0  # nothing is known of it
    endpoint.broker.beat(Beat("s1", (Progress(task.id, 1, 0.5, "rendering"),), "swift"))
    assert endpoint.broker.sizes(0, 4)["swift"] == 1
    endpoint.clock.at += endpoint.config.queue.lease_s + 400
    assert endpoint.broker.sizes(0, 4)["swift"] == 0  # it was not heard again


def test_replicas_never_ask_for_more_cpus_than_there_are(endpoint: Endpoint) -> None:
    endpoint.submit(200, variant="swift", fall_back=False)
    endpoint.submit(200)
    assert sum(endpoint.broker.sizes(0, 2).values()) == 2


def test_what_calls_took_is_kept_and_changes_the_next_quote(endpoint: Endpoint) -> None:
    before = endpoint.broker.report().pools
    for _ in range(12):
        endpoint.submit(1)
        work = endpoint.pull("r1")
        assert work is not None
        ended = tuple(Ended(lease, succeeded("small")) for lease in work.leases)
        endpoint.broker.done(Results("r1", work.batch.group, ended, 20.0))
    endpoint.after(11)
    assert endpoint.store.notes.read(CALIBRATION)
    again = endpoint.started()
    endpoint.broker = again
    endpoint.pull("r1")
    endpoint.submit(2, width=96, height=64)
    endpoint.submit(1)
    backlog_s = next(pool.backlog_s for pool in again.report().pools if pool.variant == "small")
    assert backlog_s > 20
    assert next(pool.backlog_s for pool in before if pool.variant == "small") < 1

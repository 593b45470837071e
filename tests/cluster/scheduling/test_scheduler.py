"""The scheduler: facts, effects, and that nothing follows from an effect before it is durable."""

import copy
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cost.calibration import CostModelPrior
from cluster.cost.service_times import ServiceTimes
from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling.attempts import AttemptRules
from cluster.scheduling.events import (
    Began,
    DeadLetter,
    Ended,
    Finish,
    GrantLease,
    Heartbeat,
    Interrupted,
    LoadFailed,
    Reclaim,
    Rendered,
    Retry,
    Submitted,
    Tick,
    WorkerLost,
    WorkerUp,
    WorkRequested,
)
from cluster.scheduling.job import Call, Job, Lease
from cluster.scheduling.memory import FixedMemory
from cluster.scheduling.planner import AcceleratorGroup
from cluster.scheduling.scheduler import Scheduler, SchedulerConfig
from cluster.scheduling.workers import ServedVariant
from schemas.clip import Status
from tests.cluster.test_topology import variant

CALL = Call("kind", (64, 64, 17, 4, 0.0))
LEASE_S = 8.0


@dataclass(frozen=True)
class Row:
    """As the store tells it."""

    seq: int
    id: str
    status: Status
    epoch: int = 0
    attempts: int = 0
    holder: str = ""


def made(workers: int = 1, batch: int = 4, maximum: int = 0) -> Scheduler:
    one = variant("v", 1).model_copy(update={"max_batch": batch})
    rules = AttemptRules(LEASE_S, 3, 1.0)
    scheduler = Scheduler(
        [ServedVariant(one, "H100", 0, maximum, 10.0)],
        [AcceleratorGroup("H100")],
        ServiceTimes(CostModelPrior([one])),
        batch_size=lambda variant, accelerator, call, ready: min(ready, batch),
        config=SchedulerConfig(rules),
        now=-LEASE_S,
    )
    for number in range(workers):
        scheduler.record(WorkerUp(f"w{number}", "H100", FixedMemory(0), "v"), 0.0)
    return scheduler


def job(seq: int, **changes: object) -> Job:
    request = RoutingRequest(Terms(variant="v"), task=seq)
    return Job(seq, f"t{seq}", request, {"v": CALL}, "v", **changes)  # type: ignore[arg-type]


def leases(grant: GrantLease, scheduler: Scheduler) -> tuple[Lease, ...]:
    """What a store would grant."""
    found = []
    for seq in grant.seqs:
        waits = scheduler.job(seq)
        assert waits is not None
        found.append(Lease(waits.id, seq, waits.epoch + 1, waits.attempts + 1))
    return tuple(found)


def granted(scheduler: Scheduler, now: float = 1.0, worker: str = "w0") -> tuple[Lease, ...]:
    grant = scheduler.next_lease(worker, now)
    assert grant is not None
    given = leases(grant, scheduler)
    scheduler.apply(grant, given, now)
    return given


def began(scheduler: Scheduler, given: tuple[Lease, ...], now: float = 1.0, worker: str = "w0") -> None:
    scheduler.record(Began(worker, frozenset((lease.task_id, lease.epoch) for lease in given)), now)


def test_what_could_not_be_made_durable_is_decided_again() -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1), job(2))), 1.0)
    first = scheduler.decide(None, 1.0)
    assert first == scheduler.decide(None, 1.0), "deciding changes nothing"
    (grant,) = first
    assert isinstance(grant, GrantLease)
    scheduler.record(Tick(), 2.0)  # the store said no
    assert scheduler.decide(None, 2.0) == (grant,)
    scheduler.apply(grant, leases(grant, scheduler), 3.0)
    assert scheduler.decide(None, 3.0) == ()
    assert scheduler.waiting() == 0


def test_two_idle_workers_are_never_given_the_same_task() -> None:
    scheduler = made(workers=3, batch=2)
    scheduler.record(Submitted(tuple(map(job, range(1, 8)))), 1.0)
    seqs = [seq for effect in scheduler.decide(None, 1.0) if isinstance(effect, GrantLease) for seq in effect.seqs]
    assert len(seqs) == len(set(seqs))


def test_a_task_that_was_not_granted_waits_no_more() -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1), job(2))), 1.0)
    (grant,) = scheduler.decide(None, 1.0)
    assert isinstance(grant, GrantLease)
    kept = leases(grant, scheduler)[1:]
    scheduler.apply(grant, kept, 1.0)
    assert scheduler.waiting() == 0
    assert [held.lease for held in scheduler.attempts.all()] == list(kept)


def test_a_lease_that_nobody_began_costs_no_attempt_and_one_that_was_begun_does() -> None:
    for begin in (False, True):
        scheduler = made()
        scheduler.record(Submitted((job(1),)), 1.0)
        given = granted(scheduler)
        if begin:
            began(scheduler, given)
        (effect,) = [x for x in scheduler.decide(None, 2.0 + LEASE_S) if isinstance(x, Retry)]
        assert effect.spent is begin
        scheduler.apply(effect, Status.PENDING, 2.0 + LEASE_S)
        waits = scheduler.job(1)
        assert waits is not None
        assert (waits.attempts, waits.epoch) == ((1, 1) if begin else (0, 2))


def test_a_worker_that_was_only_slow_may_go_on_until_somebody_else_has_its_task() -> None:
    scheduler = made(workers=2)
    scheduler.record(Submitted((job(1),)), 1.0)
    given = granted(scheduler)
    began(scheduler, given)
    (retry,) = [x for x in scheduler.decide(None, 10.0) if isinstance(x, Retry)]
    scheduler.apply(retry, Status.PENDING, 10.0)
    beat = Heartbeat("w0", frozenset({("t1", 1)}))
    assert [type(x) for x in scheduler.decide(beat, 10.5)] == [Reclaim]
    scheduler.record(WorkRequested("w1"), 12.0)
    scheduler.record(Tick(), 12.0)
    granted(scheduler, 12.0, "w1")
    assert scheduler.decide(beat, 12.5) == ()


def test_silence_says_nothing_after_an_interruption() -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1),)), 1.0)
    began(scheduler, granted(scheduler))
    scheduler.record(Interrupted(), 100.0)
    scheduler.record(Tick(), 100.0 + LEASE_S - 0.1)
    assert scheduler.decide(None, 100.0 + LEASE_S - 0.1) == ()
    assert [type(x) for x in scheduler.decide(None, 100.1 + LEASE_S)] == [Retry]


@pytest.mark.parametrize("blameless", [True, False])
def test_what_the_object_store_ends_is_no_attempt(blameless: bool) -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1),)), 1.0)
    (lease,) = granted(scheduler)
    effect = scheduler.ended(Ended(lease, "cannot be stored", "StoreError", blameless), 2.0)
    assert isinstance(effect, Retry)
    assert effect.spent is not blameless


def test_the_last_attempt_ends_as_a_dead_letter() -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1, attempts=2, epoch=2),)), 1.0)
    (lease,) = granted(scheduler)
    assert lease.attempt == 3
    effect = scheduler.ended(Ended(lease, "boom", "Boom"), 2.0)
    assert isinstance(effect, DeadLetter)
    assert effect.leased
    assert isinstance(scheduler.ended(Ended(lease), 2.0), Finish)


def test_a_retry_is_tried_alone() -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1, attempts=1, epoch=1), job(2), job(3))), 1.0)
    sizes = []
    for _ in range(2):
        given = granted(scheduler)
        sizes.append(sorted(lease.seq for lease in given))
        for lease in given:
            scheduler.apply(scheduler.ended(Ended(lease), 2.0), Status.SUCCEEDED, 2.0)
        scheduler.record(WorkRequested("w0"), 2.0)
    assert sorted(sizes) == [[1], [2, 3]]


def test_what_nobody_told_is_found_by_comparing_with_the_rows() -> None:
    scheduler = made()
    scheduler.record(Submitted((job(1), job(2))), 1.0)
    as_of = scheduler.version
    rows = [
        Row(2, "t2", Status.RUNNING, 1, 1, "w0"),  # leased, and nobody heard of it; t1 was cancelled
        Row(3, "t3", Status.PENDING),
    ]
    assert scheduler.reconcile(rows, as_of, 2.0) == ("t3",)
    assert scheduler.waiting() == 0
    held = scheduler.attempts.held("t2")
    assert held is not None
    assert not held.began
    assert scheduler.reconcile([Row(3, "t3", Status.PENDING)], scheduler.version, 3.0) == ("t3",)
    assert scheduler.attempts.all() == ()


def test_rows_that_were_read_before_a_change_do_not_undo_it() -> None:
    scheduler = made()
    as_of = scheduler.version
    scheduler.record(Submitted((job(1),)), 1.0)
    assert scheduler.reconcile([], as_of, 2.0) == ()
    assert scheduler.waiting() == 1
    as_of = scheduler.version
    granted(scheduler)
    assert scheduler.reconcile([Row(1, "t1", Status.PENDING)], as_of, 2.0) == ()
    assert scheduler.attempts.held("t1") is not None


def test_a_variant_that_never_loads_ends_what_waits_for_it() -> None:
    scheduler = made(workers=0, maximum=1)
    scheduler.record(Tick(), 0.0)
    scheduler.record(Submitted((job(1),)), 1.0)
    for _ in range(3):
        scheduler.record(LoadFailed("v", "no such file"), 2.0)
    (effect,) = scheduler.decide(None, 2.0)
    assert isinstance(effect, DeadLetter)
    assert "cannot be loaded" in effect.failure
    assert "no such file" not in effect.failure


def test_a_backlog_is_read_whole_no_more_often_than_it_turns_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.scheduling.scheduler._FEW_INSIDE", 10)
    scheduler = made(batch=1)
    scheduler.record(Submitted(tuple(map(job, range(1, 201)))), 1.0)
    read: list[float] = []
    completions = scheduler.planner.completions
    monkeypatch.setattr(scheduler.planner, "completions", lambda now: (read.append(now), completions(now))[1])
    monkeypatch.setattr(scheduler.planner, "reestimate", lambda now: read.append(now))
    for turn in range(100):
        now = 10.0 + 3.0 * turn
        (lease,) = granted(scheduler, now)
        began(scheduler, (lease,), now)
        held = scheduler.attempts.held(lease.task_id)
        assert held is not None
        seconds = 2.0 * 1.5 ** (turn % 7)  # predictions have changed each time
        scheduler.record(Rendered("w0", "v", held.job, 1, seconds), now)
        scheduler.apply(scheduler.ended(Ended(lease), now), Status.SUCCEEDED, now)
        scheduler.record(WorkRequested("w0", frozenset()), now)
        scheduler.record(Tick(), now)
    assert 2 <= len(read) <= 6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=30))
def test_deciding_never_changes_anything(steps: list[tuple[int, int]]) -> None:
    scheduler = made(workers=2)
    now, seq = 1.0, 0
    for kind, which in steps:
        now += 0.7
        worker = f"w{which % 2}"
        if kind <= 2:
            seq += 1
            scheduler.record(Submitted((job(seq, tenant=f"k{which}", priority=which),)), now)
        elif kind == 3:
            scheduler.record(WorkRequested(worker), now)
            if scheduler.next_lease(worker, now) is not None:
                began(scheduler, granted(scheduler, now, worker), now, worker)
        elif kind == 4:
            for held in scheduler.attempts.of(worker)[:1]:
                scheduler.apply(scheduler.ended(Ended(held.lease), now), Status.SUCCEEDED, now)
        elif kind == 5:
            scheduler.record(WorkerLost(worker, "died"), now)
            scheduler.record(WorkerUp(worker, "H100", FixedMemory(0), "v"), now)
        else:
            now += LEASE_S
            scheduler.record(Tick(), now)
        before = _state(scheduler)
        effects = scheduler.decide(None, now)
        assert scheduler.decide(None, now) == effects
        assert _state(scheduler) == before
        for effect in effects:
            if isinstance(effect, Retry):
                scheduler.apply(effect, Status.PENDING, now)


def _state(scheduler: Scheduler) -> bytes:
    seen = (
        scheduler.version,
        sorted(scheduler.planner.timelines.waiting.items()),
        list(scheduler.planner.completions(1e4)),
        [copy.copy(vars(held)) for held in scheduler.attempts.all()],
        [vars(worker) for worker in scheduler.workers.values()],
        scheduler.planner.parked,
        scheduler.eta.state.model_dump(),
    )
    return pickle.dumps(seen)

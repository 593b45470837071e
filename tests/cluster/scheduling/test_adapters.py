"""Tasks that bring adapters go where those are, as far as that is sooner, and their loads are in what is predicted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routing.router import Choice
from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling.adapters import Residency
from cluster.scheduling.events import Began, Finish, GrantLease, Rendered, Submitted, WorkRequested
from cluster.scheduling.planner import Planner
from schemas.clip import Status
from schemas.loras import Lora, brought
from tests.cluster.scheduling.test_planner import planner
from tests.cluster.scheduling.test_scheduler import job, leases, made

LOAD_S = 2.0
INK, CLAY = ("ink@",), ("clay@",)


def wanted(task: int, brings: tuple[str, ...] = ()) -> RoutingRequest:
    return RoutingRequest(Terms(variant="v"), task=task, brings=brings)


def done(live: Planner, replica: int, task: int, now_s: float, brings: tuple[str, ...] = ()) -> None:
    """The replica alone is free, and renders the task."""
    for other in live.timelines.place:
        if other != replica:
            live.occupy(other, 1e5, now_s)
    live.submit(task, wanted(task, brings), now_s)
    start = live.peek(replica, now_s)
    assert start is not None
    assert start.task == task
    live.start(start, now_s)
    for each in live.timelines.place:
        live.finish(each, now_s + 10)


def placed(live: Planner, task: int, now_s: float, brings: tuple[str, ...] = ()) -> tuple[object, Choice]:
    """The replica that a task would go to, and what is said of it."""
    choice = live.submit(task, wanted(task, brings), now_s)
    where = live.timelines.waiting[task]
    live.withdraw(task, now_s)
    return where, choice


@pytest.mark.parametrize("holder", [0, 1, 2])
def test_of_replicas_that_are_alike_the_one_that_holds_the_adapter_gets_the_task(holder: int) -> None:
    live = planner(3)
    done(live, holder, 1, 0.0, INK)
    where, choice = placed(live, 2, 100.0, INK)
    assert (where, choice.start_s, choice.completion_s) == (holder, 100.0, 110.0)
    assert placed(live, 3, 100.0)[1].start_s == 100.0, "what brings none loads none"


def test_another_one_loads_it_where_that_is_sooner_than_waiting() -> None:
    live = planner(2)
    done(live, 0, 1, 0.0, INK)
    live.occupy(0, LOAD_S - 0.5, 100.0)
    assert placed(live, 2, 100.0, INK)[0] == 0
    live.occupy(0, LOAD_S + 0.5, 100.0)
    where, choice = placed(live, 3, 100.0, INK)
    assert (where, choice.start_s) == (1, 100.0 + LOAD_S)


def test_several_adapters_are_loaded_as_far_as_they_are_not_there() -> None:
    live = planner(1)
    done(live, 0, 1, 0.0, INK)
    assert placed(live, 2, 100.0, (*INK, *CLAY))[1].start_s == 100.0 + LOAD_S
    assert placed(live, 3, 100.0, ("wood@", *CLAY))[1].start_s == 100.0 + 2 * LOAD_S


def test_what_waits_brings_its_adapter_for_those_behind_it() -> None:
    live = planner(2)
    for replica in (0, 1):
        live.occupy(replica, 50.0, 0.0)
    live.submit(1, wanted(1, INK), 0.0)
    first = live.timelines.waiting[1]
    live.submit(2, wanted(2), 0.0)
    assert live.timelines.waiting[2] != first
    where, choice = placed(live, 3, 0.0, INK)
    assert (where, choice.start_s) == (first, 50.0 + LOAD_S + 10.0)
    live.withdraw(1, 0.0)
    assert placed(live, 4, 0.0, INK)[1].start_s == 50.0 + LOAD_S, "with it goes what it would have brought"


def test_a_replica_that_is_gone_holds_nothing() -> None:
    live = planner(2)
    done(live, 0, 1, 0.0, INK)
    live.occupy(0, 50.0, 20.0)
    live.occupy(1, 60.0, 20.0)
    live.submit(2, wanted(2, INK), 20.0)
    assert live.lost([0], 20.0) == [2]
    live.finish(1, 80.0)
    where, choice = placed(live, 3, 100.0, INK)
    assert (where, choice.start_s) == (1, 100.0 + LOAD_S)


def test_a_task_is_taken_over_only_where_that_pays_for_its_adapter() -> None:
    for left_s, steals in ((LOAD_S + 0.5, False), (LOAD_S + 20.0, True)):
        live = planner(2)
        done(live, 0, 1, 0.0, INK)
        live.occupy(1, 100.0, 100.0)
        live.occupy(0, left_s, 100.0)
        live.submit(2, wanted(2, INK), 100.0)
        assert live.timelines.waiting[2] == 0
        live.finish(1, 100.0)
        start = live.peek(1, 100.0)
        assert (start is not None) is steals
        assert start is None or start.load_s == LOAD_S


def test_the_adapters_of_lately_are_kept_and_no_others() -> None:
    kept = Residency(LOAD_S, most=2)
    assert kept.use("r", ("a", "b")) == 2 * LOAD_S
    assert kept.use("r", ("a",)) == 0.0
    assert kept.use("r", ("c",)) == LOAD_S, "and b is let go of, which was used before a"
    assert [kept.missing_s("r", (one,)) for one in "abc"] == [0.0, LOAD_S, 0.0]
    assert kept.use("r", ("a", "b", "c")) == LOAD_S, "those of one task all act at once"
    assert kept.all_missing_s({"q": 0, "r": 1}, ("a", "d")).tolist() == [2 * LOAD_S, LOAD_S]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_what_a_plan_counts_is_what_waits_whatever_happened(seed: int) -> None:
    dice = random.Random(seed)
    live = planner(4)
    for task in range(120):
        now_s = float(task)
        brings = tuple(dice.sample(("a", "b", "c", "d"), dice.choice((0, 0, 1, 2))))
        live.submit(task, wanted(task, brings), now_s)
        replica = dice.randrange(4)
        if replica in live.timelines.place:
            live.finish(replica, now_s)
            if dice.random() < 0.6 and (start := live.peek(replica, now_s)) is not None:
                live.start(start, now_s)
        if dice.random() < 0.2 and live.timelines.waiting:
            live.withdraw(dice.choice(sorted(live.timelines.waiting)), now_s)
    timelines = live.timelines
    for replica in timelines.replicas:
        coming = {one for planned in replica.queue for one in planned.brings}
        assert coming <= set(timelines.adapters.of(replica.name))
        assert replica.pending_s == pytest.approx(sum(planned.total_s for planned in replica.queue))
    assert timelines.loading_s == pytest.approx(sum(p.load_s for each in timelines.replicas for p in each.queue))


def test_a_lora_is_what_it_is_whatever_its_weight() -> None:
    loras = [Lora(source="ink", weight=0.5), Lora(source="clay", weight=0), Lora(source="wood", digest="d")]
    assert brought(loras) == ("ink@", "wood@d")


def test_calls_are_learnt_without_the_adapters_that_they_loaded() -> None:
    """A call that loaded one took two seconds more: what a call takes is predicted as if it had not."""
    scheduler = made(1, batch=1)
    plain = scheduler.task_times.predict("v", "H100", job(1).calls["v"], 1, "").seconds
    for seq in range(1, 13):
        brings = (f"lora-{seq}@",)  # none comes twice
        one = job(seq)._replace(request=wanted(seq, brings))
        scheduler.record(Submitted((one,)), 100.0 * seq)
        grant = scheduler.next_lease("w0", 100.0 * seq)
        assert isinstance(grant, GrantLease)
        assert grant.load_s == LOAD_S
        (lease,) = leases(grant, scheduler)
        scheduler.apply(grant, (lease,), 100.0 * seq)
        scheduler.record(Began("w0", frozenset({(lease.task_id, lease.epoch)})), 100.0 * seq)
        took_s = 3 * plain + LOAD_S
        scheduler.record(Rendered("w0", "v", one, 1, took_s), 100.0 * seq + took_s)
        scheduler.apply(Finish(lease), Status.SUCCEEDED, 100.0 * seq + took_s)
        scheduler.record(WorkRequested("w0"), 100.0 * seq + took_s)
    learnt = scheduler.task_times.predict("v", "H100", job(1).calls["v"], 1, "").seconds
    assert learnt == pytest.approx(max(3 * plain, (3 * plain + LOAD_S) / 2), rel=0.15)

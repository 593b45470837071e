"""The live policy: shares and ageing, stealing, and what happens to tasks whose replica is gone."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dispatch import Dispatcher, Group, Start
from cluster.fairness import AGEING_S, Shares
from cluster.habits import leaves_room
from cluster.routing import Estimate
from cluster.story import Reason
from cluster.terms import PoolView, Terms, Wanted
from cluster.timeline import FixedMemory
from schemas.catalog import Variant
from tests.cluster.test_topology import variant

TERMS = [Terms(variant="v"), Terms(variant="w")]


def ten_seconds(pool: PoolView, wanted: Wanted) -> float:
    return 10.0


def dispatcher(replicas: int = 2, variants: int = 1, estimate: Estimate = ten_seconds) -> Dispatcher:
    names: list[Variant] = [variant(name, 1) for name in "vw"[:variants]]
    made = Dispatcher(names, [Group("H100", price_usd_per_hour=3600.0)], estimate=estimate, shares=Shares(replicas))
    made.gained([(number, "H100", FixedMemory(number % variants)) for number in range(replicas)], 0.0)
    return made


class SlowMemory(FixedMemory):
    """Loads for so long that nothing is ever better off there."""

    def __init__(self) -> None:
        super().__init__(0)

    def load_s(self, variant: int) -> float:
        return 1e6


def wanted(task: int, variant_number: int = 0, **limits: float) -> Wanted:
    return Wanted(TERMS[variant_number], task=task, **limits)  # type: ignore[arg-type]


def drained(live: Dispatcher, running: dict[int, int], now_s: float = 10.0) -> list[int]:
    """Every task that runs takes ten seconds, until nothing waits; the tasks in the order of their starts."""
    order = []
    while running:
        started: list[Start] = []
        for replica in sorted(running):
            started += live.free(replica, now_s)
        running = {int(str(start.replica)): start.task for start in started}
        order += [start.task for start in started]
        now_s += 10.0
    return order


def fill(live: Dispatcher, tasks: int) -> dict[int, int]:
    running = {}
    for task in range(tasks):
        for start in live.submit(task, wanted(task), 0.0)[1]:
            running[int(str(start.replica))] = start.task
    return running


def test_a_tenant_alone_is_served_in_the_order_of_arrival() -> None:
    live = dispatcher(1)
    running = fill(live, 8)
    assert drained(live, running) == list(range(1, 8))


def test_a_tenant_that_asks_for_much_does_not_hold_up_one_that_asks_for_little() -> None:
    live = dispatcher(1)
    running = fill(live, 1)
    for task in range(1, 40):
        live.submit(task, wanted(task), 1.0, tenant="greedy")
    live.submit(100, wanted(100), 2.0, tenant="modest")
    order = drained(live, running)
    assert order.index(100) <= 2
    assert sorted(order) == [*range(1, 40), 100]


def test_two_tenants_with_weights_share_by_them() -> None:
    shares = Shares(1.0, {"a": 3.0})
    keys = []
    for turn in range(400):
        keys.append((shares.enter("a", 0, 10.0, 0.0), "a", turn))
        keys.append((shares.enter("b", 0, 10.0, 0.0), "b", turn))
    first = [tenant for _, tenant, _ in sorted(keys)[:200]]
    assert first.count("a") / first.count("b") == pytest.approx(3, rel=0.1)


def test_a_priority_goes_first_and_a_task_that_has_waited_for_it_is_not_overtaken() -> None:
    live = dispatcher(1)
    running = fill(live, 2)
    live.submit(2, wanted(2), 1.0, priority=1)
    # A level is worth AGEING_S of waiting: what comes later than that goes behind.
    live.submit(3, wanted(3), 1.0 + AGEING_S + 200.0, priority=1)
    assert drained(live, running) == [2, 1, 3]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.floats(0, 300)), min_size=2, max_size=60))
def test_nobody_starves(arrivals: list[tuple[int, str, float]]) -> None:
    """A task is only overtaken by those whose key is smaller, and keys of later tasks grow with the clock."""
    live = dispatcher(1)
    now_s, keys = 0.0, {}
    for task, (priority, tenant, gap_s) in enumerate(arrivals):
        now_s += gap_s
        keys[task] = live.shares.enter(tenant, priority, 10.0, now_s)
        assert keys[task] >= now_s - priority * AGEING_S
    last = max(keys.values())
    later = live.shares.enter("new", 3, 10.0, last + 3 * AGEING_S + 1)
    assert later > last


def test_a_replica_that_runs_dry_takes_over_what_waits_elsewhere() -> None:
    live = dispatcher(2)
    running = fill(live, 12)
    started: list[int] = []
    for turn in range(20):  # replica 0 is far quicker than was predicted, replica 1 never comes back
        started += [start.task for start in live.free(0, 0.5 + turn * 0.5)]
    assert sorted(started) == sorted(set(range(12)) - set(running.values()))


def test_tasks_of_a_replica_that_is_gone_are_given_back_and_can_go_elsewhere() -> None:
    live = dispatcher(2)
    running = fill(live, 6)
    lost = live.lost([0])
    assert running[0] in lost
    starts = []
    for task in lost:
        choice, started = live.submit(task, wanted(task), 3.0, admitted=True)
        assert choice.routed
        starts += started
    order = drained(live, {1: running[1]})
    assert sorted([running[1], *order]) == list(range(6))


def test_what_a_dead_replica_had_starts_before_what_waits_elsewhere() -> None:
    live = dispatcher(2)
    running = fill(live, 8)
    lost = live.lost([0])
    for task in lost:
        choice, _ = live.submit(task, wanted(task), 5.0, admitted=True)
        assert choice.start_s <= 10.0 + 10.0 * lost.index(task), "behind those it goes ahead of, it was promised"
    assert set(drained(live, {1: running[1]})[: len(lost)]) == set(lost)


def test_a_task_that_lost_its_replica_is_placed_where_its_turn_comes_first_not_where_the_queue_ends_first() -> None:
    live = dispatcher(3, estimate=lambda pool, wanted: 100.0 if wanted.task == 1 else 10.0)
    running = fill(live, 19)  # one of them runs for long with nobody behind it, the others have eight waiting each
    at_work = next(replica for replica, task in running.items() if task == 1)
    gone, stays = (replica for replica in range(3) if replica != at_work)
    first, *_ = live.lost([gone])
    choice, _ = live.submit(first, wanted(first), 5.0, admitted=True)
    assert choice.start_s == 10.0
    assert first in [planned.task for planned in live.timelines.lanes[live.timelines.place[stays]].queue]


def test_a_move_from_one_who_never_ran_anything_gives_no_head_start() -> None:
    live = dispatcher(1)
    running = fill(live, 3)
    live.gained([("cold", "H100", SlowMemory())], 0.0)
    live.timelines.enqueue(live.timelines.place["cold"], 10, 0, 10.0, 15.0, 3.0)
    assert live.lost(["cold"]) == [10]
    live.submit(10, wanted(10), 4.0, admitted=True)
    assert drained(live, running) == [1, 10, 2]


def test_a_tenant_pays_for_a_task_once_however_often_its_replica_dies() -> None:
    live = dispatcher(2)
    fill(live, 4)
    before = live.shares.enter("", 0, 0.0, 0.0)
    for task in live.lost([0]):
        live.submit(task, wanted(task), 0.0, admitted=True)
    assert live.shares.enter("", 0, 0.0, 0.0) == before


def test_admitted_tasks_wait_for_somebody_to_come_up_when_nobody_is() -> None:
    live = dispatcher(1)
    running = fill(live, 3)
    lost = live.lost([0])
    assert sorted(lost) == sorted([*running.values(), 1, 2])
    for task in lost:
        assert not live.submit(task, wanted(task), 3.0, admitted=True)[0].routed
    started = live.gained([(7, "H100", FixedMemory(0))], 9.0)
    assert len(started) == 1
    assert sorted([started[0].task, *drained(live, {7: started[0].task}, 20.0)]) == sorted(lost)


def test_the_forecast_grows_with_the_place_in_the_queue() -> None:
    live = dispatcher(1)
    fill(live, 10)
    forecasts = [live.timelines.forecast_s(task, 1.0) for task in range(1, 10)]
    assert [ahead for _, ahead in forecasts] == list(range(1, 10))
    assert all(a[0] < b[0] for a, b in itertools.pairwise(forecasts))


def test_a_new_prediction_moves_every_forecast_of_the_queue() -> None:
    seconds = {"a task": 10.0}
    live = dispatcher(1, estimate=lambda pool, wanted: seconds["a task"])
    fill(live, 5)
    before, _ = live.timelines.forecast_s(4, 0.0)
    seconds["a task"] = 2.0
    live.reestimate(0.0)
    after, ahead = live.timelines.forecast_s(4, 0.0)
    assert (before, after, ahead) == (50.0, 10.0 + 4 * 2.0, 4)
    assert live.preview(wanted(9), 0.0).start_s == after


def test_a_deadline_that_cannot_be_kept_is_refused_with_the_earliest_that_could() -> None:
    live = dispatcher(1)
    fill(live, 5)
    choice, started = live.submit(9, wanted(9, deadline_s=30.0), 0.0)
    assert (choice.routed, choice.reason, started) == (False, Reason.TOO_LATE, [])
    assert choice.earliest_s == 60.0
    assert live.submit(9, wanted(9, deadline_s=choice.earliest_s * 2), 0.0)[0].routed
    assert live.submit(10, wanted(10, deadline_s=1.0), 0.0, admitted=True)[0].routed, "late rather than refused"


def test_a_preview_changes_nothing() -> None:
    live = dispatcher(2)
    fill(live, 6)
    assert live.preview(wanted(50), 1.0) == live.preview(wanted(50), 1.0)
    assert live.preview(wanted(50), 1.0).completion_s == live.submit(50, wanted(50), 1.0)[0].completion_s


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_whatever_happens_every_task_starts_once_or_is_given_back(seed: int, replicas: int) -> None:
    random = np.random.default_rng(seed)
    live = dispatcher(replicas, variants=2 if replicas > 1 else 1)
    up, running, started, withdrawn = set(range(replicas)), {}, [], set()

    def note(starts: list[Start]) -> None:
        for start in starts:
            running[int(str(start.replica))] = start.task
            started.append(start.task)

    now_s, refused = 0.0, set()
    for task in range(40):
        now_s += float(random.exponential(3.0))
        draw = random.random()
        if draw < 0.35 and running:
            replica = sorted(running)[int(random.integers(len(running)))]
            del running[replica]
            note(live.free(replica, now_s))
        elif draw < 0.42 and len(up) > 1:
            replica = sorted(up)[int(random.integers(len(up)))]
            up.remove(replica)
            running.pop(replica, None)
            for lost in live.lost([replica]):
                if lost in started:
                    started.remove(lost)
                note(live.submit(lost, wanted(lost, lost % 2 if replicas > 1 else 0), now_s, admitted=True)[1])
        elif draw < 0.5 and len(up) < replicas:
            replica = min(set(range(replicas)) - up)
            up.add(replica)
            note(live.gained([(replica, "H100", FixedMemory(replica % (2 if replicas > 1 else 1)))], now_s))
        elif draw < 0.55 and live.timelines.waiting:
            victim = next(iter(live.timelines.waiting))
            live.withdraw(victim, now_s)
            withdrawn.add(victim)
        choice, starts = live.submit(task, wanted(task, task % 2 if replicas > 1 else 0), now_s, tenant=task % 3)
        if not choice.routed:
            refused.add(task)
            assert choice.reason in (Reason.NO_CAPACITY, Reason.TOO_LATE, Reason.NO_ELIGIBLE)
        note(starts)
    assert len(set(started)) == len(started)
    inside = set(started) | set(live.timelines.waiting) | withdrawn | refused | set(live._parked)
    assert inside == set(range(40))


@given(st.floats(0, 1), st.floats(0.1, 100), st.floats(0.1, 100))
def test_short_tasks_get_the_last_room_before_long_ones(pressure: float, short_s: float, longer_s: float) -> None:
    usual_s = 10.0
    if leaves_room(pressure, short_s + longer_s, usual_s, 0.5):
        assert leaves_room(pressure, short_s, usual_s, 0.5)
    assert leaves_room(pressure, math.inf, usual_s, 0.0)

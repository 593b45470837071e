"""The planner: shares and ageing, stealing, and what happens to tasks whose replica is gone."""

import itertools
import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routing.decision_trace import Reason
from cluster.routing.router import Estimate
from cluster.routing.terms import PoolView, RoutingRequest, Terms
from cluster.scheduling.fairness import AGEING_S, FairShares
from cluster.scheduling.planner import AcceleratorGroup, Planner
from cluster.scheduling.timelines import FixedMemory
from schemas.catalog import Variant
from tests.cluster.test_topology import variant

TERMS = [Terms(variant="v"), Terms(variant="w")]


def ten_seconds(pool: PoolView, wanted: RoutingRequest) -> float:
    return 10.0


def planner(replicas: int = 2, variants: int = 1, estimate: Estimate = ten_seconds) -> Planner:
    names: list[Variant] = [variant(name, 1) for name in "vw"[:variants]]
    made = Planner(
        names, [AcceleratorGroup("H100", price_usd_per_hour=3600.0)], estimate=estimate, shares=FairShares(replicas)
    )
    made.gained([(number, "H100", FixedMemory(number % variants)) for number in range(replicas)], 0.0)
    return made


class SlowMemory(FixedMemory):
    """Loads for so long that nothing is ever better off there."""

    def __init__(self) -> None:
        super().__init__(0)

    def load_s(self, variant: int) -> float:
        return 1e6


def wanted(task: int, variant_number: int = 0, **limits: float) -> RoutingRequest:
    return RoutingRequest(TERMS[variant_number], task=task, **limits)  # type: ignore[arg-type]


def drained(live: Planner, running: dict[int, int], now_s: float = 10.0) -> list[int]:
    """Every task that runs takes ten seconds, until nothing waits; the tasks in the order of their starts."""
    order = []
    while running:
        for replica in sorted(running):
            live.finish(replica, now_s)
        running = started(live, sorted(running), now_s)
        order += running.values()
        now_s += 10.0
    return order


def started(live: Planner, replicas: Iterable[int], now_s: float) -> dict[int, int]:
    """Every replica that is free and finds something begins it; the tasks by replica."""
    found = {}
    for replica in replicas:
        start = live.peek(replica, now_s)
        if start is not None:
            live.start(start, now_s)
            found[replica] = start.task
    return found


def fill(live: Planner, tasks: int) -> dict[int, int]:
    running: dict[int, int] = {}
    for task in range(tasks):
        live.submit(task, wanted(task), 0.0)
        running |= started(live, [int(str(replica)) for replica in live.timelines.place], 0.0)
    return running


def test_a_tenant_alone_is_served_in_the_order_of_arrival() -> None:
    live = planner(1)
    running = fill(live, 8)
    assert drained(live, running) == list(range(1, 8))


def test_a_tenant_that_asks_for_much_does_not_hold_up_one_that_asks_for_little() -> None:
    live = planner(1)
    running = fill(live, 1)
    for task in range(1, 40):
        live.submit(task, wanted(task), 1.0, tenant="greedy")
    live.submit(100, wanted(100), 2.0, tenant="modest")
    order = drained(live, running)
    assert order.index(100) <= 2
    assert sorted(order) == [*range(1, 40), 100]


def test_two_tenants_with_weights_share_by_them() -> None:
    shares = FairShares(1.0, {"a": 3.0})
    keys = []
    for turn in range(400):
        keys.append((shares.enter("a", 0, 10.0, 0.0), "a", turn))
        keys.append((shares.enter("b", 0, 10.0, 0.0), "b", turn))
    first = [tenant for _, tenant, _ in sorted(keys)[:200]]
    assert first.count("a") / first.count("b") == pytest.approx(3, rel=0.1)


def test_a_priority_goes_first_and_a_task_that_has_waited_for_it_is_not_overtaken() -> None:
    live = planner(1)
    running = fill(live, 2)
    live.submit(2, wanted(2), 1.0, priority=1)
    # A level is worth AGEING_S of waiting: what comes later than that goes behind.
    live.submit(3, wanted(3), 1.0 + AGEING_S + 200.0, priority=1)
    assert drained(live, running) == [2, 1, 3]


def test_a_priority_overtakes_nobody_else() -> None:
    live = planner(1)
    running = fill(live, 1)
    for task in (1, 2, 3):
        live.submit(task, wanted(task), 1.0, tenant="low")
        live.submit(task + 10, wanted(task), 1.0, tenant="modest")
    live.submit(20, wanted(20), 2.0, tenant="low", priority=100)
    order = drained(live, running)
    assert [task for task in order if 10 < task < 20] == [11, 12, 13]
    assert [order.index(task) for task in (11, 12, 13)] == [1, 3, 5], "as if all had been of one priority"
    assert [task for task in order if not 10 < task < 20] == [20, 1, 2, 3]


def test_a_task_of_high_priority_is_quoted_the_turn_that_it_takes_from_its_tenants_others() -> None:
    live = planner(1)
    fill(live, 6)
    assert live.preview(wanted(9), 1.0, priority=2).start_s == 10.0
    assert live.preview(wanted(9), 1.0).start_s == 60.0
    assert (
        live.preview(wanted(9), 1.0, priority=2, tenant="other").start_s
        == live.preview(wanted(9), 1.0, tenant="other").start_s
    )


def test_a_limit_of_the_tenant_lets_its_priorities_go_a_little_ahead() -> None:
    shares = FairShares(1.0, max_priority={"paid": 2})
    assert shares.key("paid", 100, 50.0) == 50.0 - 2 * AGEING_S
    assert shares.key("free", 100, 50.0) == 50.0
    assert shares.key("free", -1, 50.0) == 50.0 + AGEING_S


def test_a_share_that_a_tenant_is_given_between_its_quote_and_its_task_counts() -> None:
    live = planner(1)
    fill(live, 4)
    live.submit(8, wanted(8), 1.0, tenant="before it")
    quoted = live.preview(wanted(9), 1.0, tenant="hurried", priority=4)
    live.shares.limit("hurried", max_priority=4)
    assert live.submit(9, wanted(9), 1.0, tenant="hurried", priority=4).start_s < quoted.start_s


def test_a_newcomer_is_judged_by_its_turn_and_not_by_the_tail_of_the_queue() -> None:
    live = planner(1)
    fill(live, 1)
    for task in range(1, 200):
        live.submit(task, wanted(task), 1.0, tenant="flood", priority=-5)
    choice = live.preview(wanted(500, deadline_s=60.0), 2.0, tenant="modest")
    assert choice.routed
    assert choice.completion_s <= 30.0
    assert live.submit(500, wanted(500, deadline_s=60.0), 2.0, tenant="modest").completion_s == choice.completion_s


def test_a_newcomer_goes_behind_those_whose_deadlines_it_would_break() -> None:
    live = planner(1)
    fill(live, 1)
    for task in range(1, 5):  # the last of them is just in time
        assert live.submit(task, wanted(task, deadline_s=58.0), 1.0, tenant="first").routed
    choice = live.submit(9, wanted(9), 2.0, tenant="second")
    assert choice.start_s >= 50.0
    assert all(done_s <= 58.0 for task, done_s in live.completions(2.0) if task < 5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.floats(0, 300)), min_size=2, max_size=60))
def test_nobody_starves(arrivals: list[tuple[int, str, float]]) -> None:
    """A task is only overtaken by those whose key is smaller, and keys of later tasks grow with the clock."""
    live = planner(1)
    now_s, keys = 0.0, {}
    for task, (priority, tenant, gap_s) in enumerate(arrivals):
        now_s += gap_s
        keys[task] = live.shares.enter(tenant, priority, 10.0, now_s)
        assert keys[task] >= now_s - priority * AGEING_S
    last = max(keys.values())
    later = live.shares.enter("new", 3, 10.0, last + 3 * AGEING_S + 1)
    assert later > last


def test_a_replica_that_runs_dry_takes_over_what_waits_elsewhere() -> None:
    live = planner(2)
    running = fill(live, 12)
    begun: list[int] = []
    for turn in range(20):  # replica 0 is far quicker than was predicted, replica 1 never comes back
        live.finish(0, 0.5 + turn * 0.5)
        begun += started(live, [0], 0.5 + turn * 0.5).values()
    assert sorted(begun) == sorted(set(range(12)) - set(running.values()))


def test_tasks_of_a_replica_that_is_gone_are_given_back_and_can_go_elsewhere() -> None:
    live = planner(2)
    running = fill(live, 6)
    lost = live.lost([0], 3.0)
    assert running[0] in lost
    for task in lost:
        assert live.submit(task, wanted(task), 3.0, admitted=True).routed
    order = drained(live, {1: running[1]})
    assert sorted([running[1], *order]) == list(range(6))


def test_what_a_dead_replica_had_starts_before_what_waits_elsewhere() -> None:
    live = planner(2)
    running = fill(live, 8)
    lost = live.lost([0], 3.0)
    for task in lost:
        choice = live.submit(task, wanted(task), 5.0, admitted=True)
        assert choice.start_s <= 10.0 + 10.0 * lost.index(task), "behind those it goes ahead of, it was promised"
    assert set(drained(live, {1: running[1]})[: len(lost)]) == set(lost)


def test_what_a_dead_replica_had_is_not_put_behind_every_promise_when_its_own_is_broken() -> None:
    live = planner(2)
    for task in range(12):
        assert live.submit(task, wanted(task, deadline_s=65.0), 0.0).routed
        started(live, [0, 1], 0.0)
    lost = live.lost([0], 5.0)
    choices = [live.submit(task, wanted(task, deadline_s=65.0), 5.0, admitted=True) for task in lost]
    assert max(choice.start_s for choice in choices) <= 70.0, "behind the promises it would be 110"
    assert not live.preview(wanted(99, deadline_s=65.0), 5.0).routed, "others do not go before anybody's promise"


def test_a_task_that_lost_its_replica_is_placed_where_its_turn_comes_first_not_where_the_queue_ends_first() -> None:
    live = planner(3, estimate=lambda pool, wanted: 100.0 if wanted.task == 1 else 10.0)
    running = fill(live, 19)  # one of them runs for long with nobody behind it, the others have eight waiting each
    at_work = next(replica for replica, task in running.items() if task == 1)
    gone, stays = (replica for replica in range(3) if replica != at_work)
    first, *_ = live.lost([gone], 5.0)
    choice = live.submit(first, wanted(first), 5.0, admitted=True)
    assert choice.start_s == 10.0
    assert first in [planned.task for planned in live.timelines.replicas[live.timelines.place[stays]].queue]


def test_a_move_from_one_who_never_ran_anything_gives_no_head_start() -> None:
    live = planner(1)
    running = fill(live, 3)
    live.gained([("cold", "H100", SlowMemory())], 0.0)
    live.timelines.enqueue(live.timelines.place["cold"], 10, 0, 10.0, 15.0)
    assert live.lost(["cold"], 4.0) == [10]
    live.submit(10, wanted(10), 4.0, admitted=True)
    assert drained(live, running) == [1, 10, 2]


def test_a_tenant_pays_for_a_task_once_however_often_its_replica_dies() -> None:
    live = planner(2)
    fill(live, 4)
    before = live.shares.enter("", 0, 0.0, 0.0)
    for task in live.lost([0], 3.0):
        live.submit(task, wanted(task), 0.0, admitted=True)
    assert live.shares.enter("", 0, 0.0, 0.0) == before


def test_a_task_that_goes_elsewhere_keeps_its_turn_and_pays_once() -> None:
    live = planner(2)
    running = fill(live, 8)
    paid = live.shares.enter("", 0, 0.0, 0.0)
    task = live.timelines.replicas[1].queue.head(1)[0].task
    key_s = live.timelines.planned(task).key_s
    expected = live.elsewhere(task, 1.0)
    assert expected == live.elsewhere(task, 1.0), "changes nothing"
    live.withdraw(task, 1.0, keeps_turn=True)
    assert live.submit(task, wanted(task), 1.0, admitted=True).start_s <= expected.start_s
    assert live.timelines.planned(task).key_s == key_s
    assert live.shares.enter("", 0, 0.0, 0.0) == paid
    assert sorted(drained(live, running)) == sorted(set(range(8)) - set(running.values()))


def test_admitted_tasks_wait_for_somebody_to_come_up_when_nobody_is() -> None:
    live = planner(1)
    running = fill(live, 3)
    lost = live.lost([0], 3.0)
    assert sorted(lost) == sorted([*running.values(), 1, 2])
    for task in lost:
        assert not live.submit(task, wanted(task), 3.0, admitted=True).routed
    live.gained([(7, "H100", FixedMemory(0))], 9.0)
    running = started(live, [7], 9.0)
    assert len(running) == 1
    assert sorted([*running.values(), *drained(live, running, 20.0)]) == sorted(lost)


def test_the_forecast_grows_with_the_place_in_the_queue() -> None:
    live = planner(1)
    fill(live, 10)
    forecasts = [live.timelines.forecast_s(task, 1.0) for task in range(1, 10)]
    assert [ahead for _, ahead in forecasts] == list(range(1, 10))
    assert all(a[0] < b[0] for a, b in itertools.pairwise(forecasts))


def test_a_new_prediction_moves_every_forecast_of_the_queue() -> None:
    seconds = {"a task": 10.0}
    live = planner(1, estimate=lambda pool, wanted: seconds["a task"])
    fill(live, 5)
    before, _ = live.timelines.forecast_s(4, 0.0)
    seconds["a task"] = 2.0
    live.reestimate(0.0)
    after, ahead = live.timelines.forecast_s(4, 0.0)
    assert (before, after, ahead) == (50.0, 10.0 + 4 * 2.0, 4)
    assert live.preview(wanted(9), 0.0).start_s == after


def test_a_deadline_that_cannot_be_kept_is_refused_with_the_earliest_that_could() -> None:
    live = planner(1)
    fill(live, 5)
    choice = live.submit(9, wanted(9, deadline_s=30.0), 0.0)
    assert (choice.routed, choice.reason) == (False, Reason.TOO_LATE)
    assert 9 not in live.timelines.waiting
    assert 60.0 <= choice.earliest_s < 80.0, "with the time by which such a prediction may be off"
    assert live.submit(9, wanted(9, deadline_s=choice.earliest_s * 2), 0.0).routed
    assert live.submit(10, wanted(10, deadline_s=1.0), 0.0, admitted=True).routed, "late rather than refused"


def test_a_preview_changes_nothing() -> None:
    live = planner(2)
    fill(live, 6)
    assert live.preview(wanted(50), 1.0) == live.preview(wanted(50), 1.0)
    assert live.preview(wanted(50), 1.0).completion_s == live.submit(50, wanted(50), 1.0).completion_s


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_a_task_that_was_previewed_goes_where_it_would_have_gone_without_and_nowhere_that_is_stale(seed: int) -> None:
    """Two planners with the same history, of which one is asked for previews in between."""
    dice = random.Random(seed)
    asked, silent = planner(3, 2), planner(3, 2)
    busy: set[int] = set()
    for task in range(40):
        now_s = float(task // 4)
        request = wanted(task, dice.randrange(2), **({"deadline_s": now_s + 60.0} if dice.random() < 0.5 else {}))
        tenant, priority = dice.choice("ab"), dice.choice((0, 2))
        asked.preview(request, now_s, tenant=tenant, priority=priority)
        replica = dice.randrange(3)
        if dice.random() < 0.4:  # something happens between the offer and its being taken
            for live in (asked, silent):
                if replica in busy:
                    live.finish(replica, now_s)
                elif (start := live.peek(replica, now_s)) is not None:
                    live.start(start, now_s)
            busy ^= {replica}
        kept = silent.submit(task, request, now_s, tenant=tenant, priority=priority, admitted=True)
        assert asked.submit(task, request, now_s, tenant=tenant, priority=priority, admitted=True) == kept
    assert list(asked.completions(20.0)) == list(silent.completions(20.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_whatever_happens_every_task_starts_once_or_is_given_back(seed: int, replicas: int) -> None:
    random = np.random.default_rng(seed)
    live = planner(replicas, variants=2 if replicas > 1 else 1)
    up, running, begun, withdrawn = set(range(replicas)), {}, [], set()

    def note() -> None:
        """Whoever is free begins what it finds, as the caller of a Planner does after every event."""
        found = started(live, sorted(up - set(running)), now_s)
        running.update(found)
        begun.extend(found.values())

    now_s, refused = 0.0, set()
    for task in range(40):
        now_s += float(random.exponential(3.0))
        draw = random.random()
        if draw < 0.35 and running:
            replica = sorted(running)[int(random.integers(len(running)))]
            del running[replica]
            live.finish(replica, now_s)
        elif draw < 0.42 and len(up) > 1:
            replica = sorted(up)[int(random.integers(len(up)))]
            up.remove(replica)
            running.pop(replica, None)
            for lost in live.lost([replica], now_s):
                if lost in begun:
                    begun.remove(lost)
                live.submit(lost, wanted(lost, lost % 2 if replicas > 1 else 0), now_s, admitted=True)
        elif draw < 0.5 and len(up) < replicas:
            replica = min(set(range(replicas)) - up)
            up.add(replica)
            live.gained([(replica, "H100", FixedMemory(replica % (2 if replicas > 1 else 1)))], now_s)
        elif draw < 0.55 and live.timelines.waiting:
            victim = next(iter(live.timelines.waiting))
            live.withdraw(victim, now_s)
            withdrawn.add(victim)
        note()
        choice = live.submit(task, wanted(task, task % 2 if replicas > 1 else 0), now_s, tenant=task % 3)
        if not choice.routed:
            refused.add(task)
            assert choice.reason in (Reason.NO_CAPACITY, Reason.TOO_LATE, Reason.NO_ELIGIBLE)
        note()
    assert len(set(begun)) == len(begun)
    inside = set(begun) | set(live.timelines.waiting) | withdrawn | refused | set(live._parked)
    assert inside == set(range(40))

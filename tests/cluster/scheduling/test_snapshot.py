"""A snapshot previews as the planner that it was made of, and is small."""

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.routing.router import Choice
from cluster.routing.terms import PoolView, RoutingRequest, Terms
from cluster.scheduling.fairness import FairShares
from cluster.scheduling.memory import FixedMemory
from cluster.scheduling.planner import AcceleratorGroup, Planner
from cluster.scheduling.snapshot import PlanSnapshot
from cluster.scheduling.workers import ColdStart
from tests.cluster.routing.test_routing import variant

VARIANTS = [
    variant("big", 8, fallbacks=("mid", "small"), quality=0.9),
    variant("mid", 4, fallbacks=("small",), quality=0.6),
    variant("small", 2, quality=0.3),
]
GROUPS = [
    AcceleratorGroup("H100", price_usd_per_hour=3600.0, speed=2.0),
    AcceleratorGroup("L4", price_usd_per_hour=360.0, speed=0.5),
]
BRINGS = ((), (), ("ink@",), (), ("clay@", "ink@"))
TERMS = [Terms(variant=name) for name in ("big", "mid", "small")] + [Terms()]


def seconds(pool: PoolView, request: RoutingRequest) -> float:
    usual = {"big": 8.0, "mid": 4.0, "small": 2.0}[pool.variant.name]
    # No two alike, so that no choice hangs on the last digit.
    return usual * (1 + request.task * 0.618034 % 1) / (2.0 if pool.accelerator == "H100" else 0.5)


def busy(dice: random.Random, replicas: int, tasks: int, shares: FairShares | None = None) -> tuple[Planner, float]:
    """A planner with a history, and the time."""
    made = Planner(VARIANTS, GROUPS, estimate=seconds, shares=shares)
    names = [(f"r{number}", dice.choice(("H100", "L4")), FixedMemory(number % 3)) for number in range(replicas)]
    made.gained(names, 0.0)
    made.gained([("to be started", "H100", ColdStart(dice.randrange(3), 20.0))], 0.0)
    now_s = 0.0
    for task in range(tasks):
        now_s += dice.choice((0.0, 0.25, 1.0))
        made.submit(task, drawn(dice, task, now_s), now_s, tenant=dice.choice("abc"), priority=dice.choice((0, 0, 3)))
        name, _, _ = dice.choice(names)
        if dice.random() < 0.4:
            if made.timelines.replicas[made.timelines.place[name]].running is not None:
                made.finish(name, now_s)
            if (start := made.peek(name, now_s)) is not None:
                made.start(start, now_s)
        elif dice.random() < 0.1 and made.timelines.waiting:
            made.withdraw(next(iter(made.timelines.waiting)), now_s)
    return made, now_s


def drawn(dice: random.Random, task: int, now_s: float) -> RoutingRequest:
    deadline_s = now_s + dice.choice((20.0, 60.0, 200.0, 1e9))
    limit_s = deadline_s if deadline_s < 1e8 else float("inf")
    return RoutingRequest(dice.choice(TERMS), deadline_s=limit_s, task=task, brings=BRINGS[task % len(BRINGS)])


def told(choice: Choice) -> tuple[object, ...]:
    seconds = (choice.start_s, choice.completion_s, choice.earliest_s)
    return choice.variant, choice.pool, choice.reason, *(pytest.approx(each, abs=0.2) for each in seconds)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 120))
@example(767205, 5, 16)  # two pools are a fifth of a millisecond apart
@example(319457, 3, 10)  # … two turns
@example(271793, 4, 45)  # … a promise and what would break it
def test_a_snapshot_that_went_through_a_store_previews_as_the_planner(seed: int, replicas: int, tasks: int) -> None:
    dice = random.Random(seed)
    live, now_s = busy(dice, replicas, tasks)
    note = json.loads(json.dumps(PlanSnapshot.of(live, now_s).model_dump(mode="json")))
    view = PlanSnapshot.model_validate(note).planner(VARIANTS, estimate=seconds)
    for task in range(1000, 1020):
        request, tenant, priority = drawn(dice, task, now_s), dice.choice("abcd"), dice.choice((0, 3, 9))
        kept = live.preview(request, now_s, tenant=tenant, priority=priority)
        seen = view.preview(request, now_s, tenant=tenant, priority=priority)
        assert (seen.variant, seen.pool, seen.reason, seen.start_s, seen.completion_s, seen.earliest_s) == told(kept)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_a_burst_between_two_snapshots_is_quoted_behind_itself_as_the_planner_would(seed: int) -> None:
    dice = random.Random(seed)
    live, now_s = busy(dice, 3, 40)
    view = PlanSnapshot.of(live, now_s).planner(VARIANTS, estimate=seconds)
    for task in range(1000, 1030):
        request, tenant = drawn(dice, task, now_s), dice.choice("abcd")
        kept = live.submit(task, request, now_s, tenant=tenant, admitted=True)
        seen = view.submit(task, request, now_s, tenant=tenant, admitted=True)
        assert (seen.variant, seen.pool, seen.reason, seen.start_s, seen.completion_s, seen.earliest_s) == told(kept)


def test_a_snapshot_of_fifty_replicas_and_a_thousand_tasks_is_small_and_one_of_many_tasks_is_bounded() -> None:
    dice = random.Random(1)
    for tasks, most_bytes in ((1100, 60_000), (20_000, 75_000)):
        live = Planner(VARIANTS, GROUPS, estimate=seconds)
        live.gained([(f"replica-{number}", "H100", FixedMemory(number % 3)) for number in range(50)], 0.0)
        for task in range(tasks):
            request = RoutingRequest(TERMS[task % 3], task=task)
            live.submit(task, request, task / 100, tenant=dice.choice("abc"), admitted=True)
        snapshot = PlanSnapshot.of(live, tasks / 100)
        assert len(json.dumps(snapshot.model_dump(mode="json"))) < most_bytes
        view = snapshot.planner(VARIANTS, estimate=seconds)
        for tenant in "abz":
            kept = live.preview(RoutingRequest(TERMS[0]), tasks / 100, tenant=tenant)
            seen = view.preview(RoutingRequest(TERMS[0]), tasks / 100, tenant=tenant)
            assert seen.completion_s == pytest.approx(kept.completion_s, rel=0.25)

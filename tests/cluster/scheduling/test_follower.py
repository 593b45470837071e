"""What an ingress quotes by: a snapshot of the dispatcher's plan, and what was accepted since."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cost.calibration import CostModelPrior
from cluster.cost.service_times import ServiceTimes
from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling.attempts import AttemptRules
from cluster.scheduling.events import Submitted
from cluster.scheduling.fairness import FairShares
from cluster.scheduling.follower import Follower
from cluster.scheduling.job import Call, Job
from cluster.scheduling.memory import FixedMemory
from cluster.scheduling.offer import Offer
from cluster.scheduling.planner import AcceleratorGroup, Planner
from cluster.scheduling.scheduler import SchedulerConfig
from cluster.scheduling.snapshot import PlanSnapshot
from cluster.scheduling.workers import ServedVariant
from tests.cluster.test_topology import variant

CALL = Call("kind", (64, 64, 17, 4, 0.0))
VARIANTS = [variant(name, 1) for name in ("one", "two")]
GROUPS = [AcceleratorGroup("H100")]


def follower() -> Follower:
    return Follower(
        [ServedVariant(one, "H100", 0, 4, 10.0) for one in VARIANTS],
        GROUPS,
        ServiceTimes(CostModelPrior(VARIANTS)),
        batch_size=lambda variant, accelerator, call, ready: min(ready, 4),
        config=SchedulerConfig(AttemptRules(8.0, 3, 1.0)),
        now=0.0,
    )


def job(seq: int, dice: random.Random, now: float) -> Job:
    name = dice.choice(("one", "two"))
    request = RoutingRequest(Terms(variant=name), deadline_s=now + dice.choice((30.0, 1e9)), task=seq)
    tenant, priority = dice.choice("abc"), dice.choice((0, 0, 5))
    return Job(seq, f"t{seq}", request, {name: CALL}, name, tenant=tenant, priority=priority, accepted_at=now)


def followed(dice: random.Random, replicas: int, tasks: int) -> tuple[Follower, float]:
    """A follower of a plan with a history, and the time."""
    live, now = Planner(VARIANTS, GROUPS, shares=FairShares()), 0.0
    names = [f"r{number}" for number in range(replicas)]
    live.gained([(name, "H100", FixedMemory(number % 2)) for number, name in enumerate(names)], now)
    for seq in range(10_000, 10_000 + tasks):
        now += dice.choice((0.0, 0.5))
        one = job(seq, dice, now)
        live.submit(seq, one.request, now, tenant=one.tenant, priority=one.priority, admitted=True)
        name = dice.choice(names)
        if dice.random() < 0.5:
            live.finish(name, now)
            if (start := live.peek(name, now)) is not None:
                live.start(start, now)
    if dice.random() < 0.5:
        for name in names:
            live.finish(name, now)  # nobody has told it what to do next
    made = follower()
    snapshot = PlanSnapshot.of(live, now)
    made.follow(snapshot, made.eta.terms, {})
    return made, now


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 60))
def test_whatever_was_accepted_since_a_snapshot_and_however_old_it_is_there_is_an_answer(
    seed: int, replicas: int, tasks: int
) -> None:
    dice = random.Random(seed)
    made, now = followed(dice, replicas, tasks)
    for seq in range(1, 40):
        now += dice.choice((0.0, 0.1, 3.0, 30.0))
        made.play(now)
        asked = job(seq, dice, now)
        made.offer(asked, now)
        if dice.random() < 0.7:
            made.record(Submitted((asked,)), now)


def test_a_queue_that_a_snapshot_tells_in_blocks_is_waited_behind() -> None:
    dice = random.Random(3)
    made, now = followed(dice, 2, 5000)
    for name in ("r0", "r1"):
        made.planner.finish(name, now)
    for seq in range(1, 20):
        now += 1.0
        made.play(now)
        asked = job(seq, dice, now)
        made.offer(asked, now)
        made.record(Submitted((asked,)), now)


def test_what_was_accepted_begins_and_ends_where_nothing_is_ahead_of_it() -> None:
    dice = random.Random(0)
    made, now = followed(dice, 1, 0)
    one = Job(1, "t1", RoutingRequest(Terms(variant="one"), task=1), {"one": CALL}, "one", accepted_at=now)
    alone = made.offer(one, now)
    made.record(Submitted((one,)), now)
    behind = made.offer(one._replace(seq=2), now)
    assert isinstance(alone, Offer)
    assert isinstance(behind, Offer)
    assert behind.choice.start_s >= alone.choice.completion_s
    later = alone.choice.completion_s + 60.0
    made.play(later)
    again = made.offer(one, later)
    assert isinstance(again, Offer)
    assert again.choice.start_s == later

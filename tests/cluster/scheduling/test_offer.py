"""Admission control: what is promised is kept by the deadline, and a refusal says what would be taken."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routing.decision_trace import Reason
from cluster.routing.router import Choice
from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling.eta import Eta, EtaTerms
from cluster.scheduling.offer import Offer, Refusal, offer
from cluster.scheduling.planner import Planner
from tests.cluster.scheduling.test_snapshot import busy, drawn


def asked(live: Planner, request: RoutingRequest, now_s: float) -> Offer | Refusal:
    def promise(choice: Choice) -> Eta:
        return EtaTerms().promise(choice.completion_s - now_s, choice.completion_s - choice.start_s)

    return offer(request, now_s, lambda aimed: live.preview(aimed, now_s, tenant="a"), promise)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 100))
def test_a_deadline_is_taken_where_the_estimate_keeps_it_and_refused_with_one_that_would_be(
    seed: int, replicas: int, tasks: int
) -> None:
    dice = random.Random(seed)
    live, now_s = busy(dice, replicas, tasks)
    for task in range(1000, 1010):
        request = drawn(dice, task, now_s)
        found = asked(live, request, now_s)
        assert found == asked(live, request, now_s), "nothing changes"
        assert found.choice.wanted == request
        if isinstance(found, Offer):
            assert found.choice.routed
            assert now_s + found.eta.estimate_s <= request.deadline_s
        elif found.choice.reason is Reason.TOO_LATE:
            assert not found.choice.routed
            later = request._replace(deadline_s=found.choice.earliest_s)
            assert isinstance(asked(live, later, now_s), Offer)


def test_a_price_that_is_too_low_is_refused_with_the_least() -> None:
    live, now_s = busy(random.Random(2), 6, 0)
    request = RoutingRequest(Terms(variant="small"), max_usd=1e-6, task=7)
    found = asked(live, request, now_s)
    assert isinstance(found, Refusal)
    assert found.choice.reason is Reason.NO_ELIGIBLE
    assert found.least_usd is not None
    assert isinstance(asked(live, request._replace(max_usd=found.least_usd), now_s), Offer)


def test_where_nobody_is_up_no_deadline_is_named() -> None:
    live, now_s = busy(random.Random(2), 3, 0)
    live.lost(list(live.timelines.place), now_s)
    found = asked(live, RoutingRequest(Terms(variant="small"), deadline_s=now_s + 50.0), now_s)
    assert isinstance(found, Refusal)
    assert (found.choice.reason, found.least_usd) == (Reason.NO_CAPACITY, None)
    assert found.choice.earliest_s == math.inf

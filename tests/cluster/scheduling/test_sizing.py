import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.scheduling.sizing import SizingOptions, VariantDemand, size, wanted

OPTIONS = SizingOptions()


@st.composite
def demands(draw: st.DrawFn) -> list[VariantDemand]:
    found = []
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)):
        minimum = draw(st.integers(0, 3))
        found.append(
            VariantDemand(
                name,
                backlog_s=draw(st.sampled_from([0.0, 0.1, 5.0]) | st.floats(0, 1e4)),
                arriving=draw(st.floats(0, 20)),
                load_s=draw(st.floats(0, 300)),
                replicas=draw(st.integers(0, 12)),
                idle_s=draw(st.sampled_from([0.0, 1e5]) | st.floats(0, 3000)),
                waited_s=draw(st.floats(0, 1000)),
                gpus=draw(st.sampled_from([0.0, 0.25, 1.0, 2.0, 4.0])),
                minimum=minimum,
                maximum=minimum + draw(st.integers(0, 10)),
            )
        )
    return found


def taken_over(given_demands: list[VariantDemand], sizes: dict[str, int]) -> list[VariantDemand]:
    return [replace(demand, replicas=sizes[demand.name]) for demand in given_demands]


@given(demands(), st.floats(0, 40))
def test_sizes_keep_every_maximum_and_the_gpu_budget(asked: list[VariantDemand], gpus: float) -> None:
    sizes = size(asked, gpus)
    assert sizes.keys() == {demand.name for demand in asked}
    assert all(0 <= sizes[demand.name] <= demand.maximum for demand in asked)
    assert sum(sizes[demand.name] * demand.gpus for demand in asked) <= gpus + 1e-6


@given(demands())
def test_with_gpus_enough_every_minimum_is_kept(asked: list[VariantDemand]) -> None:
    sizes = size(asked, 1e6)
    assert all(sizes[demand.name] >= demand.minimum for demand in asked)


@settings(max_examples=300, deadline=None)
@given(demands(), st.floats(0, 40))
def test_a_constant_demand_never_flaps(asked: list[VariantDemand], gpus: float) -> None:
    first = size(asked, gpus)
    assert size(taken_over(asked, first), gpus) == first


@given(demands(), st.floats(0, 40), st.randoms(use_true_random=False))
def test_the_order_of_the_demands_does_not_matter(asked: list[VariantDemand], gpus: float, random: object) -> None:
    shuffled = list(asked)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert size(shuffled, gpus) == size(asked, gpus)


@given(demands())
def test_an_idle_variant_goes_to_its_minimum_after_its_idle_time_and_not_before(asked: list[VariantDemand]) -> None:
    sizes = size(asked, 1e6)
    for demand in asked:
        assume(demand.maximum > 0)
        limit_s = max(OPTIONS.idle_s, OPTIONS.idle_loads * demand.load_s)
        if demand.backlog_s == 0 and demand.idle_s >= limit_s:
            assert sizes[demand.name] == demand.minimum
        elif demand.replicas:
            assert sizes[demand.name] >= 1


@given(demands())
def test_waiting_work_always_has_a_replica_where_there_are_gpus(asked: list[VariantDemand]) -> None:
    sizes = size(asked, 1e6)
    assert all(sizes[d.name] >= 1 for d in asked if d.backlog_s > 0 and d.maximum > 0)


@given(demands(), st.floats(1, 1e4))
def test_more_backlog_never_wants_fewer_replicas(asked: list[VariantDemand], more_s: float) -> None:
    for demand in asked:
        assert wanted(replace(demand, backlog_s=demand.backlog_s + more_s))[0] >= wanted(demand)[0]


def test_it_scales_to_zero_and_back() -> None:
    busy = VariantDemand("v", backlog_s=40, arriving=1.0, load_s=10, replicas=0, maximum=4)
    up = size([busy], 8)["v"]
    assert up == math.ceil((1.0 + 40 / 30) / 0.75)
    quiet = VariantDemand("v", arriving=0.01, load_s=10, replicas=up, idle_s=30, maximum=4)
    assert size([quiet], 8) == {"v": 1}
    assert size([replace(quiet, replicas=1, idle_s=120)], 8) == {"v": 0}
    assert size([replace(quiet, replicas=0, idle_s=120)], 8) == {"v": 0}
    assert size([replace(quiet, replicas=0, idle_s=0, backlog_s=0.5)], 8) == {"v": 1}


def test_a_demand_within_the_band_changes_nothing_either_way() -> None:
    for arriving in (1.6, 1.9, 2.2):
        demand = VariantDemand("v", arriving=arriving, replicas=3, maximum=9)
        assert size([demand], 9) == {"v": 3}


def test_a_load_longer_than_the_backlog_lasts_is_not_worth_it() -> None:
    demand = VariantDemand("v", backlog_s=60, load_s=1, replicas=1, maximum=9)
    assert size([demand], 9) == {"v": 3}
    assert size([replace(demand, load_s=90)], 9) == {"v": 1}


def test_where_gpus_are_short_the_one_who_waits_longest_gets_its_turn() -> None:
    busy = VariantDemand("busy", backlog_s=100, arriving=1, replicas=2, maximum=2, waited_s=5)
    small = VariantDemand("small", backlog_s=1, replicas=0, maximum=2, waited_s=1)
    assert size([busy, small], 2) == {"busy": 1, "small": 1}
    assert size([busy, small], 1) == {"busy": 1, "small": 0}
    assert size([busy, replace(small, waited_s=600)], 1) == {"busy": 0, "small": 1}


def test_a_served_queue_under_steady_traffic_settles() -> None:
    """Work for 2.3 replicas arrives; the backlog is what they leave of it, a step a second."""
    replicas, backlog_s, seen = 0, 0.0, []
    for _ in range(600):
        backlog_s = max(0.0, backlog_s + 2.3 - replicas)
        replicas = size([VariantDemand("v", backlog_s, 2.3, load_s=8, replicas=replicas, maximum=8)], 8)["v"]
        seen.append(replicas)
    assert len(set(seen[-400:])) == 1


def test_impossible_demands_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        VariantDemand("v", backlog_s=math.nan)
    with pytest.raises(ValueError, match="minimum"):
        VariantDemand("v", minimum=2, maximum=1)
    with pytest.raises(ValueError, match="differ"):
        size([VariantDemand("v"), VariantDemand("v")], 1)

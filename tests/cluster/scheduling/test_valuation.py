"""What a fleet with a backlog thinks of a candidate: what is refused, what pays for what."""

import math

import pytest

from cluster.routing.terms import PoolView, RoutingRequest, Terms
from cluster.scheduling.planner import AcceleratorGroup, Planner
from cluster.scheduling.policy_config import PolicyConfig
from cluster.scheduling.timelines import FixedMemory
from schemas.catalog import Variant
from tests.cluster.test_topology import variant


class Loading(FixedMemory):
    """Takes as long as it is told to make the large variant resident, and keeps the small one."""

    def __init__(self, load_s: float) -> None:
        super().__init__(0)
        self._load_s = load_s

    def load_s(self, variant: int) -> float:
        return self._load_s if variant == 0 else 0.0

    def copy(self) -> "Loading":
        return self


def wanted(task: int, deadline_s: float = math.inf) -> RoutingRequest:
    return RoutingRequest(Terms(variant="large"), deadline_s=deadline_s, task=task)


def planner(doubt: float = 0.0, config: PolicyConfig | None = None) -> Planner:
    """One replica; a large variant of ten seconds falls back on a small one of two."""
    variants: list[Variant] = [
        variant("large", 1).model_copy(update={"fallbacks": ("small",), "quality": 0.9}),
        variant("small", 1).model_copy(update={"quality": 0.6}),
    ]

    def seconds(pool: PoolView, request: RoutingRequest) -> float:
        return 10.0 if pool.variant.name == "large" else 2.0

    made = Planner(variants, [AcceleratorGroup("H100")], estimate=seconds, doubt=lambda: doubt, config=config)
    made.gained([("a", "H100", Loading(0.0))], 0.0)
    return made


def filled(live: Planner, tasks: int) -> Planner:
    for task in range(tasks):
        live.submit(task, wanted(task, 1e4), 0.0)
    return live


@pytest.mark.parametrize(("doubt", "taken"), [(0.0, False), (0.05, False), (1.0, True)])
def test_while_nothing_is_known_of_service_times_a_task_is_tried_that_would_be_late_by_the_prior(
    doubt: float, taken: bool
) -> None:
    live = filled(planner(doubt), 8)
    assert live.preview(wanted(99, 70.0), 0.0).routed is taken


def test_what_could_not_be_in_time_however_short_its_work_is_refused_in_all_doubt() -> None:
    live = filled(planner(1.0), 8)
    assert not live.preview(wanted(99, 20.0), 0.0).routed


def test_known_loads_are_not_doubted() -> None:
    live = planner(1.0)
    live.lost(["a"], 0.0)
    live.gained([("b", "H100", Loading(60.0))], 0.0)
    large = Terms(variant="large", fall_back=False)
    assert not live.preview(RoutingRequest(large, deadline_s=60.0), 0.0).routed
    assert live.preview(RoutingRequest(large, deadline_s=66.0), 0.0).routed, "ten seconds of work may take less"


def test_the_longer_the_queue_the_smaller_the_variant_and_an_empty_one_gives_what_was_asked_for() -> None:
    chosen = [filled(planner(), tasks).preview(wanted(99, 120.0), 0.0).variant for tasks in range(11)]
    assert (chosen[0], chosen[-1]) == ("large", "small")
    assert chosen == sorted(chosen)


def test_a_tenant_whose_turn_is_first_takes_the_smaller_variant_too_where_deadlines_fill_the_fleet() -> None:
    live = planner()
    for task in range(10):
        live.submit(task, wanted(task, 115.0), 0.0, tenant="first")
    assert live.preview(wanted(99, 120.0), 1.0, tenant="second").variant == "small"


@pytest.mark.parametrize(("share", "chosen"), [(0.0, "large"), (1.0, "small")])
def test_a_load_takes_capacity_as_work_does(share: float, chosen: str) -> None:
    live = planner(config=PolicyConfig(load_share=share))
    live.lost(["a"], 0.0)
    live.gained([("b", "H100", Loading(20.0))], 0.0)
    for task in range(25):
        live.submit(task, RoutingRequest(Terms(variant="small"), deadline_s=1e4, task=task), 0.0)
    assert live.preview(wanted(99, 120.0), 0.0).variant == chosen

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from benchmarks import diffusion_workload
from benchmarks.routing_goals import by_load_goals, lambda90_goals, scene_goals
from benchmarks.routing_scenarios import FLOOD_LOAD, TENANTS, flooded, pool_dies, recovery
from benchmarks.workload import fleet, speed_at, workload
from cluster.simulation.engine import SimulationConfig, run
from cluster.simulation.outages import Failure
from cluster.simulation.punctuality import Punctuality


def test_the_diffusion_workload_is_what_it_is_said_to_be() -> None:
    trace = diffusion_workload.workload(0, tasks=4000)
    assert trace.synthetic
    assert len(trace.names) <= diffusion_workload.CHECKPOINTS
    changes = float((trace.variant[1:] != trace.variant[:-1]).mean())
    assert changes == pytest.approx(0.75, abs=0.05)
    gaps_s = np.diff(trace.arrival_s)
    assert gaps_s.std() / gaps_s.mean() > 1.2  # a Poisson process has 1
    again = diffusion_workload.workload(0, tasks=4000)
    assert (again.exec_s == trace.exec_s).all()
    assert not (diffusion_workload.workload(1, tasks=4000).exec_s == trace.exec_s).all()


def test_a_load_is_the_work_asked_for_over_what_the_fleet_can_do() -> None:
    trace = workload(None, 0, tasks=1000)
    sped = trace.sped_up(speed_at(0.5, trace, fleet()))
    assert sped.exec_s.sum() / (sped.span_s * fleet().speed) == pytest.approx(0.5)


def test_a_flood_is_one_tenants_without_deadlines_and_behind_the_others() -> None:
    made = flooded(workload(None, 0, tasks=600), seed=0)
    floods = np.isinf(made.allowance_s)
    assert set(made.tenant[floods]) == {TENANTS - 1}
    assert set(made.priority[floods]) == {-5}
    assert set(made.priority[~floods]) == {0}
    load = made.exec_s[floods].sum() / (made.span_s * fleet().speed)
    assert load == pytest.approx(FLOOD_LOAD, rel=0.2)
    assert (np.diff(made.arrival_s) >= 0).all()


def test_an_oracle_leaves_a_dying_pool_before_it_dies() -> None:
    found = pool_dies(None, 0, 600, "oracle")
    assert found["interrupted"] == 0
    assert pool_dies(None, 0, 600, "ect_soft")["interrupted"] > 0


def test_recovery_is_when_all_that_was_there_has_started() -> None:
    trace = workload(None, 0, tasks=600)
    at_s = trace.span_s / 2
    config = SimulationConfig(trace, fleet(), policy="ect", failures=(Failure("h100", at_s),))
    outcome = run(trace, fleet(), config, seed=0)
    found = recovery(trace, outcome, at_s)
    there = [t for t in range(600) if trace.arrival_s[t] < at_s <= outcome.start_s[t]]
    assert found.drained_s == pytest.approx(max(outcome.start_s[t] for t in there) - at_s)
    assert found.interrupted == len(outcome.interrupted)


def shares(**given: float) -> dict[str, Any]:
    usual = Punctuality(100, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    return {"workload": "w", "seed": 0, **asdict(usual), **given}


def test_goals_are_met_or_missed_by_means_over_seeds() -> None:
    rows = [
        shares(load=0.1, policy="ect", as_asked_share=0.99, quality_goodput=0.99),
        shares(load=0.1, policy="rushes", downgraded_share=0.03),
        shares(load=0.85, policy="ect", quality_goodput=0.9),
        shares(load=0.85, policy="jsq", quality_goodput=0.8),
        shares(load=0.85, policy="rushes", quality_goodput=0.85, admitted_late_share=0.01),
    ]
    found = {goal.name: (goal.found, goal.goal, goal.met) for goal in by_load_goals(rows, ["w"])}
    assert found == {
        "w at load 0.1: downgraded": (0.03, 0.01, False),
        "w at load 0.1: as asked": (1.0, 0.99, True),
        "w at load 0.1: quality goodput": (1.0, 0.99, True),
        "w at load 0.85: quality goodput": (0.85, 0.9, False),
        "w at load 0.85: late": (0.01, 0.02, True),
    }


def test_a_recovery_may_take_as_long_as_the_oracles() -> None:
    def dies(policy: str, recovered_s: float) -> dict[str, Any]:
        return {"policy": policy, "seed": 0, "recovered_s": recovered_s, "lost": 0}

    scenes = {
        "flood": [{"policy": "rushes", "others": shares(on_time_share=0.96)}],
        "equal_tenants": [{"policy": "rushes", "all": shares(admitted_late_share=0.03)}],
    }
    for ours_s, oracle_s, met in ((59, 10, True), (70, 80, True), (70, 40, False)):
        goals = scene_goals({**scenes, "pool_dies": [dies("oracle", oracle_s), dies("rushes", ours_s)]})
        assert [goal.met for goal in goals] == [True, False, True, met]


def test_lambda90_is_compared_seed_by_seed() -> None:
    speeds = {("rushes", 0): 4.0, ("rushes", 1): 6.0, ("ect", 0): 2.0, ("ect", 1): 6.0}
    rows = [{"workload": "w", "policy": who, "seed": seed, "speed": speed} for (who, seed), speed in speeds.items()]
    (goal,) = lambda90_goals(rows, ["w"])
    assert (goal.found, goal.met) == (1.5, True)

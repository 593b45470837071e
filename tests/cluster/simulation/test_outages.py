import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.simulation.engine import SimulationConfig, run, simulate
from cluster.simulation.outages import Change, Failure, pool_events
from cluster.simulation.report import Outcome, measure
from schemas.errors import ConfigError
from tests.cluster.simulation.test_simulator import FLEET, trace


def ran(policy: str, *failures: Failure, seed: int = 0) -> Outcome:
    made = trace(tasks=150, seed=seed)
    return run(made, FLEET, SimulationConfig(made, FLEET, policy=policy, failures=failures), seed=0)


def changes(*failures: Failure) -> list[tuple[float, str, str]]:
    return [(event.at_s, event.change.name, event.pool) for event in pool_events(failures)]


def test_a_pool_dies_is_missed_and_is_back_in_turn() -> None:
    assert changes(Failure("a", 10, 30)) == [(10, "DIES", "a"), (15, "MISSED", "a"), (30, "BACK", "a")]
    assert changes(Failure("a", 10)) == [(10, "DIES", "a"), (15, "MISSED", "a")]


def test_a_pool_that_is_back_before_it_is_missed_is_missed_as_it_comes_back() -> None:
    assert changes(Failure("a", 10, 12)) == [(10, "DIES", "a"), (12, "MISSED", "a"), (12, "BACK", "a")]


def test_outages_of_one_pool_that_touch_are_one_and_of_two_pools_are_two() -> None:
    overlapping = changes(Failure("a", 10, 30), Failure("a", 20, 50), Failure("a", 50, 60))
    assert overlapping == [(10, "DIES", "a"), (15, "MISSED", "a"), (60, "BACK", "a")]
    assert [change for *_, change in changes(Failure("a", 10, 30), Failure("b", 20))] == ["a", "a", "b", "b", "a"]
    assert changes(Failure("a", 10), Failure("a", 20, 30)) == [(10, "DIES", "a"), (15, "MISSED", "a")]


@pytest.mark.parametrize("policy", ["fifo", "jsq_refuse", "ect_soft", "rushes"])
@pytest.mark.parametrize("back_s", [100.001, 102.0, 105.0, 140.0])
def test_an_outage_loses_no_task_and_the_pool_works_again_however_short_it_is(policy: str, back_s: float) -> None:
    outcome = ran(policy, Failure("H100", 100.0, back_s))
    done = np.isfinite(np.array(outcome.done_s))
    assert (done | np.array(outcome.refused)).all()
    assert outcome.interrupted
    assert all(begun < 100 or begun >= back_s for begun in starts_on(outcome, range(3)))
    assert any(begun >= back_s for begun in starts_on(outcome, range(3)))


def starts_on(outcome: Outcome, machines: range) -> list[float]:
    return [
        begun
        for begun, machine in zip(outcome.start_s, outcome.machine, strict=True)
        if machine in machines and math.isfinite(begun)
    ]


def test_two_failures_both_happen() -> None:
    outcome = ran("ect", Failure("H100", 50.0, 90.0), Failure("L4", 60.0, 100.0))
    assert not [begun for begun in starts_on(outcome, range(3)) if 50 <= begun < 90]
    assert not [begun for begun in starts_on(outcome, range(3, 6)) if 60 <= begun < 100]


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["fifo", "p2c_refuse", "ect_soft", "rushes"]),
    st.lists(
        st.tuples(st.sampled_from(["H100", "L4"]), st.floats(0, 300), st.floats(0.01, 100), st.floats(0, 20)),
        min_size=1,
        max_size=5,
    ),
)
def test_any_outages_that_end_lose_no_task(policy: str, outages: list[tuple[str, float, float, float]]) -> None:
    failures = [Failure(pool, at_s, at_s + spell_s, after_s) for pool, at_s, spell_s, after_s in outages]
    events = pool_events(failures)
    for pool in {failure.pool for failure in failures}:
        turns = [event.change for event in events if event.pool == pool]
        assert turns == [Change.DIES, Change.MISSED, Change.BACK] * (len(turns) // 3)
    made = trace(tasks=80)
    outcome = run(made, FLEET, SimulationConfig(made, FLEET, policy=policy, failures=tuple(failures)), seed=0)
    assert measure(made, FLEET, outcome).lost == 0
    for machine in range(FLEET.count):
        spans = sorted(
            (begun, done)
            for begun, done, where in zip(outcome.start_s, outcome.done_s, outcome.machine, strict=True)
            if where == machine and math.isfinite(done)
        )
        assert all(one[1] <= other[0] + 1e-9 for one, other in itertools.pairwise(spans))


def test_an_outage_beyond_the_end_of_the_trace_changes_nothing() -> None:
    assert ran("rushes", Failure("H100", 1e6, 2e6)).done_s == ran("rushes").done_s


def test_recovery_is_that_of_the_worst_outage_and_unknown_when_a_task_never_starts_again() -> None:
    made = trace()
    one, both = (
        simulate(SimulationConfig(made, FLEET, failures=failures, search_lambda90=False)).measures[0].recovery_s
        for failures in ((Failure("H100", 100, 150),), (Failure("H100", 100, 150), Failure("H100", 400, 450)))
    )
    assert both >= one > 0
    everything = (Failure("H100", 100.0), Failure("L4", 100.0))
    never = simulate(SimulationConfig(made, FLEET, policy="ect", failures=everything, search_lambda90=False))
    assert never.measures[0].recovery_s == math.inf
    assert never.measures[0].lost > 0


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure("B200", 1), "unknown pool 'B200'; available: H100, L4"),
        (Failure("L4", math.nan), "failure of 'L4': it begins at nan, not a finite number of seconds, at least 0"),
        (Failure("L4", -1), "begins at -1"),
        (Failure("L4", 5, 5), "it ends at 5, not a finite number after 5"),
        (Failure("L4", 5, math.inf), "it ends at inf"),
        (Failure("L4", 5, detected_after_s=-1), "it is detected after -1"),
    ],
)
def test_a_failure_that_could_not_happen_is_refused(failure: Failure, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        simulate(SimulationConfig(trace(tasks=20), FLEET, failures=(failure,)))

"""Service times: what levels learn from each other, from tenants, from changes, and what they forget."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cost.model import Load
from cluster.cost.service_times import CostKey, ServiceTimes
from cluster.cost.service_times_state import ServiceTimesState


class Known:
    """A prior that says ten seconds of everything, until it is told otherwise."""

    doubt, doubt_of_configurations = 0.3, 0.1

    def __init__(self, seconds: float = 10.0) -> None:
        self.said_s = seconds
        self.next_s: float | None = None

    def identity(self, variant: str) -> str | None:
        return None if variant == "nobody" else "same"

    def doubt_of(self, variant: str) -> float:
        return 0.5

    def seconds(self, key: CostKey) -> float:
        return self.said_s

    def load_s(self, variant: str, accelerator: str, load: Load) -> float:
        return 30.0

    def observe(self, key: CostKey, seconds: float) -> bool:
        if self.next_s is None:
            return False
        self.said_s, self.next_s = self.next_s, None
        return True


KEY = CostKey("a", "H100", (64, 64, 5))
OTHER = CostKey("b", "H100", (64, 64, 5))


def taught(seconds: float, calls: int, noise: float = 0.05, times: ServiceTimes | None = None) -> ServiceTimes:
    random = np.random.default_rng(calls)
    times = times or ServiceTimes(Known())
    for _ in range(calls):
        times.observe(KEY, seconds * math.exp(noise * float(random.normal())))
    return times


def test_before_anything_was_seen_it_says_what_the_prior_says_and_is_unsure() -> None:
    said = ServiceTimes(Known()).predict(KEY)
    assert said.median_s == pytest.approx(10.0)
    assert said.seconds > said.median_s
    assert said.sigma > taught(10.0, 100).predict(KEY).sigma


@pytest.mark.parametrize("noise", [0.05, 0.3])
@pytest.mark.parametrize("factor", [2.0, 0.5, 1.5])
def test_a_variant_that_suddenly_takes_another_time_is_followed_within_a_dozen_calls(
    noise: float, factor: float
) -> None:
    times = taught(10.0, 500, noise)
    before = times.version
    taught(10.0 * factor, 12, noise, times)
    assert times.version > before, "whoever planned with it is told"
    assert times.predict(KEY).median_s == pytest.approx(10 * factor, rel=0.1 + noise)


def test_a_change_makes_it_unsure_at_once_and_sure_again_later() -> None:
    times = taught(10.0, 500)
    calm = times.predict(KEY).sigma
    most = 0.0
    for _ in range(40):
        times.observe(KEY, 20.0)
        most = max(most, times.predict(KEY).sigma)
    assert most > 4 * calm
    assert times.predict(KEY).sigma < 2 * calm


def test_one_call_in_twenty_that_takes_thirty_times_as_long_is_outvoted() -> None:
    times = taught(10.0, 100)
    for number in range(400):
        times.observe(KEY, 300.0 if number % 20 == 0 else 10.0)
        assert times.predict(KEY).median_s == pytest.approx(10.0, rel=0.05)


def test_a_variant_that_changes_leaves_the_others_where_they_are() -> None:
    times = ServiceTimes(Known())
    for _ in range(200):
        times.observe(KEY, 10.0)
        times.observe(OTHER, 5.0)
    for _ in range(30):
        times.observe(KEY, 20.0)
        times.observe(OTHER, 5.0)
    assert times.predict(KEY).median_s == pytest.approx(20.0, rel=0.05)
    assert times.predict(OTHER).median_s == pytest.approx(5.0, rel=0.05)


def test_a_tenant_whose_tasks_take_longer_is_predicted_so_and_the_others_are_not() -> None:
    times = ServiceTimes(Known())
    for number in range(600):
        tenant = f"t{number % 6}"
        times.observe(KEY, 15.0 if tenant == "t0" else 10.0, tenant)
    assert times.predict(KEY, "t0").median_s == pytest.approx(15.0, rel=0.07)
    assert times.predict(KEY, "t1").median_s == pytest.approx(10.0, rel=0.07)
    assert 9.5 < times.predict(KEY, "a stranger").median_s < 12.0


def test_where_tenants_do_not_differ_they_are_not_told_apart() -> None:
    random = np.random.default_rng(0)
    times = ServiceTimes(Known())
    for number in range(3000):
        times.observe(KEY, 10.0 * math.exp(0.2 * float(random.normal())), f"t{number % 50}")
    said = [times.predict(KEY, f"t{number}").median_s for number in range(50)]
    assert max(said) / min(said) < 1.15


def test_it_drifts_along_with_what_drifts() -> None:
    random = np.random.default_rng(1)
    times = ServiceTimes(Known())
    level, errors = math.log(10), []
    for number in range(2000):
        level += 0.005
        if number > 200:
            errors.append(abs(math.log(times.predict(KEY).median_s) - level))
        times.observe(KEY, math.exp(level + 0.1 * float(random.normal())))
    assert float(np.quantile(errors, 0.9)) < 0.2


def test_a_prior_that_has_changed_its_mind_does_not_move_what_was_seen() -> None:
    prior = Known()
    times = taught(20.0, 100, times=ServiceTimes(prior))
    before = times.version
    prior.next_s = 40.0
    times.observe(KEY, 20.0)
    assert times.predict(KEY).median_s == pytest.approx(20.0, rel=0.05)
    assert times.predict(KEY._replace(configuration=(1, 1, 1))).median_s == pytest.approx(20.0, rel=0.05)
    assert times.version > before


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["H100", "L4"]), st.integers(0, 3), st.floats(0.01, 1000)),
        max_size=60,
    )
)
def test_a_copy_made_from_its_state_predicts_and_learns_the_same(calls: list[tuple[str, str, int, float]]) -> None:
    times = ServiceTimes(Known())
    for variant, where, number, seconds in calls:
        times.observe(CostKey(variant, where, (number, 1.5)), seconds, f"t{number}")
        times.observe_load(variant, where, Load.COLD, seconds)
    again = ServiceTimes(Known(), ServiceTimesState.model_validate_json(times.state.model_dump_json()))
    assert again.state == times.state
    for variant, where, number, _ in calls:
        key = CostKey(variant, where, (number, 1.5))
        for tenant in ("", f"t{number}"):
            assert again.predict(key, tenant) == pytest.approx(times.predict(key, tenant))
        assert again.load_s(variant, where, Load.COLD) == times.load_s(variant, where, Load.COLD)


def test_impossible_seconds_and_unknown_variants_are_passed_over() -> None:
    times = ServiceTimes(Known())
    for seconds in (0.0, -1.0, math.nan, math.inf):
        times.observe(KEY, seconds)
    times.observe(KEY._replace(variant="nobody"), 1.0)
    assert times.state == ServiceTimes(Known()).state


def test_many_configurations_and_tenants_do_not_grow_it_without_bound() -> None:
    times = ServiceTimes(Known())
    for number in range(20_000):
        times.observe(CostKey("a", "H100", number), 10.0, f"t{number}")
        times.observe(KEY, 10.0, f"t{number}")
        times.observe(KEY, 20.0, "often")
    state = times.state
    assert times.predict(KEY, "often").median_s == pytest.approx(20.0, rel=0.2), "who is seen often is not forgotten"
    assert len(state.leaves) <= 8192
    assert sum(len(leaf.tenants) for leaf in state.leaves) <= 8192


def test_a_prediction_that_did_not_move_costs_microseconds_and_an_observation_tens_of_them() -> None:
    times = taught(10.0, 1000)
    began = time.thread_time()
    for _ in range(20_000):
        times.predict(KEY)
    assert (time.thread_time() - began) / 20_000 < 15e-6
    began = time.thread_time()
    for _ in range(5_000):
        times.observe(KEY, 10.0)
    assert (time.thread_time() - began) / 5_000 < 100e-6

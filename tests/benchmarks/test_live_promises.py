"""The synthetic traffic that the endpoint's promises are measured with."""

import numpy as np
import pytest

from benchmarks.live_promises import KINDS, TENANTS, arrivals


def test_tasks_come_at_each_rate_in_turn_and_as_the_seed_says() -> None:
    planned = list(arrivals((2.0, 20.0, 2.0), 100.0, np.random.default_rng(3)))
    assert planned == list(arrivals((2.0, 20.0, 2.0), 100.0, np.random.default_rng(3)))
    counts = [sum(one.phase == phase for one in planned) for phase in range(3)]
    assert counts == pytest.approx([200, 2000, 200], rel=0.2)
    assert [one.at_s for one in planned] == sorted(one.at_s for one in planned)
    assert all(100.0 * one.phase <= one.at_s < 100.0 * (one.phase + 1) for one in planned)
    large = sum(one.tenant == "large" for one in planned) / len(planned)
    assert large == pytest.approx(TENANTS["large"], abs=0.05)
    assert {one.kind for one in planned} == set(KINDS)

"""The oracle beside promised times: it knows everything but the luck to come."""

import numpy as np
import pytest

from benchmarks.eta_oracle import lateness, oracle
from benchmarks.workload import fleet, workload
from cluster.simulation.engine import SimulationConfig, run, with_deadlines

SPEED, NOISE = 5.0, 0.33


def test_each_task_is_done_before_the_oracles_quantile_as_often_as_its_level_says() -> None:
    trace = workload(None, seed=0, tasks=3000)
    outcome = run(trace, fleet(), SimulationConfig(trace, fleet(), service_noise=NOISE), 0, SPEED)
    ran = with_deadlines(trace.sped_up(SPEED), fleet())
    chance = lateness(ran, fleet(), outcome, NOISE)
    done = np.isfinite(outcome.done_s)
    assert np.isfinite(chance[done]).all()
    assert np.isnan(chance[~done]).all()
    for level in (0.5, 0.9):
        assert np.mean(chance[done] <= level) == pytest.approx(level, abs=0.05)
    found = oracle(ran, fleet(), outcome, NOISE, most=0.9, least=0.8, window=500)
    assert found.coverage == pytest.approx(0.9, abs=0.01)
    assert found.worst_window <= found.coverage

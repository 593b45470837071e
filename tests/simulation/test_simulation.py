"""The dispatcher under faults, seed by seed. What a seed broke once is kept; what was mended is found when put back."""

import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.old_faults import OLD_FAULTS
from tests.simulation.pinned import PINNED, PUT_BACK
from tests.simulation.runs import one_run
from tests.simulation.world import Result, World

FIRST, PARTS = 1000, 4
RUNS = int(os.environ.get("RUSHES_SIMULATION_RUNS", "300"))


def told(result: Result) -> str:
    """What a developer needs to see it again."""
    lines = "\n".join(f"  {violation}" for violation in result.violations[:5])
    return f"{lines}\nagain: python -m tests.simulation --seed {result.seed}"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


@pytest.mark.parametrize("what", PINNED)
def test_what_broke_once_does_not_break_again(what: str) -> None:
    result = World(*PINNED[what]).run()
    assert not result.violations, "\n".join(map(str, result.violations[:5]))


def _silent() -> None:
    logging.disable(logging.CRITICAL)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """As many as there are cores: histories have nothing in common."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=spawned, initializer=_silent) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_fails_every_accepted_task_ends_once_and_no_attempt_is_spent_for_nothing(
    part: int, processes: ProcessPoolExecutor
) -> None:
    """The same histories each time; the soak (`python -m tests.simulation --hours 2`) runs as many as you like."""
    first = FIRST + part * 100_000
    for result in processes.map(one_run, range(first, first + RUNS), chunksize=10):
        assert not result.violations, told(result)


@pytest.mark.parametrize("fault", OLD_FAULTS)
def test_a_fault_that_was_mended_is_found_when_it_is_put_back(fault: str) -> None:
    seed, faults = PUT_BACK[fault]
    assert World(seed, faults, driver_class=OLD_FAULTS[fault]).run().violations
    assert not World(seed, faults).run().violations


def test_the_same_seed_is_the_same_history() -> None:
    one, other = one_run(11), one_run(11)
    assert (one.simulated_s, one.faults, one.tasks) == (other.simulated_s, other.faults, other.tasks)

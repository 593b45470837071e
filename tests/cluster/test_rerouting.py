"""Which queued tasks look elsewhere, and when they move."""

import math

import pytest

from cluster.rerouting import Late, Patience, Promise, completions, is_worth_moving, latest
from cluster.timeline import FixedMemory, Timelines


def test_every_queued_task_is_done_after_those_before_it() -> None:
    timelines = Timelines(2)
    timelines.add([("a", "cpu", FixedMemory(0)), ("b", "cpu", FixedMemory(1))], 100.0)
    for number, (place, work_s) in enumerate(((0, 10.0), (0, 5.0), (1, 7.0), (0, 1.0))):
        timelines.enqueue(place, number, place, work_s, float(number), 100.0)
    timelines.start(0, 100.0)
    found = dict(completions(timelines, 103.0))
    assert found == {1: 115.0, 3: 116.0, 2: 110.0}
    assert found == {task: timelines.forecast_s(task, 103.0)[0] for task in found}


def test_the_latest_of_those_that_break_their_promise_are_looked_at_first() -> None:
    promises = [(Promise(task, 0.0, bound_s), 100.0) for task, bound_s in enumerate((99.0, 60.0, 100.0, 10.0, 50.0))]
    assert latest(promises, 2) == [Late(90.0, 3, 100.0), Late(50.0, 4, 100.0)]
    assert [late.task for late in latest(promises, 10)] == [3, 4, 1]
    assert latest([], 10) == []


@pytest.mark.parametrize(
    ("promised_s", "late_s", "is_late"),
    [(10.0, 5.0, False), (10.0, 5.1, True), (100.0, 25.0, False), (100.0, 25.1, True), (math.inf, 1e9, False)],
)
def test_a_little_late_is_borne_and_more_of_it_by_who_was_promised_more(
    promised_s: float, late_s: float, is_late: bool
) -> None:
    at_s = 1000.0 + promised_s + late_s
    assert bool(latest([(Promise(1, 1000.0, 1000.0 + promised_s), at_s)], 1)) is is_late


@pytest.mark.parametrize(
    ("left_s", "gain_s", "is_worth"),
    [(10.0, 4.9, False), (10.0, 5.0, True), (100.0, 24.0, False), (100.0, 25.0, True), (100.0, -5.0, False)],
)
def test_a_move_must_gain_enough_of_what_is_left(left_s: float, gain_s: float, is_worth: bool) -> None:
    assert is_worth_moving(1000.0 + left_s, 1000.0 + left_s - gain_s, 1000.0, Patience()) is is_worth


def test_nowhere_is_never_sooner() -> None:
    assert not is_worth_moving(1e6, math.inf, 0.0)

"""Which queued tasks look elsewhere, and when they move."""

import math

import pytest

from cluster.scheduling.rebalancing import EtaBound, Late, RebalanceThresholds, is_worth_moving, latest, missing


def test_the_latest_of_those_that_break_their_promise_are_looked_at_first() -> None:
    promises = [(EtaBound(task, 0.0, bound_s), 100.0) for task, bound_s in enumerate((99.0, 60.0, 100.0, 10.0, 50.0))]
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
    assert bool(latest([(EtaBound(1, 1000.0, 1000.0 + promised_s), at_s)], 1)) is is_late


@pytest.mark.parametrize(
    ("left_s", "gain_s", "is_worth"),
    [(10.0, 4.9, False), (10.0, 5.0, True), (100.0, 24.0, False), (100.0, 25.0, True), (100.0, -5.0, False)],
)
def test_a_move_must_gain_enough_of_what_is_left(left_s: float, gain_s: float, is_worth: bool) -> None:
    assert is_worth_moving(1000.0 + left_s, 1000.0 + left_s - gain_s, 1000.0, RebalanceThresholds()) is is_worth


def test_nowhere_is_never_sooner() -> None:
    assert not is_worth_moving(1e6, math.inf, 0.0)


def test_of_those_that_miss_their_deadlines_the_first_in_the_queues_are_looked_at_first() -> None:
    waiting = [(1, 50.0, 90.0), (2, 50.0, 60.0), (3, 50.0, 50.0), (4, 50.0, 70.0), (5, math.inf, 1e9)]
    assert missing(waiting, 2) == [2, 4]
    assert missing(waiting, 9) == [2, 4, 1]


@pytest.mark.parametrize(
    ("here_s", "elsewhere_s", "is_worth"),
    [(61.0, 60.0, True), (60.0, 10.0, False), (90.0, 61.0, False), (61.0, math.inf, False)],
)
def test_a_task_with_a_deadline_moves_only_to_keep_it(here_s: float, elsewhere_s: float, is_worth: bool) -> None:
    assert is_worth_moving(here_s, elsewhere_s, 0.0, deadline_s=60.0) is is_worth

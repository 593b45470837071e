"""Queues of replicas: order, running totals, and what a task put into the middle changes."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.scheduling.timelines import FixedMemory, Timelines
from cluster.scheduling.work_queue import Planned, WorkQueue, behind


def planned(key_s: float, number: int, work_s: float = 1.0, deadline_s: float = math.inf) -> Planned:
    return Planned(key_s, number, number, 0, work_s, 0.0, deadline_s, deadline_s)


def test_every_queued_task_is_done_after_those_before_it() -> None:
    timelines = Timelines(2)
    timelines.add([("a", "cpu", FixedMemory(0)), ("b", "cpu", FixedMemory(1))], 100.0)
    for number, (place, work_s) in enumerate(((0, 10.0), (0, 5.0), (1, 7.0), (0, 1.0))):
        timelines.enqueue(place, number, place, work_s, float(number))
    timelines.start(0, 0, 100.0)
    found = dict(timelines.completions(103.0))
    assert found == {1: 115.0, 3: 116.0, 2: 110.0}
    assert found == {task: timelines.forecast_s(task, 103.0)[0] for task in found}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_a_queue_of_blocks_answers_as_a_plain_sorted_list_does(seed: int) -> None:
    dice = random.Random(seed)
    queue, plain = WorkQueue(), []
    for number in range(1500):
        if plain and dice.random() < 0.3:
            gone = plain.pop(dice.randrange(len(plain)))
            assert queue.remove(gone[:2]) == gone
        else:
            task = planned(float(dice.randrange(50)), number, dice.randrange(1, 9), dice.choice((math.inf, 900.0)))
            queue.add(task)
            plain.append(task)
            plain.sort()
    assert list(queue) == plain
    assert (len(queue), queue.first, queue.total_s) == (len(plain), plain[0], sum(t.work_s for t in plain))
    for key_s in range(-1, 51):
        key = behind(float(key_s))
        ahead = [task for task in plain if task.key_s <= key_s]
        assert (queue.ahead_s(key), queue.rank(key)) == (sum(task.work_s for task in ahead), len(ahead))
    assert queue.around(behind(20.0), 3, 2) == (
        [task for task in plain if task.key_s <= 20][-3:],
        [task for task in plain if task.key_s > 20][:2],
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 900), st.integers(0, 40), st.integers(1, 30))
def test_a_task_goes_in_behind_the_last_whose_promise_it_would_break(
    seed: int, count: int, key_s: int, more_s: int
) -> None:
    dice = random.Random(seed)
    tasks = sorted(
        planned(float(dice.randrange(50)), number, 1.0, dice.choice((math.inf, 5.0 + dice.randrange(1000))))
        for number in range(count)
    )
    queue = WorkQueue()
    for task in dice.sample(tasks, count):
        queue.add(task)
    found = queue.unbroken(behind(float(key_s)), float(more_s), 0.0)
    assert found == queue.unbroken(behind(float(key_s)), float(more_s), 0.0)
    broken = [
        task
        for done_s, task in enumerate(tasks, start=1)
        if task.key_s > key_s and done_s <= task.deadline_s < done_s + more_s
    ]
    assert found == (broken[-1][:2] if broken else behind(float(key_s)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_the_table_of_work_by_key_finds_a_start_that_is_nearly_the_earliest(seed: int, replicas: int) -> None:
    dice = random.Random(seed)
    timelines = Timelines(1)
    timelines.add([(name, "cpu", FixedMemory(0)) for name in range(replicas)], 0.0)
    for task in range(replicas * 30):
        timelines.enqueue(dice.randrange(replicas), task, 0, dice.uniform(0.5, 1.5), dice.uniform(0, 100))
    for task in range(0, replicas * 30, 7):
        timelines.withdraw(task)
    for key_s in (-5.0, 10.0, 50.0, 95.0, 200.0):
        turn = timelines.starts(0, timelines.view(0.0, key_s))["cpu"]
        each = [timelines.turn(place, 0, 0.0, key_s).start_s for place in range(replicas)]
        assert turn.start_s == pytest.approx(each[turn.place])
        assert turn.start_s <= sorted(each)[min(len(each) - 1, 3)] + 2.0


class OneModel:
    """A memory of one model, which takes ten seconds to load."""

    def __init__(self, held: int = -1) -> None:
        self.held = held

    def load_s(self, variant: int) -> float:
        return 0.0 if variant == self.held else 10.0

    def use(self, variant: int) -> float:
        seconds, self.held = self.load_s(variant), variant
        return seconds

    def copy(self) -> "OneModel":
        return OneModel(self.held)


def test_what_goes_between_two_tasks_of_a_model_pays_for_loading_that_model_again() -> None:
    timelines = Timelines(2)
    timelines.add([("a", "cpu", OneModel(0))], 0.0)
    timelines.enqueue(0, 1, 0, 5.0, 20.0, deadline_s=29.0, due_s=29.0)
    # Ten seconds to load the other model and five to work would do, but for ten more to load the first again.
    assert timelines.turn(0, 1, 0.0, 10.0, lambda group: 5.0).start_s == 15.0
    assert timelines.turn(0, 0, 0.0, 10.0, lambda group: 5.0).start_s == 0.0


def test_the_backlog_of_a_task_is_what_has_a_deadline_too_though_its_turn_is_before_that() -> None:
    timelines = Timelines(1)
    timelines.add([(number, "cpu", FixedMemory(0)) for number in range(2)], 0.0)
    for task in range(8):
        due_s = 1e3 if task < 4 else math.inf
        timelines.enqueue(task % 2, task, 0, 5.0, 50.0 + task, due_s=due_s)
    assert timelines.view(0.0, 10.0, last=False).wait_s == 10.0
    timelines.reestimate(lambda planned, group: 7.0)
    assert timelines.view(0.0, 10.0, last=False).wait_s == 14.0
    for task in range(4):
        timelines.withdraw(task)
    assert timelines.view(0.0, 10.0, last=False).wait_s == 0.0
    assert timelines.view(0.0, 100.0).wait_s == 14.0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.booleans()), min_size=1, max_size=60))
def test_loads_are_planned_as_the_order_of_tasks_has_them(tasks: list[tuple[int, int, bool]]) -> None:
    timelines = Timelines(3)
    timelines.add([("a", "cpu", OneModel(0))], 0.0)
    for task, (variant, key_s, leaves) in enumerate(tasks):
        turn = timelines.turn(0, variant, 0.0, float(key_s))
        timelines.enqueue(0, task, variant, 1.0, float(key_s))
        assert timelines.forecast_s(task, 0.0)[0] == pytest.approx(turn.start_s + 1.0)
        if leaves:
            timelines.withdraw(task)
    held, seconds = OneModel(0), 0.0
    for each in timelines.replicas[0].queue:
        load_s = held.use(each.variant)
        assert each.load_s == load_s
        seconds += load_s + each.work_s
    assert timelines.replicas[0].pending_s == pytest.approx(seconds)
    assert [timelines.loads_s[variant, 0] for variant in range(3)] == [held.load_s(variant) for variant in range(3)]

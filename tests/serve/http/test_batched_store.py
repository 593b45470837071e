"""Calls of the store that several requests share: everybody gets their own answer, whatever happens to the others."""

from collections.abc import Sequence

import pytest

from schemas.clip import Status
from serve.errors import DailyLimitError
from serve.http.batched_store import BatchedStore, LookupCall, SubmitCall
from serve.store.contract import Batch, Idempotency, Submitted
from serve.tasks import NewTask, StoredTask


class Book:
    """A task store that writes down what is submitted together, with room for so many a day."""

    def __init__(self, room: int = 1000) -> None:
        self.calls: list[int] = []
        self.room = room

    def submit(
        self,
        tasks: Sequence[NewTask],
        now: float,
        *,
        idempotency: Idempotency | None = None,
        max_live: int | None = None,
        max_since: tuple[float, int] | None = None,
        max_month_usd: float | None = None,
        batch: Batch | None = None,
    ) -> Submitted:
        if len(tasks) > self.room:
            raise DailyLimitError("full", now)
        self.calls.append(len(tasks))
        self.room -= len(tasks)
        return Submitted(tuple(tasks))  # type: ignore[arg-type]


def task(name: str, key: str = "a") -> NewTask:
    return NewTask.model_construct(id=name, key_id=key)


def submitted(book: Book, *asked: SubmitCall) -> list[Submitted | Exception]:
    return BatchedStore(book)._submit(asked)  # type: ignore[arg-type]


def test_tasks_of_one_key_are_stored_at_once() -> None:
    book = Book()
    answers = submitted(book, *(SubmitCall((task(str(n)),), 1.0) for n in range(5)), SubmitCall((task("x", "b"),), 1.0))
    assert book.calls == [5, 1]
    assert [one.tasks[0].id for one in answers if isinstance(one, Submitted)] == ["0", "1", "2", "3", "4", "x"]


def test_what_may_have_been_made_before_is_stored_alone() -> None:
    book = Book()
    once = SubmitCall((task("2"),), 1.0, Idempotency("k", "d"))
    submitted(book, SubmitCall((task("1"),), 1.0), once, SubmitCall((task("3"),), 1.0))
    assert book.calls == [1, 1, 1]


@pytest.mark.parametrize("room", [0, 2, 4])
def test_one_who_is_past_the_limit_does_not_stop_the_others(room: int) -> None:
    book = Book(room)
    answers = submitted(book, *(SubmitCall((task(str(n)),), 1.0, max_since=(0.0, 9)) for n in range(4)))
    assert [isinstance(one, Submitted) for one in answers] == [n < room for n in range(4)]
    assert all(isinstance(one, Submitted | DailyLimitError) for one in answers)


def test_the_positions_of_all_who_look_are_asked_for_once_and_not_again_at_once() -> None:
    tasks = [
        StoredTask.model_construct(id=str(n), key_id="a", seq=n, priority=0, status=status, deleted=False)
        for n, status in enumerate((Status.PENDING, Status.RUNNING, Status.PENDING, Status.PENDING))
    ]
    asked: list[list[str]] = []

    class Places:
        def get_many(self, task_ids: Sequence[str]) -> tuple[StoredTask, ...]:
            return tuple(tasks[int(task_id)] for task_id in task_ids if task_id.isdecimal())

        def positions(self, waiting: Sequence[StoredTask]) -> tuple[int, ...]:
            asked.append([task.id for task in waiting])
            return tuple(10 * task.seq for task in waiting)

    batched = BatchedStore(Places())  # type: ignore[arg-type]
    looks = [
        LookupCall("0", "a"),
        LookupCall("1", "a"),
        LookupCall("2", "a"),
        LookupCall("0", "a"),
        LookupCall("2", "b"),
        LookupCall("nobody", "a"),
    ]
    seen = [(0, 0), (1, None), (2, 20), (0, 0), None, None]
    for _ in range(2):
        answers = [
            (answer[0].seq, answer[1]) if isinstance(answer, tuple) else answer for answer in batched._look_up(looks)
        ]
        assert answers == seen
    batched._look_up([LookupCall("3", "a")])
    assert [sorted(each) for each in asked] == [["0", "2"], ["3"]]

"""Calls made together: everybody gets their own answer, whatever happens to the others."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from schemas.clip import Status
from serve.errors import DailyLimitError, StoreUnavailableError
from serve.http.gather import MOST, Gathered
from serve.http.rounds import Look, Rounds, Submission
from serve.store.contract import Idempotency, Submitted
from serve.tasks import NewTask, StoredTask


class Doubler:
    """Doubles numbers, refuses 13, and holds its first round until it is let go."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.rounds.append(list(asked))
        if len(self.rounds) == 1:
            self.go.wait(5)
        return [ValueError("13") if number == 13 else 2 * number for number in asked]


def test_who_waits_comes_along_in_the_next_round() -> None:
    doubler = Doubler()

    async def scenario() -> list[int | BaseException]:
        gathered = Gathered("test", doubler)
        first = asyncio.create_task(gathered.ask(0))
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(gathered.ask(number)) for number in range(10, 16)]
        await asyncio.sleep(0.02)
        rest[0].cancel()  # its client went away
        doubler.go.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert doubler.rounds == [[0], [10, 11, 12, 13, 14, 15]]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert isinstance(answers[4], ValueError)
    assert [answers[0], answers[2], answers[3], *answers[5:]] == [0, 22, 24, 28, 30]


def test_a_round_has_an_end() -> None:
    doubler = Doubler()
    doubler.go.set()

    async def scenario() -> list[int]:
        gathered = Gathered("test", doubler)
        return await asyncio.gather(*(gathered.ask(number + 20) for number in range(3 * MOST)))

    assert asyncio.run(scenario()) == [2 * (number + 20) for number in range(3 * MOST)]
    assert max(map(len, doubler.rounds)) == MOST


def test_what_breaks_a_round_reaches_all_of_it_and_no_later_one() -> None:
    calls: list[int] = []

    def work(asked: Sequence[int]) -> list[int | Exception]:
        calls.append(len(asked))
        if len(calls) == 1:
            raise StoreUnavailableError("away")
        return list(asked)

    async def scenario() -> list[int | BaseException]:
        gathered = Gathered("test", work)
        broken = await asyncio.gather(gathered.ask(1), gathered.ask(2), return_exceptions=True)
        return [*broken, await gathered.ask(3)]

    one, two, three = asyncio.run(scenario())
    assert isinstance(one, StoreUnavailableError)
    assert isinstance(two, StoreUnavailableError)
    assert three == 3


def test_who_asks_when_all_is_over_is_told() -> None:
    doubler = Doubler()

    async def scenario() -> list[int | BaseException]:
        gathered = Gathered("test", doubler)
        out = asyncio.create_task(gathered.ask(1))
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(gathered.ask(2))
        await asyncio.sleep(0.02)
        gathered.close()
        doubler.go.set()
        late = asyncio.create_task(gathered.ask(3))
        return await asyncio.wait_for(asyncio.gather(out, waiting, late, return_exceptions=True), 5)

    first, second, third = asyncio.run(scenario())
    assert first == 2
    assert isinstance(second, StoreUnavailableError)
    assert isinstance(third, StoreUnavailableError)


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
    ) -> Submitted:
        if len(tasks) > self.room:
            raise DailyLimitError("full", now)
        self.calls.append(len(tasks))
        self.room -= len(tasks)
        return Submitted(tuple(tasks))  # type: ignore[arg-type]


def task(name: str, key: str = "a") -> NewTask:
    return NewTask.model_construct(id=name, key_id=key)


def submitted(book: Book, *asked: Submission) -> list[Submitted | Exception]:
    return Rounds(book)._submit(asked)  # type: ignore[arg-type]


def test_tasks_of_one_key_are_stored_at_once() -> None:
    book = Book()
    answers = submitted(book, *(Submission((task(str(n)),), 1.0) for n in range(5)), Submission((task("x", "b"),), 1.0))
    assert book.calls == [5, 1]
    assert [one.tasks[0].id for one in answers if isinstance(one, Submitted)] == ["0", "1", "2", "3", "4", "x"]


def test_what_may_have_been_made_before_is_stored_alone() -> None:
    book = Book()
    once = Submission((task("2"),), 1.0, Idempotency("k", "d"))
    submitted(book, Submission((task("1"),), 1.0), once, Submission((task("3"),), 1.0))
    assert book.calls == [1, 1, 1]


@pytest.mark.parametrize("room", [0, 2, 4])
def test_one_who_is_past_the_limit_does_not_stop_the_others(room: int) -> None:
    book = Book(room)
    answers = submitted(book, *(Submission((task(str(n)),), 1.0, max_since=(0.0, 9)) for n in range(4)))
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

    rounds = Rounds(Places())  # type: ignore[arg-type]
    looks = [Look("0", "a"), Look("1", "a"), Look("2", "a"), Look("0", "a"), Look("2", "b"), Look("nobody", "a")]
    seen = [(0, 0), (1, None), (2, 20), (0, 0), None, None]
    for _ in range(2):
        answers = [
            (answer[0].seq, answer[1]) if isinstance(answer, tuple) else answer for answer in rounds._look(looks)
        ]
        assert answers == seen
    rounds._look([Look("3", "a")])
    assert [sorted(each) for each in asked] == [["0", "2"], ["3"]]

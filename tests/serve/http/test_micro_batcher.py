"""Calls made together: everybody gets their own answer, whatever happens to the others."""

import asyncio
import threading
from collections.abc import Sequence

from serve.errors import StoreUnavailableError
from serve.http.micro_batcher import MOST, MicroBatcher


class Doubler:
    """Doubles numbers, refuses 13, and holds its first batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(asked))
        if len(self.batches) == 1:
            self.go.wait(60)
        return [ValueError("13") if number == 13 else 2 * number for number in asked]


def test_who_waits_comes_along_in_the_next_batch() -> None:
    doubler = Doubler()

    async def scenario() -> list[int | BaseException]:
        batcher = MicroBatcher("test", doubler)
        first = asyncio.create_task(batcher.ask(0))
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(batcher.ask(number)) for number in range(10, 16)]
        await asyncio.sleep(0.02)
        rest[0].cancel()  # its client went away
        doubler.go.set()
        return await asyncio.gather(first, *rest, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert doubler.batches == [[0], [10, 11, 12, 13, 14, 15]]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert isinstance(answers[4], ValueError)
    assert [answers[0], answers[2], answers[3], *answers[5:]] == [0, 22, 24, 28, 30]


def test_a_batch_has_a_largest_size() -> None:
    doubler = Doubler()
    doubler.go.set()

    async def scenario() -> list[int]:
        batcher = MicroBatcher("test", doubler)
        return await asyncio.gather(*(batcher.ask(number + 20) for number in range(3 * MOST)))

    assert asyncio.run(scenario()) == [2 * (number + 20) for number in range(3 * MOST)]
    assert max(map(len, doubler.batches)) == MOST


def test_what_breaks_a_batch_reaches_all_of_it_and_no_later_one() -> None:
    calls: list[int] = []

    def work(asked: Sequence[int]) -> list[int | Exception]:
        calls.append(len(asked))
        if len(calls) == 1:
            raise StoreUnavailableError("away")
        return list(asked)

    async def scenario() -> list[int | BaseException]:
        batcher = MicroBatcher("test", work)
        broken = await asyncio.gather(batcher.ask(1), batcher.ask(2), return_exceptions=True)
        return [*broken, await batcher.ask(3)]

    one, two, three = asyncio.run(scenario())
    assert isinstance(one, StoreUnavailableError)
    assert isinstance(two, StoreUnavailableError)
    assert three == 3


def test_who_asks_when_all_is_over_is_told() -> None:
    doubler = Doubler()

    async def scenario() -> list[int | BaseException]:
        batcher = MicroBatcher("test", doubler)
        out = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(batcher.ask(2))
        await asyncio.sleep(0.02)
        batcher.close()
        doubler.go.set()
        late = asyncio.create_task(batcher.ask(3))
        return await asyncio.wait_for(asyncio.gather(out, waiting, late, return_exceptions=True), 5)

    first, second, third = asyncio.run(scenario())
    assert first == 2
    assert isinstance(second, StoreUnavailableError)
    assert isinstance(third, StoreUnavailableError)

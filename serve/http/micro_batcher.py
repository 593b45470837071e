"""Micro-batching: calls of the store that many requests make at once become one call.

While one batch is in the thread the next one fills: a lone request waits for nobody, and under load a hundred requests
share one transaction, one hop to a thread and one turn of the interpreter's lock.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from serve.errors import StoreUnavailableError

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 256


class CoalescedNotifier:
    """Calls `notify_all` once for all notifications of one turn of the event loop."""

    def __init__(self, notify_all: Callable[[], None]) -> None:
        self._notify_all = notify_all
        self._is_due = False

    def notify(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._now)

    def _now(self) -> None:
        self._is_due = False
        self._notify_all()


class MicroBatcher(Generic[Q, A]):
    """`work` answers many questions at once, each with its answer or with the error that its asker gets.

    For one event loop. `work` runs in a thread of its own, one batch at a time.
    """

    def __init__(self, name: str, work: Callable[[Sequence[Q]], Sequence[A | Exception]]) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._is_out = False

    async def ask(self, question: Q) -> A:
        """The answer. Raises what `work` gave or raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, future))
        if not self._is_out:
            self._is_out = True
            loop.call_soon(self._go, loop)  # whoever is ready in this turn of the loop comes along
        return await future

    def close(self) -> None:
        """No more questions."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        asked, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        futures = [future for _, future in asked]
        try:
            batch = loop.run_in_executor(self._thread, self._work, [question for question, _ in asked])
        except RuntimeError:  # closed: the process is going down
            batch = loop.create_future()
            batch.cancel()
        batch.add_done_callback(lambda done: self._answer(loop, futures, done))

    def _answer(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: Sequence["asyncio.Future[A]"],
        done: "asyncio.Future[Sequence[A | Exception]]",
    ) -> None:
        gone = StoreUnavailableError("this endpoint is going down; try again")
        error = gone if done.cancelled() else done.exception()
        answers = [] if error is not None else done.result()
        for place, future in enumerate(futures):
            if future.done():  # its client went away
                continue
            answer = answers[place] if error is None else error
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        if self._waiting:
            self._go(loop)
        else:
            self._is_out = False

"""The two calls of the store that every client makes, micro-batched: storing new tasks and looking one up."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.clip import Status
from serve.errors import LimitError
from serve.http.micro_batcher import MicroBatcher
from serve.store.contract import Batch, Idempotency, Submitted, TaskStore
from serve.tasks import NewTask, StoredTask

POSITION_S = 0.5
_MOST_POSITIONS = 10_000


@dataclass(frozen=True)
class SubmitCall:
    """What one request stores: the arguments of `TaskStore.submit`."""

    tasks: tuple[NewTask, ...]
    now: float
    idempotency: Idempotency | None = None
    max_live: int | None = None
    max_since: tuple[float, int] | None = None
    max_month_usd: float | None = None
    batch: Batch | None = None


@dataclass(frozen=True)
class LookupCall:
    """A key looks a task up."""

    task_id: str
    key_id: str


Seen = tuple[StoredTask, int | None]
"""A task, and how many PENDING ones come before it, where it is PENDING itself."""


class BatchedStore:
    """Both, over one store."""

    def __init__(self, tasks: TaskStore) -> None:
        self._tasks = tasks
        self._positions: dict[tuple[int, int], tuple[float, int]] = {}  # place → (good until, position)
        self.submit = MicroBatcher("submit", self._submit)
        self.look_up = MicroBatcher("look-up", self._look_up)

    def close(self) -> None:
        self.submit.close()
        self.look_up.close()

    # -- storing -------------------------------------------------------------------------------------------------

    def _submit(self, asked: Sequence[SubmitCall]) -> list[Submitted | Exception]:
        """Requests of one key become one transaction, unless one of them may have been made before."""
        answers: list[Submitted | Exception] = []
        for group in _grouped(asked):
            answers += self._submit_group(group)
        return answers

    def _submit_group(self, group: Sequence[SubmitCall]) -> list[Submitted | Exception]:
        first = group[0]
        try:
            stored = self._tasks.submit(
                [task for one in group for task in one.tasks],
                first.now,
                idempotency=first.idempotency,
                max_live=first.max_live,
                max_since=first.max_since,
                max_month_usd=first.max_month_usd,
                batch=first.batch,
            )
        except LimitError as error:
            # All or none is what one request is promised, not what strangers share.
            return [error] if len(group) == 1 else [one for each in group for one in self._submit_group([each])]
        except Exception as error:
            return [error] * len(group)
        if len(group) == 1:
            return [stored]
        answers: list[Submitted | Exception] = []
        done = 0
        for one in group:
            answers.append(Submitted(stored.tasks[done : done + len(one.tasks)]))
            done += len(one.tasks)
        return answers

    # -- looking up ----------------------------------------------------------------------------------------------

    def _look_up(self, asked: Sequence[LookupCall]) -> list[Seen | Exception | None]:
        found = {task.id: task for task in self._tasks.get_many(list({look.task_id for look in asked}))}
        seen: list[StoredTask | None] = []
        for look in asked:
            task = found.get(look.task_id)
            is_there = task is not None and not task.deleted and task.key_id == look.key_id
            seen.append(task if is_there else None)
        positions = self._positions_of({task.id: task for task in seen if task and task.status is Status.PENDING})
        return [None if task is None else (task, positions.get(task.id)) for task in seen]

    def _positions_of(self, waiting: dict[str, StoredTask]) -> dict[str, int]:
        """No older than `POSITION_S`: counting a long queue for each of many who ask again and again is dear."""
        now = time.monotonic()
        if len(self._positions) >= _MOST_POSITIONS:
            self._positions.clear()
        unknown = [task for task in waiting.values() if now >= self._positions.get(_place(task), (now, 0))[0]]
        if unknown:
            for task, position in zip(unknown, self._tasks.positions(unknown), strict=True):
                self._positions[_place(task)] = now + POSITION_S, position
        return {task.id: self._positions[_place(task)][1] for task in waiting.values()}


def _place(task: StoredTask) -> tuple[int, int]:
    return task.priority, task.seq


def _limits(one: SubmitCall) -> tuple[object, ...]:
    return one.max_live, one.max_since, one.max_month_usd


def _grouped(asked: Sequence[SubmitCall]) -> list[list[SubmitCall]]:
    """In order, with neighbours together that may be one transaction."""
    groups: list[list[SubmitCall]] = []
    for one in asked:
        last = groups[-1][-1] if groups else None
        together = (
            last is not None
            and one.idempotency is None
            and last.idempotency is None
            and one.tasks[0].key_id == last.tasks[0].key_id
            and one.batch is None
            and last.batch is None
            and _limits(one) == _limits(last)
        )
        if together:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups

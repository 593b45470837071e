"""Leases that ran out, while nobody else has their tasks: a holder that was only slow goes on with them."""

import logging
from collections.abc import Iterable

from serve.store.contract import TaskStore
from serve.tasks import StoredTask

log = logging.getLogger(__name__)


class Overdue:
    """By task, the epoch of its lease. Not thread-safe: its broker has the lock."""

    def __init__(self, tasks: TaskStore) -> None:
        self._tasks = tasks
        self._epochs: dict[str, int] = {}

    def add(self, task: StoredTask) -> None:
        """Its lease ran out, and it waits for its next attempt."""
        self._epochs[task.id] = task.epoch

    def taken(self, task_id: str) -> None:
        """Somebody has the task now."""
        self._epochs.pop(task_id, None)

    def keep(self, waiting: Iterable[StoredTask]) -> None:
        """Forget all that do not wait any more."""
        if self._epochs:
            ids = {task.id for task in waiting}
            self._epochs = {task_id: epoch for task_id, epoch in self._epochs.items() if task_id in ids}

    def go_on(
        self, replica: str, variant: str, leases: Iterable[tuple[str, int]], until: float, now: float
    ) -> list[StoredTask]:
        """The tasks of `leases` (task id, epoch) that their replica may go on with, until then."""
        mine = {task_id: epoch for task_id, epoch in leases if self._epochs.get(task_id) == epoch}
        found = []
        for task in self._tasks.get_many(list(mine)) if mine else ():
            del self._epochs[task.id]
            # Who waits for another variant now was told so.
            if task.group.variant == variant and self._tasks.take_up(task.id, mine[task.id], replica, until, now):
                log.info("task %s: replica %s was only slow and goes on", task.id, replica)
                found.append(task)
        return found

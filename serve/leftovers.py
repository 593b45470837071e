"""What was stored for tasks that end without a clip: it may be there before its replica hears that nobody wants it."""

import logging
from concurrent.futures import ThreadPoolExecutor

from schemas.clip import Status
from schemas.errors import RushesError
from serve.config import DAY_S
from serve.store.contract import TaskStore
from storage import keys
from storage.objects import ObjectStore

log = logging.getLogger(__name__)

_YOUNG_S, _OLD_S = 3600.0, 7 * DAY_S
_AT_ONCE = 500


class Leftovers:
    """Removed in a thread of its own: an object store that is slow to answer holds up no dispatching."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leftovers")

    def remove(self, task_id: str) -> None:
        """Soon. Of a task that has ended CANCELLED for good: no attempt of it can succeed any more."""
        self._thread.submit(self._remove, task_id)

    def _remove(self, task_id: str) -> None:
        try:
            self._objects.delete([info.key for info in self._objects.list(keys.task_prefix(task_id))])
        except RushesError as error:
            log.warning("task %s: what was stored before it was cancelled stays: %s", task_id, error)


def sweep(tasks: TaskStore, objects: ObjectStore, now: float) -> int:
    """Remove what nobody was told of: stored by a replica that died before it could tell, after its task had ended
    CANCELLED or FAILED. How many objects. Blocking.

    What is less than an hour old may be of an attempt that still goes on; what is older than a week was looked at.
    """
    found: dict[str, list[str]] = {}
    for info in objects.list(keys.TASKS):
        if _YOUNG_S < now - info.modified.timestamp() < _OLD_S:
            found.setdefault(info.key.removeprefix(keys.TASKS).partition("/")[0], []).append(info.key)
    removed = 0
    ids = list(found)
    for first in range(0, len(ids), _AT_ONCE):
        for task in tasks.get_many(ids[first : first + _AT_ONCE]):
            if task.status in (Status.CANCELLED, Status.FAILED):
                objects.delete(found[task.id])
                removed += len(found[task.id])
    return removed

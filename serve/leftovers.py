"""What was stored for tasks that were cancelled: a clip may be there before its replica hears that nobody wants it."""

import logging
from concurrent.futures import ThreadPoolExecutor

from schemas.errors import RushesError
from storage import keys
from storage.objects import ObjectStore

log = logging.getLogger(__name__)


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

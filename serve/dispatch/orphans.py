"""What is stored for tasks that nobody wants any more: those that end without a clip, whose replica may have stored one
before it hears of it, and those that were deleted.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from schemas.clip import Clip, Status
from schemas.errors import RushesError, is_transient
from serve.config import DAY_S
from serve.store.contract import TaskStore
from serve.tasks import LIVE
from storage import keys
from storage.address import BucketAddress
from storage.objects import ObjectStore

log = logging.getLogger(__name__)

_YOUNG_S, _OLD_S = 3600.0, 7 * DAY_S
_AT_ONCE = 500


class OrphanCollector:
    """Removed in a thread of its own: an object store that is slow to answer holds up no dispatching."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="orphans")

    def remove(self, task_id: str) -> None:
        """Soon. Of a task that has ended CANCELLED for good: no attempt of it can succeed any more."""
        self._thread.submit(self._remove, task_id)

    def _remove(self, task_id: str) -> None:
        try:
            remove_objects(self._objects, task_id)
        except RushesError as error:
            log.warning("task %s: what was stored before it was cancelled stays: %s", task_id, error)


def remove_objects(objects: ObjectStore, task_id: str, clip: Clip | None = None) -> None:
    """Clip, poster and whatever else is stored for a task of the endpoint. Idempotent. Blocking."""
    found = [info.key for info in objects.list(keys.task_prefix(task_id))]
    uris = () if clip is None else (clip.uri, clip.poster_uri)
    objects.delete({*found, *(key for uri in uris if uri and (key := _own_key(objects, task_id, uri)))})


def _own_key(objects: ObjectStore, task_id: str, uri: str) -> str | None:
    """The key of a clip that lies elsewhere in this store; one without the task's id in it may be another's too."""
    root = objects.uri("-")[:-1]
    if not uri.startswith(root) or task_id not in uri:
        return None
    key = uri.removeprefix(root)
    return key if isinstance(objects.address, BucketAddress) else unquote(key)


def purge(tasks: TaskStore, objects: ObjectStore) -> int:
    """Remove what is stored for deleted tasks, where the removal at their deletion failed or came too early; how many
    tasks. Blocking. What cannot be removed now is tried again at the next call; an object store that is away ends this.
    """
    done = 0
    for task in tasks.get_many(tasks.unpurged(_AT_ONCE)):
        try:
            remove_objects(objects, task.id, None if task.outcome is None else task.outcome.clip)
        except RushesError as error:
            log.warning("task %s was deleted; what is stored for it stays for now: %s", task.id, error)
            if is_transient(error):
                break
            continue
        tasks.purged([task.id])
        done += 1
    return done


def sweep(tasks: TaskStore, objects: ObjectStore, now: float) -> int:
    """Remove what nobody was told of: stored by a replica that died before it could tell, after its task had ended
    CANCELLED or FAILED or was deleted. How many objects. Blocking.

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
            if task.status in (Status.CANCELLED, Status.FAILED) or (task.deleted and task.status not in LIVE):
                objects.delete(found[task.id])
                removed += len(found[task.id])
    return removed

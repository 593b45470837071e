"""What is removed for a task that ended without a clip: everything of its own, and nothing else."""

import time

from schemas.clip import Status
from serve.dispatch.orphans import OrphanCollector, sweep
from serve.store.contract import Store
from storage import keys
from storage.objects import ObjectStore
from tests.serve.store.samples import NOW, failure, new_task, success

HOUR_S = 3600.0


def put(objects: ObjectStore, *task_ids: str) -> None:
    for task_id in task_ids:
        for key in (keys.TASK_NAMES.clip("v", task_id, "mp4"), keys.TASK_NAMES.poster("v", task_id)):
            objects.put(key, b"data")


def kept(objects: ObjectStore) -> set[str]:
    return {info.key.split("/")[1] for info in objects.list()}


def test_everything_that_was_stored_for_a_task_is_removed_and_nothing_of_another(objects: ObjectStore) -> None:
    put(objects, "task", "task-2")
    leftovers = OrphanCollector(objects)
    leftovers.remove("task")
    leftovers.remove("nothing is there")
    leftovers._thread.shutdown()
    assert sorted(info.key for info in objects.list()) == ["tasks/task-2/clip.mp4", "tasks/task-2/poster.jpg"]


def test_what_a_replica_stored_and_never_told_of_is_swept_once_its_task_has_ended(
    store: Store, objects: ObjectStore
) -> None:
    cancelled, hidden, failed, done, waits = store.tasks.submit([new_task() for _ in range(5)], NOW).tasks
    for task in (cancelled, hidden):
        assert store.tasks.cancel(task.id, None, NOW) is not None
    assert store.tasks.delete(hidden.id, None)
    for task, outcome in ((failed, failure()), (done, success())):
        (lease,) = store.tasks.lease([task.seq], "r", "v", NOW + 9, NOW)
        store.tasks.finish(task.id, lease.epoch, outcome, NOW + 1)
    statuses = [task.status for task in store.tasks.get_many([failed.id, done.id, waits.id])]
    assert statuses == [Status.FAILED, Status.SUCCEEDED, Status.PENDING]
    put(objects, *(task.id for task in (cancelled, hidden, failed, done, waits)), "of no task here")
    assert sweep(store.tasks, objects, time.time()) == 0, "an attempt may be storing it just now"
    assert sweep(store.tasks, objects, time.time() + 2 * HOUR_S) == 6
    assert kept(objects) == {done.id, waits.id, "of no task here"}
    assert sweep(store.tasks, objects, time.time() + 2 * HOUR_S) == 0


def test_what_was_looked_at_for_a_week_is_not_asked_for_again(store: Store, objects: ObjectStore) -> None:
    (task,) = store.tasks.submit([new_task()], NOW).tasks
    store.tasks.cancel(task.id, None, NOW)
    put(objects, task.id)
    assert sweep(store.tasks, objects, time.time() + 8 * 24 * HOUR_S) == 0

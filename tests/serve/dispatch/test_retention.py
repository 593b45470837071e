"""The dispatcher's housekeeping: what is old goes in small steps, and deleted tasks' objects when they can."""

import threading
from pathlib import Path

import pytest

from schemas.errors import ConfigError, StorageUnavailableError
from serve.config import DAY_S, Retention, read_serve_config
from serve.dispatch.orphans import purge
from serve.dispatch.retention import Housekeeper, cutoffs
from serve.store.contract import Idempotency, Store
from serve.store.cutoffs import Cutoffs
from storage import keys
from storage.address import FolderAddress
from storage.local import LocalStore
from storage.objects import ObjectStore
from tests.serve.store.samples import NOW, ended, new_task, submitted


class FailingStore(LocalStore):
    """A folder whose server is away while `away` is set."""

    away = False
    asked = 0

    def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
        self.asked += 1
        if self.away:
            raise StorageUnavailableError("the server is away")
        return super().list(prefix)


def deleted(store: Store, objects: ObjectStore, n: int = 1) -> tuple[str, ...]:
    tasks = submitted(store, n)
    for task in tasks:
        ended(store, task)
        objects.put(keys.TASK_NAMES.clip("v", task.id, "mp4"), b"data")
        objects.put(keys.TASK_NAMES.poster("v", task.id), b"data")
        store.tasks.delete(task.id, None)
    return tuple(task.id for task in tasks)


def test_objects_that_could_not_be_removed_are_removed_when_the_object_store_is_back(
    store: Store, tmp_path: Path
) -> None:
    objects = FailingStore(FolderAddress(tmp_path / "out"))
    ids = deleted(store, objects, 3)
    objects.away = True
    assert purge(store.tasks, objects) == 0
    assert objects.asked == 1, "each would wait for the server again"
    assert store.tasks.unpurged() == ids
    objects.away = False
    assert purge(store.tasks, objects) == 3
    assert store.tasks.unpurged() == ()
    assert list(objects.list()) == []


def test_everything_old_goes_however_few_rows_a_step_takes(store: Store, objects: ObjectStore) -> None:
    for place in range(7):
        (task,) = store.tasks.submit([new_task()], NOW, idempotency=Idempotency(f"k{place}", "d")).tasks
        ended(store, task)
    (deleted_id,) = deleted(store, objects)
    (waits,) = submitted(store)
    ages = Retention(idempotency_s=DAY_S, tasks_s=2 * DAY_S)
    assert Housekeeper(store, objects, ages, lambda: NOW + DAY_S, rows=2).run_once() == 0
    assert list(objects.list()) == [], "deleted tasks' objects do not wait for an age"
    assert Housekeeper(store, objects, ages, lambda: NOW + 3 * DAY_S, rows=2).run_once() == 7 + 8
    assert [task.id for task in store.tasks.recent(100)] == [waits.id]
    assert store.tasks.get_many([deleted_id]) == ()


def test_a_stop_ends_it_between_two_steps(store: Store, objects: ObjectStore) -> None:
    ended(store, submitted(store)[0])
    stop = threading.Event()
    stop.set()
    ages = Retention()
    assert Housekeeper(store, objects, ages, lambda: NOW + 999 * DAY_S).run_once(stop) == 0
    Housekeeper(store, objects, ages, lambda: NOW + 999 * DAY_S).run(stop)
    assert len(store.tasks.recent()) == 1


def test_an_infinite_age_is_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.toml"
    path.write_text("[retention]\ntasks_s = inf\nbatches_s = inf\n")
    before = cutoffs(read_serve_config(path).retention, NOW)
    assert (before.tasks, before.batches) == (Cutoffs().tasks, Cutoffs().batches)
    assert before.idempotency == NOW - 7 * DAY_S


def test_tasks_stay_at_least_as_long_as_the_keys_that_name_them(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.toml"
    path.write_text("[retention]\ntasks_s = 86400\n")
    with pytest.raises(ConfigError, match="tasks_s \\(86400\\) is less than idempotency_s \\(604800\\)"):
        read_serve_config(path)

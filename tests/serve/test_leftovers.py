"""What is removed for a cancelled task: everything of its own, and nothing else."""

from pathlib import Path

from serve.leftovers import Leftovers
from storage import keys
from storage.store import open_store


def test_everything_that_was_stored_for_a_task_is_removed_and_nothing_of_another(tmp_path: Path) -> None:
    objects = open_store(str(tmp_path))
    for task_id in ("task", "task-2"):
        for key in (keys.TASK_NAMES.clip("v", task_id, "mp4"), keys.TASK_NAMES.poster("v", task_id)):
            objects.put(key, b"data")
    leftovers = Leftovers(objects)
    leftovers.remove("task")
    leftovers.remove("nothing is there")
    leftovers._thread.shutdown()
    assert sorted(info.key for info in objects.list()) == ["tasks/task-2/clip.mp4", "tasks/task-2/poster.jpg"]

"""The tasks that wait, as the broker knows them: each with its group on each variant it may go to, and who is alike."""

from collections.abc import Iterator

from schemas.task import Group, Task
from serve.tasks import StoredTask


class Waiting:
    """By the store's number. Nothing here outlives the process: the store has all of it."""

    def __init__(self) -> None:
        self._tasks: dict[int, StoredTask] = {}
        self._groups: dict[int, dict[str, Group]] = {}
        self._alike: dict[str, dict[int, None]] = {}  # group key → tasks of it, in order of acceptance

    def __contains__(self, seq: int) -> bool:
        return seq in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[StoredTask]:
        return iter(list(self._tasks.values()))

    def add(self, task: StoredTask, groups: dict[str, Group]) -> None:
        """`groups` by variant."""
        self._tasks[task.seq] = task
        self._groups[task.seq] = groups
        for group in groups.values():
            self._alike.setdefault(group.key, {})[task.seq] = None

    def forget(self, seq: int) -> None:
        """It was leased, cancelled or given up. One that is not here is no error."""
        self._tasks.pop(seq, None)
        for group in self._groups.pop(seq, {}).values():
            alike = self._alike.get(group.key, {})
            alike.pop(seq, None)
            if not alike:
                self._alike.pop(group.key, None)

    def get(self, seq: int) -> StoredTask | None:
        return self._tasks.get(seq)

    def __getitem__(self, seq: int) -> StoredTask:
        return self._tasks[seq]

    def groups(self, seq: int) -> dict[str, Group]:
        """By variant."""
        return self._groups[seq]

    def alike(self, group: Group) -> dict[int, None]:
        """Numbers of the tasks that could be in a model call of the group, in order."""
        return self._alike.get(group.key, {})


def as_rendered(task: StoredTask) -> Task:
    """As a Renderer takes it: its fingerprint is the task's id, so that two equal requests have two clips."""
    request = task.request
    return Task(task.id, request.prompt, request.negative_prompt, task.seed, request.image, request.video)

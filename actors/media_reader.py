"""Input images and videos of a batch, fetched and decoded before the accelerator's turn.

Both happen in confined processes: a server that trickles, a decoder that hangs or dies, and a file that unfolds to
more than memory holds cost their own task and nothing else.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol

from actors.confined import ConfinedProcesses
from actors.failures import media_error
from actors.provenance import input_ingredient
from models.extraction import Extractors
from models.media import Cut, read_image, read_video
from models.model import Pictures, TaskMedia
from schemas.conditions import Condition
from schemas.errors import MediaError, MediaUnavailableError, RenderError, RushesError
from schemas.inputs import Role
from schemas.task import Group, Task

# An address in, the object's bytes out. Pickled: it runs in another process. May raise anything.
Fetch = Callable[[str], bytes]

MEMORY_BYTES = 4 << 30
_PROCESSES = 2


class MediaReader(Protocol):
    """Where a worker gets its tasks' media from."""

    def read(self, group: Group, tasks: Sequence[Task]) -> list[TaskMedia | RushesError]:
        """One entry a task, in order: its media in the group's shape, or why it has none."""
        ...


class ConfinedMediaReader:
    """The MediaReader over `fetch`, with `timeout_s` for all of a task's reading. With `ingredients`, the credentials
    that the files carry are read too. `extractors` find structures where a condition says so. Starts no process before
    the first task that brings media. Not thread-safe."""

    def __init__(
        self,
        fetch: Fetch,
        timeout_s: float,
        *,
        memory_bytes: int = MEMORY_BYTES,
        ingredients: bool = False,
        extractors: Extractors | None = None,
    ) -> None:
        self._fetch = fetch
        self._extractors = extractors or Extractors()
        self._ingredients = ingredients
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_PROCESSES, thread_name_prefix="media")
        self._processes = ConfinedProcesses(_PROCESSES, memory_bytes)

    def read(self, group: Group, tasks: Sequence[Task]) -> list[TaskMedia | RushesError]:
        if not group.conditions:
            return [TaskMedia()] * len(tasks)
        return list(self._threads.map(partial(self._read, group), tasks))

    def close(self) -> None:
        """End the processes. What is being read fails."""
        self._threads.shutdown()
        self._processes.close()

    def _read(self, group: Group, task: Task) -> TaskMedia | RushesError:
        if len(task.media) != len(group.conditions):
            missing = group.conditions[min(len(task.media), len(group.conditions) - 1)]
            return MediaError(f"task {task.fingerprint} has no {missing.role.value}")
        named = ", ".join(f"{uri:.200}" for uri in task.media)
        try:
            read: TaskMedia | RushesError = self._processes.call(
                read_media, self._fetch, group, task.media, self._ingredients, timeout_s=self._timeout_s
            )
        except TimeoutError as error:
            return MediaUnavailableError(f"{named}: {error}")
        except ChildProcessError as error:
            return MediaError(f"{named}: it cannot be decoded: {error}")
        except Exception as error:
            return media_error(error, named)
        return read if isinstance(read, RushesError) else self._with_structures(group, read)

    def _with_structures(self, group: Group, media: TaskMedia) -> TaskMedia | RushesError:
        """What is to be found in pictures is found, in this process: networks are loaded once, and what was decoded is
        no stranger's file any more."""
        if all(one.extract is None for one in group.conditions):
            return media
        try:
            shown = [
                given if one.extract is None else self._extractors(one.extract, given)
                for one, given in zip(group.conditions, media.inputs, strict=True)
            ]
        except RushesError as error:
            return error
        except Exception as error:  # what a library makes of a picture
            return RenderError(f"extract: {type(error).__name__}: {error}")
        pairs = zip(group.conditions, media.inputs, strict=True)
        return replace(
            media, inputs=tuple(shown), originals=tuple(given for one, given in pairs if one.extract is not None)
        )


def read_media(fetch: Fetch, group: Group, uris: Sequence[str], ingredients: bool = False) -> TaskMedia | RushesError:
    """The images and videos at `uris`, one for each of the group's conditions, cut to its shape; or what is wrong with
    the first that cannot be had."""
    inputs: list[Pictures] = []
    told: list[bytes] = []
    for condition, uri in zip(group.conditions, uris, strict=True):
        try:
            data = fetch(uri)
            inputs.append(_decoded(data, condition, group, f"{uri:.200}"))
            ingredient = input_ingredient(data, uri, len(told)) if ingredients else None
        except Exception as error:
            return media_error(error, uri)
        if ingredient is not None:
            told.append(ingredient)
    return TaskMedia(tuple(inputs), tuple(told))


def _decoded(data: bytes, condition: Condition, group: Group, name: str) -> Pictures:
    if condition.medium == "video":
        return read_video(data, group.shape, group.fps, name, _cut(condition, group))
    # Of who or what is to be seen nothing is cut off.
    return read_image(data, group.shape, name, whole=condition.role is Role.REFERENCE)


def _cut(condition: Condition, group: Group) -> Cut:
    """The part of a video that is used. An edit retimes the source, and a mask that moves with it."""
    cut = Cut(condition.start_s or 0.0, condition.end_s)
    edit = group.edit
    if edit is None or condition.role not in (Role.SOURCE, Role.MASK):
        return cut
    return replace(cut, speed=edit.speed or 1.0, reverse=edit.reverse)

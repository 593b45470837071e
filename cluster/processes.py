"""The processes of a Ray that was started here: whether it still lives, and what is left of it at the end.

They carry a mark in their environment, which whatever they start inherits: one whose parent has died is found too.
Some overwrite theirs with their title; those are found as descendants.
"""

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass

import psutil

_MARK = "STARTED_BY_RUSHES"
_CORE = ("gcs_server", "raylet")
_KILL_S = 3.0


@dataclass(frozen=True)
class OwnCluster:
    """`core` are Ray's own two processes: without one of them nothing goes on. `helpers` do without. `others` are
    processes that this one had started before: they are somebody else's."""

    mark: str
    others: frozenset[psutil.Process] = frozenset()
    core: tuple[psutil.Process, ...] = ()
    helpers: tuple[psutil.Process, ...] = ()

    def dead(self) -> str | None:
        """The name of a process of Ray's that has ended; None while all live."""
        for process, name in zip(self.core, _CORE, strict=False):
            if not _lives(process):
                return name
        return None

    def dying(self) -> bool:
        """Whether all of Ray was told to end, as service managers do: its core takes ten seconds and more to follow,
        which it answers nobody in, its helpers do at once."""
        return self.dead() is not None or not all(map(_lives, self.helpers))

    def kill(self) -> None:
        """End whatever is left."""
        left = self._left()
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_KILL_S)

    def _left(self) -> list[psutil.Process]:
        own = psutil.Process()
        family = {process.pid for root in (own, *self.core) for process in _descendants(root)}
        family -= {process.pid for other in self.others for process in (other, *_descendants(other))}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.pid in family or process.environ().get(_MARK) == self.mark
                if process.pid != own.pid and mine and _lives(process):
                    found.append(process)
        return found


def marked() -> OwnCluster:
    """Before Ray is started: its processes will carry the mark."""
    mark = os.environ[_MARK] = f"{os.getpid()}-{uuid.uuid4().hex}"
    return OwnCluster(mark, frozenset(_descendants(psutil.Process())))


def started(cluster: OwnCluster) -> OwnCluster:
    """After Ray has started: its core processes are children of this one."""
    children = [child for child in psutil.Process().children() if child not in cluster.others]
    core = {child.name(): child for child in children if child.name() in _CORE}
    helpers = tuple(child for child in children if child.name() not in _CORE)
    return OwnCluster(cluster.mark, cluster.others, tuple(core[name] for name in _CORE if name in core), helpers)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

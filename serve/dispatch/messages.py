"""What dispatcher and replicas say to each other. Small frozen values: frames never travel."""

from dataclasses import dataclass

from schemas.task import Group, RenderBatch
from serve.store.contract import Progress
from serve.tasks import Lease, Outcome

WAITING = "waiting"  # the stage of a task that its replica has and has not begun


@dataclass(frozen=True)
class Hello:
    """A replica asks for work: who it is, what loading took, and what it has already (an answer may have been lost)."""

    replica: str
    variant: str
    load_s: float = 0.0
    holds: tuple[Lease, ...] = ()


@dataclass(frozen=True)
class Work:
    """One render batch to a replica. A task's fingerprint is its id; `leases` and `queue_s` are in its order."""

    batch: RenderBatch
    leases: tuple[Lease, ...]
    queue_s: tuple[float, ...]
    lease_s: float


@dataclass(frozen=True)
class Begun:
    """A replica is about to render: from here on it is an attempt. `leases` are (task id, epoch)."""

    replica: str
    leases: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Beat:
    """A replica lives, and how far its tasks are. The answer names those that it must stop."""

    replica: str
    progress: tuple[Progress, ...] = ()
    variant: str = ""


@dataclass(frozen=True)
class Ended:
    """One task's attempt is over: for good (`outcome`), or worth another one (`error`). `blameless`: what failed is
    shared by all tasks (the object store), so it was no attempt."""

    lease: Lease
    outcome: Outcome | None = None
    error: str = ""
    cause: str = ""
    blameless: bool = False


@dataclass(frozen=True)
class Results:
    """The tasks of one batch, and the seconds of its model call (0 when there was more than one call)."""

    replica: str
    group: Group
    ended: tuple[Ended, ...]
    render_s: float = 0.0


@dataclass(frozen=True)
class LoadFailure:
    """A replica could not load its variant."""

    replica: str
    variant: str
    error: str
    permanent: bool

"""What the scheduler is told, and what it wants done.

Facts are true whatever we do about them: a row is in the store, a worker was heard. Effects are wishes: each becomes
part of the scheduler's state only once its driver has made it durable, and hands it to `Scheduler.apply` with the
answer.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from cluster.routing.router import Choice
from cluster.scheduling.job import Job, Lease
from cluster.scheduling.timelines import Memory

# -- facts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """Tasks that the store has as waiting. Those that are known already are passed over."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Waiting tasks that nobody wants any more."""

    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A process that holds models is there. `variant` is the one it was started with; `load_s` what loading it took.
    `busy`: it was first heard while it rendered for a driver before."""

    worker: str
    accelerator: str
    memory: Memory
    variant: str = ""
    load_s: float = 0.0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class WorkRequested:
    """A worker is free, or nearly: `holds` are (task id, epoch) of the leases that it has."""

    worker: str
    holds: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Began:
    """A worker calls its model for these (task id, epoch): from here on the lease is an attempt."""

    worker: str
    leases: frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker lives. `began` and `waiting` are (task id, epoch) of what it has."""

    worker: str
    began: frozenset[tuple[str, int]] = frozenset()
    waiting: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A model call is over, from which every task of it came out. `began_at`, where it is known, is when it began, and
    `load_s` what of the time since then was loading: what is left went into publishing."""

    worker: str
    variant: str
    job: Job | None
    batch: int
    render_s: float
    began_at: float | None = None
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone, or counts as gone."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A worker could not load its variant."""

    variant: str
    error: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The driver was away (started again, a store that did not answer, a clock that jumped by `jump_s`): what workers
    said meanwhile was not heard, so nobody is taken for lost before they can have said it again."""

    jump_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TenantShare:
    """What a tenant is given beside others: its weight in the fleet, and the levels of priority by which its tasks may
    go ahead of others' (see fairness). Tasks that wait already stay where they are."""

    tenant: Hashable
    weight: float = 1.0
    max_priority: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Fact = (
    Submitted
    | Withdrawn
    | WorkerUp
    | WorkRequested
    | Began
    | Heartbeat
    | Rendered
    | WorkerLost
    | LoadFailed
    | Interrupted
    | TenantShare
    | Tick
)


@dataclass(frozen=True, slots=True)
class Ended:
    """One task's attempt is over, and what its worker says of it. Not a fact before the store has it.

    `error` is empty when it is over for good (a clip, or a failure that no other attempt would mend). `blameless`: the
    failure was of something that all tasks share (the object store), so it costs the task no attempt.
    """

    lease: Lease
    error: str = ""
    cause: str = ""
    blameless: bool = False


# -- effects -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Lease these waiting tasks to a worker, as one batch. Receipt: the leases that were granted."""

    worker: str
    variant: str
    accelerator: str
    seqs: tuple[int, ...]
    load_s: float = 0.0
    fallback: Mapping[int, str] = field(default_factory=dict)  # why a task goes to another variant than offered


@dataclass(frozen=True, slots=True)
class Finish:
    """End a task for good, as its worker says. Receipt: the status in which it has ended, None for a stale lease."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Retry:
    """A lease ends and its task waits again. Not `spent`: it was no attempt. Receipt: the task's status now, None for a
    stale lease."""

    lease: Lease
    error: str
    cause: str
    not_before: float
    spent: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Give a task up. `epoch` is that of its last lease. Receipt: the status in which it has ended, None for a stale
    lease."""

    task_id: str
    seq: int
    epoch: int
    variant: str
    failure: str
    leased: bool = False  # it is held now, not waiting


@dataclass(frozen=True, slots=True)
class Reclaim:
    """A worker that was only slow goes on with a lease that had run out, if nobody else has its task. Receipt: whether
    it may."""

    lease: Lease
    worker: str


@dataclass(frozen=True, slots=True)
class NoteRouting:
    """A waiting task goes to another variant than it was offered. Receipt: anything."""

    seq: int
    task_id: str
    variant: str
    choice: Choice


@dataclass(frozen=True, slots=True)
class Resize:
    """So many replicas by variant. Receipt: anything, once whoever starts them was told."""

    replicas: Mapping[str, int]


Effect = GrantLease | Finish | Retry | DeadLetter | Reclaim | NoteRouting | Resize

"""How attempts end, and what that makes of a task: pure, the same for every implementation of `TaskStore`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from schemas.clip import Status
from serve.tasks import Outcome


@dataclass(frozen=True)
class Finished:
    """The holder of a lease ends its task for good."""

    task_id: str
    epoch: int
    outcome: Outcome


@dataclass(frozen=True)
class Returned:
    """The holder of a lease gives its task back to the queue. Not `spent`: nobody began it, so it was no attempt."""

    task_id: str
    epoch: int
    error: str
    not_before: float
    spent: bool = True


@dataclass(frozen=True)
class GivenUp:
    """A PENDING task that nobody holds and nobody ever can ends. `epoch`: as it was last seen."""

    task_id: str
    epoch: int
    outcome: Outcome


AttemptEnd: TypeAlias = Finished | Returned | GivenUp


@dataclass(frozen=True)
class Verdict:
    """What an attempt's end does. `status` None: stale, nothing changes. With an `outcome`: the task ends so, `at`.
    Without one, PENDING: it waits again; any other: it has ended so before, and this only repeats it."""

    status: Status | None
    outcome: Outcome | None = None
    at: float = 0.0


STALE = Verdict(None)


def judge(
    end: AttemptEnd,
    *,
    status: str,
    epoch: int,
    variant: str,
    cancelled_at: float | None,
    outcome: str | None,
    now: float,
) -> Verdict:
    """`status` to `outcome` (as JSON) are the task's, as it is stored."""
    if epoch != end.epoch:
        return STALE
    held = status == Status.RUNNING
    if isinstance(end, Returned):
        if not held:
            return STALE
        if cancelled_at is None:
            return Verdict(Status.PENDING)
        return Verdict(Status.CANCELLED, Outcome(status=Status.CANCELLED, variant=variant), cancelled_at)
    # A waiting task that is cancelled ends at once: there is none to be given up.
    told = _cancelled(end.outcome) if cancelled_at is not None and isinstance(end, Finished) else end.outcome
    if held if isinstance(end, Finished) else status == Status.PENDING:
        return Verdict(told.status, told, now)
    return Verdict(told.status) if outcome == told.model_dump_json() else STALE


class EachAlone(ABC):
    """One end is a settlement of one."""

    @abstractmethod
    def settle(self, ends: Sequence[AttemptEnd], now: float) -> tuple[Status | None, ...]: ...

    def finish(self, task_id: str, epoch: int, outcome: Outcome, now: float) -> Status | None:
        return self.settle([Finished(task_id, epoch, outcome)], now)[0]

    def give_back(
        self, task_id: str, epoch: int, error: str, not_before: float, *, spent: bool = True
    ) -> Status | None:
        return self.settle([Returned(task_id, epoch, error, not_before, spent)], 0.0)[0]

    def give_up(self, task_id: str, epoch: int, outcome: Outcome, now: float) -> Status | None:
        return self.settle([GivenUp(task_id, epoch, outcome)], now)[0]


def _cancelled(outcome: Outcome) -> Outcome:
    """What was done and billed until then; whether it would have failed is nobody's business any more."""
    nothing = {"clip": None, "failure": "", "failure_code": "", "dead": False}
    return outcome.model_copy(update={"status": Status.CANCELLED, **nothing})

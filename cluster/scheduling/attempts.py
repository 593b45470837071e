"""Leases that are held, and what becomes of an attempt that fails, is lost, or was never begun."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cluster.scheduling.events import DeadLetter, Effect, Ended, Finish, Retry
from cluster.scheduling.job import Job, Lease

_LOSSES = 8  # times max_attempts that a task may be lost before anybody begins it
LONGEST_PAUSE_S = 60.0
"""The longest that a retry waits."""
LOST = "WorkerLost"
"""The cause of an attempt that ended because its worker was not heard any more."""


@dataclass(frozen=True)
class AttemptRules:
    """How attempts are judged."""

    lease_s: float = 8.0  # a worker that is silent for so long has lost its tasks
    max_attempts: int = 3
    retry_base_s: float = 1.0


@dataclass
class Held:
    """A task that is leased. `job` is None where only the store knew of it."""

    lease: Lease
    worker: str
    job: Job | None
    heard_at: float  # when its worker named it last
    variant: str
    began: bool = False
    lost: bool = False  # its worker is known to be gone
    began_at: float | None = None
    load_s: float = 0.0  # of its call, what was predicted to go into loading first


class Attempts:
    """The leases of one scheduler. What it answers as effects is not done yet."""

    def __init__(self, rules: AttemptRules, now: float) -> None:
        self.rules = rules
        self._held: dict[str, Held] = {}
        self._of_worker: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._reclaimable: dict[str, Held] = {}  # leases that ran out while nobody else has their tasks
        self._setbacks: defaultdict[str, int] = defaultdict(int)
        self._patient_until = now + rules.lease_s

    # -- who holds what ------------------------------------------------------------------------------------------

    def held(self, task_id: str) -> Held | None:
        """The lease that is held of a task."""
        return self._held.get(task_id)

    def all(self) -> tuple[Held, ...]:
        """Every lease that is held."""
        return tuple(self._held.values())

    def of(self, worker: str) -> tuple[Held, ...]:
        """Those of one worker, in the order in which it got them."""
        return tuple(self._held[task_id] for task_id in self._of_worker[worker])

    def current(self, task_id: str, epoch: int) -> Held | None:
        """The lease of a task, where it is this one."""
        held = self._held.get(task_id)
        return held if held is not None and held.lease.epoch == epoch else None

    def hold(self, held: Held) -> None:
        """Somebody holds a task."""
        self.drop(held.lease.task_id)
        self._held[held.lease.task_id] = held
        self._of_worker[held.worker][held.lease.task_id] = None

    def drop(self, task_id: str) -> Held | None:
        """Nobody holds it any more."""
        held = self._held.pop(task_id, None)
        if held is not None:
            self._of_worker[held.worker].pop(task_id, None)
            if not self._of_worker[held.worker]:
                del self._of_worker[held.worker]
        return held

    # -- what is heard -------------------------------------------------------------------------------------------

    def named(self, leases: Iterable[tuple[str, int]], now: float, *, began: bool = False) -> list[Held]:
        """A worker has these (task id, epoch); the ones that are still its own."""
        found = []
        for task_id, epoch in leases:
            held = self.current(task_id, epoch)
            if held is not None:
                held.heard_at = max(held.heard_at, now)
                if began and not held.began:
                    held.began, held.began_at = True, now
                found.append(held)
        return found

    def worker_lost(self, worker: str) -> None:
        """A worker is gone: what it had not begun, nobody will."""
        for held in self.of(worker):
            held.lost = True

    def interrupted(self, now: float) -> None:
        """Nobody could be heard for a while: all are heard again before any lease runs out."""
        self._patient_until = now + self.rules.lease_s
        for held in self._held.values():
            held.heard_at = now

    def is_patient(self, now: float) -> bool:
        """Whether silence says nothing yet."""
        return now < self._patient_until

    # -- how attempts end ------------------------------------------------------------------------------------------

    def expired(self, now: float) -> Iterator[Effect]:
        """What becomes of leases whose worker is silent or gone."""
        for held in self._held.values():
            if held.lost and not held.began:
                yield self.not_begun(held, "its worker was lost before it began", now)
            elif self.is_patient(now) or now - held.heard_at <= self.rules.lease_s:
                continue
            elif held.began:
                yield self._again(held, "its worker was lost", LOST, now)
            else:
                yield self.not_begun(held, "its worker never began it", now)

    def ended(self, ended: Ended, now: float) -> Finish | Retry | DeadLetter:
        """What becomes of an attempt that its worker says is over."""
        lease = ended.lease
        if not ended.error:
            return Finish(lease)
        held = self.current(lease.task_id, lease.epoch) or Held(lease, "", None, now, "", began=True)
        if ended.blameless:
            not_before = now + self._pause_s(self._setbacks.get(lease.task_id, 0))
            return Retry(held.lease, ended.error, ended.cause, not_before, spent=False)
        return self._again(held, ended.error, ended.cause, now)

    def not_begun(self, held: Held, why: str, now: float) -> Retry | DeadLetter:
        """A lease that was no attempt."""
        # Hardly anything is lost so often before it begins: from then on it counts, so that it ends.
        if held.lease.epoch >= _LOSSES * self.rules.max_attempts:
            return self._again(held, why, "NotBegun", now)
        return Retry(held.lease, why, "NotBegun", now, spent=False)

    def _again(self, held: Held, error: str, cause: str, now: float) -> Retry | DeadLetter:
        """A failed attempt: another one after a pause, or a dead letter."""
        lease = held.lease
        if lease.attempt >= self.rules.max_attempts:
            failure = f"given up after {lease.attempt} attempts: {error}"
            return DeadLetter(lease.task_id, lease.seq, lease.epoch, held.variant, failure, leased=True)
        return Retry(lease, error, cause, now + self._pause_s(lease.attempt - 1), spent=True)

    def _pause_s(self, doublings: int) -> float:
        return min(LONGEST_PAUSE_S, self.rules.retry_base_s * 2.0 ** max(0, min(doublings, 16)))

    def retried(self, held: Held, retry: Retry) -> None:
        """The task of a lease waits again. Its worker, where it was only slow, may go on with it."""
        if retry.spent and retry.cause == LOST:
            self._reclaimable[held.lease.task_id] = held
        if not retry.spent:
            self._setbacks[held.lease.task_id] += 1

    def over(self, task_id: str) -> None:
        """A task has ended for good."""
        self.drop(task_id)
        self._setbacks.pop(task_id, None)
        self._reclaimable.pop(task_id, None)

    def not_reclaimable(self, task_id: str) -> Held | None:
        """Somebody has the task, or it ended: the lease that could have been taken up again."""
        return self._reclaimable.pop(task_id, None)

    def reclaimable(self, worker: str, leases: Iterable[tuple[str, int]]) -> Iterator[Held]:
        """Of (task id, epoch) that a worker names, the leases that ran out and can go on."""
        for task_id, epoch in leases if self._reclaimable else ():
            held = self._reclaimable.get(task_id)
            if held is not None and held.lease.epoch == epoch and held.worker == worker:
                yield held

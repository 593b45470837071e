"""Makes the scheduler's effects durable, and answers with what the store said: their receipts."""

import json
from collections.abc import Mapping, Sequence

from cachetools import LRUCache

from cluster.scheduling import events
from cluster.scheduling.events import DeadLetter, Effect, Finish, GrantLease, NoteRouting, Reclaim, Retry
from cluster.scheduling.job import Lease
from cluster.scheduling.scheduler import Scheduler
from schemas.clip import Status
from schemas.task import RenderBatch
from serve.dispatch.jobs import Jobs, as_rendered
from serve.dispatch.messages import Work
from serve.store.attempts import AttemptEnd, Finished, GivenUp, Returned
from serve.store.contract import TaskStore
from serve.tasks import Outcome, StoredTask

_MOST_ROWS = 4096

End = Finish | Retry | DeadLetter


class EffectWriter:
    """Over one task store. Raises what the store raises: then nothing was written, or nobody knows."""

    def __init__(self, tasks: TaskStore, jobs: Jobs, scheduler: Scheduler, lease_s: float) -> None:
        self._tasks, self._jobs, self._scheduler, self._lease_s = tasks, jobs, scheduler, lease_s
        self._rows: LRUCache[int, StoredTask] = LRUCache(_MOST_ROWS)
        self.works: dict[str, Work] = {}
        """What each replica was given last, to be given again when its answer was lost."""

    def remember(self, row: StoredTask) -> None:
        """A row that was read anyway: it is likely to be leased soon."""
        self._rows[row.seq] = row

    def write(self, effect: Effect, now: float) -> object:
        """One effect. `Finish` needs an outcome: see `settle`."""
        match effect:
            case GrantLease():
                return self._lease(effect, now)
            case Reclaim():
                lease = effect.lease
                return self._tasks.take_up(lease.task_id, lease.epoch, effect.worker, now + self._lease_s, now)
            case NoteRouting():
                self._note(effect)
                return None
            case events.Resize():
                return None
            case _:
                return self.settle([effect], {}, now)[0]

    def settle(
        self, ends: Sequence[End], outcomes: Mapping[tuple[str, int], Outcome], now: float
    ) -> tuple[Status | None, ...]:
        """The ends of several attempts, in one transaction; `outcomes` by task id and epoch."""
        return self._tasks.settle([_stored_end(end, outcomes) for end in ends], now) if ends else ()

    def _lease(self, grant: GrantLease, now: float) -> tuple[Lease, ...]:
        rows = self._rows_of(grant.seqs)
        groups = {row.seq: self._jobs.groups(row)[grant.variant] for row in rows}
        if not groups:
            return ()
        leases = self._tasks.lease(
            list(groups),
            grant.worker,
            grant.variant,
            now + self._lease_s,
            now,
            groups={row.seq: groups[row.seq].model_dump_json() for row in rows if row.group.key != groups[row.seq].key},
            fallback=grant.fallback,
        )
        if leases:
            by_seq = {row.seq: row for row in rows}
            held = [by_seq[lease.seq] for lease in leases]
            self.works[grant.worker] = Work(
                RenderBatch(groups[leases[0].seq], tuple(as_rendered(row) for row in held)),
                leases,
                tuple(max(0.0, now - row.created_at) for row in held),
                self._lease_s,
            )
        for seq in grant.seqs:
            self._rows.pop(seq, None)
        return tuple(Lease(lease.task_id, lease.seq, lease.epoch, lease.attempt) for lease in leases)

    def _rows_of(self, seqs: Sequence[int]) -> list[StoredTask]:
        """In their order, as far as they are there."""
        jobs = {seq: job for seq in seqs if (job := self._scheduler.job(seq)) is not None}
        absent = [job.id for seq, job in jobs.items() if seq not in self._rows]
        for row in self._tasks.get_many(absent) if absent else ():
            self._rows[row.seq] = row
        return [self._rows[seq] for seq in jobs if seq in self._rows]

    def _note(self, effect: NoteRouting) -> None:
        row = self._rows.get(effect.seq) or next(iter(self._tasks.get_many([effect.task_id])), None)
        group = None if row is None else self._jobs.groups(row).get(effect.variant)
        if group is not None:
            trace = [*effect.choice.story.as_log(), {"type": "note", "text": effect.choice.sentence}]
            self._tasks.reprice(effect.task_id, group.model_dump_json(), json.dumps(trace, default=list))
            self._rows.pop(effect.seq, None)


def _stored_end(end: End, outcomes: Mapping[tuple[str, int], Outcome]) -> AttemptEnd:
    match end:
        case Finish():
            lease = end.lease
            return Finished(lease.task_id, lease.epoch, outcomes[lease.task_id, lease.epoch])
        case Retry():
            return Returned(end.lease.task_id, end.lease.epoch, end.error, end.not_before, end.spent)
        case DeadLetter():
            outcome = Outcome(
                status=Status.FAILED,
                variant=end.variant,
                failure=end.failure,
                failure_code="INTERNAL",
                dead=True,
            )
            return (Finished if end.leased else GivenUp)(end.task_id, end.epoch, outcome)

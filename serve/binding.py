"""Binding: the tasks that one model call of a replica takes, leased to it."""

from itertools import islice

from cluster.calibration import Calibrator
from cluster.dispatch import Dispatcher, Start
from schemas.catalog import Catalog
from schemas.task import RenderBatch
from serve.ends import Ends
from serve.messages import Work
from serve.metrics import DispatchMetrics
from serve.overdue import Overdue
from serve.plan import Plan
from serve.roster import Roster
from serve.store.contract import TaskStore
from serve.tasks import StoredTask
from serve.waiting import as_rendered
from serve.wants import batch_of, seconds_of


class Binding:
    """Of one broker, which has the lock."""

    def __init__(
        self,
        served: Catalog,
        tasks: TaskStore,
        policy: Dispatcher,
        plan: Plan,
        roster: Roster,
        calibrator: Calibrator,
        ends: Ends,
        overdue: Overdue,
        metrics: DispatchMetrics,
        lease_s: float,
    ) -> None:
        self._served, self._tasks, self._policy, self._plan, self._roster = served, tasks, policy, plan, roster
        self._calibrator, self._ends, self._overdue, self._metrics = calibrator, ends, overdue, metrics
        self._lease_s = lease_s

    def work(self, start: Start, now: float) -> Work | None:
        """Lease the started task and as many of its kind as one call takes."""
        first = self._plan.waiting.get(start.task)
        if first is None:
            return None
        group = self._plan.waiting.groups(start.task)[start.variant]
        pool = self._policy.pools[f"{start.variant}/{self._roster.accelerator_of(start.variant)}"]
        most = self._served[start.variant].max_batch - 1
        alike = list(
            islice((seq for seq in self._plan.waiting.alike(group) if self._may_join(seq, first, start.variant)), most)
        )
        # A task that lost a replica may have killed it: it is tried alone.
        size = 1 if first.attempts else batch_of(self._served[start.variant], pool.accelerator, group, len(alike) + 1)
        mates = alike[: size - 1]
        seqs = [start.task, *mates]
        tasks = {seq: self._plan.waiting[seq] for seq in seqs}
        replaced = {s: group.model_dump_json() for s, t in tasks.items() if t.group.key != group.key}
        excuses = {s: self._excuse(t, start.variant) for s, t in tasks.items() if t.offer.variant != start.variant}
        leases = self._tasks.lease(
            seqs,
            str(start.replica),
            start.variant,
            now + self._lease_s,
            now,
            groups=replaced,
            fallback=excuses,
        )
        for seq in seqs:
            self._plan.forget(seq, now)
        if not leases:
            return None
        extra_s = seconds_of(self._calibrator, pool.variant, pool.accelerator, group, len(leases)) * len(leases)
        self._policy.extend(start.replica, extra_s, now)
        held = [tasks[lease.seq] for lease in leases]
        for task in held:
            self._overdue.taken(task.id)
            self._ends.began(task)
            self._metrics.started(start.variant, now - task.created_at)
            if task.offer.variant != start.variant:
                self._metrics.fell_back(f"{task.offer.variant} to {start.variant}")
        self._roster.began(str(start.replica), held, now)
        batch = RenderBatch(group, tuple(as_rendered(task) for task in held))
        waits = tuple(max(0.0, now - task.created_at) for task in held)
        return Work(batch, leases, waits, self._lease_s)

    def _may_join(self, seq: int, first: StoredTask, variant: str) -> bool:
        task = self._plan.waiting[seq]
        if seq == first.seq or task.attempts or task.priority < first.priority:
            return False
        # A fallback is for those who need one, not for whoever waits for its own variant meanwhile.
        place = self._policy.timelines.waiting.get(seq)
        return variant == (task.offer.variant if place is None else self._roster.variant_of(place))

    def _excuse(self, task: StoredTask, variant: str) -> str:
        return f"{task.offer.variant} {self._roster.trouble(task.offer.variant)}: {variant} instead"

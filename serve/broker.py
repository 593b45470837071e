"""Between the durable queue and the replicas: who renders what next. Knows no Ray and no HTTP.

    store ──pending──▶ policy (cluster.dispatch) ──plan──▶ a replica that pulls ──lease──▶ Work ──▶ Results ──▶ store

Everything in memory can be lost: a new broker reads the queue from the store, learns replicas as they pull, and what
they hold from their heartbeats. All decisions are `cluster/`'s; all truths are the store's. Thread-safe.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from time import time

from cluster.dispatch import Dispatcher, Start
from cluster.dispatch import Group as Place
from cluster.eta import EtaBook
from cluster.terms import PoolView, Wanted
from schemas.catalog import Catalog
from schemas.clip import Status
from serve.binding import Binding
from serve.config import ServeConfig
from serve.demand import demands
from serve.ends import Ends
from serve.fleet import NOTE, FleetReport
from serve.handed import Handed
from serve.late import LateTasks, mind_calls
from serve.learnt import Learnt
from serve.messages import WAITING, Beat, Begun, Hello, LoadFailure, Results, Work
from serve.metrics import DispatchMetrics
from serve.overdue import Overdue
from serve.plan import Plan
from serve.roster import Roster
from serve.store.contract import Store
from serve.waiting import Waiting
from serve.wants import seconds_of, willing

log = logging.getLogger(__name__)

_AGAIN_S, _NOTE_S, _LATE_S, _KEEP_S = 0.3, 0.5, 2.0, 10.0


class Broker:
    """The queue's one dispatcher. `on_work` is told the replica for which a batch has become ready, `on_cancelled` the
    task that ended so after somebody had begun it: something may be stored for it."""

    def __init__(
        self,
        config: ServeConfig,
        served: Catalog,
        store: Store,
        *,
        accelerators: tuple[str, ...] = ("cpu",),
        metrics: DispatchMetrics | None = None,
        on_work: Callable[[str], None] = lambda replica: None,
        on_cancelled: Callable[[str], None] = lambda task_id: None,
        now: Callable[[], float] = time,
    ) -> None:
        self._config, self._store, self._now = config, store, now
        self._on_work = on_work
        self.metrics = metrics or DispatchMetrics()
        self._learnt = Learnt(served, store.notes, self.metrics)
        self._calibrator = self._learnt.calibrator
        self._book = EtaBook()
        self._ends = Ends(config.queue, store.tasks, self._book, self.metrics, on_cancelled)
        self._waiting = Waiting()
        places = [Place(name, price_usd_per_hour=0.0) for name in accelerators]
        self._policy = Dispatcher(willing(served), places, estimate=self._estimate)
        for pool in self._policy.pools.values():
            # Prices are the variants' own; a place only says which accelerators there are.
            pool.group = Place(pool.accelerator, pool.variant.price_usd_per_gpu_hour)
        self.roster = Roster(config, served, self._policy, self._calibrator, accelerators, now)
        self._plan = Plan(served, store.tasks, self._policy, self._waiting, self.roster, self._ends)
        self._lock = threading.RLock()
        self._late = LateTasks(self._policy, self._waiting, self.roster.variant_of)
        self._handed = Handed()
        self._overdue = Overdue(store.tasks)
        self._binding = Binding(
            served,
            store.tasks,
            self._policy,
            self._plan,
            self.roster,
            self._calibrator,
            self._ends,
            self._overdue,
            self.metrics,
            config.queue.lease_s,
        )
        self._last_seq = 0
        self._due: defaultdict[str, float] = defaultdict(float)
        self._draining = False
        # Nobody could prolong a lease while there was no broker.
        self._patient_until = now() + config.queue.lease_s
        self._begun: dict[str, float] = {}  # replica → when what it does was given to it

    # -- replicas ------------------------------------------------------------------------------------------------

    def pull(self, hello: Hello) -> Work | None:
        """The replica is free, or nearly: its next batch, or None when there is nothing for it now."""
        with self._lock:
            now = self._now()
            self._go_on(hello.replica, hello.variant, ((x.task_id, x.epoch) for x in hello.holds), now)
            if self._draining:
                self.roster.heard(hello.replica, now)
                return self._handed.answer(hello)
            if self.roster.greet(hello, now):
                self._reroute(self.roster.join(hello, now), now)
            if work := self._handed.answer(hello):
                return work
            self._begin(self._policy.free(hello.replica, now), now)
            return self._handed.answer(hello)

    def begun(self, said: Begun) -> None:
        """The replica calls its model for these. Waits for nothing: the model waits for this."""
        self._handed.begun(said)

    def beat(self, beat: Beat) -> tuple[str, ...]:
        """Heartbeat of a replica; answers the ids of the tasks that it must stop."""
        begun = frozenset((at.task_id, at.epoch) for at in beat.progress if at.stage != WAITING)
        self._handed.begun(Begun(beat.replica, begun))
        with self._lock:
            now = self._now()
            self.roster.heard(beat.replica, now, beat.variant if beat.progress else "")
            stop = self._store.tasks.renew(beat.progress, now + self._config.queue.lease_s)
            on = self._go_on(beat.replica, beat.variant, ((at.task_id, at.epoch) for at in beat.progress), now)
            return tuple(task_id for task_id in stop if task_id not in on)

    def done(self, results: Results) -> None:
        """Attempts have ended. Idempotent: a repeated or stale message changes nothing."""
        leases = frozenset((ended.lease.task_id, ended.lease.epoch) for ended in results.ended)
        self._handed.begun(Begun(results.replica, leases))
        with self._lock:
            now = self._now()
            self.roster.heard(results.replica, now)
            self.roster.rendered(results, now)
            self._go_on(results.replica, results.group.variant, leases, now)
            for ended in results.ended:
                self._ends.ended(ended, now)
            self._learnt.observe(results, self.roster.accelerator_of(results.group.variant))

    def failed_to_load(self, failure: LoadFailure) -> None:
        """A replica could not load its variant: its pool is down for a while, and tasks go elsewhere."""
        with self._lock:
            now = self._now()
            log.warning("%s: cannot load %s: %s", failure.replica, failure.variant, failure.error)
            self._reroute(self.roster.load_failed(failure, now), now)

    def gone(self, replica: str) -> None:
        """A replica said that it leaves."""
        with self._lock:
            self._lose([replica], self._now(), "left")

    # -- the clock -----------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Take in what changed in the store, and what time itself changed. Called often; each part has its pace."""
        with self._lock:
            now = self._now()
            starts: list[Start] = []
            if self._is_due("again", now, _AGAIN_S):
                self._lose(self.roster.silent(now), now, "is silent")
                self._reroute(self.roster.tend(now), now)
                mind_calls(self._policy, self._begun, now)
                for task in self._store.tasks.expired(now) if now >= self._patient_until else ():
                    if holder := self._handed.holder(task.id, task.epoch):
                        self._take_back(holder, "it never began", now)
                    elif self._ends.retry(task, task.epoch, "its replica was lost", "ReplicaLost", now):
                        self._overdue.add(task)
                for task in self._store.tasks.waiting_again(now):
                    starts += self._plan.enter(task, now)
                for key_id in self._store.tasks.throttled_keys():
                    self._release(key_id, now)
            while fresh := self._store.tasks.pending(self._last_seq):
                self._last_seq = max(task.seq for task in fresh)
                for task in fresh:
                    starts += self._plan.enter(task, now)
            # Only now: tasks of one kind that came together are rendered together.
            self._begin(starts, now)
            if self._is_due("late", now, _LATE_S) and not self._draining:
                for task in self._late.to_move(now):
                    self._policy.withdraw(task.seq, now)
                    self._begin(self._plan.route(task, now), now)
            if self._is_due("note", now, _NOTE_S):
                self._publish(now)
            if self._is_due("keep", now, _KEEP_S):
                self._learnt.keep()
                self._tidy()

    def drain(self) -> None:
        """Give out no more work; what runs goes on, what waits stays in the store."""
        with self._lock:
            self._draining = True
            self._publish(self._now())

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _reroute(self, moved: tuple[list[Start], list[int]], now: float) -> None:
        """Begin starts, and route tasks again whose replica is no more or whose variant has become ready."""
        starts, seqs = moved
        self._begin(starts + self._plan.route_again(seqs, now), now)

    def _estimate(self, pool: PoolView, wanted: Wanted) -> float:
        group = self._waiting.groups(wanted.task)[pool.variant.name]
        return seconds_of(self._calibrator, pool.variant, pool.accelerator, group, len(self._waiting.alike(group)))

    def _begin(self, starts: list[Start], now: float) -> None:
        """Turn the policy's starts into leased batches. A start whose tasks are all gone frees its replica again."""
        queue = [] if self._draining else list(starts)
        while queue:
            start = queue.pop(0)
            if self.roster.is_placeholder(start.replica):
                continue  # the task waits for a replica that is still loading
            work = self._binding.work(start, now)
            if work is None:
                queue += self._policy.free(start.replica, now)
                continue
            self._begun[str(start.replica)] = now
            self._handed.give(str(start.replica), work)
            self._on_work(str(start.replica))

    # -- losses and notes ---------------------------------------------------------------------------------------------

    def _lose(self, replicas: list[str], now: float, why: str) -> None:
        for replica in replicas:
            log.warning("replica %s %s: its tasks go elsewhere", replica, why)
            moved = self.roster.leave(replica, now)
            self._begun.pop(replica, None)
            self._take_back(replica, why, now)
            self._reroute(moved, now)

    def _take_back(self, replica: str, why: str, now: float) -> None:
        """What the replica was given and has not begun waits again, as if it had never been given."""
        work = self._handed.take(replica)
        ids = [] if work is None else self._ends.not_begun(work.leases, f"replica {replica} {why}", now)
        starts: list[Start] = []
        for task in self._store.tasks.get_many(ids):
            if task.status is Status.PENDING:
                starts += self._plan.enter(task, now)
        self._begin(starts, now)

    def _go_on(self, replica: str, variant: str, leases: Iterable[tuple[str, int]], now: float) -> set[str]:
        """A replica that was only slow goes on with what ran out meanwhile and nobody else took: the tasks' ids."""
        found = self._overdue.go_on(replica, variant, leases, now + self._config.queue.lease_s, now)
        for task in found:
            self._plan.forget(task.seq, now)
        return {task.id for task in found}

    def _release(self, key_id: str, now: float) -> None:
        key = self._store.keys.get(key_id)
        most = (key.max_concurrent if key is not None else None) or self._config.limits.max_concurrent
        self._store.tasks.release(key_id, most if most is not None else 1_000_000, now)

    def _is_due(self, what: str, now: float, every_s: float) -> bool:
        if now < self._due[what]:
            return False
        self._due[what] = now + every_s
        return True

    def report(self) -> FleetReport:
        """The fleet as it is now."""
        with self._lock:
            return self._report(self._now())

    def _report(self, now: float) -> FleetReport:
        waits = demands(self._policy, self._waiting, now)
        pools = self.roster.reports(waits, now)
        return FleetReport(at=now, pools=pools, ratios=self._book.table(), draining=self._draining)

    def _publish(self, now: float) -> None:
        report = self._report(now)
        self._store.notes.write(NOTE, report.model_dump(mode="json"))
        self.metrics.fleet(report)

    def _tidy(self) -> None:
        """Forget tasks that were cancelled while they waited, and count what only the store knows."""
        counts = self._store.tasks.counts()
        self.metrics.webhooks(self._store.deliveries.counts())
        self.metrics.dead_letters(counts.dead)
        self.metrics.throttled(counts.by_status[Status.THROTTLED])
        self._overdue.keep(self._waiting)
        if len(self._waiting) > counts.by_status[Status.PENDING]:
            self._plan.forget_ended(self._now())

    # -- how many ------------------------------------------------------------------------------------------------

    def sizes(self, gpus: float, cpus: float) -> dict[str, int]:
        """Replicas by variant that the present demand asks for, on a cluster of so many GPUs and CPUs."""
        with self._lock:
            now = self._now()
            waits = demands(self._policy, self._waiting, now)
            return self.roster.sizes(waits, (gpus, cpus), now)

"""Drives the one Scheduler with the real clock and the durable queue. Knows no Ray and no HTTP.

    store ──waiting rows──▶ Scheduler ──effects──▶ store ──receipts──▶ Scheduler
    replicas ──messages──▶ here ──▶ Work

Everything in memory can be lost: a new driver reads the queue from the store, learns replicas as they pull, and what
they hold from their heartbeats. All decisions are the Scheduler's; all truths are the store's. Thread-safe.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, time
from typing import TypeVar

from cluster.cost.service_times_state import ServiceTimesState
from cluster.scheduling import events
from cluster.scheduling.attempts import Held
from cluster.scheduling.demand import resize
from cluster.scheduling.eta import EtaEstimator, EtaState
from cluster.scheduling.events import DeadLetter, Effect, Ended, Finish, GrantLease, Reclaim, Retry
from cluster.scheduling.job import Lease
from cluster.scheduling.timelines import FixedMemory
from schemas.catalog import Catalog
from schemas.clip import Status
from serve.admission.allowance import Allowance
from serve.admission.fits import Fits
from serve.config import ServeConfig
from serve.dispatch.effect_writer import EffectWriter, End
from serve.dispatch.fleet import CALIBRATION, ETA, NOTE, FleetReport, fleet_report
from serve.dispatch.jobs import Jobs
from serve.dispatch.messages import WAITING, Beat, Begun, Hello, LoadFailure, Results, Work
from serve.dispatch.messages import Ended as EndedAttempt
from serve.dispatch.pools import accelerators_of, make_scheduler
from serve.errors import StoreUnavailableError
from serve.keys import LOCAL, share_of
from serve.observability.metrics import DispatchMetrics
from serve.store.contract import Store
from serve.tasks import Outcome, StoredTask

log = logging.getLogger(__name__)

_TICK_S, _KEEP_S, _LEARNT_S, _RECONCILE_S, _SHARES_S = 0.3, 10.0, 1.0, 5.0, 3.0
_NOTE_S, _LEAST_NOTE_S = 0.5, 0.1  # between notes of the fleet, and when tasks have begun or ended since
_PAGE = 500
Receipt = TypeVar("Receipt")
_ROUNDS = 8
_JUMP_S = 2.0
_UNLIMITED = 1_000_000


class SchedulerDriver:
    """The dispatcher without its process. `on_work` is told the replica for which a batch has become ready,
    `on_cancelled` the task that ended so after somebody had begun it: something may be stored for it."""

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
        steady: Callable[[], float] = monotonic,
    ) -> None:
        self._config, self._served, self._store, self._now, self._steady = config, served, store, now, steady
        self._on_work, self._on_cancelled = on_work, on_cancelled
        self.metrics = metrics or DispatchMetrics()
        self._jobs = Jobs(served, Fits(served, config.fit_sizes, config.loras))
        self.scheduler = make_scheduler(
            config,
            served,
            accelerators_of(served, accelerators),
            ServiceTimesState.read(store.notes.read(CALIBRATION)),
            now(),
            EtaEstimator(state=EtaState.read(store.notes.read(ETA))),
        )
        self._lock = threading.RLock()
        self._begun: deque[tuple[float, Begun]] = deque()  # told without waiting for the lock, and when
        self._writer = EffectWriter(store.tasks, self._jobs, self.scheduler, config.queue.lease_s)
        self._last_seq = 0
        self._due: dict[str, float] = {}
        self._pumped_at, self._wall_at = steady(), now()
        self._reconcile_s, self._learnt_s = _RECONCILE_S, _LEARNT_S
        self._written = 0  # observations that were written
        self._least_note_s = _LEAST_NOTE_S
        self._shares: dict[str, events.TenantShare] = {}  # of keys that are given more, or less, than others
        self._told = 0  # version of the scheduler that the last note told of

    # -- replicas ------------------------------------------------------------------------------------------------

    def pull(self, hello: Hello) -> Work | None:
        """The replica is free, or nearly: its next batch, or None when there is nothing for it now."""
        with self._lock:
            now = self._entered()
            if not self._known(hello.replica, hello.variant, now, load_s=hello.load_s):
                return None
            holds = frozenset((lease.task_id, lease.epoch) for lease in hello.holds)
            self._handle(events.WorkRequested(hello.replica, holds), now)
            return self._given(hello.replica)

    def begun(self, said: Begun) -> None:
        """The replica calls its model for these. Waits for nothing: the model waits for this."""
        self._begun.append((self._now(), said))

    def beat(self, beat: Beat) -> tuple[str, ...]:
        """Heartbeat of a replica; answers the ids of the tasks that it must stop."""
        with self._lock:
            now = self._entered()
            named = [((at.task_id, at.epoch), at.stage) for at in beat.progress]
            if beat.progress:
                self._known(beat.replica, beat.variant, now, busy=True)
            began = frozenset(lease for lease, stage in named if stage != WAITING)
            waiting = frozenset(lease for lease, stage in named if stage == WAITING)
            self._handle(events.Heartbeat(beat.replica, began, waiting), now)
            return self._store.tasks.renew(beat.progress, now + self._config.queue.lease_s)

    def done(self, results: Results) -> None:
        """Attempts have ended. Idempotent: a repeated or stale message changes nothing. Raises what the store raises:
        the replica tells it again."""
        with self._lock:
            now = self._entered()
            leases = frozenset((ended.lease.task_id, ended.lease.epoch) for ended in results.ended)
            self.scheduler.record(events.Began(results.replica, leases), now)
            for effect in self.scheduler.decide(events.Heartbeat(results.replica, leases), now):
                self._perform(effect, now)
            rendered = self._rendered(results)
            self._settle_ends(results.ended, now)
            if rendered is not None:
                self.scheduler.record(rendered, now)

    def _settle_ends(self, ended: Sequence[EndedAttempt], now: float) -> None:
        """All of a batch in one transaction: it is stored as one, or told again."""
        outcomes: dict[tuple[str, int], Outcome] = {}
        ends: list[End] = []
        bills = self._bills_of_refused(ended)
        for one in ended:
            lease = Lease(one.lease.task_id, one.lease.seq, one.lease.epoch, one.lease.attempt)
            error = "" if one.outcome is not None else one.error or "failed"
            if one.outcome is not None:
                usd = bills.get(lease.task_id)
                told = one.outcome if usd is None else one.outcome.model_copy(update={"billed_usd": usd})
                outcomes[lease.task_id, lease.epoch] = told
            ends.append(self.scheduler.ended(Ended(lease, error, one.cause, one.blameless), now))
        receipts = self._durably(lambda: self._writer.settle(ends, outcomes, now), now)
        for end, receipt in zip(ends, receipts, strict=True):
            self.scheduler.apply(end, receipt, now)
            if isinstance(end, Finish):
                self._over(end.lease.task_id, outcomes[end.lease.task_id, end.lease.epoch], receipt, now)
            else:
                self._applied(end, receipt, now)

    def _bills_of_refused(self, ended: Sequence[EndedAttempt]) -> dict[str, float]:
        """What tasks are billed whose input was refused, where the settings say that they are: their quotes."""
        refused = [one.lease.task_id for one in ended if one.outcome is not None and _is_refused_input(one.outcome)]
        if not refused or not self._config.moderation.bill_refused_input:
            return {}
        return {row.id: row.offer.usd for row in self._store.tasks.get_many(refused)}

    def failed_to_load(self, failure: LoadFailure) -> None:
        """A replica could not load its variant: its pool is down for a while, and tasks go elsewhere."""
        with self._lock:
            now = self._entered()
            log.warning("%s: cannot load %s: %s", failure.replica, failure.variant, failure.error)
            self.scheduler.record(events.LoadFailed(failure.variant, failure.error), now)
            self._settle(now)

    def gone(self, replica: str) -> None:
        """A replica said that it leaves."""
        with self._lock:
            now = self._entered()
            log.info("replica %s left: its tasks go elsewhere", replica)
            self.scheduler.record(events.WorkerLost(replica, "left"), now)
            self._settle(now)

    def _known(self, replica: str, variant: str, now: float, *, load_s: float = 0.0, busy: bool = False) -> bool:
        """Whether the replica is one of ours: of a served variant, registered now if it was not."""
        if replica in self.scheduler.workers:
            return True
        state = self.scheduler.variants.get(variant)
        if state is None:
            log.warning("replica %s is of %r, which is not served: it gets nothing", replica, variant)
            return False
        number = self.scheduler.planner.numbers[variant]
        up = events.WorkerUp(replica, state.served.accelerator, FixedMemory(number), variant, load_s, busy)
        self.scheduler.record(up, now)
        return True

    def _given(self, replica: str) -> Work | None:
        worker = self.scheduler.workers.get(replica)
        if worker is None or not worker.unacknowledged:
            self._writer.works.pop(replica, None)
            return None
        return self._writer.works.get(replica)

    def _rendered(self, results: Results) -> events.Rendered | None:
        """A call of which everything came out; others took what they took for reasons of their own."""
        whole = all(e.outcome is not None and e.outcome.status is Status.SUCCEEDED for e in results.ended)
        if not (whole and results.ended and results.render_s > 0):
            return None
        group, size = results.group, len(results.ended)
        worker = self.scheduler.workers.get(results.replica)
        pool = f"{group.variant}/{worker.accelerator}" if worker is not None else ""
        self.metrics.rendered(group.variant, group.shape, results.render_s, size, pool=pool)
        held = self.scheduler.attempts.held(results.ended[0].lease.task_id)
        if held is None:
            return None
        return events.Rendered(results.replica, group.variant, held.job, size, results.render_s, began_at=held.began_at)

    # -- the clock -----------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Take in what changed in the store, and what time itself changed. Called often; each part has its pace."""
        with self._lock:
            now = self._entered()
            self._notice_gaps(now)
            if self._is_due("tick", now, _TICK_S):
                self.scheduler.record(events.Tick(), now)
                self._share_out(now)
                for key_id in self._store.tasks.throttled_keys():
                    self._release(key_id, now)
        self._read_new()
        if self._is_due("reconcile", self._now(), self._reconcile_s):
            self._reconcile()
        with self._lock:
            now = self._entered()
            # Only now: tasks of one kind that came together are rendered together.
            self._settle(now)
            if self._is_due("note", now, _NOTE_S) or (
                self.scheduler.version != self._told and self._is_due("news", now, self._least_note_s)
            ):
                self._publish(now)
            if self._is_due("learnt", now, self._learnt_s):
                self._write_learnt()
            if self._is_due("keep", now, _KEEP_S):
                self._keep()

    def _entered(self) -> float:
        """The lock has been taken: what was told without it comes first."""
        now = self._now()
        while self._begun:
            at, said = self._begun.popleft()
            self.scheduler.record(events.Began(said.replica, said.leases), at)
        return now

    def _notice_gaps(self, now: float) -> None:
        """After a while in which nobody was heard, silence says nothing; nor does a clock that jumped."""
        steady = self._steady()
        passed_s = steady - self._pumped_at
        jump_s = (now - self._wall_at) - passed_s
        self._pumped_at, self._wall_at = steady, now
        if abs(jump_s) > _JUMP_S:
            log.warning("the clock jumped by %.1f s", jump_s)
            self.scheduler.record(events.Interrupted(jump_s), now)
            self._due = {}
        elif passed_s > self._config.queue.lease_s / 2:
            log.warning("nothing was dispatched for %.1f s: replicas are heard before any counts as lost", passed_s)
            self.scheduler.record(events.Interrupted(), now)

    def _read_new(self) -> None:
        """Rows that are new, page by page: replicas are heard in between. A row that cannot be read is given up, and
        the others go on."""
        while rows := self._store.tasks.pending(self._last_seq, _PAGE):
            with self._lock:
                now = self._entered()
                for row in rows:
                    self._enter(row, now)
                    self._last_seq = max(self._last_seq, row.seq)

    def _enter(self, row: StoredTask, now: float) -> None:
        try:
            job = self._jobs.job(row)
        except Exception as error:
            log.exception("task %s cannot be scheduled", row.id)
            failure = f"this task cannot be scheduled: {type(error).__name__}"
            self._perform(DeadLetter(row.id, row.seq, row.epoch, row.offer.variant, failure), now)
            return
        self._writer.remember(row)
        self.scheduler.record(events.Submitted((job,)), now)

    def _reconcile(self) -> None:
        """Compare with all of the store's rows, so that no divergence outlives this."""
        began = self._steady()
        with self._lock:
            as_of = self.scheduler.version
        rows = self._store.tasks.live_index()
        with self._lock:
            now = self._entered()
            mine = {held.lease for held in self.scheduler.attempts.all()}
            unknown = self.scheduler.reconcile(rows, as_of, now)
            self._learn_begun([held for held in self.scheduler.attempts.all() if held.lease not in mine], now)
            for first in range(0, len(unknown), _PAGE):
                for row in self._store.tasks.get_many(unknown[first : first + _PAGE]):
                    if row.status is Status.PENDING and row.seq <= self._last_seq:
                        self._enter(row, now)
        # A long queue is compared less often: it takes a tenth of the time at most.
        self._reconcile_s = max(_RECONCILE_S, 10 * (self._steady() - began))

    def _learn_begun(self, adopted: Sequence[Held], now: float) -> None:
        """Of leases that another driver granted: those whose replica has said that it began are attempts."""
        epochs = {held.lease.task_id: held.lease.epoch for held in adopted}
        for row in self._store.tasks.get_many(list(epochs)) if epochs else ():
            if row.stage not in ("", WAITING) and row.epoch == epochs[row.id]:
                self.scheduler.record(events.Began(row.holder, frozenset({(row.id, row.epoch)})), now)

    def drain(self) -> None:
        """Give out no more work; what runs goes on, what waits stays in the store."""
        with self._lock:
            self.scheduler.draining = True
            self._publish(self._now())

    # -- effects -------------------------------------------------------------------------------------------------

    def _handle(self, event: events.WorkRequested | events.Heartbeat, now: float) -> None:
        self.scheduler.record(event, now)
        for effect in self.scheduler.decide(event, now):
            self._perform(effect, now)

    def _settle(self, now: float) -> None:
        """Do what is due, until nothing more follows from it."""
        for _ in range(_ROUNDS):
            granted = False
            for effect in self.scheduler.decide(None, now):
                done = self._perform(effect, now)
                granted = granted or (done and isinstance(effect, GrantLease))
            if not granted:
                return

    def _perform(self, effect: Effect, now: float) -> bool:
        """Make the effect durable, then let the scheduler follow. False where it concerned one bad task, which is given
        up. Raises StoreUnavailableError: nothing was applied, and it is decided again."""
        try:
            receipt = self._durably(lambda: self._writer.write(effect, now), now)
        except StoreUnavailableError:
            raise
        except Exception:
            log.exception("%s failed", type(effect).__name__)
            if isinstance(effect, GrantLease):
                self._try_apart(effect, now)
            return False
        self.scheduler.apply(effect, receipt, now)
        self._applied(effect, receipt, now)
        return True

    def _durably(self, write: Callable[[], Receipt], now: float) -> Receipt:
        try:
            return write()
        except StoreUnavailableError:
            # Heartbeats could not be kept either.
            self.scheduler.record(events.Interrupted(), now)
            raise

    def _try_apart(self, grant: GrantLease, now: float) -> None:
        """One task of a batch cannot be given out: which one shows when each is tried alone."""
        if len(grant.seqs) > 1:
            first = grant.seqs[:1]
            self._perform(events.GrantLease(grant.worker, grant.variant, grant.accelerator, first, grant.load_s), now)
            return
        job = self.scheduler.job(grant.seqs[0])
        if job is not None:
            failure = "this task cannot be given to a replica: its request cannot be read"
            self._perform(DeadLetter(job.id, job.seq, job.epoch, job.variant, failure), now)

    def _applied(self, effect: Effect, receipt: object, now: float) -> None:
        """Tell those who wait, and count."""
        match effect:
            case GrantLease():
                assert isinstance(receipt, tuple)
                for lease in receipt:
                    held = self.scheduler.attempts.held(lease.task_id)
                    if held is not None and held.job is not None:
                        self.metrics.started(effect.variant, now - held.job.accepted_at)
                        if held.job.variant != effect.variant:
                            self.metrics.fell_back(f"{held.job.variant} to {effect.variant}")
                if receipt:
                    self._on_work(effect.worker)
            case Retry() if receipt is Status.PENDING:
                self.metrics.retried(effect.cause)
                if self.scheduler.job(effect.lease.seq) is None:
                    for row in self._store.tasks.get_many([effect.lease.task_id]):
                        self._enter(row, now)
            case Retry() if receipt is Status.CANCELLED:
                self.metrics.finished("", Status.CANCELLED)
                self._on_cancelled(effect.lease.task_id)
            case DeadLetter() if isinstance(receipt, Status):
                log.warning("task %s: %s", effect.task_id, effect.failure)
                self.metrics.finished(effect.variant, receipt)
                if receipt is Status.CANCELLED:
                    self._on_cancelled(effect.task_id)
            case Reclaim() if receipt:
                log.info("task %s: replica %s was only slow and goes on", effect.lease.task_id, effect.worker)
            case _:
                pass

    def _over(self, task_id: str, outcome: Outcome, status: object, now: float) -> None:
        if not isinstance(status, Status):
            log.info("task %s: a stale attempt ended; ignored", task_id)
            # It may have stored its clip after the task was cancelled.
            late = self._store.tasks.get_many([task_id]) if outcome.clip is not None else ()
            if any(task.status is Status.CANCELLED for task in late):
                self._on_cancelled(task_id)
            return
        self.metrics.finished(outcome.variant, status)
        self.metrics.moderated(outcome.moderation)
        if status is Status.CANCELLED:
            self._on_cancelled(task_id)
        elif status is Status.SUCCEEDED:
            for task in self._store.tasks.get_many([task_id]):
                offer, took_s = task.offer, now - task.created_at
                self.metrics.eta_error(took_s, offer.eta_at - task.created_at, offer.eta_p90_at - task.created_at)
                self.metrics.quote_error(outcome.billed_usd, offer.usd)

    # -- what others read ------------------------------------------------------------------------------------------

    def _release(self, key_id: str, now: float) -> None:
        key = self._store.keys.get(key_id)
        most = Allowance.of(key or LOCAL, self._config.limits).max_concurrent
        self._store.tasks.release(key_id, most if most is not None else _UNLIMITED, now)

    def _share_out(self, now: float) -> None:
        """What keys are given beside others, where that has changed."""
        if not self._is_due("shares", now, _SHARES_S):
            return
        shares = {key.id: share_of(key) for key in self._store.keys.all() if key.weight or key.max_priority}
        for key_id in self._shares.keys() - shares.keys():
            shares[key_id] = events.TenantShare(key_id)
        for key_id, share in shares.items():
            if self._shares.get(key_id) != share:
                self.scheduler.record(share, now)
        self._shares = {key_id: share for key_id, share in shares.items() if share != events.TenantShare(key_id)}

    def _is_due(self, what: str, now: float, every_s: float) -> bool:
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def report(self) -> FleetReport:
        """The fleet as it is now."""
        with self._lock:
            return fleet_report(self.scheduler, self._now(), self._last_seq)

    def _publish(self, now: float) -> None:
        """Ingresses quote by this note: the older it is, the more they take to run what has ended. A long one is
        written less often, so that it takes a twentieth of the time at most."""
        began = self._steady()
        report = fleet_report(self.scheduler, now, self._last_seq)
        self._store.notes.write(NOTE, report.model_dump(mode="json"))
        self.metrics.fleet(report)
        self._told = self.scheduler.version
        self._least_note_s = min(_NOTE_S, max(_LEAST_NOTE_S, 20 * (self._steady() - began)))
        self._due["note"], self._due["news"] = now + _NOTE_S, now + self._least_note_s

    def _write_learnt(self) -> None:
        """For those who quote: what calls took, when that has changed. A large state is written less often."""
        observed = self.scheduler.task_times.times.observed
        if observed == self._written:
            return
        began = self._steady()
        self._store.notes.write(CALIBRATION, self.scheduler.task_times.times.state.model_dump(mode="json"))
        self._written = observed
        self._learnt_s = max(_LEARNT_S, 20 * (self._steady() - began))

    def _keep(self) -> None:
        """For the next driver; and what only the store can count."""
        self._store.notes.write(ETA, self.scheduler.eta.state.model_dump(mode="json"))
        counts = self._store.tasks.counts()
        self.metrics.webhooks(self._store.deliveries.counts())
        self.metrics.dead_letters(counts.dead)
        self.metrics.throttled(counts.by_status[Status.THROTTLED])

    def sizes(self, gpus: float, cpus: float) -> Mapping[str, int]:
        """Replicas by variant that the present demand asks for, on a cluster of so many GPUs and CPUs."""
        with self._lock:
            now = self._entered()
            wanted = resize(self.scheduler, gpus, cpus, now)
            self._perform(wanted, now)
            return wanted.replicas


def _is_refused_input(outcome: Outcome) -> bool:
    found = outcome.moderation
    return found.is_of_content and found.refusal is not None and found.refusal.part.is_input

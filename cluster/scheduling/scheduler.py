"""The scheduler: which worker renders which task next, what becomes of each attempt, and what is promised. Pure.

    fact ──▶ record ─┐                                 ┌─ effect ──▶ store ──▶ apply
                     ├─▶ state ──▶ decide (changes nothing) ─┘
    Ended ───────────┘

It touches no clock, no store and no process: its driver says what is true (`record`), asks what is to be done
(`decide`), makes each effect durable, and only then hands it back (`apply`). An effect that could not be made durable
leaves the state as it was and is decided again. What no event told is found by `reconcile`, which compares the state
with the store's rows. The endpoint's dispatcher, the simulator and the simulation tests drive this one class.

Not thread-safe: its driver has the lock.
"""

import heapq
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from cluster.cost.service_times import ServiceTimes
from cluster.routing.router import Choice
from cluster.routing.terms import PoolView, RoutingRequest
from cluster.scheduling import events
from cluster.scheduling.attempts import LONGEST_PAUSE_S, AttemptRules, Attempts, Held
from cluster.scheduling.eta import Eta, EtaEstimator, EtaTerms
from cluster.scheduling.events import DeadLetter, Effect, Ended, Fact, Finish, GrantLease, NoteRouting, Reclaim, Retry
from cluster.scheduling.job import Call, Job, Lease
from cluster.scheduling.offer import Offer, Refusal, offer
from cluster.scheduling.planner import AcceleratorGroup, Planner, Start
from cluster.scheduling.policy_config import PolicyConfig
from cluster.scheduling.rebalancing import RebalanceThresholds, is_worth_moving, to_move
from cluster.scheduling.task_times import TaskTimes
from cluster.scheduling.workers import ColdStart, ServedVariant, VariantState, Worker
from schemas.catalog import Variant
from schemas.clip import Status

_REBALANCE_S, _MOST_MOVES = 2.0, 60
_UNKNOWN_CALL_S = 2.0  # what a worker does that it began for a driver before
# Reading everything that waits is for short queues, and then once for as many completions as there are tasks inside: a
# backlog that only grows must not make that a square.
_FEW_INSIDE = 5000


BatchSize = Callable[[Variant, str, Call, int], int]
"""How many of so many waiting tasks that may share a call should, on a variant and an accelerator."""


@dataclass(frozen=True)
class SchedulerConfig:
    """How attempts are judged, and how long things may idle or wait."""

    attempts: AttemptRules = field(default_factory=AttemptRules)
    idle_s: float = 300.0  # a variant without work keeps its workers for so long
    patience_s: float = 120.0  # how long a user without a deadline is taken to wait


class LiveRow(Protocol):
    """A waiting or running task as the store has it."""

    @property
    def seq(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def epoch(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def holder(self) -> str: ...


class Scheduler:
    """The state of one fleet and its queue."""

    def __init__(
        self,
        served: Sequence[ServedVariant],
        groups: Sequence[AcceleratorGroup],
        times: ServiceTimes,
        *,
        batch_size: BatchSize = lambda variant, accelerator, call, ready: 1,
        config: SchedulerConfig = SchedulerConfig(),
        policy: PolicyConfig | None = None,
        eta: EtaEstimator | None = None,
        now: float = 0.0,
    ) -> None:
        self.config, self._batch_size = config, batch_size
        self.task_times = TaskTimes(groups, times)
        self.eta = eta or EtaEstimator()
        self.variants = {one.variant.name: VariantState(one, now) for one in served}
        self.planner = Planner(
            [one.variant for one in served],
            groups,
            estimate=self._seconds,
            spread=self._spread,
            doubt=lambda: times.doubt,
            config=policy,
            patience_s=config.patience_s,
        )
        self.workers: dict[str, Worker] = {}
        self.draining = False
        self._jobs: dict[int, Job] = {}
        self._seq_of: dict[str, int] = {}
        self.attempts = Attempts(config.attempts, now)
        self._later: list[tuple[float, int]] = []  # retries that wait for their time
        self._batchable: dict[tuple[str, Hashable], dict[int, None]] = {}
        self.idle: dict[str, None] = {}  # workers without work
        self._rerouted: dict[int, Choice] = {}  # told to the store when it can be
        self._rests_until: dict[int, float] = {}  # tasks that are not routed again before
        self._touched: dict[int, int] = {}
        self.version = 0  # rises with every change of a task
        self._candidate: Job | None = None
        self._rebalanced_at = self._ticked_at = now
        self._times_version = times.version
        self._completions = self._reestimated_after = self._rebalanced_after = 0

    # -- facts ---------------------------------------------------------------------------------------------------

    def record(self, fact: Fact, now: float) -> None:
        """Take in what is true whatever we do."""
        match fact:
            case events.Submitted():
                for job in fact.jobs:
                    self._submitted(job, now)
            case events.WorkRequested():
                self._work_requested(fact, now)
            case events.Heartbeat():
                self._heard(fact.worker, now)
                if (worker := self.workers.get(fact.worker)) is not None:
                    worker.reported = len(fact.began) + len(fact.waiting)
                self._named(fact.worker, fact.began, now, began=True)
                self._named(fact.worker, fact.waiting, now, began=False)
            case events.Began():
                self._heard(fact.worker, now)
                self._named(fact.worker, fact.leases, now, began=True)
            case events.Rendered():
                self._rendered(fact, now)
            case events.WorkerUp():
                self._worker_up(fact, now)
            case events.WorkerLost():
                self._worker_lost(fact.worker, now)
            case events.LoadFailed():
                if fact.variant in self.variants:
                    self.variants[fact.variant].load_failed(fact.error, now)
                    self._plan_again(self._drop_placeholder(fact.variant, now), now)
                    self._reconcile_placeholders(now)
            case events.Withdrawn():
                for seq in fact.seqs:
                    self._forget(seq, now)
            case events.Interrupted():
                self._interrupted(fact.jump_s, now)
            case events.TenantShare():
                shares = self.planner.shares
                shares.limit(fact.tenant, weight=fact.weight, max_priority=fact.max_priority)
            case events.Tick():
                self._tick(now)

    def _submitted(self, job: Job, now: float) -> None:
        held = self.attempts.held(job.id)
        if job.seq in self._jobs or (held is not None and held.lease.epoch >= job.epoch):
            return
        if job.not_before > now + LONGEST_PAUSE_S:  # as of a clock that has been set back since
            job = job._replace(not_before=now + LONGEST_PAUSE_S)
        self._touch(job.seq)
        self.attempts.drop(job.id)
        self._jobs[job.seq] = job
        self._seq_of[job.id] = job.seq
        for variant, call in job.calls.items():
            self._batchable.setdefault((variant, call.batchable), {})[job.seq] = None
        if job.eta is not None and not job.epoch:
            self.eta.admitted(job.eta)
        own = self.variants.get(job.variant)
        if own is not None and own.served.maximum and job.variant in job.calls:
            call = job.calls[job.variant]
            said = self.task_times.predict(job.variant, own.served.accelerator, call, 1, job.tenant)
            own.asked(said.seconds, now)
        self._plan(job, now)

    def _plan(self, job: Job, now: float) -> None:
        if self.planner.holds(job.seq):
            return
        if job.not_before > now:
            heapq.heappush(self._later, (job.not_before, job.seq))
            return
        choice = self.planner.submit(job.seq, job.request, now, tenant=job.tenant, priority=job.priority, admitted=True)
        if choice.routed and choice.variant != job.variant:
            self._rerouted[job.seq] = choice

    def _plan_again(self, seqs: Iterable[int], now: float) -> None:
        """Tasks whose place in the plan is gone."""
        for seq in seqs:
            if (job := self._jobs.get(seq)) is not None:
                self._plan(job, now)

    def _forget(self, seq: int, now: float) -> Job | None:
        """It waits no more."""
        job = self._jobs.pop(seq, None)
        if job is None:
            return None
        self._touch(seq)
        self._seq_of.pop(job.id, None)
        self._rerouted.pop(seq, None)
        self._rests_until.pop(seq, None)
        self.attempts.not_reclaimable(job.id)
        for variant, call in job.calls.items():
            batchable = self._batchable[variant, call.batchable]
            batchable.pop(seq, None)
            if not batchable:
                del self._batchable[variant, call.batchable]
        if self.planner.holds(seq):
            self.planner.withdraw(seq, now)
        return job

    def _worker_up(self, fact: events.WorkerUp, now: float) -> None:
        if fact.worker in self.workers:
            return self._heard(fact.worker, now)
        worker = Worker(fact.worker, fact.variant, fact.accelerator, now)
        self.workers[fact.worker] = worker
        state = self.variants.get(fact.variant)
        if state is not None:
            state.up(fact.load_s, now)
            if fact.load_s > 0:
                self.task_times.observe_load(fact.variant, fact.accelerator, fact.load_s)
        # Whatever waits for a worker that is not there yet may prefer this one.
        waiting = [seq for name in self.variants for seq in self._drop_placeholder(name, now)]
        self.planner.gained([(fact.worker, fact.accelerator, fact.memory)], now)
        if fact.busy:
            self.planner.occupy(fact.worker, _UNKNOWN_CALL_S, now)
        else:
            self.idle[fact.worker] = None
        self._reconcile_placeholders(now)
        self._plan_again(waiting, now)
        return None

    def _worker_lost(self, name: str, now: float) -> None:
        if self.workers.pop(name, None) is None:
            return
        self.idle.pop(name, None)
        self.attempts.worker_lost(name)
        waiting = self.planner.lost([name], now)
        # Its successor's place first, so that its tasks do not flee to another variant from a mere restart.
        self._reconcile_placeholders(now)
        self._plan_again(waiting, now)

    def _heard(self, name: str, now: float) -> None:
        if (worker := self.workers.get(name)) is not None:
            worker.heard_at = max(worker.heard_at, now)

    def _named(self, name: str, leases: Iterable[tuple[str, int]], now: float, *, began: bool) -> None:
        worker = self.workers.get(name)
        for held in self.attempts.named(leases, now, began=began):
            if worker is not None and held.lease in worker.unacknowledged:
                worker.unacknowledged = ()

    def _work_requested(self, fact: events.WorkRequested, now: float) -> None:
        worker = self.workers.get(fact.worker)
        if worker is None:
            return
        self._heard(fact.worker, now)
        self.attempts.named(fact.holds, now)
        if any((lease.task_id, lease.epoch) in fact.holds for lease in worker.unacknowledged):
            worker.unacknowledged = ()
        if not worker.unacknowledged and fact.worker not in self.idle:
            self.planner.finish(fact.worker, now)
            self.idle[fact.worker] = None

    def _rendered(self, fact: events.Rendered, now: float) -> None:
        state, worker = self.variants.get(fact.variant), self.workers.get(fact.worker)
        if state is None or fact.job is None or fact.variant not in fact.job.calls or fact.render_s <= 0:
            return
        accelerator = worker.accelerator if worker is not None else state.served.accelerator
        call, after_s, render_s = fact.job.calls[fact.variant], None, fact.render_s
        if fact.began_at is not None:
            after_s = max(0.0, now - fact.began_at - fact.load_s - render_s)
        if fact.job.request.brings and (held := self.attempts.held(fact.job.id)) is not None:
            # Adapters are loaded within the call; what is learnt of calls is without them.
            render_s = max(render_s - held.load_s, render_s / 2)
        self.task_times.observe(fact.variant, accelerator, call, fact.batch, fact.job.tenant, render_s, after_s)
        self._completions += 1
        if self.task_times.times.version != self._times_version and self._may_read_all(self._reestimated_after):
            self._times_version, self._reestimated_after = self.task_times.times.version, self._completions
            self.planner.reestimate(now)

    def _may_read_all(self, after: int) -> bool:
        """Whether everything that waits may be read, which was done last after so many completions."""
        return len(self._jobs) <= _FEW_INSIDE + self._completions - after

    def _interrupted(self, jump_s: float, now: float) -> None:
        self.attempts.interrupted(now)
        for worker in self.workers.values():
            worker.heard_at = now
        if jump_s:
            # What was set since the jump is not of the clock before it: no pause becomes longer than the longest.
            latest = now + LONGEST_PAUSE_S
            self._later = [(min(at + jump_s, latest), seq) for at, seq in self._later]
            heapq.heapify(self._later)
            for seq, job in self._jobs.items():
                if job.not_before:
                    self._jobs[seq] = job._replace(not_before=min(job.not_before + jump_s, latest))
            self._rebalanced_at = now

    def _tick(self, now: float) -> None:
        for name in [w.name for w in self.workers.values() if now - w.heard_at > self.config.attempts.lease_s]:
            if not self.attempts.is_patient(now):
                self._worker_lost(name, now)
        self._reconcile_placeholders(now)
        while self._later and self._later[0][0] <= now:
            _, seq = heapq.heappop(self._later)
            self._plan_again([seq], now)
        is_due = now - self._rebalanced_at >= _REBALANCE_S and self._may_read_all(self._rebalanced_after)
        if is_due and not self.draining:
            self._rebalanced_at, self._rebalanced_after = now, self._completions
            self._rebalance(now)

    def _reconcile_placeholders(self, now: float) -> None:
        """A worker that could be started stands in the plan of every variant that has none."""
        up = {worker.variant for worker in self.workers.values()}
        for name, state in self.variants.items():
            wanted = name not in up and state.served.maximum > 0 and not state.is_down(now) and not state.circuit_open
            if state.placeholder and not wanted:
                self._plan_again(self._drop_placeholder(name, now), now)
            elif wanted and not state.placeholder:
                state.placeholder = True
                memory = ColdStart(self.planner.numbers[name], state.start_s)
                self.planner.gained([(_placeholder(name), state.served.accelerator, memory)], now)

    def _drop_placeholder(self, name: str, now: float) -> list[int]:
        state = self.variants[name]
        if not state.placeholder:
            return []
        state.placeholder = False
        return self.planner.lost([_placeholder(name)], now)

    def _rebalance(self, now: float) -> None:
        """Route again what would miss its deadline or break its promise where it waits, and not elsewhere."""
        thresholds = RebalanceThresholds()
        self._rests_until = {seq: at for seq, at in self._rests_until.items() if at > now}
        completions = self.planner.completions(now)
        for seq in to_move(completions, self._jobs, self._rests_until, _MOST_MOVES, thresholds):
            if seq in self.planner.timelines.waiting:
                self._move(self._jobs[seq], now, thresholds)

    def _move(self, job: Job, now: float, thresholds: RebalanceThresholds) -> None:
        """… if it is worth it now: the moves before this one have shortened queues, too."""
        here_s, _ = self.planner.timelines.forecast_s(job.seq, now)
        choice = self.planner.elsewhere(job.seq, now)
        deadline_s = job.request.deadline_s
        self._rests_until[job.seq] = now + thresholds.retry_s
        if (
            choice.routed
            and choice.variant != self.planner.variant_planned(job.seq)
            and is_worth_moving(here_s, choice.completion_s, now, thresholds, deadline_s=deadline_s)
        ):
            self._rests_until[job.seq] = now + thresholds.rest_s
            self.planner.withdraw(job.seq, now, keeps_turn=True)
            self._plan(job, now)

    # -- effects -------------------------------------------------------------------------------------------------

    def ended(self, ended: Ended, now: float) -> Finish | Retry | DeadLetter:
        """What is to be made durable of an attempt that its worker says is over. Changes nothing."""
        return self.attempts.ended(ended, now)

    def decide(self, event: events.WorkRequested | events.Heartbeat | None, now: float) -> tuple[Effect, ...]:
        """What is to be made durable, in this order. Changes nothing: the same question has the same answer."""
        match event:
            case events.WorkRequested():
                effects = [*self._reclaims(event.worker, event.holds), *self._dropped(event.worker, event.holds, now)]
                return (*effects, *self._grant(event.worker, now))
            case events.Heartbeat():
                return tuple(self._reclaims(event.worker, event.began | event.waiting))
            case None:
                return tuple(self._due(now))

    def _due(self, now: float) -> Iterator[Effect]:
        yield from self.attempts.expired(now)
        for seq, choice in self._rerouted.items():
            if choice.variant is not None:
                yield NoteRouting(seq, self._jobs[seq].id, choice.variant, choice)
        yield from self._unservable()
        taken: set[int] = set()
        for name in self.idle if self._jobs else ():
            for grant in self._grant(name, now, taken):
                taken.update(grant.seqs)
                yield grant

    def next_lease(self, worker: str, now: float) -> GrantLease | None:
        """What a worker that is free should get now. Changes nothing."""
        return next(self._grant(worker, now), None)

    def _grant(self, name: str, now: float, taken: Set[int] = frozenset()) -> Iterator[GrantLease]:
        """`taken`: tasks that another worker is about to get."""
        worker = self.workers.get(name)
        if self.draining or worker is None or worker.unacknowledged:
            return
        start = self.planner.peek(name, now)
        first = self._jobs.get(start.task) if start is not None else None
        if start is None or first is None or first.seq in taken:
            return
        variant = self.variants[start.variant].served.variant
        call = first.calls[start.variant]
        seqs = [first.seq]
        # A task that lost a worker may have killed it: it is tried alone.
        if not first.attempts and variant.max_batch > 1:
            batchable = self._batchable[start.variant, call.batchable]
            may_join = (seq for seq in batchable if seq not in taken and self._may_join(seq, first, start.variant))
            seqs += islice(may_join, variant.max_batch - 1)
            seqs = seqs[: self._batch_size(variant, worker.accelerator, call, len(seqs))]
        fallback = {
            seq: f"{job.variant} {self._why_not(job.variant, now)}: {start.variant} instead"
            for seq in seqs
            if (job := self._jobs[seq]).variant != start.variant
        }
        yield GrantLease(name, start.variant, worker.accelerator, tuple(seqs), start.load_s, fallback)

    def _may_join(self, seq: int, first: Job, variant: str) -> bool:
        job = self._jobs[seq]
        if seq == first.seq or job.attempts or job.priority < first.priority:
            return False
        # A fallback is for those who need one, not for whoever waits for its own variant meanwhile.
        return variant == self.planner.variant_planned(seq)

    def _why_not(self, variant: str, now: float) -> str:
        state = self.variants.get(variant)
        return "is not served" if state is None else state.state(now)

    def _dropped(self, name: str, holds: frozenset[tuple[str, int]], now: float) -> Iterator[Effect]:
        """Leases that a worker was granted and does not have: it began another life, or never heard of them."""
        worker = self.workers.get(name)
        for held in self.attempts.of(name):
            lease = held.lease
            if held.began or (worker is not None and lease in worker.unacknowledged):
                continue
            if (lease.task_id, lease.epoch) not in holds and held.heard_at < now:
                yield self.attempts.not_begun(held, "its worker does not have it", now)

    def _reclaims(self, name: str, leases: Iterable[tuple[str, int]]) -> Iterator[Reclaim]:
        for held in self.attempts.reclaimable(name, leases):
            # Who waits for another variant now was told so.
            if self.planner.variant_planned(held.lease.seq) in (None, held.variant):
                yield Reclaim(held.lease, name)

    def _unservable(self) -> Iterator[DeadLetter]:
        for seq in self.planner.parked:
            job = self._jobs.get(seq)
            if job is not None and all(self.variants[name].circuit_open for name in job.calls):
                failure = "no variant that is served now can render this task"
                if job.calls:
                    failure = "the variants that could render this task cannot be loaded"
                yield DeadLetter(job.id, seq, job.epoch, job.variant, failure)

    # -- what is durable now -------------------------------------------------------------------------------------

    def apply(self, effect: Effect, receipt: object, now: float) -> None:
        """The effect is durable; `receipt` is what the store answered (see the effect)."""
        match effect:
            case GrantLease():
                assert isinstance(receipt, tuple)
                self._granted(effect, receipt, now)
            case Finish():
                self._ended(effect.lease, now, succeeded=receipt is Status.SUCCEEDED)
            case Retry():
                self._retried(effect, now, waits=receipt is Status.PENDING)
            case DeadLetter():
                self._touch(effect.seq)
                self._release(effect.task_id)
                self.attempts.over(effect.task_id)
                self._forget(effect.seq, now)
            case Reclaim():
                self._reclaimed(effect, now, granted=bool(receipt))
            case NoteRouting():
                if self._rerouted.get(effect.seq) is effect.choice:
                    del self._rerouted[effect.seq]
            case events.Resize():
                self._resized(effect.replicas, now)

    def _granted(self, grant: GrantLease, leases: tuple[Lease, ...], now: float) -> None:
        worker = self.workers.get(grant.worker)
        granted = {lease.seq for lease in leases}
        jobs = {seq: self._jobs[seq] for seq in grant.seqs if seq in self._jobs}
        state = self.variants[grant.variant]
        head = next((lease for lease in leases if lease.seq in jobs), None)
        if head is not None and worker is not None:
            call = jobs[head.seq].calls[grant.variant]
            tenant = jobs[head.seq].tenant
            said = self.task_times.predict(grant.variant, grant.accelerator, call, len(leases), tenant)
            self.planner.start(Start(grant.worker, head.seq, grant.variant, grant.load_s), now, said.seconds)
            worker.unacknowledged = leases
            self.idle.pop(grant.worker, None)
            state.worked_at = now
        for seq in grant.seqs:
            # One that was not granted is nobody's any more: cancelled, or deleted.
            self._forget(seq, now)
            if seq not in granted:
                self._touch(seq)
        for lease in leases:
            self._touch(lease.seq)
            held = Held(lease, grant.worker, jobs.get(lease.seq), now, grant.variant, load_s=grant.load_s)
            self.attempts.hold(held)

    def _release(self, task_id: str) -> Held | None:
        """Nobody holds it any more; nor is it on its way to anybody."""
        held = self.attempts.drop(task_id)
        worker = self.workers.get(held.worker) if held is not None else None
        if held is not None and worker is not None and held.lease in worker.unacknowledged:
            worker.unacknowledged = tuple(lease for lease in worker.unacknowledged if lease != held.lease)
        return held

    def _ended(self, lease: Lease, now: float, *, succeeded: bool) -> None:
        self._touch(lease.seq)
        held = self.attempts.held(lease.task_id)
        if held is None or held.lease.epoch > lease.epoch:
            return
        self._release(lease.task_id)
        self.attempts.over(lease.task_id)
        if (state := self.variants.get(held.variant)) is not None:
            state.worked_at = now
        job = held.job
        if job is None or job.eta is None:
            return
        if succeeded and lease.attempt == 1:  # nobody foresees that a worker dies
            self.eta.completed(job.eta, now - job.accepted_at, self._own_now_s(job, held))
        else:
            self.eta.withdrawn(job.eta)

    def _own_now_s(self, job: Job, held: Held) -> float | None:
        """What the task's own part would be said to take now."""
        state = self.variants.get(held.variant)
        if state is None or held.variant not in job.calls:
            return None
        worker = self.workers.get(held.worker)
        accelerator = worker.accelerator if worker is not None else state.served.accelerator
        call = job.calls[held.variant]
        return self.task_times.alone(held.variant, accelerator, call, job.tenant)[0]

    def _retried(self, retry: Retry, now: float, *, waits: bool) -> None:
        lease = retry.lease
        held = self.attempts.held(lease.task_id)
        self._touch(lease.seq)
        if held is None or held.lease.epoch > lease.epoch:
            return
        self._release(lease.task_id)
        worker = self.workers.get(held.worker)
        if worker is not None and not held.began and not self.attempts.of(worker.name):
            self.planner.finish(worker.name, now)
            self.idle[worker.name] = None
        if not waits or held.job is None:
            return
        # A lease that was no attempt is fenced: its epoch has risen, so that its holder cannot go on with it.
        job = held.job._replace(
            attempts=lease.attempt if retry.spent else lease.attempt - 1,
            epoch=lease.epoch if retry.spent else lease.epoch + 1,
            not_before=retry.not_before,
        )
        self._submitted(job, now)
        self.attempts.retried(held, retry)

    def _reclaimed(self, reclaim: Reclaim, now: float, *, granted: bool) -> None:
        lease = reclaim.lease
        before = self.attempts.not_reclaimable(lease.task_id)
        if granted:
            job = self._forget(lease.seq, now)
            variant = before.variant if before is not None else ""
            self.attempts.hold(Held(lease, reclaim.worker, job, now, variant, began=True))

    # -- the store's rows ------------------------------------------------------------------------------------------

    def reconcile(self, rows: Iterable[LiveRow], as_of: int, now: float) -> tuple[str, ...]:
        """Compare with every waiting and running task of the store, read when `version` was `as_of`: what changed here
        since then is left alone. Returns the ids of waiting tasks that are not known here, to be submitted."""
        unknown: list[str] = []
        seen: set[int] = set()
        for row in rows:
            seen.add(row.seq)
            if self._touched.get(row.seq, 0) > as_of:
                continue
            held = self.attempts.held(row.id)
            if row.status is Status.RUNNING:
                if held is None or held.lease.epoch != row.epoch:
                    self._adopt(row, now)
                continue
            self._release(row.id)
            job = self._jobs.get(row.seq)
            if job is None or job.epoch != row.epoch:
                self._forget(row.seq, now)
                unknown.append(row.id)
        for seq in [seq for seq in self._jobs if seq not in seen and self._touched.get(seq, 0) <= as_of]:
            self._forget(seq, now)
        for held in self.attempts.all():
            if held.lease.seq not in seen and self._touched.get(held.lease.seq, 0) <= as_of:
                self._release(held.lease.task_id)
        self._touched = {seq: at for seq, at in self._touched.items() if at > as_of}
        return tuple(unknown)

    def _adopt(self, row: LiveRow, now: float) -> None:
        """Somebody holds it, and nobody here knew: a lease whose answer was lost, or of a dispatcher before."""
        job = self._forget(row.seq, now)
        lease = Lease(row.id, row.seq, row.epoch, row.attempts)
        variant = self.workers[row.holder].variant if row.holder in self.workers else ""
        self.attempts.hold(Held(lease, row.holder, job, now, variant))

    def _touch(self, seq: int) -> None:
        self.version += 1
        self._touched[seq] = self.version

    # -- questions -----------------------------------------------------------------------------------------------

    def offer(self, job: Job, now: float) -> Offer | Refusal:
        """Where a task would go that is not submitted yet, and what it would be promised. Changes nothing."""
        self._candidate = job

        def preview(request: RoutingRequest) -> Choice:
            return self.planner.preview(request, now, tenant=job.tenant, priority=job.priority)

        return offer(job.request, now, preview, lambda choice: self.promise(job, choice, now))

    def promise(self, job: Job, choice: Choice, now: float) -> Eta:
        """What a task is told that goes where `choice` says. Changes nothing."""
        assert choice.pool is not None
        pool = self.planner.pools[choice.pool]
        call = job.calls[pool.variant.name]
        own_s, sigma = self.task_times.alone(pool.variant.name, pool.accelerator, call, job.tenant)
        return self.eta_terms.promise(max(choice.start_s - now + own_s, 1e-3), own_s, sigma)

    @property
    def eta_terms(self) -> EtaTerms:
        """What promises are made of now."""
        return self.eta.terms

    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._jobs)

    def job(self, seq: int) -> Job | None:
        """A waiting task."""
        return self._jobs.get(seq)

    def _seconds(self, pool: PoolView, request: RoutingRequest) -> float:
        job = self._jobs.get(request.task) or self._candidate
        assert job is not None
        call = job.calls.get(pool.variant.name)
        if call is None:
            return math.inf
        # Who is not here yet is quoted alone: whether others will share its call, nobody knows.
        ready = len(self._batchable.get((pool.variant.name, call.batchable), ())) if job.seq in self._jobs else 1
        batch = self._batch_size(pool.variant, pool.accelerator, call, ready) if ready > 1 else 1
        said, speed = self.task_times.reference(pool.variant.name, pool.accelerator, call, batch, job.tenant)
        return said.seconds / (speed * batch)

    def _spread(self, pool: PoolView, request: RoutingRequest) -> float:
        job = self._jobs.get(request.task) or self._candidate
        call = job.calls.get(pool.variant.name) if job is not None else None
        if job is None or call is None:
            return 0.0
        return self.task_times.reference(pool.variant.name, pool.accelerator, call, 1, job.tenant)[0].sigma

    def is_busy(self, worker: Worker) -> bool:
        """Whether it renders, or has something to."""
        return bool(worker.reported or self.attempts.of(worker.name))

    def _resized(self, replicas: Mapping[str, int], now: float) -> None:
        for name, count in replicas.items():
            state = self.variants[name]
            up = sum(worker.variant == name for worker in self.workers.values())
            if count > up and state.starting_since is None:
                state.starting_since = now
            state.target = count


def _placeholder(variant: str) -> str:
    return f"(to be started) {variant}"

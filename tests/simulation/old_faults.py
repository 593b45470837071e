"""Faults that the dispatcher once had, put back one at a time: the simulation must find each of them."""

from collections.abc import Callable
from dataclasses import replace

from cluster.scheduling.events import Effect, GrantLease
from serve.dispatch.driver import Receipt, SchedulerDriver
from serve.dispatch.messages import Beat, Hello, Results, Work
from serve.errors import StoreUnavailableError
from serve.tasks import StoredTask


class _NeverReconciled(SchedulerDriver):
    def _reconcile(self) -> None:
        """What no event told is never found."""


class AppliedBeforePersisted(_NeverReconciled):
    """A lease that could not be written leaves the queue all the same: its task waits for ever."""

    def _perform(self, effect: Effect, now: float) -> bool:
        try:
            return super()._perform(effect, now)
        except StoreUnavailableError:
            if isinstance(effect, GrantLease):
                for seq in effect.seqs:
                    if self.scheduler.planner.holds(seq):
                        self.scheduler.planner.withdraw(seq, now)
            raise


class PageLost(_NeverReconciled):
    """The mark of what was read moves on before a page is entered: an error in it loses the rest."""

    def _read_new(self) -> None:
        while rows := self._store.tasks.pending(self._last_seq, 500):
            with self._lock:
                self._last_seq = max(row.seq for row in rows)
                for row in rows:
                    self._enter(row, self._now())

    def _enter(self, row: StoredTask, now: float) -> None:
        self._store.tasks.reprice(row.id, row.group.model_dump_json(), "[]")  # a write that may fail
        super()._enter(row, now)


class RemovedVariantRaises(SchedulerDriver):
    """A task of a variant that is served no more ends the round that reads it, at every restart again."""

    def _enter(self, row: StoredTask, now: float) -> None:
        assert self._served[row.offer.variant] is not None
        super()._enter(row, now)


class ExpiresInAnOutage(SchedulerDriver):
    """Leases run out while the store that would prolong them is away, though their workers live."""

    def beat(self, beat: Beat) -> tuple[str, ...]:
        stop = self._store.tasks.renew(beat.progress, self._now() + self._config.queue.lease_s)
        return (*stop, *super().beat(beat)) if stop else super().beat(beat)

    def done(self, results: Results) -> None:
        self._store.tasks.running()  # who cannot be answered was not heard
        super().done(results)

    def pull(self, hello: Hello) -> Work | None:
        self._store.tasks.running()
        return super().pull(hello)

    def _durably(self, write: Callable[[], Receipt], now: float) -> Receipt:
        return write()

    def _entered(self) -> float:
        self.scheduler.attempts._patient_until = 0.0
        return super()._entered()


class OutageBurnsAttempts(SchedulerDriver):
    """What the object store's absence ends counts against the task."""

    def done(self, results: Results) -> None:
        ended = tuple(replace(one, blameless=False) for one in results.ended)
        super().done(replace(results, ended=ended))


class UnknownOutcomeForgotten(_NeverReconciled):
    """A write of which nobody heard whether it was made is taken for one that was not."""


OLD_FAULTS: dict[str, type[SchedulerDriver]] = {
    "applied-before-persisted": AppliedBeforePersisted,
    "page-lost": PageLost,
    "removed-variant-raises": RemovedVariantRaises,
    "expires-in-an-outage": ExpiresInAnOutage,
    "outage-burns-attempts": OutageBurnsAttempts,
    "unknown-outcome-forgotten": UnknownOutcomeForgotten,
}

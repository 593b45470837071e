"""Keeps the store from growing for ever: prunes by age, and removes the objects of deleted tasks. For one thread."""

import logging
import threading
from collections.abc import Callable
from time import time

from schemas.errors import RushesError
from serve.config import Retention
from serve.dispatch.orphans import purge
from serve.store.contract import Store
from serve.store.cutoffs import Cutoffs
from storage.objects import ObjectStore

log = logging.getLogger(__name__)

_EVERY_S = 60.0
_ROWS = 500
_BREATH_S = 0.2  # between two rounds, so that a backlog of years leaves the store to others most of the time


def cutoffs(ages: Retention, now: float) -> Cutoffs:
    """The instants before which rows are old."""
    return Cutoffs(
        idempotency=now - ages.idempotency_s,
        deliveries=now - ages.deliveries_s,
        router_decisions=now - ages.router_decisions_s,
        tasks=now - ages.tasks_s,
        batches=now - ages.batches_s,
        audit=now - ages.audit_s,
    )


class Housekeeper:
    """Several may run: a row is pruned once, and removing objects twice is removing them."""

    def __init__(
        self, store: Store, objects: ObjectStore, ages: Retention, now: Callable[[], float] = time, *, rows: int = _ROWS
    ) -> None:
        self._store, self._objects, self._ages, self._now, self._rows = store, objects, ages, now, rows

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. A store or object store that is away is tried again at the next round."""
        while not stop.is_set():
            try:
                self.run_once(stop)
            except RushesError as error:
                log.warning("nothing is pruned for now: %s", error)
            stop.wait(_EVERY_S)

    def run_once(self, stop: threading.Event | None = None) -> int:
        """All that is old now; how many rows."""
        stop = stop or threading.Event()
        purge(self._store.tasks, self._objects)
        before = cutoffs(self._ages, self._now())
        rows = 0
        while not stop.is_set() and (pruned := self._store.prune(before, self._rows).total):
            rows += pruned
            if pruned >= self._rows:
                stop.wait(_BREATH_S)
        if rows:
            log.info("pruned %d rows by their age", rows)
        return rows

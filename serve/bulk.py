"""Batches that are too large for the queue go through the bulk pipeline on Ray Data, behind the same batch id.

A run is a process of its own, which outlives the ingress that asked for it (`rushes.bulk_run`: `serve/` may not import
`pipelines/`). It says in the store that it lives and how far it is, and looks there whether it is still wanted; every
ingress reads its progress there, and starts it again when it has been silent for too long.
"""

import logging
import secrets
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from schemas.clip import Status
from schemas.errors import PermanentError, RushesError
from serve.store.contract import Batch, Store

HOLD_NOTE = "bulk-held/"  # + batch id: which attempt works on it, and when it last said so
BEAT_S = 2.0
SILENT_S = 30.0
START_S = 180.0
"""From the launch of a process to its first word: it may wait for its turn on the cluster, and imports a lot."""
MOST_LAUNCHES = 5
"""Of which none said a word: then something is wrong that another launch does not mend."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BulkOptions:
    """What the client may say about a run. `max_usd`: the run does not start when its quote is higher.

    Unless it is `trusted`, a row may name media by data: only: files, buckets and addresses that this endpoint can
    reach are not the client's. `max_concurrent`: tasks rendered at once, None for as many as the cluster takes.
    """

    variant: str = "auto"
    priority: int = 0
    max_usd: float | None = None
    snap: bool = True
    trusted: bool = False
    max_concurrent: int | None = None

    @classmethod
    def of(cls, batch: Batch) -> "BulkOptions":
        """As they were kept with the batch."""
        kept: Any = batch.details.get("options")
        return cls(**kept) if isinstance(kept, dict) else cls()

    def as_details(self) -> dict[str, JsonValue]:
        return {"options": asdict(self)}


@dataclass(frozen=True)
class Hold:
    """Who works on a run. `launches` counts the attempts that were begun without a word from any."""

    attempt: str
    at: float
    spoke: bool = False
    launches: int = 1

    @classmethod
    def read(cls, store: Store, batch_id: str) -> "Hold | None":
        kept: Any = store.notes.read(HOLD_NOTE + batch_id)
        try:
            return cls(**kept) if isinstance(kept, dict) else None
        except TypeError:  # of an earlier rushes
            return None

    def write(self, store: Store, batch_id: str) -> None:
        store.notes.write(HOLD_NOTE + batch_id, asdict(self))

    def is_silent(self, now: float) -> bool:
        return now - self.at > (SILENT_S if self.spoke else START_S)


class BulkLauncher(Protocol):
    """Starts processes of bulk runs, somewhere. Every method may block: call it from a thread."""

    def launch(self, batch_id: str, attempt: str) -> None:
        """Start one that works on the run, and return. Raises TransientError when that cannot be done now."""
        ...

    def stop(self, batch_id: str, attempt: str) -> None:
        """Stop it soon; what is stored stays. One that is not there is no error. A run that is over in the store stops
        by itself as well: this only makes it quicker."""
        ...

    def close(self) -> None:
        """This process goes. What runs beside it stops, and is begun again by another; what runs elsewhere goes on."""
        ...


class BulkFollower:
    """Sees to it that every run in the store is worked on, by one process at a time.

    Each ingress has one. A run that was silent is claimed; a turn later, whoever's claim still stands launches it. One
    whose key has a limit on concurrent tasks waits until nothing else of the key is under way: it has all of that.
    """

    def __init__(self, launcher: BulkLauncher, store: Store) -> None:
        self._launcher, self._store = launcher, store
        self._claims: dict[str, Hold] = {}

    def begin(self, batch: Batch, now: float) -> None:
        """Launch a run that was accepted just now, if it need not wait. Whatever fails is tried again by `look`."""
        if self._has_turn(batch):
            self._launch(batch, Hold(secrets.token_hex(4), now))

    def look(self, now: float) -> int:
        """One turn. Returns how many runs are not over."""
        open_runs = self._store.batches.unfinished_runs()
        for batch in open_runs:
            held = Hold.read(self._store, batch.id)
            claim = self._claims.pop(batch.id, None)
            if claim is not None and held == claim:
                self._launch(batch, claim)
            elif held is None or held.is_silent(now):
                self._claim(batch, held, now)
        self._claims = {batch.id: self._claims[batch.id] for batch in open_runs if batch.id in self._claims}
        return len(open_runs)

    def stop(self, batch: Batch) -> None:
        """It is over in the store already: end its process."""
        held = Hold.read(self._store, batch.id)
        if held is not None:
            self._launcher.stop(batch.id, held.attempt)

    def _claim(self, batch: Batch, held: Hold | None, now: float) -> None:
        if not self._has_turn(batch):
            return
        launches = 1 if held is None or held.spoke else held.launches + 1
        if launches > MOST_LAUNCHES:
            text = f"the run could not be started: {MOST_LAUNCHES} processes ended, or waited, without a word"
            self._store.batches.update(batch.id, Status.FAILED, batch.counts, batch.billed_usd, now, text)
            return
        claim = self._claims[batch.id] = Hold(secrets.token_hex(4), now, launches=launches)
        claim.write(self._store, batch.id)

    def _has_turn(self, batch: Batch) -> bool:
        if BulkOptions.of(batch).max_concurrent is None:
            return True
        before = [one.id for one in self._store.batches.unfinished_runs() if one.key_id == batch.key_id]
        if batch.id in before and before[0] != batch.id:
            return False
        under_way = self._store.tasks.counts(batch.key_id, statuses=(Status.PENDING, Status.RUNNING)).by_status
        return not sum(under_way.values())

    def _launch(self, batch: Batch, hold: Hold) -> None:
        hold.write(self._store, batch.id)
        try:
            self._launcher.launch(batch.id, hold.attempt)
        except PermanentError as error:
            text = f"the run could not be started: {error}"
            self._store.batches.update(batch.id, Status.FAILED, batch.counts, batch.billed_usd, hold.at, text[:300])
        except RushesError as error:
            log.warning("a bulk run could not begin yet: %s", error, extra={"batch_id": batch.id})


class Heart:
    """What a run's process says in the store, every `BEAT_S`, and learns there."""

    def __init__(self, store: Store, batch_id: str, attempt: str) -> None:
        self._store, self._batch_id, self._attempt = store, batch_id, attempt

    def beat(self, counts: dict[str, int], billed_usd: float, now: float) -> bool:
        """Say that the run goes on, and how far it is. False: stop, it is over in the store, or another attempt's."""
        batch = self._store.batches.get(self._batch_id)
        held = Hold.read(self._store, self._batch_id)
        if batch is None or batch.finished_at is not None or held is None or held.attempt != self._attempt:
            return False
        Hold(self._attempt, now, spoke=True).write(self._store, self._batch_id)
        if counts:
            self._store.batches.update(self._batch_id, Status.RUNNING, counts, billed_usd, now)
        return True

    def end(self, status: Status, counts: dict[str, int], billed_usd: float, now: float, failure: str = "") -> None:
        """The run is over; one that was over in the store before stays as it is there."""
        self._store.batches.update(self._batch_id, status, counts, billed_usd, now, failure[:300])

"""Batches that are too large for the queue go through the bulk pipeline on Ray Data, behind the same batch id.

`serve/` may not import `pipelines/`: `rushes/` gives the application something that fulfils this protocol, as
`app.state.bulk`. Its progress goes into the store's batches, where every ingress reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from schemas.clip import Status
from schemas.errors import PermanentError
from serve.store.contract import Batch, Store

OPTIONS_NOTE = "bulk/"  # + batch id: its options, for a run that another process begins again
HOLD_NOTE = "bulk-held/"  # + batch id: which process works on it, and when it last said so
SILENT_S = 15.0


@dataclass(frozen=True)
class BulkOptions:
    """What the client may say about a run. `max_usd`: the run does not start when its quote is higher.

    Unless it is `trusted`, a row may name media by https: or data: only: files and buckets that this endpoint can read
    are not the client's.
    """

    variant: str = "auto"
    priority: int = 0
    max_usd: float | None = None
    snap: bool = True
    trusted: bool = False


@dataclass(frozen=True)
class BulkProgress:
    """A run as it is now. `counts` by what became of rows: succeeded, failed, rejected, running, waiting."""

    status: Status
    total: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    quote_usd: float = 0.0
    billed_usd: float = 0.0
    failure: str = ""


class BulkRunner(Protocol):
    """Bulk runs by batch id. Every method may block: call it from a thread."""

    def start(self, batch_id: str, manifest_uri: str, out_uri: str, options: BulkOptions) -> None:
        """Begin, or go on after a restart: a run is resumable, so starting one twice is harmless.

        Raises ConfigError for a manifest that cannot be read. What goes wrong later is in `progress`.
        """
        ...

    def cancel(self, batch_id: str) -> None:
        """Stop soon; what is stored stays. One that is not running is no error."""
        ...

    def progress(self, batch_id: str) -> BulkProgress | None:
        """None when this runner does not know it."""
        ...


class BulkFollower:
    """Brings the store up to date with the runs of this process, and takes up those whose process is gone.

    Of several ingresses each has a runner. Who works on a run says so in a note, again and again; when it has been
    silent for `SILENT_S` another one claims the run, looks a turn later whether its claim still stands, and begins it.
    """

    def __init__(self, bulk: BulkRunner, store: Store, me: str) -> None:
        self._bulk, self._store, self._me = bulk, store, me
        self._mine: set[str] = set()

    def hold(self, batch_id: str, now: float) -> None:
        """This process works on the run."""
        self._mine.add(batch_id)
        self._store.notes.write(HOLD_NOTE + batch_id, {"by": self._me, "at": now})

    def look(self, now: float) -> int:
        """One turn. Returns how many runs are under way, anywhere."""
        under_way = self._store.batches.unfinished_runs()
        for batch in under_way:
            progress = self._bulk.progress(batch.id)
            if progress is not None:
                self.hold(batch.id, now)
                if progress.total != batch.total or progress.quote_usd != batch.quote_usd:
                    self._store.batches.planned(batch.id, progress.total, progress.quote_usd)
                self._store.batches.update(
                    batch.id, progress.status, progress.counts, progress.billed_usd, now, progress.failure[:300]
                )
            elif self._is_free(batch.id, now):
                self._begin(batch, now)
        for batch_id in self._mine - {batch.id for batch in under_way}:
            # Cancelled by way of another ingress, or over.
            self._bulk.cancel(batch_id)
            self._mine.discard(batch_id)
        return len(under_way)

    def _is_free(self, batch_id: str, now: float) -> bool:
        held = self._store.notes.read(HOLD_NOTE + batch_id)
        if isinstance(held, dict) and held.get("by") == self._me:
            return True
        at = held.get("at") if isinstance(held, dict) else None
        if not isinstance(at, int | float) or now - at > SILENT_S:
            self.hold(batch_id, now)  # a claim: whoever wrote last has it at the next turn
        return False

    def _begin(self, batch: Batch, now: float) -> None:
        kept = self._store.notes.read(OPTIONS_NOTE + batch.id)
        options = BulkOptions(**kept) if isinstance(kept, dict) else BulkOptions()  # type: ignore[arg-type]
        try:
            self._bulk.start(batch.id, batch.manifest_uri or "", batch.run_uri or "", options)
            self.hold(batch.id, now)
        except PermanentError as error:
            self._store.batches.update(batch.id, Status.FAILED, {}, 0.0, now, str(error)[:300])

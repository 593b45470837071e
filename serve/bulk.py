"""Batches that are too large for the queue go through the bulk pipeline on Ray Data, behind the same batch id.

`serve/` may not import `pipelines/`: `rushes/` gives the application something that fulfils this protocol, as
`app.state.bulk`. Its progress goes into the store's batches, where every ingress reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from schemas.clip import Status
from schemas.errors import PermanentError
from serve.store.contract import Store
from serve.tasks import LIVE

OPTIONS_NOTE = "bulk/"  # + batch id: its options, for a run that another process begins again


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


def bring_up_to_date(bulk: BulkRunner, store: Store, now: float) -> int:
    """One look at the runs that are under way: what they came to goes into the store, and those that no process works
    on (it died) are begun again. Returns how many are still under way."""
    live = 0
    for batch in store.batches.unfinished_runs():
        progress = bulk.progress(batch.id)
        if progress is None:
            kept = store.notes.read(OPTIONS_NOTE + batch.id)
            options = BulkOptions(**kept) if isinstance(kept, dict) else BulkOptions()  # type: ignore[arg-type]
            try:
                bulk.start(batch.id, batch.manifest_uri or "", batch.run_uri or "", options)
            except PermanentError as error:
                store.batches.update(batch.id, Status.FAILED, {}, 0.0, now, str(error)[:300])
                continue
            live += 1
            continue
        store.batches.update(
            batch.id, progress.status, progress.counts, progress.billed_usd, now, progress.failure[:300]
        )
        live += progress.status in LIVE
    return live

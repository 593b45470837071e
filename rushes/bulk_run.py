"""One bulk run of an endpoint, in a process of its own: `python -m rushes.bulk_run BATCH ATTEMPT`.

It joins the endpoint's cluster, asks the dispatcher for the endpoint's settings, renders the batch's manifest like
`rushes render`, and says in the endpoint's store that it lives and how far it is. Killed, it is begun again as another
attempt, which goes on where this one stopped. It ends when the batch is over in the store, or another attempt's.
"""

import _thread
import logging
import os
import sys
import threading
from dataclasses import dataclass, field
from time import time

from cluster.addresses import is_reachable
from pipelines import run as bulk
from pipelines.progress import Progress, RunStoppedError
from pipelines.run_lock import RunGoesOnError
from pipelines.run_plan import RunPlan
from pipelines.watcher import Watcher
from schemas.clip import Status
from schemas.config import read_config
from schemas.errors import RushesError, is_transient
from schemas.run import RunOptions, RunQuote
from serve.admission.allowance import Allowance
from serve.bulk import BEAT_S, BulkOptions, Heart
from serve.config import ServeConfig
from serve.errors import LimitError, StoreUnavailableError
from serve.keys import LOCAL
from serve.store.contract import Batch, Store
from trust import actor as actors

log = logging.getLogger("rushes.bulk_run")

_MOST_UNREACHED = 5  # beats in a row in which the cluster could not be reached


@dataclass
class BulkRun:
    """The work of one attempt, over the endpoint's store. `cluster` is Ray's address, as host:port."""

    store: Store
    settings: ServeConfig
    batch: Batch
    attempt: str
    cluster: str | None = None
    _counts: dict[str, int] = field(default_factory=dict)
    _billed_usd: float = 0.0
    _refusal: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    def work(self) -> int:
        """The process's exit code: 0 unless the run is to be begun again."""
        heart = Heart(self.store, self.batch.id, self.attempt)
        if not heart.beat({}, 0.0, time()):
            log.info("run %s is not attempt %s's", self.batch.id, self.attempt)
            return 0
        beating = threading.Thread(target=self._beat, args=(heart,), name="heart", daemon=True)
        beating.start()
        try:
            return self._render(heart)
        finally:
            self._over.set()
            beating.join(timeout=BEAT_S)

    def _render(self, heart: Heart) -> int:
        said = BulkOptions.of(self.batch)
        options = RunOptions(
            manifest=self.batch.manifest_uri or "",
            out=self.batch.run_uri or "",
            catalog=self.settings.catalog,
            variant=said.variant,
            snap=said.snap,
            templates=self.settings.templates,
            fit=self.settings.fit_sizes,
            loras=self.settings.loras,
            max_concurrent=said.max_concurrent,
            trust=self.settings.trust,
            audit=self.settings.audit,
            moderation=self.settings.moderation,
        )
        config = read_config()
        if not said.trusted:
            # What this endpoint can read, and whom it can reach, is not the client's to name.
            config = config.model_copy(update={"media_schemes": frozenset({"data"})})
        watcher = Watcher(quoted=self._quoted, confirm=lambda _: not self._refusal, rendering=self._rendering)
        try:
            actor = actors.key(self.batch.key_id)
            summary = bulk.render(options, watcher, config, attempt=self.attempt, actor=actor)
        except KeyboardInterrupt:
            return 1  # over in the store, where this changes nothing; else somebody begins it again
        except RunGoesOnError as error:
            log.warning("begun again later: %s", error)
            return 1
        except bulk.DeclinedError:
            heart.end(Status.FAILED, {}, 0.0, time(), self._refusal)
            return 0
        except RushesError as error:
            if is_transient(error) or (isinstance(error, RunStoppedError) and self._counts.get("succeeded")):
                log.warning("begun again later: %s", error)
                return 1
            heart.end(Status.FAILED, self._counts, self._billed_usd, time(), str(error))
            return 0
        counts = {"succeeded": summary.succeeded, "failed": summary.failed, "rejected": summary.rejected}
        status = Status.SUCCEEDED if summary.succeeded or not summary.rows else Status.FAILED
        heart.end(status, counts, summary.billed_usd, time())
        return 0

    def _quoted(self, plan: RunPlan) -> None:
        """The store learns what the run comes to, unless that is more than its key may have."""
        quote, batch = plan.quote, self.batch
        if quote.already_done and batch.quote_usd:
            return  # an earlier attempt's quote was of all of it
        max_usd = BulkOptions.of(batch).max_usd
        if max_usd is not None and quote.usd > max_usd:
            self._refusal = f"the run is quoted at ${quote.usd:.2f}, more than the limit of ${max_usd:.2f}"
            return
        key = self.store.keys.get(batch.key_id) or LOCAL
        allowance = Allowance.of(key, self.settings.limits)
        try:
            self.store.batches.planned(
                batch.id,
                quote.rows,
                quote.usd,
                max_since=allowance.daily(batch.created_at),
                max_month_usd=allowance.month_usd,
            )
        except LimitError as error:
            self._refusal = str(error)
            return
        self._counts = {"succeeded": quote.already_done, "rejected": quote.rejected, "waiting": quote.to_render}

    def _rendering(self, _snapshot: object, progress: Progress, quote: RunQuote) -> None:
        done = quote.already_done + progress.clips
        left = max(0, quote.to_render - progress.clips - progress.failed)
        self._counts = {"succeeded": done, "failed": progress.failed, "rejected": quote.rejected, "waiting": left}
        if quote.to_render:
            self._billed_usd = quote.usd * min(1.0, progress.clips / quote.to_render)

    def _beat(self, heart: Heart) -> None:
        """Until the run is over. A store that is away is waited for; a cluster that is gone ends the process."""
        unreached = 0
        while not self._over.wait(BEAT_S):
            unreached = 0 if self._reaches_cluster() else unreached + 1
            if unreached >= _MOST_UNREACHED:
                log.error("the cluster is gone")
                os._exit(1)  # Ray's own threads would hold the process for a minute
            try:
                is_ours = heart.beat(self._counts, self._billed_usd, time())
            except StoreUnavailableError as error:
                log.warning("not told: %s", error)
                continue
            if not is_ours and not self._over.is_set():
                log.info("stops: over in the store, or another attempt's")
                _thread.interrupt_main()
                return

    def _reaches_cluster(self) -> bool:
        return self.cluster is None or is_reachable(self.cluster, BEAT_S)


def main(batch_id: str, attempt: str) -> int:
    """Render the batch on the cluster that RAY_ADDRESS names."""
    import ray

    from cluster.connect import connected
    from serve.app import APP
    from serve.dispatch.replica import dispatcher_of
    from serve.observability.logs import configure
    from serve.store.engine import open_store

    configure()
    with connected(os.environ.get("RAY_ADDRESS") or "auto"):
        settings = dispatcher_of(APP).settings.remote().result(timeout_s=60)
        store = open_store(settings.database_url, settings.audit, actors.service("bulk run"))
        try:
            batch = store.batches.get(batch_id)
            if batch is None or batch.finished_at is not None:
                return 0
            cluster = ray.get_runtime_context().gcs_address
            return BulkRun(store, settings, batch, attempt, cluster).work()
        finally:
            store.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

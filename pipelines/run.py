"""A bulk run from end to end: plan, render, join, report. What `rushes render` and `rushes.render` call."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from actors.decoder import read_frames
from actors.monitor import Snapshot
from cluster.connect import connected
from cluster.topology import Topology
from models.model import Model
from pipelines.calibration import calibrated, learn, learnt
from pipelines.contact_sheet import SheetEntry, contact_sheet
from pipelines.planner import plan_run
from pipelines.render import Progress, RunStoppedError, render_plan
from pipelines.results import write_results
from pipelines.run_plan import RunPlan
from schemas.catalog import Catalog, load_catalog, shipped_catalog
from schemas.clip import Status
from schemas.config import Config, read_config
from schemas.errors import ConfigError, RushesError
from schemas.run import RunOptions, RunQuote, RunSummary
from storage import keys
from storage.store import ObjectStore, open_store
from storage.tables import read_table


@dataclass(frozen=True)
class Watcher:
    """Who is told what a run does. The defaults look away; `confirm` says whether to go on after the quote."""

    planning: Callable[[int, int, int], None] = lambda chunks, of, rows: None
    quoted: Callable[[RunPlan], None] = lambda plan: None
    confirm: Callable[[RunQuote], bool] = lambda quote: True
    rendering: Callable[[Snapshot, Progress, RunQuote], None] = lambda snapshot, progress, quote: None


class DeclinedError(RushesError):
    """The quote was not accepted."""


def open_catalog(path: str | None, config: Config) -> Catalog:
    """The catalog at `path`, else the one the environment names, else the one that ships; with what was calibrated."""
    named = path or config.catalog
    return calibrated(load_catalog(Path(named)) if named else shipped_catalog(), config.cache_dir)


def estimate(options: RunOptions, watcher: Watcher = Watcher(), topology: Topology | None = None) -> RunPlan:
    """Plan and quote a manifest without writing anything, for `topology` or for the cluster there is.

    With `options.out`, what is done there counts as done.
    """
    config = read_config()
    catalog = open_catalog(options.catalog, config)
    with connected(options.address) as there:
        return plan_run(
            options,
            learnt(catalog, config.cache_dir),
            topology or there,
            out=None,
            done_in=options.out or None,
            auto_by=catalog,
            on_progress=watcher.planning,
        )


def render(
    options: RunOptions,
    watcher: Watcher = Watcher(),
    config: Config | None = None,
    wrap: Callable[[Model], Model] | None = None,
) -> RunSummary:
    """Render a manifest into `options.out`. Resumes: what the ledger there says is done is not rendered again.

    Raises ConfigError for options that do not fit, RunStoppedError when the run cannot go on, DeclinedError when
    the watcher does not confirm the quote. `wrap` stands between the models and the actors, in the actors' processes.
    """
    config = config or read_config()
    catalog = open_catalog(options.catalog, config)
    started_s, started_at = time.monotonic(), _now()
    store = open_store(options.out)
    store.check()
    out = str(store.address)
    with connected(options.address) as topology:
        if options.device == "cuda" and not topology.gpus:
            raise ConfigError("--device cuda: the cluster has no GPU; available: auto, cpu")
        plan = plan_run(
            options,
            learnt(catalog, config.cache_dir),
            topology,
            out=out,
            done_in=out,
            auto_by=catalog,
            on_progress=watcher.planning,
        )
        watcher.quoted(plan)
        if plan.quote.to_render and not watcher.confirm(plan.quote):
            raise DeclinedError("nothing was rendered: the quote was not accepted")
        _note_run(store, options, plan, started_at, {"status": Status.RUNNING.value})
        progress, lost = Progress(), 0
        try:
            if plan.quote.to_render:
                progress, snapshot = render_plan(
                    plan, options, catalog, out, config, lambda s, p: watcher.rendering(s, p, plan.quote), wrap
                )
                lost = snapshot.actors_lost
        except (RunStoppedError, KeyboardInterrupt) as error:
            _note_run(
                store, options, plan, started_at, {"status": Status.FAILED.value, "reason": str(error) or "interrupted"}
            )
            raise
        totals = write_results(out, options.run_id, plan)
        if progress.clips and len(topology.accelerators) < 2:  # with several types rows do not say which one it was
            accelerator = "cpu" if options.device == "cpu" else topology.accelerator
            learn(
                config.cache_dir,
                catalog,
                accelerator,
                plan.quote.groups,
                read_table(store, keys.results_part(options.run_id, 0)),
            )
    sheet = _write_contact_sheet(store, options)
    summary = RunSummary(
        run_id=options.run_id,
        manifest=options.manifest,
        out=out,
        rows=int(totals["rows"]),
        succeeded=int(totals["succeeded"]),
        failed=int(totals["failed"]),
        rejected=int(totals["rejected"]),
        rendered=progress.clips,
        reused=int(totals["succeeded"]) - progress.clips,
        actors_lost=lost,
        started_at=started_at,
        finished_at=_now(),
        plan_s=plan.plan_s,
        render_s=progress.elapsed_s,
        wall_s=time.monotonic() - started_s,
        billed_gpu_s=totals["billed_gpu_s"],
        billed_usd=totals["billed_usd"],
        quoted_gpu_s=totals["quoted_gpu_s"],
        quoted_usd=totals["quoted_usd"],
        results_uri=store.uri(keys.results_prefix(options.run_id).rstrip("/")),
        contact_sheet_uri=sheet,
    )
    _note_run(store, options, plan, started_at, {"status": Status.SUCCEEDED.value, "summary": summary.model_dump()})
    return summary


def _note_run(
    store: ObjectStore, options: RunOptions, plan: RunPlan, started_at: str, state: dict[str, object]
) -> None:
    """Write run.json: what was asked, what it was quoted at, how it stands."""
    note = {
        "run_id": options.run_id,
        "started_at": started_at,
        "options": options.model_dump(mode="json"),
        "quote": plan.quote.model_dump(mode="json"),
        **state,
    }
    store.put(keys.RUN, json.dumps(note, indent=1).encode(), "application/json")


def _write_contact_sheet(store: ObjectStore, options: RunOptions) -> str | None:
    """The first clips of the results as one picture; None when there is none to show."""
    if options.contact_sheet_clips == 0:
        return None
    table = read_table(store, keys.results_part(options.run_id, 0))
    entries = []
    for row in table.to_pylist():
        if row["status"] != Status.SUCCEEDED.value:
            continue
        clip = keys.clip(row["variant"], row["fingerprint"], options.clip_format.suffix)
        frames = read_frames(store.get(clip), options.clip_format)
        caption = f"{row['variant']}  {row['width']}x{row['height']}x{row['frames']}  seed {row['seed']}  {row['id']}"
        entries.append(SheetEntry(frames, row["prompt"] or "", caption))
        if len(entries) == options.contact_sheet_clips:
            break
    if not entries:
        return None
    store.put(keys.CONTACT_SHEET, contact_sheet(entries), "image/png")
    return store.uri(keys.CONTACT_SHEET)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

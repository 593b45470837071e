"""A bulk run from end to end: plan, render, join, report. What `rushes render` and `rushes.render` call."""

import importlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from actors.moderator import check_moderation
from actors.provenance import check_signing
from cluster.addresses import Meant, meant
from cluster.connect import RayEndedError, connected, lost_process
from models.model import Model
from pipelines.calibration import learn, learnt
from pipelines.catalogs import open_catalog as open_catalog
from pipelines.contact_sheet import SheetEntry, contact_sheet, title
from pipelines.planner import fits_here, plan_run
from pipelines.progress import Progress, RunStoppedError
from pipelines.read import find_chunks
from pipelines.results import write_results
from pipelines.run_audit import RunLog
from pipelines.run_lock import run_lock
from pipelines.run_plan import RunPlan
from pipelines.watcher import NOBODY, Watcher
from schemas.clip import Status
from schemas.config import Config, read_config
from schemas.errors import ConfigError, RushesError
from schemas.run import RunOptions, RunStatus, RunSummary
from storage import keys
from storage.store import ObjectStore, open_store
from storage.tables import read_table


class DeclinedError(RushesError):
    """The quote was not accepted."""


def render(
    options: RunOptions,
    watcher: Watcher = NOBODY,
    config: Config | None = None,
    wrap: Callable[[Model], Model] | None = None,
    attempt: str = "",
    actor: str | None = None,
) -> RunSummary:
    """Render a manifest into `options.out`. Resumes: what the ledger there says is done is not rendered again.

    Raises ConfigError for options that do not fit, RunStoppedError when the run cannot go on, DeclinedError when
    the watcher does not confirm the quote. `wrap` stands between the models and the actors, in the actors' processes.
    `attempt` names one of several tries, each of which plans in a folder of its own. The audit log names `actor` as who
    asked for it: this process's user unless given.
    """
    config = config or read_config()
    catalog = open_catalog(options.catalog, config)
    started_s, started_at = time.monotonic(), _now()
    store = open_store(options.out)
    store.check()
    out = str(store.address)
    # Before Ray is started: whatever is wrong with the manifest is said at once.
    chunks = find_chunks(options.manifest, options.limit, encoding=options.encoding, out=options.out)
    cluster = meant(options.address)
    signing = _signing(cluster, options, config)
    moderation = check_moderation(options.moderation)
    if moderation:
        watcher.said(moderation)
    # Takes a second, which Ray needs to start anyway.
    threading.Thread(target=importlib.import_module, args=("pipelines.render",), daemon=True).start()
    with run_lock(store, options.run_id, options.manifest), connected(cluster, say=watcher.said) as topology:
        if options.device == "cuda" and not topology.gpus:
            raise ConfigError("--device cuda: the cluster has no GPU; available: auto, cpu")
        plan = plan_run(
            options,
            learnt(catalog, config.cache_dir),
            topology,
            out=out,
            done_in=out,
            auto_by=catalog,
            config=config,
            attempt=attempt,
            on_progress=watcher.planning,
            # Without CPUs no task of Ray's ever starts: whether anything can be rendered is said after planning.
            in_process=fits_here(chunks) or not topology.cpus,
            chunks=chunks,
        )
        watcher.quoted(plan)
        if plan.quote.to_render and not watcher.confirm(plan.quote):
            raise DeclinedError("nothing was rendered: the quote was not accepted")
        log = RunLog(store, options, config, actor)
        audit = log.started(plan, catalog, chunks, attempt)
        _note_run(store, options, plan, started_at, {"status": RunStatus.RUNNING.value})
        progress, lost = Progress(), 0
        try:
            watcher.started()
            if plan.quote.to_render:
                from pipelines.render import render_plan

                progress, snapshot = render_plan(
                    plan, options, catalog, out, config, audit, lambda s, p: watcher.rendering(s, p, plan.quote), wrap
                )
                lost = snapshot.actors_lost
        except (RunStoppedError, KeyboardInterrupt) as error:
            process = lost_process()
            why = error if process is None else RayEndedError(process)
            _leave(store, options, plan, started_at, why, log)
            raise why from None
        totals = write_results(out, options.run_id, plan)
        counts = {name: int(totals[name]) for name in ("rows", "succeeded", "failed", "rejected")}
        log.ended(RunStatus.SUCCEEDED, counts, totals["billed_usd"])
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
        refused=int(totals["refused"]),
        flagged=int(totals["flagged"]),
        rendered=progress.clips,
        reused=int(totals["succeeded"]) - progress.clips,
        actors_lost=lost,
        texts_encoded=progress.texts_encoded,
        texts_reused=progress.texts_reused,
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
        rejects_uri=store.uri(keys.rejects_prefix(options.run_id).rstrip("/")) if totals["rejected"] else None,
        reasons=totals.reasons,
        contact_sheet_uri=sheet,
        credentials=signing,
        moderation=moderation,
    )
    _note_run(store, options, plan, started_at, {"status": RunStatus.SUCCEEDED.value, "summary": summary.model_dump()})
    return summary


def _leave(
    store: ObjectStore, options: RunOptions, plan: RunPlan, started_at: str, error: BaseException, log: RunLog
) -> None:
    """Leave a run that ends early as it stands: the results table of what is there, and why it ended."""
    status = RunStatus.INTERRUPTED if isinstance(error, KeyboardInterrupt) else RunStatus.FAILED
    state: dict[str, object] = {
        "status": status.value,
        "reason": str(error) or "interrupted",
    }
    # The store may be what broke: then neither can be written, and the ledger has what it has.
    with suppress(RushesError):
        _note_run(store, options, plan, started_at, state)
        totals = write_results(str(store.address), options.run_id, plan, interrupted=True)
        so_far = {name: int(totals[name]) for name in ("rows", "succeeded", "failed", "rejected", "pending")}
        _note_run(store, options, plan, started_at, {**state, "so_far": so_far})
        log.ended(status, so_far, None, str(error))


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
    from actors.decoder import read_frames

    table = read_table(store, keys.results_part(options.run_id, 0))
    entries = []
    for row in table.to_pylist():
        if row["status"] != Status.SUCCEEDED.value:
            continue
        clip = keys.clip(row["variant"], row["fingerprint"], options.clip_format.suffix)
        try:
            frames = read_frames(store.get(clip), options.clip_format)
        except RushesError:  # taken away since: the sheet is for looking at
            continue
        caption = f"{row['variant']}  {row['width']}x{row['height']}x{row['frames']}  seed {row['seed']}  {row['id']}"
        entries.append(SheetEntry(frames, title(row), caption))
        if len(entries) == options.contact_sheet_clips:
            break
    if not entries:
        return None
    store.put(keys.CONTACT_SHEET, contact_sheet(entries), "image/png")
    return store.uri(keys.CONTACT_SHEET)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _signing(cluster: Meant, options: RunOptions, config: Config) -> str:
    """Who signs, before anything is rendered. On a cluster that is joined, keys are where the actors are."""
    if cluster.address is not None:
        return "clips are signed as the machines that render have keys"
    return check_signing(options.trust, config.state_dir)

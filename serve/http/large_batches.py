"""Batches that go through the bulk pipeline: a manifest, or more rows than the queue takes at once.

`app.state.bulk` is a `serve.bulk.BulkLauncher`; without one such batches are refused, and say what is possible.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from fastapi import FastAPI, Request

from schemas.clip import Status
from schemas.errors import RushesError
from schemas.request import Request as RoutingRequest
from serve.admission.allowance import Allowance
from serve.admission.manifests import allowed_manifest
from serve.bulk import BulkFollower, BulkLauncher, BulkOptions
from serve.context import Context
from serve.http.routes import context_of, in_thread
from serve.store.contract import ApiKey, Batch, Idempotency
from serve.wire.base import WireError, issue

log = logging.getLogger("serve.http.batches")

FOLDER = "batches/"  # below the endpoint's `out`: <id>/manifest.jsonl and <id>/run/
FOLLOW_S = 1.0


def include(app: FastAPI, context: Context) -> None:
    """Follow bulk runs while the process lives."""
    follower: list[asyncio.Task[None]] = []

    async def begin() -> None:
        follower.append(asyncio.create_task(follow_runs(app, context)))

    async def end() -> None:
        for task in follower:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        bulk: BulkLauncher | None = getattr(app.state, "bulk", None)
        if bulk is not None:
            await in_thread(bulk.close)

    app.state.starting.append(begin)
    app.state.stopping.append(end)


async def follow_runs(app: FastAPI, context: Context) -> None:
    """Until cancelled. A launcher may be given later than the start."""
    while True:
        follower = follower_of(app, context)
        if follower is not None:
            try:
                await in_thread(follower.look, context.now())
            except Exception:
                # The runs go on by themselves; one whose process is gone starts again a little later.
                log.exception("bulk runs could not be looked after; tried again")
        await asyncio.sleep(FOLLOW_S)


def follower_of(app: FastAPI, context: Context) -> BulkFollower | None:
    """The process's own; None without a launcher."""
    bulk: BulkLauncher | None = getattr(app.state, "bulk", None)
    if bulk is None:
        return None
    found: BulkFollower | None = getattr(app.state, "bulk_follower", None)
    if found is None:
        found = app.state.bulk_follower = BulkFollower(bulk, context.store)
    return found


async def of_manifest(request: Request, key: ApiKey, manifest_uri: str, options: BulkOptions) -> Batch:
    """The batch of a manifest that is there already. Raises WireError at `manifestUri`."""
    context = context_of(request)
    _check_possible(request, 0)
    if not options.trusted:
        manifest_uri = await in_thread(allowed_manifest, manifest_uri, key, context.objects)
    return _batch(context, key, str(uuid.uuid4()), manifest_uri, 0, options)


async def of_rows(request: Request, key: ApiKey, rows: Sequence[RoutingRequest], options: BulkOptions) -> Batch:
    """The batch of rows, which are written as a manifest. Their media were taken in before."""
    context = context_of(request)
    _check_possible(request, len(rows))
    batch_id = str(uuid.uuid4())
    name = _manifest(batch_id)
    text = "".join(
        json.dumps({"id": str(index), **row.model_dump(mode="json", exclude_defaults=True)}) + "\n"
        for index, row in enumerate(rows)
    )
    await in_thread(context.objects.put, name, text.encode(), "application/jsonl")
    # The rows name copies that intake made in our own store, so they are to be trusted whoever sent them.
    trusted = replace(options, trusted=True)
    return _batch(context, key, batch_id, context.objects.uri(name), len(rows), trusted)


async def begin(request: Request, key: ApiKey, batch: Batch, idempotency: Idempotency | None) -> Batch:
    """Store a batch within its key's limits and begin its run; the batch of then where the client's own key was seen
    before."""
    context = context_of(request)
    now, allowance = batch.created_at, Allowance.of(key, context.config.limits)

    def store() -> Batch:
        return context.store.batches.begin(
            batch, idempotency=idempotency, max_since=allowance.daily(now), max_month_usd=allowance.month_usd
        )

    stored: Batch | None = None
    try:
        stored = await in_thread(store)
    finally:
        if stored is None or stored.id != batch.id:
            with suppress(RushesError):  # a manifest that nobody reads
                await in_thread(context.objects.delete, [_manifest(batch.id)])
    if stored.id == batch.id:
        follower = follower_of(request.app, context)
        assert follower is not None
        # What fails here is tried again by whoever follows: the run is in the store.
        await in_thread(follower.begin, batch, context.now())
        request.app.state.metrics.accepted("batch", max(1, batch.total))
    return await in_thread(context.store.batches.get, stored.id, key.id) or stored


async def stop(request: Request, batch: Batch) -> None:
    """End a run: in the store, where its process looks, and its process itself where it can be reached."""
    context = context_of(request)
    update = context.store.batches.update
    await in_thread(update, batch.id, Status.CANCELLED, batch.counts, batch.billed_usd, context.now())
    follower = follower_of(request.app, context)
    if follower is not None:
        try:
            await in_thread(follower.stop, batch)
        except RushesError as error:
            log.warning("a cancelled run ends by itself: %s", error, extra={"batch_id": batch.id})


def _batch(context: Context, key: ApiKey, batch_id: str, manifest_uri: str, total: int, options: BulkOptions) -> Batch:
    return Batch(
        batch_id,
        key.id,
        context.now(),
        total,
        0.0,
        status=Status.PENDING if options.max_concurrent is None else Status.THROTTLED,
        manifest_uri=manifest_uri,
        run_uri=context.objects.uri(f"{FOLDER}{batch_id}/run"),
        model=options.variant,
        details=options.as_details(),
    )


def _manifest(batch_id: str) -> str:
    return f"{FOLDER}{batch_id}/manifest.jsonl"


def _check_possible(request: Request, rows: int) -> None:
    if getattr(request.app.state, "bulk", None) is None:
        most = context_of(request).config.limits.max_batch_tasks
        where = "tasks" if rows else "manifestUri"
        text = f"this endpoint has no bulk pipeline: send at most {most} rows in tasks"
        raise WireError([issue("unsupported", where, text)])

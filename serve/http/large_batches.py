"""Batches that go through the bulk pipeline: a manifest, or more rows than the queue takes at once.

`app.state.bulk` is a `serve.bulk.BulkRunner`; without one such batches are refused, and say what is possible.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace

from fastapi import FastAPI, Request

from schemas.clip import Status
from schemas.errors import ConfigError, RushesError
from schemas.request import Request as Wanted
from serve.bulk import OPTIONS_NOTE, BulkFollower, BulkOptions, BulkRunner
from serve.context import Context
from serve.http.routes import context_of, in_thread
from serve.store.contract import ApiKey, Batch
from serve.tasks import LIVE
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

    app.state.starting.append(begin)
    app.state.stopping.append(end)


async def follow_runs(app: FastAPI, context: Context) -> None:
    """Until cancelled. A runner may be given later than the start."""
    while True:
        follower = follower_of(app, context)
        if follower is not None:
            try:
                await in_thread(follower.look, context.now())
            except Exception:
                # The runs go on by themselves; only what is shown of them is late.
                log.exception("bulk runs could not be looked at; tried again")
        await asyncio.sleep(FOLLOW_S)


def follower_of(app: FastAPI, context: Context) -> BulkFollower | None:
    """The process's own; None without a runner."""
    bulk: BulkRunner | None = getattr(app.state, "bulk", None)
    if bulk is None:
        return None
    found: BulkFollower | None = getattr(app.state, "bulk_follower", None)
    if found is None:
        found = app.state.bulk_follower = BulkFollower(bulk, context.store, uuid.uuid4().hex)
    return found


async def from_manifest(
    request: Request, key: ApiKey, manifest_uri: str, options: BulkOptions, webhook_url: str | None
) -> Batch:
    """Begin a run over a manifest that is there already. Raises WireError at `manifestUri`."""
    context = context_of(request)
    if not options.trusted and not _is_ours(context, manifest_uri):
        root = str(context.objects.address)
        raise WireError(
            [issue("address_not_allowed", "manifestUri", f"must be below {root}: this endpoint reads no other place")]
        )
    return await _begin(request, key, str(uuid.uuid4()), manifest_uri, 0, options, webhook_url)


async def from_rows(
    request: Request, key: ApiKey, rows: Sequence[Wanted], options: BulkOptions, webhook_url: str | None
) -> Batch:
    """Write the rows as a manifest and begin a run over it. Their media were taken in before."""
    context = context_of(request)
    _runner(request, len(rows))
    batch_id = str(uuid.uuid4())
    name = f"{FOLDER}{batch_id}/manifest.jsonl"
    text = "".join(
        json.dumps({"id": str(index), **row.model_dump(mode="json", exclude_defaults=True)}) + "\n"
        for index, row in enumerate(rows)
    )
    await in_thread(context.objects.put, name, text.encode(), "application/jsonl")
    # The rows name copies that intake made in our own store, so they are to be trusted whoever sent them.
    trusted = replace(options, trusted=True)
    return await _begin(request, key, batch_id, context.objects.uri(name), len(rows), trusted, webhook_url)


async def stop(request: Request, batch: Batch) -> None:
    """End a run: here in the store, and by whichever process works on it (its follower sees the end in the store)."""
    context = context_of(request)
    bulk: BulkRunner | None = getattr(request.app.state, "bulk", None)
    if batch.status not in LIVE:
        return
    if bulk is not None:
        await in_thread(bulk.cancel, batch.id)
    update = context.store.batches.update
    await in_thread(update, batch.id, Status.CANCELLED, batch.counts, batch.billed_usd, context.now())


async def _begin(
    request: Request,
    key: ApiKey,
    batch_id: str,
    manifest_uri: str,
    total: int,
    options: BulkOptions,
    webhook_url: str | None,
) -> Batch:
    context = context_of(request)
    bulk = _runner(request, total)
    out = context.objects.uri(f"{FOLDER}{batch_id}/run")
    batch = Batch(
        batch_id,
        key.id,
        context.now(),
        total,
        0.0,
        webhook_url=webhook_url,
        manifest_uri=manifest_uri,
        run_uri=out,
    )
    # Stored first: a run that begins and is lost with this process is begun again by whoever follows.
    await in_thread(context.store.notes.write, OPTIONS_NOTE + batch_id, asdict(options))
    follower = follower_of(request.app, context)
    assert follower is not None
    await in_thread(follower.hold, batch_id, context.now())
    await in_thread(context.store.batches.create, batch)
    try:
        await in_thread(bulk.start, batch_id, manifest_uri, out, options)
    except ConfigError as error:
        await in_thread(context.store.batches.update, batch_id, Status.FAILED, {}, 0.0, context.now(), str(error)[:300])
        raise WireError([issue("manifest", "manifestUri", str(error)[:300])]) from error
    except RushesError as error:
        log.warning("a bulk run could not begin yet", extra={"batch_id": batch_id, "cause": str(error)})
    return await in_thread(context.store.batches.get, batch_id, key.id) or batch


def _runner(request: Request, rows: int) -> BulkRunner:
    bulk: BulkRunner | None = getattr(request.app.state, "bulk", None)
    if bulk is None:
        most = context_of(request).config.limits.max_batch_tasks
        where = "tasks" if rows else "manifestUri"
        text = f"this endpoint has no bulk pipeline: send at most {most} rows in tasks"
        raise WireError([issue("unsupported", where, text)])
    return bulk


def _is_ours(context: Context, uri: str) -> bool:
    root = str(context.objects.address).rstrip("/") + "/"
    return uri.startswith(root) and ".." not in uri

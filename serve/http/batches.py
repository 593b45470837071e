"""`/v1/batches`: many creates behind one id, with one quote, one progress and one bill.

Rows that are wrong are reported by their index and cost the good ones nothing. Up to `limits.max_batch_tasks` rows go
into the queue as tasks; more, or a manifest, go through the bulk pipeline (`serve.http.large_batches`).
"""

import asyncio
import math
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from pydantic import Field, JsonValue, model_validator
from starlette.responses import Response

from schemas.clip import ClipFormat
from serve.admission.allowance import Allowance
from serve.admission.offer import NoCapacityError
from serve.admission.submission import Submission, submission_of
from serve.bulk import BulkOptions
from serve.context import Context
from serve.http import large_batches
from serve.http.creates import idempotency_of, store, with_prompts_moderated
from serve.http.errors import NotFoundError
from serve.http.refusals import refusals
from serve.http.routes import Caller, body_of, context_of, documented, in_thread, json_answer
from serve.http.run_tasks import run_tasks
from serve.http.tasks import MAX_PAGE, signer
from serve.http.tasks import _seq as seq_of
from serve.http.tasks import _statuses as statuses_of
from serve.store.contract import ApiKey, Batch
from serve.tasks import CREDITS_PER_USD, LIVE, Constraints, NewTask, StoredTask
from serve.webhooks import check_webhook_url
from serve.wire.base import Refusal, WireError, WireIssue, issue
from serve.wire.instants import iso
from serve.wire.own import Own
from serve.wire.tasks import page, shown

router = APIRouter(tags=["batches"])

NOTE = "batch/"  # + id: what a batch's row has no room for
MOST_ROWS = 100_000
_MOST_TOLD = 1000  # rejected rows that a batch remembers
_FETCHES = 8  # at once, of one batch
_OF_THE_BATCH = {"tasks", "manifest_uri", "max_credits", "webhook_url"}


class BatchBody(Own):
    """`POST /v1/batches`. What rows do not say themselves they take from here; `maxCredits` is for all together."""

    tasks: tuple[Any, ...] | None = Field(default=None, min_length=1, max_length=MOST_ROWS)
    manifest_uri: str | None = Field(default=None, min_length=1, max_length=2048)
    model: str = Field(default="auto", min_length=1, max_length=200)

    @model_validator(mode="after")
    def _one_of(self) -> "BatchBody":
        if (self.tasks is None) == (self.manifest_uri is None):
            raise Refusal("give tasks or manifestUri", "required", within=("tasks",))
        return self

    def defaults(self) -> dict[str, JsonValue]:
        """What a row takes when it does not say."""
        given = self.model_dump(mode="json", by_alias=True, include=self.model_fields_set - _OF_THE_BATCH)
        if self.deadline is not None:
            given["deadline"] = iso(self.deadline)
        return {"model": self.model, **given}


@dataclass
class Rows:
    """A batch's rows, the good ones by index and the issues of the others."""

    total: int
    good: dict[int, Submission] = field(default_factory=dict)
    rejected: dict[int, tuple[WireIssue, ...]] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        """What the rows come to, where each is as many tasks as it has samples."""
        return self.total + sum(one.request.samples - 1 for one in self.good.values())

    def reject(self, index: int, error: WireError) -> None:
        self.rejected[index] = error.issues
        self.good.pop(index, None)

    def told(self) -> list[JsonValue]:
        return [
            {"index": index, "issues": [one.as_json() for one in self.rejected[index]]}
            for index in sorted(self.rejected)[:_MOST_TOLD]
        ]


_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "tasks": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "object"},
                            "description": "bodies of creates; `mode` says which where the media do not",
                        },
                        "manifestUri": {"type": "string", "description": "instead: a manifest, for the bulk pipeline"},
                        "model": {"type": "string", "default": "auto"},
                        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
                        "maxCredits": {"type": "number", "minimum": 0, "description": "of all rows together"},
                        "deadline": {"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]},
                        "webhookUrl": {"type": "string", "description": "told of the batch's end"},
                    },
                },
                "example": {"tasks": [{"promptText": "a red circle"}, {"promptText": "a blue square", "seed": 7}]},
            }
        },
    }
}


def include(app: FastAPI, context: Context) -> None:
    large_batches.include(app, context)


@router.post("/v1/batches", **{**documented(None, "Many creates at once"), "openapi_extra": _SCHEMA})
async def create(request: Request, key: Caller) -> Response:
    async with refusals(request, key):
        return await _create(request, key)


async def _create(request: Request, key: ApiKey) -> Response:
    body = await body_of(request, BatchBody)
    context = context_of(request)
    if body.webhook_url is not None:
        check_webhook_url(body.webhook_url, allow_private=context.config.media.allow_private)
    idempotency = await idempotency_of(request)
    if idempotency is not None:
        known = await in_thread(context.store.batches.replay, key.id, idempotency)
        if known is not None:
            tasks = await in_thread(context.store.tasks.replay, key.id, idempotency)
            return await _answer(context, known, tasks or (), replayed=True)
    if body.manifest_uri is not None:
        options = _options(context, key, body)
        new = await large_batches.of_manifest(request, key, body.manifest_uri, options)
    else:
        rows = await in_thread(_read, context, key, body)
        if rows.tasks <= context.config.limits.max_batch_tasks:
            # Of larger ones the bulk pipeline moderates the prompts, as of any manifest.
            await _moderate(request, rows)
        await _fetch(context, rows)
        if rows.tasks <= context.config.limits.max_batch_tasks:
            return await _queue(request, key, body, rows)
        options = _options(context, key, body)
        _reject_beyond_bulk(context, rows)
        _refuse_if_none(rows)
        wanted = [rows.good[index].request for index in sorted(rows.good)]
        new = await large_batches.of_rows(request, key, wanted, options)
        new = replace(new, details={**new.details, **_details(context, rows)})
    new = replace(new, webhook_url=body.webhook_url)
    batch = await large_batches.begin(request, key, new, idempotency)
    return await _answer(context, batch, replayed=batch.id != new.id)


async def _answer(context: Context, batch: Batch, tasks: Sequence[StoredTask] = (), *, replayed: bool) -> Response:
    view = await in_thread(batch_view, context, batch)
    if batch.run_uri is None:
        view["taskIds"] = [task.id for task in tasks]
    return json_answer(view, headers={"Idempotent-Replayed": "true"} if replayed else None)


@router.get("/v1/batches/{batch_id}", **documented(None, "A batch: progress, quote and bill"))
async def retrieve(batch_id: str, request: Request, key: Caller) -> Response:
    context = context_of(request)
    batch = await _owned(context, key, batch_id)
    return json_answer(await in_thread(batch_view, context, batch))


@router.delete("/v1/batches/{batch_id}", **documented(None, "Cancel what of a batch is not done"))
async def cancel(batch_id: str, request: Request, key: Caller) -> Response:
    context = context_of(request)
    batch = await _owned(context, key, batch_id)
    if batch.run_uri is not None and batch.status in LIVE:
        await large_batches.stop(request, batch)
    ended = await in_thread(context.store.batches.cancel, batch_id, key.id, context.now())
    context.wake()
    batch = await _owned(context, key, batch_id)
    return json_answer({**await in_thread(batch_view, context, batch), "cancelled": ended})


@router.get("/v1/batches/{batch_id}/tasks", **documented(None, "The tasks of a batch, latest first"))
async def tasks(
    batch_id: str, request: Request, key: Caller, limit: int = 50, cursor: str | None = None, status: str | None = None
) -> Response:
    context = context_of(request)
    batch = await _owned(context, key, batch_id)
    if not 1 <= limit <= MAX_PAGE:
        raise WireError([issue("out_of_range", ("limit",), f"must be 1 to {MAX_PAGE}")], "Validation of query failed")
    if batch.run_uri is not None:
        wanted = statuses_of(status, may_be_rejected=True)
        return json_answer(await in_thread(run_tasks, batch, limit, cursor, wanted, signer(context)))
    before = seq_of(cursor)
    found = await in_thread(
        context.store.tasks.recent,
        limit + 1,
        statuses=statuses_of(status),
        key_id=key.id,
        batch_id=batch_id,
        before_seq=before,
    )
    now, sign = context.now(), signer(context)
    shown_now = [shown(task, position=None, now=now, sign=sign) for task in found[:limit]]
    return json_answer(page(shown_now, str(found[limit - 1].seq) if len(found) > limit else None))


# -- reading rows ------------------------------------------------------------------------------------------------------


def _read(context: Context, key: ApiKey, body: BatchBody) -> Rows:
    """Every row as a create. In a thread: a hundred thousand of them take a while."""
    given = body.tasks or ()
    rows, defaults = Rows(len(given)), body.defaults()
    for index, row in enumerate(given):
        try:
            rows.good[index] = submission_of({**defaults, **row} if isinstance(row, dict) else row, context, key)
        except WireError as error:
            rows.reject(index, error)
    return rows


async def _moderate(request: Request, rows: Rows) -> None:
    """The prompts of the good rows. Those that are refused stay: they become tasks that have failed."""
    places = list(rows.good)
    found = await with_prompts_moderated(request, [rows.good[index] for index in places])
    rows.good |= dict(zip(places, found, strict=True))


async def _fetch(context: Context, rows: Rows) -> None:
    """Take the media of the good rows, some at a time. A row whose media cannot be taken is rejected."""
    gate = asyncio.Semaphore(_FETCHES)

    async def one(index: int, submission: Submission) -> None:
        async with gate:
            try:
                rows.good[index] = await submission.with_media_taken(context.intake)
            except WireError as error:
                rows.reject(index, error)

    await asyncio.gather(*(one(index, row) for index, row in tuple(rows.good.items()) if row.media))


def _refuse_if_none(rows: Rows) -> None:
    """Raises WireError with the rows' issues when no row is good."""
    if not rows.good:
        issues = [
            one.model_copy(update={"path": ("tasks", index, *one.path)})
            for index in sorted(rows.rejected)[:100]
            for one in rows.rejected[index]
        ]
        raise WireError(issues, "No row of the batch can be rendered")


def _reject_beyond_bulk(context: Context, rows: Rows) -> None:
    """Rows that say what a bulk run cannot heed: rejected rather than rendered otherwise than asked."""
    most = context.config.limits.max_batch_tasks
    for index, row in tuple(rows.good.items()):
        own, usual = row.constraints, Constraints()
        said = {
            "webhookUrl": row.webhook_url is not None,
            "outputFormat": row.clip_format is not ClipFormat.MP4,
            "deadline": own.deadline_at != usual.deadline_at,
            "maxCredits": own.max_usd != usual.max_usd,
            "allowModels": own.allow is not None,
            "denyModels": bool(own.deny),
            "minQuality": own.min_quality != usual.min_quality,
            "optimizeFor": own.prefer is not usual.prefer,
            "skipBusy": own.skip_busy,
            "contentModeration": own.public_figures != usual.public_figures,
        }
        issues = [issue("unsupported", name, f"is for batches of at most {most} rows") for name in said if said[name]]
        if issues:
            rows.reject(index, WireError(issues))


def _options(context: Context, key: ApiKey, body: BatchBody) -> BulkOptions:
    """What of a batch's body goes for a bulk run. Raises WireError for what does not."""
    for name in ("deadline", "allow_models", "deny_models", "min_quality", "optimize_for", "skip_busy"):
        if name in body.model_fields_set:
            alias = BatchBody.model_fields[name].alias or name
            most = context.config.limits.max_batch_tasks
            raise WireError([issue("unsupported", alias, f"is for batches of at most {most} rows, not for bulk runs")])
    return BulkOptions(
        variant=body.model,
        priority=body.priority,
        max_usd=None if body.max_credits is None else body.max_credits / CREDITS_PER_USD,
        trusted=not context.config.auth,
        max_concurrent=Allowance.of(key, context.config.limits).max_concurrent,
    )


# -- small batches: into the queue -------------------------------------------------------------------------------------


async def _queue(request: Request, key: ApiKey, body: BatchBody, rows: Rows) -> Response:
    context = context_of(request)
    batch_id = str(uuid.uuid4())
    admitted = await in_thread(_decide, context, rows, batch_id)
    _refuse_if_none(rows)
    new = [task for index in sorted(admitted) for task in admitted[index]]
    quote_usd = math.fsum(task.offer.usd for task in new)
    if body.max_credits is not None and quote_usd * CREDITS_PER_USD > body.max_credits + 1e-9:
        least = math.ceil(quote_usd * CREDITS_PER_USD - 1e-9)
        raise WireError([issue("price", "maxCredits", f"the batch would cost {least} credits", (str(least),))])
    batch = Batch(
        batch_id,
        key.id,
        context.now(),
        len(new),
        quote_usd,
        webhook_url=body.webhook_url,
        model=body.model,
        details=_details(context, rows, new),
    )
    # Stored with its tasks, all or none: there is never a batch without tasks, nor one that failed beside its tasks.
    stored = await store(request, key, new, batch)
    found = await _owned(context, key, stored.tasks[0].batch_id or batch_id)
    return await _answer(context, found, stored.tasks, replayed=stored.replayed)


def _decide(context: Context, rows: Rows, batch_id: str) -> dict[int, list[NewTask]]:
    """Admit each good row on its own. In a thread."""
    admitted: dict[int, list[NewTask]] = {}
    for index, submission in tuple(rows.good.items()):
        try:
            admitted[index] = submission.decide(context, "batch", batch_id)
        except WireError as error:
            rows.reject(index, error)
        except NoCapacityError as error:
            rows.reject(index, WireError([issue("no_capacity", "model", str(error))]))
    return admitted


def _details(context: Context, rows: Rows, new: Sequence[NewTask] = ()) -> dict[str, JsonValue]:
    """What of a batch nobody asks by: rejected rows and the promise."""
    details: dict[str, JsonValue] = {"rejected": rows.told(), "rows": rows.total, "rejectedRows": len(rows.rejected)}
    if new:
        details["gpuS"] = math.fsum(task.offer.gpu_s for task in new)
        details["etaAt"], details["etaP90At"] = _promise(context, new)
    return details


def _promise(context: Context, new: Sequence[NewTask]) -> tuple[float, float]:
    """When the last one would be done, if each pool worked off its share one after the other."""
    replicas = {pool.name: max(1, pool.replicas) for pool in context.admission.fleet().pools}
    work_s: defaultdict[str, float] = defaultdict(float)
    for task in new:
        work_s[task.offer.pool] += task.offer.gpu_s
    now, eta_at, p90_at = context.now(), 0.0, 0.0
    for task in new:
        queue_s = (work_s[task.offer.pool] - task.offer.gpu_s) / replicas.get(task.offer.pool, 1)
        spread = (task.offer.eta_p90_at - now) / max(task.offer.eta_at - now, 1e-6)
        eta_at = max(eta_at, task.offer.eta_at + queue_s)
        p90_at = max(p90_at, task.offer.eta_p90_at + queue_s * max(1.0, spread))
    return eta_at, p90_at


# -- showing ----------------------------------------------------------------------------------------------------


async def _owned(context: Context, key: ApiKey, batch_id: str) -> Batch:
    batch = await in_thread(context.store.batches.get, batch_id, key.id)
    if batch is None:
        raise NotFoundError(f"there is no batch {batch_id[:100]!r}")
    return batch


def batch_view(context: Context, batch: Batch) -> dict[str, JsonValue]:
    """A batch as clients see it. Reads the store."""
    # In a note: of an earlier rushes.
    kept = batch.details or context.store.notes.read(NOTE + batch.id)
    note: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
    counts = {name.lower(): count for name, count in batch.counts.items()}
    done = sum(count for name, count in counts.items() if name in ("succeeded", "failed", "cancelled", "rejected"))
    view: dict[str, JsonValue] = {
        "id": batch.id,
        "status": batch.status.value,
        "createdAt": iso(batch.created_at),
        "total": batch.total,
        "counts": dict(counts),
        "progress": round(done / batch.total, 4) if batch.total else float(batch.status not in LIVE),
        "rejectedRows": note.get("rejectedRows", 0),
        "rejected": note.get("rejected", []),
        "quote": {
            "usd": batch.quote_usd,
            "credits": math.ceil(batch.quote_usd * CREDITS_PER_USD - 1e-9),
            "gpuSeconds": note.get("gpuS"),
            "eta": iso(note.get("etaAt")),
            "etaP90": iso(note.get("etaP90At")),
        },
        "bill": {"usd": batch.billed_usd, "credits": math.ceil(batch.billed_usd * CREDITS_PER_USD - 1e-9)},
    }
    if batch.finished_at is not None:
        view["finishedAt"] = iso(batch.finished_at)
        view["seconds"] = round(batch.finished_at - batch.created_at, 3)
    if batch.failure:
        view["failure"] = batch.failure
    if batch.manifest_uri is not None:
        view["manifestUri"] = batch.manifest_uri
        view["outputUri"] = batch.run_uri
    return view

"""What the audit log is told of each change of the store. Pure: rows and values in, entries out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from schemas.audit import (
    Action,
    AuditedClip,
    AuditPrompts,
    Entry,
    Told,
    audited,
    details,
    instant,
    money,
)
from schemas.clip import Status
from serve.store.contract import ApiKey, Batch, RouterConfig, Upload
from serve.store.database import AnyRow
from serve.tasks import Lease, NewTask, Outcome
from trust import actor as actors
from trust.redaction import redacted, words_of

LOG_SUBJECT = "log:audit"
STORE_SUBJECT = "store:endpoint"
_KEY_LIMITS = ("max_concurrent", "max_daily", "monthly_credits", "weight", "max_priority")
_ENDS = {
    Status.SUCCEEDED: Action.TASK_SUCCEEDED,
    Status.FAILED: Action.TASK_FAILED,
    Status.CANCELLED: Action.TASK_CANCELLED,
}


@dataclass(frozen=True)
class Teller:
    """Who writes through a store, where no API key does, and what is kept of prompts."""

    actor: str
    prompts: AuditPrompts = AuditPrompts.KEEP
    now: Callable[[], float] = time  # of what is not told when it happened

    def who(self, key_id: str | None) -> str:
        """The key, or whoever runs this process where none was given."""
        return self.actor if key_id is None else actors.key(key_id)


def task_created(task: NewTask, status: Status, now: float, teller: Teller) -> Told:
    request, offer, constraints, group = task.request, task.offer, task.constraints, task.group
    prompt_sha256, prompt = redacted(words_of(request.words, request.negative_prompt), teller.prompts)
    entry = Entry(
        at=instant(now),
        actor=actors.key(task.key_id),
        action=Action.TASK_CREATED,
        subject=f"task:{task.id}",
        key_id=task.key_id,
        decision=offer.variant,
        reason=offer.sentence or offer.reason,
        moderation=audited(task.moderation),
        prompt_sha256=prompt_sha256,
        details=details(
            kind=task.kind,
            model=task.model,
            variant_asked=request.variant,
            rule=offer.reason,
            pool=offer.pool,
            quoted_usd=money(offer.usd),
            status=status.value,
            batch=task.batch_id,
            router=task.router_id,
            mode=group.mode.value,
            shape=f"{group.width}x{group.height}x{group.frames}",
            steps=group.steps,
            seed=task.seed,
            inputs=[f"{given.input.role}: {given.input.uri}" for given in request.all_inputs],
            priority=task.priority or None,
            max_usd=money(constraints.max_usd) if math.isfinite(constraints.max_usd) else None,
            deadline_at=instant(constraints.deadline_at) if _is_instant(constraints.deadline_at) else None,
            allow=constraints.allow,
            deny=constraints.deny,
            public_figures=None if constraints.public_figures == "auto" else constraints.public_figures,
        ),
    )
    return Told(entry, prompt)


def task_started(
    lease: Lease, key_id: str, holder: str, variant: str, fallback: str, now: float, teller: Teller
) -> Told:
    return _told(
        now,
        teller.actor,
        Action.TASK_STARTED,
        f"task:{lease.task_id}",
        key_id,
        variant,
        fallback,
        attempt=lease.attempt,
        epoch=lease.epoch,
        holder=holder,
    )


def task_returned(row: AnyRow, error: str, spent: bool, at: float, teller: Teller) -> Told:
    subject = f"task:{row.id}"
    return _told(at, teller.actor, Action.TASK_RETURNED, subject, row.key_id, "", error, spent=spent, epoch=row.epoch)


def task_ended(row: AnyRow, outcome: Outcome, at: float, teller: Teller) -> Told:
    """`row` has the columns of `ends.ENDED_COLUMNS`."""
    clip = outcome.clip
    entry = Entry(
        at=instant(at),
        actor=teller.actor,
        action=_ENDS[outcome.status],
        subject=f"task:{row.id}",
        key_id=row.key_id,
        decision=outcome.failure_code or outcome.status.value,
        reason=outcome.failure,
        clip=None if clip is None else AuditedClip(sha256=clip.sha256, uri=clip.uri),
        moderation=audited(outcome.moderation),
        details=details(
            variant=outcome.variant or row.variant,
            quoted_usd=money(row.quoted_usd),
            billed_usd=money(outcome.billed_usd),
            dead=outcome.dead or None,
            batch=row.batch_id,
            signed_by=None if clip is None else clip.signed_by,
        ),
    )
    return Told(entry)


def task_cancel_requested(row: AnyRow, by: str, now: float) -> Told:
    return _told(now, by, Action.TASK_CANCEL_REQUESTED, f"task:{row.id}", row.key_id, row.status)


def task_deleted(task_id: str, key_id: str, by: str, now: float) -> Told:
    return _told(now, by, Action.TASK_DELETED, f"task:{task_id}", key_id)


def batch_created(batch: Batch) -> list[Told]:
    """With what was refused of it, row by row."""
    who, subject = actors.key(batch.key_id), f"batch:{batch.id}"
    rejected: Any = batch.details.get("rejectedRows")
    created = _told(
        batch.created_at,
        who,
        Action.BATCH_CREATED,
        subject,
        batch.key_id,
        batch.model,
        rows=batch.total,
        rejected=rejected or None,
        quoted_usd=money(batch.quote_usd),
        manifest=batch.manifest_uri,
        run=batch.run_uri,
    )
    told = [created]
    rows: Any = batch.details.get("rejected") or ()
    for row in rows:
        issues = row["issues"]
        code = str(issues[0]["code"]) if issues else ""
        why = "; ".join(str(one["message"]) for one in issues)
        at = batch.created_at
        told.append(_told(at, who, Action.TASK_REFUSED, subject, batch.key_id, code, why, row=row["index"]))
    return told


def batch_planned(row: AnyRow, rows: int, quote_usd: float, now: float, teller: Teller) -> Told:
    subject = f"batch:{row.id}"
    usd = money(quote_usd)
    return _told(now, teller.actor, Action.BATCH_PLANNED, subject, row.key_id, rows=rows, quoted_usd=usd)


def batch_ended(
    row: AnyRow, status: Status, counts: Mapping[str, int], usd: float, failure: str, now: float, teller: Teller
) -> Told:
    return _told(
        now,
        teller.actor,
        Action.BATCH_ENDED,
        f"batch:{row.id}",
        row.key_id,
        status.value,
        failure,
        counts=[f"{name}={count}" for name, count in sorted(counts.items())],
        billed_usd=money(usd),
        run=row.run_uri,
    )


def batch_cancel_requested(row: AnyRow, cancelled: int, by: str, now: float) -> Told:
    subject = f"batch:{row.id}"
    return _told(now, by, Action.BATCH_CANCEL_REQUESTED, subject, row.key_id, row.status, tasks=cancelled)


def upload_created(upload: Upload) -> Told:
    who = actors.key(upload.key_id)
    subject = f"upload:{upload.id}"
    return _told(upload.created_at, who, Action.UPLOAD_CREATED, subject, upload.key_id, filename=upload.filename)


def upload_received(row: AnyRow, content_type: str, upload_bytes: int, now: float) -> Told:
    who, subject = actors.key(row.key_id), f"upload:{row.id}"
    action = Action.UPLOAD_RECEIVED
    return _told(now, who, action, subject, row.key_id, content_type=content_type, bytes=upload_bytes)


def upload_removed(row: AnyRow, now: float, teller: Teller) -> Told:
    return _told(now, teller.actor, Action.UPLOAD_REMOVED, f"upload:{row.id}", row.key_id)


def key_told(action: Action, key: ApiKey, now: float, teller: Teller, before: ApiKey | None = None) -> Told:
    """Of one that was changed, what it was before, where that is another."""
    told: dict[str, object] = {"name": key.name}
    for name in _KEY_LIMITS:
        value, earlier = getattr(key, name), None if before is None else getattr(before, name)
        told[name] = None if value is None else f"{value:g}"
        if before is not None and earlier != value:
            told[f"{name}_before"] = "none" if earlier is None else f"{earlier:g}"
    subject = f"key:{key.id}"
    more = details(**told)
    return Told(Entry(at=instant(now), actor=teller.actor, action=action, subject=subject, key_id=key.id, details=more))


def key_revoked(key_id: str, now: float, teller: Teller) -> Told:
    return _told(now, teller.actor, Action.KEY_REVOKED, f"key:{key_id}", key_id)


def router_told(action: Action, router: RouterConfig) -> Told:
    """Made or changed by its key."""
    settings = [f"{name}={value}" for name, value in sorted(router.settings.items())]
    return _told(
        router.updated_at,
        actors.key(router.key_id),
        action,
        f"router:{router.id}",
        router.key_id,
        router.slug,
        version=router.version,
        settings=settings,
    )


def router_deleted(router_id: str, key_id: str, now: float) -> Told:
    return _told(now, actors.key(key_id), Action.ROUTER_DELETED, f"router:{router_id}", key_id)


def store_pruned(kind: str, count: int, now: float, teller: Teller) -> Told:
    return _told(now, teller.actor, Action.STORE_PRUNED, STORE_SUBJECT, decision=kind, rows=count)


def task_refused(
    key_id: str, code: str, reasons: Sequence[str], words: str, teller_prompts: AuditPrompts, now: float, **more: object
) -> Told:
    """A request that made no task: it has no id, so its key is what it is found by."""
    prompt_sha256, prompt = redacted(words, teller_prompts) if words else (None, None)
    entry = Entry(
        at=instant(now),
        actor=actors.key(key_id),
        action=Action.TASK_REFUSED,
        subject=f"key:{key_id}",
        key_id=key_id,
        decision=code,
        reason="; ".join(reasons),
        prompt_sha256=prompt_sha256,
        details=details(**more),
    )
    return Told(entry, prompt)


def _told(
    at: float,
    actor: str,
    action: Action,
    subject: str,
    key_id: str = "",
    decision: str = "",
    reason: str = "",
    **more: object,
) -> Told:
    return Told(
        Entry(
            at=instant(at),
            actor=actor,
            action=action,
            subject=subject,
            key_id=key_id,
            decision=decision,
            reason=reason,
            details=details(**more),
        )
    )


def _is_instant(at: float) -> bool:
    return 0 <= at < 253_402_300_800  # the year 10000

"""What webhooks say of tasks and batches that have ended, and what a batch comes to: pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from schemas.clip import Status
from serve.store.contract import Delivery
from serve.tasks import LIVE, Outcome

LIVE_VALUES = tuple(status.value for status in LIVE)


@dataclass(frozen=True)
class Sums:
    """Of a batch's tasks."""

    counts: Mapping[str, int]
    billed_usd: float

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def status(self) -> Status:
        """PENDING, RUNNING, and at the end: CANCELLED when a task was, SUCCEEDED when one did, else FAILED."""
        if any(self.counts.get(live) for live in LIVE_VALUES):
            waiting = self.counts.get(Status.PENDING, 0) + self.counts.get(Status.THROTTLED, 0)
            return Status.PENDING if waiting == self.total else Status.RUNNING
        for status in (Status.CANCELLED, Status.SUCCEEDED, Status.FAILED):
            if self.counts.get(status):
                return status
        return Status.PENDING


def task_message(
    *, task_id: str, kind: str, model: str, variant: str, batch_id: str | None, outcome: Outcome, now: float
) -> str:
    """No URL of the clip in it: those are signed for a while only, so the receiver asks for the task."""
    data: dict[str, JsonValue] = {
        "id": task_id,
        "status": outcome.status.value,
        "kind": kind,
        "model": model,
        "variant": outcome.variant or variant,
    }
    if outcome.failure_code:
        data["failureCode"] = outcome.failure_code
    if outcome.failure:
        data["failure"] = outcome.failure
    if batch_id is not None:
        data["batchId"] = batch_id
    return _message(f"task.{outcome.status.lower()}", data, now)


def batch_message(
    *, batch_id: str, status: Status, total: int, counts: Mapping[str, int], failure: str, now: float
) -> str:
    data: dict[str, JsonValue] = {"id": batch_id, "status": status.value, "total": total, "counts": dict(counts)}
    if failure:
        data["failure"] = failure
    return _message("batch.finished", data, now)


def delivery(about: str, key_id: str, url: str, payload: str, now: float) -> Delivery:
    """One id per end: a receiver that gets the message twice knows it for the same."""
    return Delivery(id=f"msg_{about}", url=url, key_id=key_id, payload=payload, created_at=now, due_at=now)


def _message(kind: str, data: dict[str, JsonValue], now: float) -> str:
    timestamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": kind, "timestamp": timestamp, "data": data}, separators=(",", ":"))

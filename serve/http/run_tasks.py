"""What became of the rows of a bulk run, as pages of `GET /v1/batches/{id}/tasks`: from the run's own results table.

A run writes its table when it ends, or is interrupted; until then there is nothing to list, and the counts of the batch
tell how far it is.
"""

import json
import re
from typing import Any

from pydantic import JsonValue

from schemas.clip import Status
from schemas.errors import ObjectMissingError
from serve.store.contract import Batch
from serve.tasks import CREDITS_PER_USD
from serve.wire.base import WireError, issue
from serve.wire.instants import iso
from serve.wire.tasks import Sign, page
from storage import keys
from storage.store import open_store
from storage.tables import findings_of, read_table

# As a clip is shown: the column of each.
_OF_A_CLIP = {
    "sha256": "sha256",
    "bytes": "clip_bytes",
    "width": "width",
    "height": "height",
    "frames": "frames",
    "fps": "fps",
}
_CURSOR = re.compile(r"([0-9]{1,6}):([0-9]{1,9})")


def run_tasks(
    batch: Batch, limit: int, cursor: str | None, statuses: tuple[Status, ...], sign: Sign
) -> dict[str, JsonValue]:
    """One page, in the order of the table. Blocking. Raises WireError for a cursor that is none."""
    part, skip = _place(cursor)
    store = open_store(batch.run_uri or "")
    parts = sorted(info.key for info in store.list(keys.RESULTS) if info.key.endswith(".parquet"))
    shown: list[dict[str, JsonValue]] = []
    for number in range(part, len(parts)):
        try:
            table = read_table(store, parts[number])
        except ObjectMissingError:  # another attempt writes the table anew
            break
        rows = table.slice(skip).to_pylist()
        for place, row in enumerate(rows):
            if statuses and Status(row["status"]) not in statuses:
                continue
            if len(shown) == limit:
                return page(shown, f"{number}:{skip + place}")
            shown.append(_view(batch, row, sign))
        skip = 0
    return page(shown, None)


def _place(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise WireError([issue("invalid", ("cursor",), "is no cursor of an answer")], "Validation of query failed")
    return int(match[1]), int(match[2])


def _view(batch: Batch, row: dict[str, Any], sign: Sign) -> dict[str, JsonValue]:
    """As a task is shown; what rows of a run do not have is left out."""
    status = Status(row["status"])
    usd = float(row["billed_usd"] or 0.0)
    body: dict[str, JsonValue] = {
        "id": row["id"] or str(row["row"]),
        "row": row["row"],
        "status": status.value,
        "createdAt": iso(batch.created_at),
        "batchId": batch.id,
        "kind": "batch",
        "model": batch.model,
        "variant": row["variant"],
        "promptText": row["prompt"],
        "seed": row["seed"],
        "attempts": row["attempts"],
        "cost": {"credits": round(usd * CREDITS_PER_USD, 6), "usd": usd},
    }
    if row["uri"] is not None:
        body["output"] = [sign(row["uri"])]
        body["clip"] = {name: row[column] for name, column in _OF_A_CLIP.items()}
        if row["poster_uri"]:
            body["poster"] = sign(row["poster_uri"])
    elif status is Status.REJECTED:
        body["failure"] = findings_of(row.get("moderation")).told or "; ".join(_reasons(row["error"]))
        body["failureCode"] = row.get("failure_code") or "INPUT"
    elif status is Status.FAILED:
        # What the ledger has is for whoever runs the endpoint.
        body["failure"] = findings_of(row.get("moderation")).told or "the task failed"
        body["failureCode"] = row.get("failure_code") or "INTERNAL"
    return body


def _reasons(error: str | None) -> list[str]:
    try:
        found = json.loads(error or "[]")
    except ValueError:
        return ["this row cannot be rendered"]
    return [str(one)[:300] for one in found] if isinstance(found, list) else [str(found)[:300]]

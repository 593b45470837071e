"""Rows that cannot be rendered, written as they are found: file, line, field, reason."""

import json

from pipelines.plan import Planned
from storage import keys
from storage.store import ObjectStore


def write_rejects(store: ObjectStore, run_id: str, chunk: int, planned: Planned) -> None:
    """Write a chunk's rejects as JSON lines, one per issue. Nothing is written when there are none."""
    lines = [
        json.dumps(
            {
                "file": planned.rows.uri,
                "line": reject.line,
                "id": reject.id,
                "field": issue.path,
                "code": issue.code,
                "reason": issue.message,
                "choices": list(issue.choices),
            },
            ensure_ascii=False,
        )
        for reject in planned.rejects
        for issue in reject.issues
    ]
    if lines:
        store.put(keys.rejects_part(run_id, chunk), "\n".join([*lines, ""]).encode(), "application/x-ndjson")

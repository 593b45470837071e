"""A planned chunk as Arrow: its tasks, and every row of it.

A row part is sorted by fingerprint, so that results can later be joined range by range.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.plan import Planned
from storage.batch_parts import TASK_TYPE
from storage.tables import findings_json

ROW_SCHEMA = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("row", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("id", pa.string()),
        ("variant", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frames", pa.int32()),
        ("fps", pa.float64()),
        ("seed", pa.int64()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("prompts", pa.string()),
        ("inputs", pa.string()),
        ("motion", pa.string()),
        ("loras", pa.string()),
        ("finish", pa.string()),
        ("quoted_gpu_s", pa.float64()),
        ("quoted_usd", pa.float64()),
        ("quoted_finish_usd", pa.float64()),
        ("reject", pa.string()),
        ("reject_code", pa.string()),
        ("text_moderation", pa.string()),
        ("metadata", pa.string()),
    ]
)


def task_array(planned: Planned, members: npt.NDArray[np.int64]) -> pa.StructArray:
    """The tasks at `members`, in that order."""

    def taken(values: list[Any], kind: pa.DataType, fill: Any = None) -> pa.Array:
        return pa.array([values[i] if values[i] is not None else fill for i in members], type=kind)

    return pa.StructArray.from_arrays(
        [
            taken(planned.fingerprints, pa.string()),
            taken(planned.column("prompt"), pa.string(), ""),
            taken(planned.column("negative_prompt"), pa.string(), ""),
            taken(planned.seeds, pa.int64()),
            taken(planned.media, pa.list_(pa.string())),
            taken(planned.bases, pa.string()),
            pa.array([planned.later(i) for i in members], type=pa.list_(pa.string())),
        ],
        fields=list(TASK_TYPE),
    )


def row_table(planned: Planned, quotes: Sequence[tuple[float, float, float]]) -> pa.Table:
    """Every row of a chunk as ROW_SCHEMA, sorted by fingerprint; `row` counts from the
    chunk's first. `quotes[g]` is (GPU-seconds, USD, USD of that for finishing) of
    a task of group g."""
    count = len(planned.rows)
    group_of = pa.array([g if g >= 0 else None for g in planned.group_of], type=pa.int32())

    def by_group(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, type=kind).take(group_of) if values else pa.nulls(count, kind)

    groups = planned.groups
    rejected = {r.position: json.dumps([str(i) for i in r.issues], ensure_ascii=False) for r in planned.rejects}
    codes = {
        r.position: planned.moderation[r.position].code
        for r in planned.rejects
        if any(issue.code == planned.moderation[r.position].code for issue in r.issues)
    }
    table = pa.table(
        [
            pa.array(planned.fingerprints, type=pa.string()),
            pa.array(np.arange(count)),
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [planned.rows.uri]).cast(pa.string()),
            pa.array(planned.rows.lines, type=pa.int64()),
            pa.array(planned.ids, type=pa.string()),
            by_group([g.variant for g in groups], pa.string()),
            by_group([g.mode.value for g in groups], pa.string()),
            by_group([g.clip_shape.width for g in groups], pa.int32()),
            by_group([g.clip_shape.height for g in groups], pa.int32()),
            by_group([g.clip_shape.frames for g in groups], pa.int32()),
            by_group([g.clip_fps for g in groups], pa.float64()),
            pa.array([None if s < 0 else s for s in planned.seeds], type=pa.int64()),
            pa.array(planned.rows.samples or [0] * count, type=pa.int32()),
            pa.array([p if isinstance(p, str) else None for p in planned.column("prompt")], type=pa.string()),
            pa.array([_told_prompts(planned, i) for i in range(count)], type=pa.string()),
            pa.array([_told_inputs(planned, i) for i in range(count)], type=pa.string()),
            by_group([_json(g.motion) for g in groups], pa.string()),
            by_group(
                [_json([{"source": one.source, "weight": one.weight} for one in g.loras]) for g in groups], pa.string()
            ),
            by_group([_json([stage.told for stage in g.finish]) for g in groups], pa.string()),
            by_group([q[0] for q in quotes], pa.float64()),
            by_group([q[1] for q in quotes], pa.float64()),
            by_group([q[2] for q in quotes], pa.float64()),
            pa.array([rejected.get(i) for i in range(count)], type=pa.string()),
            pa.array([codes.get(i) for i in range(count)], type=pa.string()),
            pa.array([findings_json(found) for found in planned.moderation], type=pa.string()),
            pa.array(planned.metadata, type=pa.string()),
        ],
        schema=ROW_SCHEMA,
    )
    return table.sort_by([("fingerprint", "ascending"), ("row", "ascending")])


def _json(told: Sequence[object] | dict[str, Any]) -> str | None:
    """None where there is nothing to tell."""
    return json.dumps(told, ensure_ascii=False) if told else None


def _told_prompts(planned: Planned, position: int) -> str | None:
    """Several prompts as JSON, each with its instant."""
    if not planned.told or not planned.told[position].turns_s:
        return None
    texts, turns_s = planned.told[position]
    return _json([{"from_s": at, "text": text} for at, text in zip((0.0, *turns_s), texts, strict=True)])


def _told_inputs(planned: Planned, position: int) -> str | None:
    """A row's inputs as JSON, each with what stands for its content: addresses may be as long as the media."""
    if not planned.identities[position]:  # also of a row that has no group
        return None
    conditions = planned.groups[planned.group_of[position]].conditions
    told = [
        {**condition.model_dump(mode="json", exclude_none=True), "content": identity}
        for condition, identity in zip(conditions, planned.identities[position], strict=True)
    ]
    return _json(told)

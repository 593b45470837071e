"""Render batches at rest: what the planner writes and an actor reads.

A batch part is a Parquet file of one variant and one chunk of the manifest. Its rows are render batches, sorted by
group; what an actor is handed is a range of rows.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.task import Group, RenderBatch, Task

TASK_TYPE = pa.struct(
    [
        ("fingerprint", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("seed", pa.int64()),
        ("media", pa.list_(pa.string())),
        ("base", pa.string()),
        ("later", pa.list_(pa.string())),
    ]
)
_BATCHES_A_ROW_GROUP = 8192

BATCH_SCHEMA = pa.schema([("group", pa.string()), ("tasks", pa.list_(TASK_TYPE))])


class BatchPartWriter:
    """Writes one variant's render batches of one chunk."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._batches = 0

    def add(self, group: Group, tasks: pa.StructArray, cuts: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """Add a group's tasks, cut into batches at `cuts`. Returns the rows (start, stop) that its batches take."""
        offsets = pa.array([0, *(stop for _, stop in cuts)], type=pa.int32())
        groups = pa.DictionaryArray.from_arrays(pa.nulls(len(cuts), pa.int32()).fill_null(0), [group.model_dump_json()])
        columns = [groups.cast(pa.string()), pa.ListArray.from_arrays(offsets, tasks)]
        self._tables.append(pa.table(columns, schema=BATCH_SCHEMA))
        start = self._batches
        self._batches += len(cuts)
        return start, self._batches

    def finish(self) -> bytes:
        """The file."""
        buffer = io.BytesIO()
        pq.write_table(pa.concat_tables(self._tables), buffer, compression="zstd", row_group_size=_BATCHES_A_ROW_GROUP)
        return buffer.getvalue()


class BatchPart:
    """A batch part, read from the bytes of its file."""

    def __init__(self, data: bytes) -> None:
        self._table = pq.read_table(pa.BufferReader(data))

    def batches(self, start: int, stop: int) -> Iterator[RenderBatch]:
        """The render batches of rows `start` to `stop`."""
        rows = self._table.slice(start, stop - start)
        groups: dict[str, Group] = {}
        for text, tasks in zip(rows.column("group").to_pylist(), rows.column("tasks").to_pylist(), strict=True):
            group = groups.get(text) or groups.setdefault(text, Group.model_validate_json(text))
            yield RenderBatch(group, tuple(_task(task) for task in tasks))


def _task(told: dict[str, Any]) -> Task:
    return Task(**{**told, "media": tuple(told["media"]), "later": tuple(told["later"])})

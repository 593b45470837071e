"""Render batches at rest: what the planner writes and an actor reads.

A batch part is a Parquet file of one variant and one chunk of the manifest. Its rows are render batches sorted by
group, its row groups small: a row group is the least that an actor is handed.
"""

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.task import Group, RenderBatch, Task

TASK_TYPE = pa.struct(
    [
        ("fingerprint", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("seed", pa.int64()),
        ("image", pa.string()),
        ("video", pa.string()),
    ]
)
BATCH_SCHEMA = pa.schema([("group", pa.string()), ("tasks", pa.list_(TASK_TYPE))])


class BatchPartWriter:
    """Writes one variant's render batches of one chunk. `add` returns the row groups it made."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._writer = pq.ParquetWriter(self._buffer, BATCH_SCHEMA, compression="zstd")
        self._row_groups = 0

    def add(self, group: Group, tasks: pa.StructArray, cuts: Sequence[tuple[int, int]], atom_batches: int) -> list[int]:
        """Add a group's batches, `atom_batches` to a row group. Returns tasks per row group, in order."""
        offsets = pa.array([0, *(stop for _, stop in cuts)], type=pa.int32())
        table = pa.table(
            [
                pa.array([group.model_dump_json()] * len(cuts), type=pa.string()),
                pa.ListArray.from_arrays(offsets, tasks),
            ],
            schema=BATCH_SCHEMA,
        )
        counts = []
        for first in range(0, len(cuts), atom_batches):
            last = min(first + atom_batches, len(cuts))
            self._writer.write_table(table.slice(first, last - first))
            counts.append(cuts[last - 1][1] - cuts[first][0])
            self._row_groups += 1
        return counts

    @property
    def row_groups(self) -> int:
        """Row groups written so far: the number of the next one."""
        return self._row_groups

    def finish(self) -> bytes:
        """The file."""
        self._writer.close()
        return self._buffer.getvalue()


def read_batches(part: pq.ParquetFile, start: int, stop: int) -> Iterator[RenderBatch]:
    """The render batches of row groups `start` to `stop`."""
    table = part.read_row_groups(list(range(start, stop)))
    groups: dict[str, Group] = {}
    for text, tasks in zip(table.column("group").to_pylist(), table.column("tasks").to_pylist(), strict=True):
        group = groups.get(text) or groups.setdefault(text, Group.model_validate_json(text))
        yield RenderBatch(group, tuple(Task(**task) for task in tasks))

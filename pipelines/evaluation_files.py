"""What `rushes evaluate --out` leaves: the report as JSON and text, the figures of each clip, a picture a group."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from evaluation.metrics import Metric
from evaluation.report import Evaluation
from evaluation.scorers import Pictures
from pipelines.contact_sheet import SheetEntry, contact_sheet, title
from pipelines.evaluated_rows import EvaluatedClip
from pipelines.evaluation_table import as_text
from storage.store import open_store
from storage.tables import PARQUET_TYPE

REPORT, TEXT, CLIPS = "evaluation.json", "evaluation.txt", "clips.parquet"
_CLIPS_A_SHEET = 12
_CLIPS_AT_ONCE = 4096
_TITLE_CHARS = 60


class EvaluationFiles:
    """Takes clips as they come. Without `out` nothing is kept. Store errors of `out` are raised."""

    def __init__(
        self, out: str | None, folder: Path, by: Sequence[str], metrics: Sequence[Metric], *, with_sheets: bool
    ) -> None:
        self._store = open_store(out) if out is not None else None
        self._by = tuple(by)
        self._names = tuple(metric.name for metric in metrics)
        self._path = folder / CLIPS
        columns = [("clip", pa.string()), ("row", pa.int64()), ("id", pa.string()), ("prompt", pa.string())]
        columns += [(column, pa.string()) for column in self._by]
        # Columns of the manifest may be called as anything, also as a metric.
        self._schema = pa.schema([*columns, *((f"metric.{name}", pa.float64()) for name in self._names)])
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[list[object]] = []
        self._with_sheets = with_sheets and out is not None
        self._shown: defaultdict[tuple[str, str], list[EvaluatedClip]] = defaultdict(list)
        if self._store is not None:
            self._store.check()
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def add(self, clip: EvaluatedClip, values: Mapping[str, float]) -> None:
        """A clip with its values; it stands in the table once for each place in which it counts."""
        if self._writer is None:
            return
        row = clip.row
        for place in clip.places:
            about = [clip.key, row["row"], row["id"], row["prompt"], *(place.groups[column] for column in self._by)]
            self._rows.append([*about, *(values.get(name) for name in self._names)])
            for column, group in place.groups.items():
                shown = self._shown[column, group]
                if self._with_sheets and len(shown) < _CLIPS_A_SHEET and "unreadable" in values:
                    shown.append(clip)
        if len(self._rows) >= _CLIPS_AT_ONCE:
            self._flush()

    def written(self, found: Evaluation, pictures: Callable[[EvaluatedClip], Pictures | None]) -> Evaluation:
        """Write everything; the evaluation with the addresses of the sheets."""
        if self._store is None:
            return found
        self._flush()
        self.close()
        self._store.put(CLIPS, self._path, PARQUET_TYPE)
        sheets = []
        for (column, group), clips in sorted(self._shown.items()):
            if sheet := _sheet(clips, pictures):
                key = f"sheets/{_part(column)}/{_part(group)}.png"
                self._store.put(key, sheet, "image/png")
                sheets.append(self._store.uri(key))
        found = replace(found, sheets=tuple(sheets))
        self._store.put(REPORT, json.dumps(found.as_json(), indent=1).encode(), "application/json")
        self._store.put(TEXT, as_text(found).encode(), "text/plain; charset=utf-8")
        return found

    def _flush(self) -> None:
        if self._rows and self._writer is not None:
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._writer.write_table(pa.table(arrays, schema=self._schema))
            self._rows.clear()


def _sheet(clips: Sequence[EvaluatedClip], pictures: Callable[[EvaluatedClip], Pictures | None]) -> bytes | None:
    entries = []
    for clip in clips:
        frames = pictures(clip)
        if frames is not None:
            caption = f"{clip.row['variant']}  seed {clip.row['seed']}  {clip.row['id']}"
            entries.append(SheetEntry([Image.fromarray(frame) for frame in frames], title(clip.row), caption))
    return contact_sheet(entries) if entries else None


def _part(name: str) -> str:
    """One part of a key."""
    return quote(name[:_TITLE_CHARS], safe=" @+=,").replace(".", "%2E")

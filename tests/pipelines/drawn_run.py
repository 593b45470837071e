"""A finished run without a model: its clips are drawn, as asked or otherwise."""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.encoder import encode
from schemas.clip import ClipFormat, Status
from storage import keys
from storage.store import ObjectStore, open_store
from storage.tables import RESULT_SCHEMA, write_table
from training.captions import plain_caption
from training.drawing import FPS, Scene, draw, move

RUN_ID = "0123456789ab"
FRAMES = 9


@dataclass(frozen=True)
class DrawnRow:
    """A row of the manifest. It asks for `colour`, and its clip shows `shown` (the same, where not given)."""

    metadata: dict[str, Any]
    colour: str = "red"
    shown: str | None = None
    seed: int = 0
    status: Status = Status.SUCCEEDED
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        return plain_caption(self.colour, "square", "left", "black")

    @property
    def fingerprint(self) -> str:
        told = f"{self.prompt}|{self.shown}|{self.seed}|{self.status}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def frames(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        actor = move(rng, "square", self.shown or self.colour, "left", width=64, height=64, frames=FRAMES)
        return draw(Scene((actor,), "black", 64, 64, FRAMES))


def write_run(
    out: str, rows: Iterable[DrawnRow], clip_format: ClipFormat = ClipFormat.MP4, variant: str = "shapes"
) -> ObjectStore:
    """Clips, results table and run.json, as a run leaves them."""
    store = open_store(out, fsync=False)
    table: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        found: dict[str, Any] = dict.fromkeys(RESULT_SCHEMA.names)
        found |= {
            "run_id": RUN_ID,
            "row": number,
            "id": f"row{number}",
            "status": row.status.value,
            "variant": variant,
            "mode": "text_to_video",
            "seed": row.seed,
            "prompt": row.prompt,
            "fingerprint": row.fingerprint,
            "metadata": json.dumps(row.metadata) if row.metadata else None,
        }
        if row.status is Status.SUCCEEDED:
            found |= _stored(store, row, clip_format, variant)
        table.append(found | row.extra)
    write_table(store, keys.results_part(RUN_ID, 0), pa.Table.from_pylist(table, schema=RESULT_SCHEMA))
    store.put(keys.RUN, json.dumps({"run_id": RUN_ID, "options": {"catalog": None}}).encode())
    return store


def _stored(store: ObjectStore, row: DrawnRow, clip_format: ClipFormat, variant: str) -> dict[str, Any]:
    key = keys.clip(variant, row.fingerprint, clip_format.suffix)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"clip.{clip_format.suffix}")
        encode(row.frames(), FPS, clip_format, path)
        data = path.read_bytes()
    store.put(key, data)
    return {
        "uri": store.uri(key),
        "sha256": hashlib.sha256(data).hexdigest(),
        "clip_bytes": len(data),
        "width": 64,
        "height": 64,
        "frames": FRAMES,
        "fps": float(FPS),
    }


def two_tongues(worse: float = 0.0, clips: int = 16) -> list[DrawnRow]:
    """Prompts in two languages, each in both; of those in "fr" the share `worse` comes out blue."""
    colours = ("red", "green", "yellow", "purple")
    return [
        DrawnRow(
            {"language": language, "template": f"t{k}"},
            colours[k % 4],
            "blue" if language == "fr" and k < worse * clips else None,
            # The clips of a pair are alike but for what the attribute does.
            seed=2 * k + (language == "fr"),
        )
        for k in range(clips)
        for language in ("en", "fr")
    ]

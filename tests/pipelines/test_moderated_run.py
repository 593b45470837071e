"""A bulk run with a scripted classifier: refused rows have no clip and a reason, the others go on."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from cluster.topology import Topology
from pipelines.estimate import estimate
from pipelines.report import summary_table
from pipelines.run import render
from pipelines.watcher import Watcher
from schemas.clip import Record, Status
from schemas.moderation import ModerationSettings, Thresholds
from schemas.run import RunOptions, RunSummary
from storage import keys
from storage.ledger import Ledger
from storage.store import open_store
from storage.tables import read_table, table_to_records
from tests.painted_model import PaintedModel
from tests.pipelines.catalogs import TWO_VARIANTS
from tests.scripted_scorer import NAME, RED

pytestmark = pytest.mark.ray


def picture(colour: tuple[int, int, int]) -> str:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


ROWS: list[dict[str, Any]] = [
    {"id": "fine", "prompt": "a circle", "variant": "swift", "num_frames": 5},
    {"id": "text", "prompt": "FORBIDDEN", "variant": "swift", "num_frames": 5},
    {"id": "doubtful", "prompt": "DOUBTFUL and AMBER", "variant": "swift", "num_frames": 5},
    {"id": "output", "prompt": "paint it RED", "variant": "swift", "num_frames": 5},
    {"id": "image", "prompt": "from a picture", "variant": "small", "num_frames": 5, "image": picture(RED)},
]
STRICT = ModerationSettings(scorers=(NAME,))


def options(folder: Path, moderation: ModerationSettings) -> RunOptions:
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "catalog.toml").write_text(TWO_VARIANTS)
    return RunOptions(
        manifest=str(folder / "m.jsonl"),
        out=str(folder / "out"),
        catalog=str(folder / "catalog.toml"),
        max_concurrent=4,  # an actor a variant
        moderation=moderation,
    )


def results(told: RunOptions) -> dict[str, dict[str, Any]]:
    table = read_table(open_store(told.out), keys.results_part(told.run_id, 0))
    return {row["id"]: row for row in table.to_pylist()}


def ledger(told: RunOptions) -> list[Record]:
    return table_to_records(Ledger(open_store(told.out)).load())


def shown(summary: RunSummary) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(summary))
    return console.export_text()


def test_refused_rows_have_no_clip_and_a_reason_and_the_others_go_on(tmp_path: Path, ray_cluster: Topology) -> None:
    told = options(tmp_path, STRICT)
    said: list[str] = []
    summary = render(told, Watcher(said=said.append, confirm=lambda quote: True), wrap=PaintedModel)
    assert (summary.rows, summary.succeeded, summary.failed, summary.rejected) == (5, 2, 2, 1)
    assert (summary.refused, summary.flagged, summary.exit_code) == (3, 1, 3)
    assert f"moderation by scorer {NAME}; what cannot be scored is refused (fails closed)" in said
    text = shown(summary)
    assert "refused, flagged by moderation" in text
    assert "1 × OUTPUT.VIDEO: violence by tests.scripted_scorer" in text

    store, rows = open_store(told.out), results(told)
    assert {name: (row["status"], row["failure_code"]) for name, row in rows.items()} == {
        "fine": ("SUCCEEDED", None),
        "text": ("REJECTED", "SAFETY.INPUT.TEXT"),
        "doubtful": ("SUCCEEDED", None),
        "output": ("FAILED", "SAFETY.OUTPUT.VIDEO"),
        "image": ("FAILED", "SAFETY.INPUT.IMAGE"),
    }
    found = json.loads(rows["doubtful"]["moderation"])
    assert [(one["part"], one["outcome"]) for one in found] == [("INPUT.TEXT", "flag"), ("OUTPUT.VIDEO", "flag")]
    assert rows["fine"]["moderation"] is None
    (reject,) = [json.loads(line) for line in store.get(keys.rejects_part(told.run_id, 0)).splitlines()]
    assert (reject["id"], reject["field"], reject["code"]) == ("text", "prompt", "SAFETY.INPUT.TEXT")

    stored = {info.key for info in store.list(keys.CLIPS)}
    assert len(stored) == 4, "two clips and their posters: nothing of what was refused"
    bills = {row["id"]: row["billed_usd"] > 0 for row in rows.values()}
    assert bills == {"fine": True, "text": False, "doubtful": True, "output": True, "image": False}
    assert summary.billed_usd == pytest.approx(sum(row["billed_usd"] for row in rows.values()))
    assert sorted(record.status for record in ledger(told)) == [Status.FAILED] * 2 + [Status.SUCCEEDED] * 2

    before = ledger(told)
    # The same command renders nothing of it again ...
    assert estimate(told).quote.to_render == 0
    again = render(told, Watcher(confirm=lambda quote: True), wrap=PaintedModel)
    assert (again.rendered, again.failed, again.rejected, again.refused) == (0, 2, 1, 3)
    assert ledger(told) == before
    # ... and other settings do: what they allow has its clip now.
    lenient = options(tmp_path, STRICT.model_copy(update={"thresholds": Thresholds(flag=0.5, refuse="never")}))
    assert lenient.run_id == told.run_id
    mended = render(lenient, Watcher(confirm=lambda quote: True), wrap=PaintedModel)
    assert (mended.rendered, mended.succeeded, mended.refused, mended.flagged) == (3, 5, 0, 4)
    assert (mended.reused, mended.exit_code) == (2, 0)

"""What Ray costs: clips through `rushes render` against a bare loop around the same diffusers pipeline.

    python -m benchmarks.batch_overhead [--quick] [--clips N] [--json FILE]

Both render the same clips of one variant in the same batches, encode them with the same encoder and store them in a
folder. The bare loop is one process; it runs twice, with one thread and with all of the machine's, and the better of
the two is the baseline. Throughput is *steady*: clips after the first batch of every actor, over the time they took;
start-up is reported apart. Then the same on a model that does nothing
(frames ready-made, declared `no-op` in the output): the difference a batch is what the machinery costs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer
from benchmarks.report import write_report
from cluster.connect import connected
from models.loader import load
from models.model import Cancelled, Frames, Model, OnStep, TaskMedia, WrappedModel
from pipelines.run import render
from schemas.catalog import shipped_catalog
from schemas.errors import PermanentError
from schemas.run import RunOptions
from schemas.task import RenderBatch
from storage.batch_parts import BatchPart
from storage.ledger import Ledger
from storage.store import open_store
from storage.tables import table_to_records

GOAL_RATIO = 1.0
GOAL_OVERHEAD_MS = 15.0


class NoOpModel(WrappedModel):
    """Grey frames at once: whatever time remains is the machinery's."""

    @property
    def revision(self) -> str:
        return "no-op"

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def render(
        self, batch: RenderBatch, _media: tuple[TaskMedia, ...], _on_step: OnStep, _cancelled: Cancelled
    ) -> tuple[Frames | PermanentError, ...]:
        group = batch.group
        return tuple(np.full((group.frames, group.height, group.width, 3), 128, np.uint8) for _ in batch.tasks)


def bare_loop(out: str, plan_folder: Path, variant_name: str, no_op: bool, threads: int) -> dict[str, Any]:
    """Render, encode and store, batch after batch, in this process."""
    import torch

    torch.set_num_threads(threads)
    started = time.perf_counter()
    variant = shipped_catalog()[variant_name]
    loaded: Model = load(variant, device="cpu")
    model: Model = NoOpModel(loaded) if no_op else loaded
    store = open_store(out)
    publisher = Publisher(store, variant, model.revision)
    renderer = Renderer(model)
    batches = [
        batch
        for part in sorted(plan_folder.glob("batches-*.parquet"))
        for batch in BatchPart(part.read_bytes()).batches(0, 10**9)
    ]
    ready = time.perf_counter()
    ends: list[tuple[float, int]] = []
    for batch in batches:
        for outcome in renderer.render(batch):
            assert isinstance(outcome, Rendered), outcome
            publisher.publish(outcome)
        ends.append((time.perf_counter(), len(batch.tasks)))
    clips = sum(count for _, count in ends[1:])
    return {
        "clips": sum(count for _, count in ends),
        "batches": len(ends),
        "startup_s": ready - started,
        "clips_per_s": clips / (ends[-1][0] - ends[0][0]),
        "batch_s": (ends[-1][0] - ends[0][0]) / (len(ends) - 1),
        "threads": threads,
    }


def through_rushes(manifest: Path, out: Path, no_op: bool) -> dict[str, Any]:
    """The same through Ray Data; times are those of the ledger."""
    options = RunOptions(manifest=str(manifest), out=str(out), contact_sheet_clips=0)
    started = datetime.now().timestamp()
    # One actor for the no-op, as the bare loop is one process: the difference a batch is then overhead and not sharing.
    with connected(None, num_cpus=1 if no_op else None):
        summary = render(options, wrap=NoOpModel if no_op else None)
    store = open_store(str(out))
    records = sorted(table_to_records(Ledger(store).load()), key=lambda r: r.finished_at)
    finished = [datetime.fromisoformat(record.finished_at).timestamp() for record in records]
    # Steady from the moment every actor has published: before that, some are still loading.
    note = json.loads(store.get("run.json"))
    actors, batch_size = sum(note["quote"]["actors"].values()), note["quote"]["groups"][0]["batch_size"]
    loads = [t for t, record in zip(finished, records, strict=True) if record.timings.load_s > 0]
    first = max(loads) if loads else finished[0]
    steady = [t for t in finished if t > first]
    return {
        "clips": summary.succeeded,
        "actors": actors,
        "batch_size": batch_size,
        "startup_s": first - started,
        "clips_per_s": len(steady) / (steady[-1] - first),
        "batch_s": (steady[-1] - first) / (len(steady) / batch_size) * actors,
        "wall_s": summary.wall_s,
    }


def compare(folder: Path, variant: str, clips: int, no_op: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """(bare, rushes), one after the other. Rushes goes first, since its plan says what the batches are."""
    folder.mkdir()
    manifest = folder / "m.jsonl"
    rows = [{"id": f"c{i}", "prompt": f"a red circle moving left, take {i}", "variant": variant} for i in range(clips)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ours = through_rushes(manifest, folder / "rushes", no_op)
    (plan,) = (folder / "rushes" / "plan").iterdir()
    bare = []
    for threads in sorted({1, os.cpu_count() or 1}):
        out = str(folder / f"bare-{threads}")
        told = [sys.executable, "-m", "benchmarks.batch_overhead", "--bare", out, str(plan), variant]
        answer = subprocess.run([*told, str(int(no_op)), str(threads)], capture_output=True, text=True, check=True)
        bare.append(json.loads(answer.stdout.splitlines()[-1]))
    return max(bare, key=lambda b: b["clips_per_s"]), ours


def main() -> None:
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="128 clips, one round")
    parser.add_argument("--clips", type=int, default=160, help="clips a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", default="embedded", help="a catalog name")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--bare", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        out, plan, variant, no_op, threads = arguments.bare
        print(json.dumps(bare_loop(out, Path(plan), variant, no_op == "1", int(threads))))
        return
    clips, rounds = (128, 1) if arguments.quick else (arguments.clips, arguments.rounds)
    figures: dict[str, Any] = {"variant": arguments.variant, "clips": clips, "rounds": []}
    table = Table(
        "round", "model", "bare clips/s", "rushes clips/s", "ratio", "overhead a batch", "start-up bare / rushes"
    )
    with tempfile.TemporaryDirectory(prefix="rushes-overhead-") as folder:
        for number in range(rounds):
            for model in ("real", "no-op"):
                count = clips if model == "real" else clips * 5
                bare, ours = compare(Path(folder, f"{number}-{model}"), arguments.variant, count, model == "no-op")
                ratio = ours["clips_per_s"] / bare["clips_per_s"]
                overhead_ms = 1000 * (ours["batch_s"] - bare["batch_s"])
                figures["rounds"].append(
                    {"model": model, "bare": bare, "rushes": ours, "ratio": ratio, "overhead_ms": overhead_ms}
                )
                shown = f"{overhead_ms:.1f} ms" if model == "no-op" else ""
                rates = (f"{bare['clips_per_s']:.2f}", f"{ours['clips_per_s']:.2f}", f"{ratio:.2f}")
                startup = f"{bare['startup_s']:.1f} s / {ours['startup_s']:.1f} s"
                table.add_row(str(number + 1), model, *rates, shown, startup)
    ratio = statistics.median(r["ratio"] for r in figures["rounds"] if r["model"] == "real")
    overhead_ms = statistics.median(r["overhead_ms"] for r in figures["rounds"] if r["model"] == "no-op")
    figures |= {
        "ratio": ratio,
        "overhead_ms": overhead_ms,
        "goals": {"ratio": GOAL_RATIO, "overhead_ms": GOAL_OVERHEAD_MS},
    }
    Console().print(table)
    print(f"goal ratio ≥ {GOAL_RATIO}: {'met' if ratio >= GOAL_RATIO else 'missed'} ({ratio:.2f})")
    met = "met" if overhead_ms <= GOAL_OVERHEAD_MS else "missed"
    print(f"goal overhead ≤ {GOAL_OVERHEAD_MS} ms: {met} ({overhead_ms:.1f} ms)")
    print(f"figures: {write_report('batch_overhead', figures, arguments.json)}")


if __name__ == "__main__":
    main()

"""Planning at scale: rows a second, and what the driver's memory does.

    python -m benchmarks.plan_scale [--quick] [--json FILE]

A manifest of N rows (the synthetic prompts of `manifest_row`, several variants, shapes and a few bad rows) is planned
by `pipelines.planner`, batches and rows written to a folder. Each N runs in a process of its own, so that peak memory
is its own. The baseline, in the same run, is the obvious planner: one pydantic object a row, resolved one by one.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import write_report
from cluster.connect import connected
from pipelines.planner import plan_run
from schemas.catalog import shipped_catalog
from schemas.errors import InvalidRequestError
from schemas.request import Request
from schemas.resolve import resolve
from schemas.run import RunOptions

GOAL_ROWS_PER_S = 100_000
_BASELINE_ROWS = 20_000
_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
_SHAPES = ((64, 64), (96, 64), (64, 96))


def manifest_row(i: int) -> dict[str, Any]:
    """Row i of the synthetic manifest: every thousandth is bad, every fifth has metadata."""
    width, height = _SHAPES[i % 3]
    row: dict[str, Any] = {
        "id": f"row-{i:08d}",
        "prompt": f"a {_COLOURS[i % 8]} circle moving left past house number {i}",
        "variant": ("embedded", "embedded-turbo")[i % 2],
        "width": width if i % 1000 else width + 1,
        "height": height,
    }
    if i % 5 == 0:
        row["metadata"] = {"shot": i}
    return row


def write_manifest(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for i in range(rows):
            file.write(json.dumps(manifest_row(i)) + "\n")


def plan_here(rows: int) -> dict[str, float]:
    """Plan `rows` rows in this process; Ray's start is not counted."""
    with tempfile.TemporaryDirectory(prefix="rushes-plan-") as folder:
        manifest = Path(folder, "m.jsonl")
        write_manifest(manifest, rows)
        out = Path(folder, "out").as_uri()
        options = RunOptions(manifest=str(manifest), out=out)
        with connected(None) as topology:
            # The first plan pays for starting Ray's worker processes, whatever its size.
            warm = Path(folder, "warm.jsonl")
            write_manifest(warm, 130_000)  # two chunks: one alone would be planned without a worker
            plan_run(RunOptions(manifest=str(warm), out=out), shipped_catalog(), topology, out=None)
            before = _peak_mib()
            started = time.perf_counter()
            plan = plan_run(options, shipped_catalog(), topology, out=out)
            took_s = time.perf_counter() - started
        return {
            "rows": plan.quote.rows,
            "rejected": plan.quote.rejected,
            "took_s": took_s,
            "rows_per_s": rows / took_s,
            "driver_peak_mib": _peak_mib(),
            "driver_before_mib": before,
        }


def baseline_rows_per_s() -> float:
    """One pydantic object a row, resolved one by one, in one process."""
    catalog = shipped_catalog()
    lines = [json.dumps(manifest_row(i)) for i in range(_BASELINE_ROWS)]
    started = time.perf_counter()
    for line in lines:
        request = Request.model_validate_json(line)
        try:
            group = resolve(request.settings, catalog, rank=lambda variant, group: 0.0)
            group.fingerprint(request.prompt, "", 0)
        except InvalidRequestError:
            continue
    return _BASELINE_ROWS / (time.perf_counter() - started)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10⁴ and 10⁵ rows only")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(plan_here(arguments.only)))
        return
    base = baseline_rows_per_s()
    measured = []
    for rows in (10_000, 100_000) if arguments.quick else (10_000, 100_000, 1_000_000):
        told = [sys.executable, "-m", "benchmarks.plan_scale", "--only", str(rows)]
        answer = subprocess.run(told, capture_output=True, text=True, check=True)
        measured.append(json.loads(answer.stdout.splitlines()[-1]))
    table = Table("rows", "seconds", "rows/s", f"× baseline ({base:,.0f}/s)", "driver peak MiB", "of it planning")
    for m in measured:
        ratio = f"{m['rows_per_s'] / base:.1f}"
        grown = f"{m['driver_peak_mib'] - m['driver_before_mib']:.0f}"
        rate = f"{m['rows_per_s']:,.0f}"
        table.add_row(f"{m['rows']:,.0f}", f"{m['took_s']:.2f}", rate, ratio, f"{m['driver_peak_mib']:.0f}", grown)
    Console().print(table)
    best = max(m["rows_per_s"] for m in measured)
    print(f"goal {GOAL_ROWS_PER_S:,} rows/s: {'met' if best >= GOAL_ROWS_PER_S else 'missed'} ({best:,.0f})")
    figures = {"baseline_rows_per_s": base, "measured": measured, "goal_rows_per_s": GOAL_ROWS_PER_S}
    print(f"figures: {write_report('plan_scale', figures, arguments.json)}")


if __name__ == "__main__":
    main()

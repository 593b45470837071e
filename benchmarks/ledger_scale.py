"""The ledger at scale: how much memory folding it and reading what is done take.

    python -m benchmarks.ledger_scale [--quick] [--json FILE]

N synthetic records, written in segments as actors write them, lie in a folder. A process of its own compacts them,
another reads which tasks are done: the peak memory of each is its own, and that of a process that only imports the same
modules is subtracted for the slope. The goal is a peak of at most 1 GiB at 10⁶ records; beyond, the slope tells.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import write_report
from schemas.clip import Clip, Record, Status, Timings
from storage import keys
from storage.compaction import compact
from storage.done_tasks import done_tasks
from storage.ledger import Ledger
from storage.store import open_store

GOAL_MIB = 1024
_IN_A_SEGMENT = 64


def synthetic(i: int) -> Record:
    """Record i: every hundredth failed."""
    fingerprint = hashlib.sha256(str(i).encode()).hexdigest()[:32]
    failed = i % 100 == 0
    clip = Clip(
        uri=f"s3://bucket/run/{keys.clip('embedded', fingerprint)}",
        poster_uri=f"s3://bucket/run/{keys.poster('embedded', fingerprint)}",
        sha256=fingerprint * 2,
        clip_bytes=100_000 + i,
        width=832,
        height=480,
        frames=81,
        fps=16.0,
    )
    return Record(
        fingerprint=fingerprint,
        status=Status.FAILED if failed else Status.SUCCEEDED,
        variant="embedded",
        revision=fingerprint[:16],
        seed=i,
        clip=None if failed else clip,
        timings=Timings(queue_s=i / 7, render_s=1.25, encode_s=0.1, store_s=0.01),
        billed_gpu_s=1.25,
        billed_usd=0.001,
        error_class="RenderError" if failed else None,
        error=f"it raised on task {i}" if failed else None,
        finished_at=f"2026-01-01T{i // 3600 % 24:02d}:{i // 60 % 60:02d}:{i % 60:02d}.000+00:00",
    )


def write(folder: str, records: int) -> None:
    """The records as actors would leave them."""
    ledger = Ledger(open_store(folder, fsync=False))
    for start in range(0, records, _IN_A_SEGMENT):
        ledger.write_many([synthetic(i) for i in range(start, min(start + _IN_A_SEGMENT, records))])


def fold(folder: str) -> int:
    return compact(Ledger(open_store(folder)), min_loose=1).folded_records


def read(folder: str) -> int:
    return len(done_tasks(Ledger(open_store(folder))))


def nothing(folder: str) -> int:
    return len(folder) * 0


WORK: dict[str, Callable[[str], int]] = {"fold": fold, "read": read, "nothing": nothing}


def measured(what: str, folder: str) -> dict[str, float]:
    """Seconds and peak memory of one piece of work in a process of its own."""
    told = [sys.executable, "-m", "benchmarks.ledger_scale", "--only", what, folder]
    answer = subprocess.run(told, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 10⁵ records only")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        started = time.perf_counter()
        count = WORK[arguments.only[0]](arguments.only[1])
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"records": count, "took_s": time.perf_counter() - started, "peak_mib": peak_mib}))
        return
    sizes = (10_000, 100_000) if arguments.quick else (100_000, 300_000, 1_000_000)
    figures: list[dict[str, Any]] = []
    table = Table("records", "fold s", "fold peak MiB", "read s", "read peak MiB")
    for records in sizes:
        with tempfile.TemporaryDirectory(prefix="rushes-ledger-") as folder:
            bare = measured("nothing", folder)["peak_mib"]
            write(folder, records)
            found = {what: measured(what, folder) for what in ("fold", "read")}
        assert found["fold"]["records"] == records, "a record was lost"
        figures.append({"records": records, "imports_peak_mib": bare, **found})
        cells = [f"{found[what][name]:.0f}" for what in ("fold", "read") for name in ("took_s", "peak_mib")]
        table.add_row(f"{records:,}", *cells)
    Console().print(table)
    peaks = [max(f["fold"]["peak_mib"], f["read"]["peak_mib"]) for f in figures]
    slope = (peaks[-1] - peaks[-2]) * 2**20 / (sizes[-1] - sizes[-2])
    print(f"goal {GOAL_MIB} MiB: {'met' if peaks[-1] <= GOAL_MIB else 'missed'} ({peaks[-1]:.0f} at {sizes[-1]:,})")
    print(f"slope: {slope:.0f} bytes a record; at 10,000,000 about {peaks[-1] + slope * 9_000_000 / 2**20:.0f} MiB")
    report = {"goal_mib": GOAL_MIB, "measured": figures, "slope_bytes_a_record": slope}
    print(f"figures: {write_report('ledger_scale', report, arguments.json)}")


if __name__ == "__main__":
    main()

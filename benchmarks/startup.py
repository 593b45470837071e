"""How quick a command is to start, as ratios to what it stands on, in one run on one machine.

    python -m benchmarks.startup [--quick] [--rounds 3] [--no-render] [--json FILE]

| what | at most | baseline |
| --- | --- | --- |
| `rushes --help`, `rushes catalog` | 3 × | `python -c 'import typer, pydantic'` |
| `rushes estimate` of the example manifest | 2 × | `python -c 'import pipelines.planner'` |
| first clip of `rushes render` | 2 × | a bare script that starts Ray with one actor that loads the same pipeline |

Every figure is the median of some rounds, in which command and baseline take turns: a machine's load hits both.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import write_report

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "prompts.jsonl"
_ROW = '{"prompt": "a red circle moving left on a blue background", "variant": "shapes-turbo"}\n'
_PATIENCE_S = 600.0

BARE = """
import ray
ray.init("local", include_dashboard=False, log_to_driver=False)

@ray.remote
class Bare:
    def __init__(self):
        from models.loader import load
        from schemas.catalog import shipped_catalog
        self.model = load(shipped_catalog()["shapes-turbo"])

    def ready(self):
        return True

ray.get(Bare.remote().ready.remote())
print("LOADED", flush=True)
"""


def seconds(command: list[str], until: str | None = None) -> float:
    """How long a command takes; with `until`, how long until it prints that or a file of that pattern is there."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    if until is None:
        code = process.wait(_PATIENCE_S)
        assert code in (0, 3), f"{command} ended with {code}"
        return time.perf_counter() - started
    took_s = _until(process, until, started)
    process.stdout.read()
    process.wait(_PATIENCE_S)
    return took_s


def _until(process: subprocess.Popen[str], until: str, started: float) -> float:
    assert process.stdout is not None
    if "*" not in until:
        for line in process.stdout:
            if line.startswith(until):
                return time.perf_counter() - started
        raise AssertionError(f"{until!r} was never printed")
    folder, pattern = until.split("//")
    while not any(Path(folder).glob(pattern)):
        assert process.poll() is None, "ended without a clip"
        time.sleep(0.02)
    return time.perf_counter() - started


def pair(command: list[str], baseline: list[str], rounds: int) -> tuple[float, float]:
    """Medians of both, taking turns."""
    mine, theirs = [], []
    for _ in range(rounds):
        theirs.append(seconds(baseline))
        mine.append(seconds(command))
    return statistics.median(mine), statistics.median(theirs)


def first_clip(rounds: int) -> tuple[float, float]:
    """Until the first clip of a render is stored, and until a bare actor has the same pipeline loaded."""
    mine, theirs = [], []
    for _ in range(rounds):
        theirs.append(seconds([sys.executable, "-c", BARE], until="LOADED"))
        with tempfile.TemporaryDirectory(prefix="rushes-startup-") as folder:
            manifest = Path(folder, "m.jsonl")
            manifest.write_text(_ROW)
            out = Path(folder, "out")
            command = [sys.executable, "-m", "rushes", "render", str(manifest), "--out", str(out), "--yes"]
            mine.append(seconds(command, until=f"{out}//clips/*/*/*.mp4"))
    return statistics.median(mine), statistics.median(theirs)


def main() -> None:
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--no-render", action="store_true", help="leave out what starts Ray")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    rushes = [sys.executable, "-m", "rushes"]
    small = [sys.executable, "-c", "import typer, pydantic"]
    planner = [sys.executable, "-c", "import pipelines.planner"]
    measured = {
        "--help": (*pair([*rushes, "--help"], small, rounds), 3.0),
        "catalog": (*pair([*rushes, "catalog"], small, rounds), 3.0),
        "estimate": (*pair([*rushes, "estimate", str(EXAMPLE)], planner, rounds), 2.0),
    }
    if not arguments.no_render:
        measured["first clip of render"] = (*first_clip(rounds), 2.0)
    table = Table("command", "seconds", "baseline s", "ratio", "goal")
    for name, (took_s, base_s, goal) in measured.items():
        ratio = took_s / base_s
        verdict = f"≤ {goal:g}{'' if ratio <= goal else '  missed'}"
        table.add_row(name, f"{took_s:.2f}", f"{base_s:.2f}", f"{ratio:.2f}", verdict)
    Console().print(table)
    figures: dict[str, object] = {
        name: {"took_s": took_s, "baseline_s": base_s, "ratio": took_s / base_s, "goal": goal}
        for name, (took_s, base_s, goal) in measured.items()
    }
    print(f"figures: {write_report('startup', figures, arguments.json)}")


if __name__ == "__main__":
    main()

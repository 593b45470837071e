"""`rushes render` as people start it, in a process of its own, over a manifest of many small tasks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from storage import keys
from storage.store import ObjectStore
from tests.pipelines.catalogs import TWO_VARIANTS

TASKS = 24
BATCH = 4
PATIENCE_S = 240.0


def command(folder: Path, out: str, tasks: int = TASKS, actors: int = 1) -> list[str]:
    """By default with a single actor: most of what a run of so few tasks takes is the start of its processes."""
    rows = [{"id": f"t{i}", "prompt": f"clip {i}", "variant": "small"} for i in range(tasks)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "catalog.toml").write_text(TWO_VARIANTS.replace("steps = 2", "steps = 12"))
    options = ["--out", out, "--catalog", str(folder / "catalog.toml"), "--json", "--yes"]
    options += ["--max-concurrent", str(BATCH * actors)]
    return [sys.executable, "-m", "rushes.cli", "render", str(folder / "m.jsonl"), *options]


def started(
    folder: Path, out: str, environment: dict[str, str] | None = None, tasks: int = TASKS, actors: int = 1
) -> subprocess.Popen[str]:
    env = {**os.environ, **(environment or {})}
    told = command(folder, out, tasks, actors)
    # A shell's background jobs ignore SIGINT, and so do their children: this one must hear it wherever pytest runs.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        told,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=heard,
        start_new_session=True,
    )


def finished(folder: Path, out: str, actors: int = 1) -> dict[str, Any]:
    told = command(folder, out, actors=actors)
    answer = subprocess.run(told, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert answer.returncode == 0, answer.stderr
    summary: dict[str, Any] = json.loads(answer.stdout)
    return summary


def verdicts(out: str) -> dict[str, int]:
    """What `rushes verify` finds, by verdict."""
    told = [sys.executable, "-m", "rushes.cli", "verify", out, "--json"]
    answer = subprocess.run(told, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert answer.returncode in (0, 1, 3), answer.stderr
    counts: dict[str, int] = json.loads(answer.stdout)["counts"]
    return counts


def audited(out: str, database: str | None = None) -> dict[str, Any]:
    """What `rushes audit verify` finds in a run, or in an endpoint with this database."""
    target = [out] if database is None else ["--out", out, "--database", database]
    told = [sys.executable, "-m", "rushes.cli", "audit", "verify", *target, "--json"]
    answer = subprocess.run(told, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert answer.returncode in (0, 1), answer.stderr
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def wait_for_clips(store: ObjectStore, count: int, process: subprocess.Popen[str]) -> None:
    """Until `count` clips are stored."""
    wait_for(lambda: len(clips(store)) >= count, process)


def wait_for(met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Fails when the process ends before, or nothing comes."""
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert process.poll() is None, f"ended too soon: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "no clips came"
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def clips(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(keys.CLIPS) if info.key.endswith(".mp4")]

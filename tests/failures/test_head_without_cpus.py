"""A cluster whose only node has no CPUs for tasks, as heads on Kubernetes have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.failures.driver import PATIENCE_S
from tests.pipelines.catalogs import TWO_VARIANTS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
import sys
import rushes
from cluster.connect import connected
from pipelines import planner
planner._MOST_ROWS_HERE = 0  # as if the manifest were large
with connected(None, num_cpus=0):
    print("PLANNING", flush=True)
    try:
        rushes.render(sys.argv[1], out=sys.argv[2], catalog=sys.argv[3])
    except rushes.ConfigError as error:
        print(error)
"""


def test_planning_does_not_wait_for_cpus_and_what_is_missing_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": f"clip {i}", "variant": "small"} for i in range(8)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.toml").write_text(TWO_VARIANTS)
    named = [str(tmp_path / name) for name in ("m.jsonl", "out", "c.toml")]
    root = str(Path(__file__).resolve().parents[2])
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, *named],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert told.stdout.splitlines() == ["PLANNING", "variant 'small' needs 1 CPU, the cluster has 0"]

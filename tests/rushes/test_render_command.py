"""`rushes render` asks before it spends."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.topology import Topology
from rushes.cli import app
from rushes.exits import Exit
from tests.pipelines.catalogs import TWO_VARIANTS


@pytest.mark.ray
def test_a_run_with_a_price_needs_somebody_who_agrees(tmp_path: Path, ray_cluster: Topology) -> None:
    catalog = str(tmp_path / "catalog.toml")
    Path(catalog).write_text(TWO_VARIANTS)
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n')
    words = ["render", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "out"), "--catalog", catalog]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == Exit.USAGE
    assert "USD, and nobody can be asked here; --yes renders it" in told.stderr
    assert not (tmp_path / "out" / "clips").exists()

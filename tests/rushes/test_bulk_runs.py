"""Bulk runs of the endpoint, as commands."""

import threading
from pathlib import Path

import pytest

from rushes.bulk_runs import CommandRuns
from schemas.clip import Status
from serve.bulk import BulkOptions, BulkProgress

WAIT_S = 120.0


def ended(runs: CommandRuns, batch_id: str) -> BulkProgress:
    """Its progress once it is over."""
    for _ in range(int(WAIT_S / 0.1)):
        progress = runs.progress(batch_id)
        assert progress is not None
        if progress.status is not Status.RUNNING:
            return progress
        threading.Event().wait(0.1)
    raise AssertionError(f"still running: {runs.progress(batch_id)}")


@pytest.mark.slow
def test_a_manifest_that_is_not_there_fails_with_a_reason(tmp_path: Path) -> None:
    runs = CommandRuns(str(tmp_path), None)
    runs.start("b1", str(tmp_path / "absent.jsonl"), str(tmp_path / "run"), BulkOptions())
    progress = ended(runs, "b1")
    assert progress.status is Status.FAILED
    assert "absent.jsonl" in progress.failure


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_that_is_quoted_above_its_limit_never_starts(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    shipped = Path(__file__).resolve().parents[2] / "rushes" / "catalog.toml"
    dear = shipped.read_text().replace(
        "[variants.tiny-random]", "[variants.tiny-random]\nprice_usd_per_gpu_hour = 9000"
    )
    catalog.write_text(dear)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    runs = CommandRuns(str(tmp_path), str(catalog))
    runs.start("b1", str(manifest), str(tmp_path / "run"), BulkOptions(variant="tiny-random", max_usd=0.01))
    progress = ended(runs, "b1")
    assert (progress.status, progress.total) == (Status.FAILED, 2)
    assert progress.quote_usd > 0
    assert "limit" in progress.failure
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_process_is_not_known_here(tmp_path: Path) -> None:
    assert CommandRuns(str(tmp_path), None).progress("b1") is None

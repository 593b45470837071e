"""A few hundred mutated manifests; `python -m tests.pipelines.manifest_fuzz` runs thousands."""

from pathlib import Path

import pytest

from tests.pipelines.manifest_fuzz import run


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_every_row_of_a_mutated_manifest_is_accounted_for(tmp_path: Path, first: int) -> None:
    outcomes = {run(seed, tmp_path) for seed in range(first, first + 100)}
    assert outcomes == {"read", "refused"}

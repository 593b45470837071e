"""A few of the mutants that `python -m tests.failures.media_fuzz` makes twenty thousand of."""

from pathlib import Path

import pytest

from tests.failures.media_fuzz import Fuzz


@pytest.mark.filterwarnings("ignore")
def test_mutated_media_escape_neither_from_planning_nor_from_render_nor_from_intake(tmp_path: Path) -> None:
    fuzz = Fuzz(tmp_path)
    for seed in range(200):
        fuzz.run(seed)
    fuzz.plan(0)
    assert {how: sum(counts.values()) for how, counts in fuzz.outcomes.items()} == {
        "render": 200,
        "intake": 200,
        "planning": 1200,
    }
    assert all(len(counts) == 2 for counts in fuzz.outcomes.values()), "some were taken, and some refused"

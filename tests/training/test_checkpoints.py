"""A training goes on from what was kept, whole."""

from pathlib import Path

import pytest
import torch

from training.checkpoints import Checkpoints

CPU = torch.device("cpu")


def test_what_was_kept_last_is_read_and_nothing_before_that(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every_s=1e6)
    assert checkpoints.read(CPU) is None
    for step in (1, 2):
        checkpoints.keep({"step": step})
    assert Checkpoints(tmp_path, every_s=1e6).read(CPU) == {"step": 2}


def test_one_that_could_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every_s=1e6)
    checkpoints.keep({"step": 1})
    with pytest.raises(Exception, match="pickle"):
        checkpoints.keep({"step": lambda: 2})
    assert checkpoints.read(CPU) == {"step": 1}


def test_the_next_one_is_due_once_its_time_has_come(tmp_path: Path) -> None:
    assert not Checkpoints(tmp_path, every_s=1e6).due
    assert Checkpoints(tmp_path, every_s=-1).due

"""Fine-tuning in several processes, on a real Ray: two workers without GPUs."""

import json
from pathlib import Path

import pytest
import ray
from safetensors.torch import load_file
from torch import Tensor

from cluster.topology import Topology
from tests.models.conftest import TinyFolder
from tests.training.test_finetune import config, data  # noqa: F401
from training.finetune.distributed import finetune_on_workers
from training.finetune.train import finetune

pytestmark = pytest.mark.ray


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return any((a[name] != b[name]).any() for name in a if name.endswith(".value"))


def test_two_processes_train_one_adapter_and_go_on_together(
    tiny_folder: TinyFolder,
    data: Path,  # noqa: F811
    tmp_path: Path,
    ray_cluster: Topology,
) -> None:
    told = config("ltx", tiny_folder, data, tmp_path / "out", seed=3)
    result = finetune_on_workers(told, 2, use_gpu=False)
    assert result.steps == 4
    finetune(told.model_copy(update={"out": tmp_path / "alone"}))
    alone, first = (load_file(tmp_path / name / "checkpoint" / "state.safetensors") for name in ("alone", "out"))
    assert differ(alone, first), "the second process's gradients counted for nothing"
    longer = told.model_copy(update={"steps": 6, "resume": True})
    finetune_on_workers(longer, 2, use_gpu=False)
    assert [json.loads(line)["step"] for line in result.log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    together = load_file(tmp_path / "out" / "checkpoint" / "state.safetensors")
    assert differ(first, together)
    assert not (tmp_path / "out" / "ray").exists()
    assert ray.is_initialized()

"""Fine-tuning on tiny random pipelines: what is trained, what is saved, and that plain diffusers reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from models.finetune.clips import find_examples, read_clip
from models.finetune.config import FinetuneConfig
from models.finetune.families import family_of
from models.finetune.objective import Diffusion, FlowMatching, objective_of
from models.finetune.train import finetune, load_pipeline
from models.training.folder import scheduler
from schemas.errors import MediaError, VariantLoadError

TinyFolder = Callable[[str], Path]
CLASSES = {"ltx": "LTXPipeline", "wan": "WanPipeline", "animatediff": "AnimateDiffPipeline"}


def write_clip(path: Path, value: int, frames: int = 9, size: int = 64) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for _ in range(frames):
            picture = np.full((size, size, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for index, value in enumerate((40, 200)):
        write_clip(folder / f"{index}.mp4", value)
        (folder / f"{index}.txt").write_text(f"a grey wall number {index}\n")
    return folder


def config(family: str, tiny_folder: TinyFolder, data: Path, out: Path, **changes: object) -> FinetuneConfig:
    told = {
        "weights": str(tiny_folder(family)), "pipeline": CLASSES[family], "data": data, "out": out, "lora_rank": 4,
        "steps": 4, "batch": 2, "width": 64, "height": 64, "frames": 9, "checkpoint_every": 2, "device": "cpu",
    }  # fmt: skip
    return FinetuneConfig.model_validate(told | changes)


@pytest.mark.parametrize("family", list(CLASSES))
def test_a_lora_is_trained_and_loads_with_plain_diffusers(
    family: str, tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    told = config(family, tiny_folder, data, tmp_path / "out")
    result = finetune(told)
    assert result.steps == 4
    assert result.curve.stat().st_size > 0
    assert len(result.log.read_text().splitlines()) == 4
    pipeline = load_pipeline(told)
    pipeline.load_lora_weights(result.adapter)
    _, denoiser = family_of(pipeline)
    changed = [p for name, p in denoiser.named_parameters() if "lora_B" in name and p.abs().sum() > 0]
    assert changed, "an adapter whose second halves are all zero changes nothing"


def test_a_resumed_run_goes_on_where_it_stopped_and_logs_every_step_once(
    tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    finetune(config("ltx", tiny_folder, data, tmp_path / "out"))
    seen: list[int] = []
    longer = config("ltx", tiny_folder, data, tmp_path / "out", steps=6, resume=True)
    result = finetune(longer, lambda step, loss: seen.append(step))
    assert seen == [5, 6]
    assert [json.loads(line)["step"] for line in result.log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_without_resume_an_old_run_is_forgotten(tiny_folder: TinyFolder, data: Path, tmp_path: Path) -> None:
    first = finetune(config("ltx", tiny_folder, data, tmp_path / "out"))
    again = finetune(config("ltx", tiny_folder, data, tmp_path / "out"))
    assert len(again.log.read_text().splitlines()) == 4
    assert first.last_loss == pytest.approx(again.last_loss, rel=1e-4)


def test_full_training_saves_a_whole_pipeline(tiny_folder: TinyFolder, data: Path, tmp_path: Path) -> None:
    told = config("ltx", tiny_folder, data, tmp_path / "out", lora_rank=None, learning_rate=1e-2)
    result = finetune(told)
    before, after = (
        load_pipeline(told),
        load_pipeline(told.model_copy(update={"weights": str(result.adapter)})),
    )
    assert not torch.equal(before.transformer.proj_in.weight, after.transformer.proj_in.weight)
    assert torch.equal(before.vae.decoder.conv_in.conv.weight, after.vae.decoder.conv_in.conv.weight)


@pytest.mark.parametrize(("layers", "temporal"), [("temporal", True), ("spatial", False)])
def test_animatediff_trains_time_and_space_apart(layers: str, temporal: bool, tiny_folder: TinyFolder) -> None:
    pipeline = load_pipeline(config("animatediff", tiny_folder, Path("x"), Path("y")))
    family, _ = family_of(pipeline)
    names = family.target_modules(layers)
    assert names
    assert all(("motion_modules" in name) is temporal for name in names)


def test_a_model_without_separate_layers_says_so(tiny_folder: TinyFolder) -> None:
    family, _ = family_of(load_pipeline(config("ltx", tiny_folder, Path("x"), Path("y"))))
    with pytest.raises(VariantLoadError, match="available: all"):
        family.target_modules("temporal")


def test_sample_clips_are_written_at_intervals(tiny_folder: TinyFolder, data: Path, tmp_path: Path) -> None:
    told = config(
        "ltx", tiny_folder, data, tmp_path / "out", sample_every=2, sample_prompts=("a wall",), sample_steps=1
    )
    assert [path.name for path in finetune(told).samples] == ["000002_0.png", "000004_0.png"]


def test_a_manifest_names_clips_and_passes_over_what_failed(data: Path) -> None:
    rows = [
        {"prompt": "one", "uri": f"file://{data / '0.mp4'}", "status": "SUCCEEDED"},
        {"prompt": "two", "uri": None, "status": "FAILED"},
        {"caption": "three", "path": "1.mp4"},
    ]
    table = data / "run.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(e.prompt, e.path.name) for e in find_examples(table)] == [("one", "0.mp4"), ("three", "1.mp4")]


def test_a_row_without_a_clip_is_named_with_the_choices(data: Path) -> None:
    table = data / "bad.jsonl"
    table.write_text('{"prompt": "one", "uri": "' + str(data / "0.mp4") + '"}\n{"prompt": "two"}\n')
    with pytest.raises(MediaError, match=r"bad.jsonl:2: a clip is missing; available columns .*clip_uri"):
        find_examples(table)


def test_clips_are_cut_to_the_shape_and_short_ones_hold_their_last_frame(data: Path) -> None:
    frames = read_clip(data / "1.mp4", 32, 48, 13)
    assert frames.shape == (13, 48, 32, 3)
    assert abs(int(frames.mean()) - 200) < 6


def test_flow_noise_and_velocity_targets_are_what_the_papers_say() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(3, 2, 4, 4, 4), torch.randn(3, 2, 4, 4, 4)
    noisy, timestep, target = FlowMatching(3.0).corrupt(clean, noise)
    level = (timestep / 1000).view(-1, 1, 1, 1, 1)
    assert torch.allclose(noisy - level * target, clean, atol=1e-5)
    told = FlowMatching(3.0, predicts_clip=True)
    _, timestep, target = told.corrupt(clean, noise)
    assert torch.equal(target, clean)
    assert torch.allclose(told.weight(torch.tensor([0.0, 500.0])), torch.tensor([20.0, 1 / 0.3]))
    alphas = torch.linspace(0.99, 0.01, 10)
    noisy, step, target = Diffusion(alphas, "v_prediction").corrupt(clean, noise)
    alpha = alphas[step.long()].view(-1, 1, 1, 1, 1)
    assert torch.allclose(alpha.sqrt() * noisy - (1 - alpha).sqrt() * target, clean, atol=1e-5)
    with pytest.raises(VariantLoadError, match="available: epsilon"):
        Diffusion(alphas, "odd")


def test_the_scheduler_decides_the_loss(tiny_folder: TinyFolder) -> None:
    kinds = {
        family: type(objective_of(load_pipeline(config(family, tiny_folder, Path("x"), Path("y"))).scheduler, 3.0))
        for family in CLASSES
    }
    assert kinds == {"ltx": FlowMatching, "wan": FlowMatching, "animatediff": Diffusion}


def test_a_sampler_that_is_told_the_clean_clip_trains_for_the_clean_clip() -> None:
    _, _, target = objective_of(scheduler(2.0), 2.0).corrupt(clean := torch.randn(2, 3), torch.randn(2, 3))
    assert torch.equal(target, clean)

"""Fine-tuning on tiny random pipelines: what is trained, what is saved, and that plain diffusers reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.hotshot.conversion import convert
from models.hotshot.unet import HotshotUNet
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant
from schemas.errors import MediaError, VariantLoadError
from tests.models.hotshot_original import checkpoint, original, sdxl_base
from tests.models.tiny_variants import batch_of, group_of
from training.finetune.adapter import prepare
from training.finetune.clips import find_examples, read_clip
from training.finetune.config import FinetuneConfig, config_for
from training.finetune.families import family_of
from training.finetune.objective import Diffusion, FlowMatching, objective_of
from training.finetune.train import finetune, load_pipeline
from training.folder import scheduler

TinyFolder = Callable[[str], Path]
CLASSES = {
    "ltx": "LTXPipeline",
    "wan": "WanPipeline",
    "animatediff": "AnimateDiffPipeline",
    "hotshot": "AnimateDiffSDXLPipeline",
    "cogvideox": "CogVideoXPipeline",
    "hunyuanvideo": "HunyuanVideoPipeline",
}
SIZES = {"original_size": (1080, 1920), "target_size": (512, 512)}


def write_clip(path: Path, value: int, frames: int = 9, size: int = 64) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for _ in range(frames):
            picture = np.full((size, size, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def tiny_folder(tiny_folder: TinyFolder, tmp_path_factory: pytest.TempPathFactory) -> TinyFolder:
    """The same, and a converted Hotshot-XL."""
    root = tmp_path_factory.mktemp("hotshot")

    def folder(family: str) -> Path:
        if family != "hotshot":
            return tiny_folder(family)
        if not (root / "converted").exists():
            convert(checkpoint(root / "ckpt", original()), root / "converted")
        return root / "converted"

    return folder


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
        "call_options": SIZES if family == "hotshot" else {},
    }  # fmt: skip
    return FinetuneConfig.model_validate(told | changes)


def clip_of(told: FinetuneConfig, **entry: object) -> np.ndarray:
    """What the variant that `told` trains renders, with `entry` in its place of the catalog."""
    fields = {
        "name": "trained", "pipeline": told.pipeline, "weights": told.weights, "modes": ["text_to_video"],
        "dtype": "float32", "steps": 2, "guidance": 2.0, "fps": 8, "call_options": told.call_options,
        "shape": {"divisor": 8, "max_frames": 9, "max_pixels": 4096, "native": [(64, 64, told.frames)]},
        "latent": {"channels": 4, "spatial": 8, "temporal": 1},
    }  # fmt: skip
    variant = Variant.model_validate(fields | entry)
    batch = batch_of(group_of(variant), "a grey wall")
    (clip,) = load(variant, device="cpu").render(batch, (TaskMedia(),), ignore_step, nobody_cancelled)
    assert isinstance(clip, np.ndarray), clip
    return clip


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


@pytest.mark.parametrize(
    ("family", "rank"),
    [*((name, 4) for name in CLASSES), ("hotshot", None), ("cogvideox", None), ("hunyuanvideo", None)],
)
def test_a_batch_that_is_seen_again_is_learned(
    family: str, rank: int | None, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    told = config(family, tiny_folder, tmp_path, tmp_path, lora_rank=rank, frames=5, height=32)
    pipeline = load_pipeline(told)
    made, denoiser = family_of(pipeline, told.call_options)
    trained = prepare(told, pipeline, made, denoiser)
    optimiser = torch.optim.AdamW(trained, lr=1e-2 if rank else 3e-3)
    torch.manual_seed(0)
    with torch.no_grad():
        latents = made.encode(torch.randn(2, 3, told.frames, told.height, told.width).clamp(-1, 1))
        text = made.text(["a grey wall", "a red door"])
    noisy, timestep, target = objective_of(pipeline.scheduler, 3.0).corrupt(latents, torch.randn_like(latents))
    losses = []
    for _ in range(8):
        loss = (made.predict(noisy, timestep, text, 8.0) - target).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("family", ["hotshot", "cogvideox", "hunyuanvideo"])
def test_a_lora_in_a_catalog_changes_the_clips(
    family: str, tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    told = config(family, tiny_folder, data, tmp_path / "out", learning_rate=0.3, warmup_steps=0, steps=1)
    result = finetune(told)
    changed = clip_of(told, loras=[{"source": str(result.adapter)}])
    assert np.abs(changed.astype(int) - clip_of(told)).max() > 1


@pytest.mark.parametrize("family", ["hotshot", "cogvideox", "hunyuanvideo"])
def test_full_training_saves_a_folder_that_a_catalog_may_name(
    family: str, tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    told = config(family, tiny_folder, data, tmp_path / "out", lora_rank=None, learning_rate=3e-2, warmup_steps=0)
    told = told.model_copy(update={"steps": 1})
    result = finetune(told)
    before, after = load_pipeline(told), load_pipeline(told.model_copy(update={"weights": str(result.adapter)}))
    (_, old), (_, new) = family_of(before), family_of(after)
    assert type(new) is type(old)
    values = dict(new.named_parameters())
    same = [name for name, value in old.named_parameters() if torch.equal(value, values[name])]
    assert len(same) < 0.2 * len(values), same
    for name, value in before.vae.named_parameters():
        assert torch.equal(value, after.vae.get_parameter(name)), name
    changed = clip_of(told, weights=str(result.adapter))
    assert np.abs(changed.astype(int) - clip_of(told)).max() > 1


@pytest.mark.parametrize(("family", "rank"), [("hotshot", 4), ("cogvideox", None), ("hunyuanvideo", 4)])
def test_a_resumed_run_begins_with_the_weights_of_the_first(
    family: str, rank: int | None, tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    first = config(family, tiny_folder, data, tmp_path / "out", lora_rank=rank, steps=1, frames=5, warmup_steps=0)
    finetune(first.model_copy(update={"learning_rate": 0.1}))
    path = tmp_path / "out" / "checkpoint" / "state.safetensors"
    trained = load_file(path)
    finetune(first.model_copy(update={"learning_rate": 1e-12, "steps": 2, "resume": True}))
    resumed = load_file(path)
    assert (int(trained["step"]), int(resumed["step"])) == (1, 2)
    for name in (name for name in trained if name.endswith(".value")):
        assert torch.allclose(trained[name], resumed[name], atol=1e-6), name
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == [1, 2]


@pytest.mark.parametrize("family_name", ["animatediff", "hotshot"])
@pytest.mark.parametrize(("layers", "temporal"), [("temporal", True), ("spatial", False)])
def test_animatediff_trains_time_and_space_apart(
    layers: str, temporal: bool, family_name: str, tiny_folder: TinyFolder
) -> None:
    pipeline = load_pipeline(config(family_name, tiny_folder, Path("x"), Path("y")))
    family, _ = family_of(pipeline)
    names = family.target_modules(layers)
    assert names
    assert all(("motion_modules" in name) is temporal for name in names)


def test_a_model_without_separate_layers_says_so(tiny_folder: TinyFolder) -> None:
    family, _ = family_of(load_pipeline(config("ltx", tiny_folder, Path("x"), Path("y"))))
    with pytest.raises(VariantLoadError, match="available: all"):
        family.target_modules("temporal")


def test_a_model_that_takes_an_image_beside_the_clip_says_so(tiny_folder: TinyFolder) -> None:
    told = config("cogvideox", tiny_folder, Path("x"), Path("y"))
    told = told.model_copy(
        update={"weights": str(tiny_folder("cogvideox-image")), "pipeline": "CogVideoXImageToVideoPipeline"}
    )
    with pytest.raises(VariantLoadError, match="takes 32 channels, of which a clip's latents are 16; available"):
        family_of(load_pipeline(told))


def test_a_model_without_a_family_is_told_the_choices(tiny_folder: TinyFolder) -> None:
    told = config("ltx", tiny_folder, Path("x"), Path("y"))
    told = told.model_copy(update={"weights": str(tiny_folder("mochi")), "pipeline": "MochiPipeline"})
    with pytest.raises(VariantLoadError, match="MochiPipeline; available: AnimateDiffSDXL…, AnimateDiff…, CogVideoX…"):
        family_of(load_pipeline(told))


def test_what_a_catalog_says_of_a_variant_is_trained(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "ckpt", original())
    entry = {
        "name": "mine", "pipeline": "AnimateDiffSDXLPipeline", "weights": str(sdxl_base(tmp_path / "sdxl")),
        "motion_adapter": str(source), "modes": ["text_to_video"], "steps": 2, "fps": 8, "call_options": SIZES,
        "shape": {"divisor": 8, "max_frames": 9, "max_pixels": 4096, "native": [(64, 64, 4)]},
        "latent": {"channels": 4, "spatial": 8, "temporal": 1},
    }  # fmt: skip
    told = config_for(Variant.model_validate(entry), tmp_path, tmp_path)
    assert told.call_options == {name: tuple(map(float, pair)) for name, pair in SIZES.items()}
    assert isinstance(load_pipeline(told).unet, HotshotUNet)


def test_temporal_layers_of_hotshot_are_trained_alone_when_asked(
    tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    told = config("hotshot", tiny_folder, data, tmp_path / "out", lora_rank=None, layers="temporal", learning_rate=1e-2)
    told = told.model_copy(update={"steps": 1, "frames": 4})
    after = load_pipeline(told.model_copy(update={"weights": str(finetune(told).adapter)})).unet
    before = load_pipeline(told).unet
    assert isinstance(after, HotshotUNet)
    moved = [n for n, value in before.named_parameters() if not torch.equal(value, after.get_parameter(n))]
    assert moved
    assert all("motion_modules" in name for name in moved)


@pytest.mark.parametrize("family", ["ltx", "hotshot"])
def test_sample_clips_are_written_at_intervals(
    family: str, tiny_folder: TinyFolder, data: Path, tmp_path: Path
) -> None:
    told = config(
        family, tiny_folder, data, tmp_path / "out", sample_every=2, sample_prompts=("a wall",), sample_steps=1
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
    straight = {"ltx", "wan", "hunyuanvideo"}
    assert kinds == {family: FlowMatching if family in straight else Diffusion for family in CLASSES}


def test_a_sampler_that_is_told_the_clean_clip_trains_for_the_clean_clip() -> None:
    _, _, target = objective_of(scheduler(2.0), 2.0).corrupt(clean := torch.randn(2, 3), torch.randn(2, 3))
    assert torch.equal(target, clean)

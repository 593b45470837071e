"""`finish: [{upscale: …}]` in the latents of a VAE, by LTX, LTX-2 and Kandinsky 6: tiny real pipelines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Kandinsky6SRLatentUpscalerBank,
    Kandinsky6SRPipeline,
    Kandinsky6SRTransformer3DModel,
    Kandinsky6SRVAE,
    LTX2LatentUpsamplePipeline,
    LTXLatentUpsamplePipeline,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from PIL import Image

from actors.publisher import Publisher
from actors.renderer import Rendered
from models.checking import finisher_problems
from models.finishing import Finishing
from models.model import Frames
from pipelines.variant_content import VariantContents, finisher_content
from schemas.errors import BadOutputError, ConfigError, VariantLoadError
from schemas.finish import FLOOR, Finisher, FinishStage, chained, read_steps, resolved_finish
from schemas.shape import Shape
from storage.store import open_store
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import T2V, batch_of, group_of, tiny_variant
from tests.models.tiny_world import ltx2_vae
from training import tiny_dit
from training.tiny import save, seeded

FPS = 8.0


def ltx(**changes: Any) -> Any:
    """Of LTX: four pixels a latent, four frames."""
    sizes = {"in_channels": 8, "mid_channels": 32, "num_blocks_per_stage": 1} | changes
    return LTXLatentUpsamplePipeline(vae=tiny_dit.ltx().vae, latent_upsampler=LTXLatentUpsamplerModel(**sizes))


def ltx2() -> Any:
    """Of LTX-2: eight pixels a latent, two frames."""
    net = LTX2LatentUpsamplerModel(in_channels=4, mid_channels=32, num_blocks_per_stage=1)
    return LTX2LatentUpsamplePipeline(vae=ltx2_vae(latent_channels=4), latent_upsampler=net)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pipes = seeded(lambda: {one.__name__: one() for one in (ltx, ltx2)}, 3)
    return {name: Path(save(pipe, tmp_path_factory.mktemp(name))) for name, pipe in pipes.items()}


def finisher(folder: Path) -> Finisher:
    return Finisher(name="latents", method="latent", weights=str(folder))


@pytest.fixture(scope="module")
def finishing(folders: dict[str, Path]) -> dict[str, Finishing]:
    return {name: Finishing({**FLOOR, "latents": finisher(folder)}) for name, folder in folders.items()}


def noise(width: int, height: int, frames: int, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def stage_of(clip: Frames, by: Finisher, upscale: Any = 2) -> FinishStage:
    told, wrong = read_steps([{"upscale": upscale, "by": "latents"}])
    shape = Shape(width=clip.shape[2], height=clip.shape[1], frames=len(clip))
    (stage,), issues = resolved_finish(told, shape, FPS, {**FLOOR, "latents": by})
    assert not (*wrong, *issues)
    return stage


def larger(finishing: Finishing, clip: Frames, upscale: Any = 2) -> Frames:
    stage = stage_of(clip, Finisher(name="latents", method="latent", weights="/none"), upscale)
    return finishing.apply(stage, clip, FPS)


def by_hand(folder: Path, clip: Frames) -> Frames:
    cls = LTXLatentUpsamplePipeline if "ltx2" not in folder.name else LTX2LatentUpsamplePipeline
    made = cls.from_pretrained(folder)(
        video=[Image.fromarray(one) for one in clip], width=clip.shape[2], height=clip.shape[1], output_type="np",
        generator=torch.Generator("cpu").manual_seed(0),
    ).frames[0]  # fmt: skip
    out: Frames = (made * 255).round().astype(np.uint8)
    return out


@pytest.mark.parametrize("name", ["ltx", "ltx2"])
def test_a_clip_becomes_twice_as_large_as_the_class_makes_it(
    finishing: dict[str, Finishing], folders: dict[str, Path], name: str
) -> None:
    clip = noise(64, 32, 5)
    made = larger(finishing[name], clip)
    assert made.shape == (5, 64, 128, 3)
    np.testing.assert_array_equal(made, by_hand(folders[name], clip))
    np.testing.assert_array_equal(made, larger(finishing[name], clip))
    assert (made != larger(finishing[name], noise(64, 32, 5, seed=1))).mean() > 0.5


def test_what_changes_in_a_clip_changes_there_and_then_in_the_larger_one(
    finishing: dict[str, Finishing],
) -> None:
    clip = noise(64, 64, 17)
    made = larger(finishing["ltx2"], clip).astype(int)
    other = clip.copy()
    other[-5:, :, 40:] = 255 - other[-5:, :, 40:]
    changed = np.abs(larger(finishing["ltx2"], other).astype(int) - made)
    # Norms over the whole clip carry something everywhere.
    assert changed[-5:, :, 80:].mean() > 3 * changed[:8].mean(), "then"
    assert changed[-5:, :, 80:].mean() > 2 * changed[-5:, :, :48].mean(), "there"


@pytest.mark.parametrize("name", ["ltx", "ltx2"])
def test_a_size_and_a_length_that_the_vae_does_not_take_are_carried_by_repeating_the_edge(
    finishing: dict[str, Finishing], folders: dict[str, Path], name: str
) -> None:
    clip = noise(46, 30, 4)
    made = larger(finishing[name], clip)
    assert made.shape == (4, 60, 92, 3)
    cell = 4 if name == "ltx" else 8
    whole = np.pad(clip, ((0, 1), (0, -30 % cell), (0, -46 % cell), (0, 0)), mode="edge")
    np.testing.assert_array_equal(made, by_hand(folders[name], whole)[:4, :60, :92])


def test_it_is_done_until_the_clip_is_large_enough_and_the_rest_is_scaled_down(
    finishing: dict[str, Finishing],
) -> None:
    clip = noise(32, 32, 5)
    twice = larger(finishing["ltx2"], larger(finishing["ltx2"], clip))
    made = larger(finishing["ltx2"], clip, 3)
    assert made.shape == (5, 96, 96, 3)
    np.testing.assert_array_equal(made, Finishing().apply(stage_of(clip, FLOOR["lanczos"], 3), twice, FPS))


def test_a_network_that_makes_more_frames_and_no_larger_ones_is_refused(tmp_path: Path) -> None:
    folder = save(ltx(spatial_upsample=False, temporal_upsample=True), tmp_path / "time")
    with pytest.raises(BadOutputError, match=r"made \d+ frames of 5: an upsampler of time, not of size"):
        larger(Finishing({"latents": finisher(folder)}), noise(32, 32, 5))


def test_weights_that_are_no_upsampler_are_refused_with_the_classes_that_are(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    model = tiny_folder("ltx")
    able = "LTXLatentUpsamplePipeline, LTX2LatentUpsamplePipeline, Kandinsky6SRPipeline"
    told = f"LTXPipeline makes no clips larger; available: {able}"
    with pytest.raises(VariantLoadError, match=rf"latents: weights .*: {told}"):
        larger(Finishing({"latents": finisher(model)}), noise(32, 32, 9))
    assert finisher_problems(finisher(model)) == (f"weights: {model}: {told}",)
    assert "no model_index.json in it" in finisher_problems(finisher(tmp_path))[0]
    assert finisher_problems(finisher(tmp_path / "no")) == (f"weights: {tmp_path / 'no'}: not there",)


def test_it_makes_clips_larger_and_does_nothing_else(folders: dict[str, Path]) -> None:
    by = finisher(folders["ltx"])
    assert finisher_problems(by) == ()
    told, _ = read_steps([{"interpolate": 24, "by": "latents"}])
    _, (issue,) = resolved_finish(told, Shape(width=32, height=32, frames=9), FPS, {**FLOOR, "latents": by})
    assert str(issue) == "finish.0.by: 'latents' does no interpolate; available: blend, motion"
    with pytest.raises(ConfigError, match="nobody called 'latents' does upscale; available: lanczos"):
        larger(Finishing(), noise(32, 32, 9))


def test_who_does_it_and_what_its_weights_are_is_in_the_fingerprint(folders: dict[str, Path], tmp_path: Path) -> None:
    clip = noise(32, 32, 9)
    one, other = (stage_of(clip, finisher(folder)) for folder in folders.values())
    floor = stage_of(clip, FLOOR["lanczos"])
    assert len({chained("x", [stage]) for stage in (one, other, floor)}) == 3
    copy = save(ltx(), tmp_path / "net")

    def content() -> str:
        contents = VariantContents({}, tmp_path / "cache", {"latents": finisher(copy)})
        return contents.content(finisher_content("latents"))

    before = content()
    assert content() == before
    save(ltx(mid_channels=64), copy)
    assert content() != before, "other weights under the same name"


def test_a_stored_clip_is_taken_and_the_larger_one_stored_beside_it(folders: dict[str, Path], tmp_path: Path) -> None:
    by = finisher(folders["ltx2"])
    variant = tiny_variant("wan", Path("/none"))
    plain = group_of(variant, T2V)
    stage = stage_of(noise(32, 32, plain.frames), by)
    group = plain.changed(finish=(stage,))
    (task,) = batch_of(plain, "rain").tasks
    task = replace(task, base=task.fingerprint, fingerprint=chained(task.fingerprint, [stage]))
    publisher = Publisher(open_store(str(tmp_path)), variant, "1", finishing=Finishing({**FLOOR, "latents": by}))
    frames = np.tile(noise(32, 32, 1), (plain.frames, 1, 1, 1))
    record = publisher.publish(Rendered(task, group, frames, 0.1))
    assert record.clip is not None
    assert (record.clip.width, record.clip.height, record.clip.frames) == (64, 64, plain.frames)
    (below,) = record.before
    assert below.clip is not None
    assert (below.fingerprint, below.clip.width) == (task.base, 32)
    again = publisher.latest(task, group)
    assert again is not None, "who goes on takes the stored clip below"
    assert again.frames.shape == (plain.frames, 32, 32, 3)


# --- Kandinsky 6 -----------------------------------------------------------------------------------------------------


def kandinsky() -> Any:
    """Of Kandinsky 6: four pixels a latent, four frames; tiles of 32 pixels."""
    channels = (8, 8, 8)
    return Kandinsky6SRPipeline(
        transformer=Kandinsky6SRTransformer3DModel(
            in_visual_dim=4, out_visual_dim=4, time_dim=16, model_dim=32, ff_dim=32, num_visual_blocks=1,
            axes_dims=(4, 6, 6), nabla_window=(3, 3, 3), tile_sizes=((32, 32),),
        ),
        vae=Kandinsky6SRVAE(
            latent_channels=4, encoder_block_out_channels=channels, decoder_block_out_channels=channels,
            layers_per_block=1,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        latent_upscaler=Kandinsky6SRLatentUpscalerBank(
            in_channels=4, stage_channels=(8, 8, 8), num_pre_blocks=1, num_mid_blocks=1, num_post_blocks=1,
            num_x2_adapter_blocks=1,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def kandinsky_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(seeded(kandinsky, 3), tmp_path_factory.mktemp("kandinsky"))


@pytest.fixture(scope="module")
def refining(kandinsky_folder: Path) -> Finishing:
    return Finishing({"latents": finisher(kandinsky_folder).model_copy(update={"steps": 1})})


def refined_by_hand(folder: Path, clip: Frames, scale: float) -> Frames:
    made = Kandinsky6SRPipeline.from_pretrained(folder)(
        video=[Image.fromarray(one) for one in clip], resolution_scale=scale, num_inference_steps=1, output_type="np",
        generator=torch.Generator("cpu").manual_seed(0),
    ).frames[0]  # fmt: skip
    out: Frames = (made * 255).round().astype(np.uint8)
    return out


@pytest.mark.parametrize(
    ("upscale", "size", "scale"), [(2, (32, 40), 2), ("36:45", (36, 45), 2.25), ("40:50", (40, 50), 4)]
)
def test_super_resolution_takes_the_least_scale_that_is_enough(
    refining: Finishing, kandinsky_folder: Path, upscale: Any, size: tuple[int, int], scale: float
) -> None:
    width, height = 16, 20
    clip = noise(width, height, 4)
    made = larger(refining, clip, upscale)
    assert made.shape == (4, size[1], size[0], 3)
    if scale == 2.25:  # sides of which 9/8 are whole latents
        across, down = 32 - width, 32 - height
    else:
        across, down = 0, 0
    whole = np.pad(clip, ((0, 1), (0, down), (0, across), (0, 0)), mode="edge")
    by_hand = refined_by_hand(kandinsky_folder, whole, scale)[:4, : round(height * scale), : round(width * scale)]
    wanted = by_hand if scale < 4 else Finishing().apply(stage_of(clip, FLOOR["lanczos"], upscale), by_hand, FPS)
    np.testing.assert_array_equal(made, wanted)


def test_super_resolution_shows_what_changes_where_it_is(refining: Finishing) -> None:
    clip = noise(32, 16, 5)
    made = larger(refining, clip).astype(int)
    other = clip.copy()
    other[:, :, 24:] = 255 - other[:, :, 24:]
    changed = np.abs(larger(refining, other).astype(int) - made)
    assert changed[:, :, 48:].mean() > 1
    assert changed[:, :, 48:].mean() > 4 * changed[:, :, :32].mean(), "less the farther a tile is"


def test_a_clip_smaller_than_a_tile_is_carried_by_repeating_the_edge(refining: Finishing) -> None:
    assert larger(refining, noise(12, 10, 5)).shape == (5, 20, 24, 3)


def test_steps_are_of_who_denoises_and_in_the_fingerprint(folders: dict[str, Path], kandinsky_folder: Path) -> None:
    two = {"steps": 2}
    known = finisher(kandinsky_folder)
    assert finisher_problems(known.model_copy(update=two)) == ()
    assert known.digest != known.model_copy(update=two).digest
    wrong = finisher(folders["ltx"]).model_copy(update=two)
    told = "LTXLatentUpsamplePipeline denoises nothing: it takes no steps"
    assert finisher_problems(wrong) == (f"weights: {folders['ltx']}: {told}",)
    with pytest.raises(VariantLoadError, match=told):
        larger(Finishing({"latents": wrong}), noise(32, 32, 5))

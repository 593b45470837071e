"""Cameras by AnimateDiff's motion LoRAs, on real classes with random weights: the very one of a direction acts, and
none where no camera is spoken of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import AnimateDiffPipeline

from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant
from schemas.directions import Direction
from schemas.errors import RenderError, VariantLoadError
from schemas.loras import Lora
from schemas.motion import CameraKey, absolute_camera
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.tiny_adapters import FILE, ip_adapter, motion_lora
from tests.models.tiny_variants import T2V, V2V, batch_of, group_of, media_of, tiny_variant

Clip = npt.NDArray[np.uint8]
PUBLISHED = "diffusion_pytorch_model.safetensors"
KEYS: dict[Direction, dict[str, float]] = {
    Direction.ZOOM_IN: {"zoom": 1.5},
    Direction.ZOOM_OUT: {"zoom": 0.5},
    Direction.PAN_LEFT: {"pan": -10},
    Direction.PAN_RIGHT: {"pan": 10},
    Direction.TILT_UP: {"tilt": 5},
    Direction.TILT_DOWN: {"tilt": -5},
    Direction.ROLL_CLOCKWISE: {"roll": 20},
    Direction.ROLL_ANTICLOCKWISE: {"roll": -20},
}


def camera(**at_end: float) -> tuple[CameraKey, ...]:
    return absolute_camera([CameraKey(at_s=0.5, **at_end)])


def clips(model: LoadedModel, keys: Sequence[CameraKey] = (), *prompts: str, loras: Sequence[Lora] = ()) -> list[Clip]:
    group = group_of(model.variant, T2V, camera=tuple(keys), loras=tuple(loras))
    batch = batch_of(group, *(prompts or ("a",)))
    out = model.render(batch, (TaskMedia(),) * len(batch.tasks), ignore_step, nobody_cancelled)
    assert all(isinstance(one, np.ndarray) for one in out), out
    return list(out)  # type: ignore[arg-type]


def clip(model: LoadedModel, keys: Sequence[CameraKey] = (), *, loras: Sequence[Lora] = ()) -> Clip:
    return clips(model, keys, loras=loras)[0]


def by_hand(folder: Path, *loras: tuple[Path, float]) -> Clip:
    """What the class makes by itself of the first task of `clips`."""
    pipe = AnimateDiffPipeline.from_pretrained(folder, use_safetensors=True)
    for number, (source, _) in enumerate(loras):
        pipe.load_lora_weights(source, weight_name=PUBLISHED, adapter_name=str(number))
    if loras:
        pipe.set_adapters([str(number) for number in range(len(loras))], [weight for _, weight in loras])
    pipe.set_progress_bar_config(disable=True)
    sizes = {"width": 32, "height": 32, "num_frames": 4, "num_inference_steps": 3, "guidance_scale": 3.0}
    generator = torch.Generator("cpu").manual_seed(0)
    made = pipe(["a"], negative_prompt=[""], generator=[generator], output_type="pt", **sizes).frames[0]
    shown: Clip = made.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return shown


@pytest.fixture(scope="module")
def folder(tiny_folder: TinyFolder) -> Path:
    return tiny_folder("animatediff")


@pytest.fixture(scope="module")
def plain(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("animatediff")


@pytest.fixture(scope="module")
def sources(plain: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[Direction, Path]:
    root = tmp_path_factory.mktemp("motion")
    unet = plain.pipes[T2V].unet
    return {way: motion_lora(root / way / PUBLISHED, unet, seed) for seed, way in enumerate(Direction)}


def variant(folder: Path, sources: dict[Direction, Path], **changes: Any) -> Variant:
    part = {way.value: {"source": str(source)} for way, source in sources.items()}
    return tiny_variant("animatediff", folder, **{"motion_loras": part, **changes})


@pytest.fixture(scope="module")
def moved(folder: Path, sources: dict[Direction, Path]) -> LoadedModel:
    return load(variant(folder, sources), device="cpu")


def test_without_a_camera_no_bit_is_other_than_without_the_loras(moved: LoadedModel, plain: LoadedModel) -> None:
    wanted = clip(plain)
    assert (clip(moved) == wanted).all()
    assert (clip(moved, camera(pan=10)) != wanted).any()
    assert (clip(moved) == wanted).all(), "nothing stays of a camera that was there before"
    source = group_of(moved.variant, V2V)
    of_source = batch_of(source, "a")
    one, other = (m.render(of_source, media_of(of_source), ignore_step, nobody_cancelled)[0] for m in (moved, plain))
    assert (np.asarray(one) == np.asarray(other)).all()


@pytest.mark.parametrize("way", [Direction.ZOOM_IN, Direction.ROLL_ANTICLOCKWISE])
def test_the_clip_is_that_of_the_class_with_the_lora_of_the_direction(
    moved: LoadedModel, folder: Path, sources: dict[Direction, Path], way: Direction
) -> None:
    assert (clip(moved, camera(**KEYS[way])) == by_hand(folder, (sources[way], 1.0))).all()


def test_each_direction_has_its_own_and_the_amount_is_the_weights(moved: LoadedModel) -> None:
    made = {way: clip(moved, camera(**KEYS[way])) for way in Direction}
    assert len({one.tobytes() for one in made.values()}) == len(Direction)
    assert (clip(moved, camera(pan=25)) == made[Direction.PAN_RIGHT]).all(), "as the documentation says"


def test_the_weight_of_the_entry_is_how_strongly_it_acts(
    folder: Path, sources: dict[Direction, Path], moved: LoadedModel
) -> None:
    part = {"pan_left": {"source": str(sources[Direction.PAN_LEFT]), "weight": 0.5}}
    weak = clip(load(variant(folder, {}, motion_loras=part), device="cpu"), camera(pan=-10))
    assert (weak == by_hand(folder, (sources[Direction.PAN_LEFT], 0.5))).all()
    assert (weak != clip(moved, camera(pan=-10))).any()


def test_batch_mates_share_the_camera(moved: LoadedModel) -> None:
    together = clips(moved, camera(pan=10), "a", "b")
    alone = clip(moved, camera(pan=10))
    assert np.abs(together[0].astype(int) - alone.astype(int)).max() <= 1
    assert (together[0] != together[1]).any()
    assert (together[0] != clips(moved, (), "a", "b")[0]).any()


def test_loras_of_the_entry_and_of_the_request_act_beside_it(
    folder: Path, sources: dict[Direction, Path], moved: LoadedModel
) -> None:
    own, brought, panned = (sources[way] for way in (Direction.TILT_UP, Direction.TILT_DOWN, Direction.PAN_LEFT))
    both = clip(moved, camera(pan=-10), loras=[Lora(source=str(brought), weight=0.5)])
    assert (both == by_hand(folder, (panned, 1.0), (brought, 0.5))).all()
    entry = {"loras": [{"source": str(own), "weight": 0.3}]}
    model = load(variant(folder, {Direction.PAN_LEFT: panned}, **entry), device="cpu")
    without = clip(model)
    assert (clip(model, camera(pan=-10)) == by_hand(folder, (own, 0.3), (panned, 1.0))).all()
    assert (clip(model) == without).all()


def test_a_lora_of_a_request_that_does_not_fit_leaves_none_acting(
    moved: LoadedModel, plain: LoadedModel, tmp_path: Path
) -> None:
    odd = motion_lora(tmp_path / "odd" / PUBLISHED, plain.pipes[T2V].unet, 0, wide=3)
    for keys in ((), camera(pan=10)):
        with pytest.raises(RenderError, match="odd: it cannot be loaded onto AnimateDiffPipeline"):
            clip(moved, keys, loras=[Lora(source=str(odd))])
        assert (clip(moved) == clip(plain)).all()


def test_a_style_is_seen_beside_it(
    folder: Path, sources: dict[Direction, Path], plain: LoadedModel, moved: LoadedModel, tmp_path: Path
) -> None:
    adapter = ip_adapter(tmp_path / "ip", plain.pipes[T2V].unet)
    part = {"source": str(adapter), "weight_file": FILE}
    right = {Direction.PAN_RIGHT: sources[Direction.PAN_RIGHT]}
    model = load(variant(folder, right, ip_adapter=part), device="cpu")
    assert (clip(model) == clip(plain)).all()
    assert (clip(model, camera(pan=10)) == clip(moved, camera(pan=10))).all()


def test_what_is_no_motion_lora_for_this_unet_is_refused(folder: Path, plain: LoadedModel, tmp_path: Path) -> None:
    unet = plain.pipes[T2V].unet

    def refused(name: str, message: str) -> None:
        with pytest.raises(VariantLoadError, match=message):
            load(variant(folder, {Direction.PAN_LEFT: tmp_path / name}), device="cpu")

    refused("gone", "gone: no such folder on this machine")
    motion_lora(tmp_path / "wide" / PUBLISHED, unet, 0, wide=3)
    refused("wide", r"motion_loras.pan_left .*wide: it was not made for this UNet")
    motion_lora(tmp_path / "spatial" / PUBLISHED, unet, 0, layers=".attentions.")
    refused("spatial", "is no motion LoRA, whose layers are in motion_modules: it has unet.down_blocks.0.attentions")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / PUBLISHED).write_bytes(b"no")
    refused("broken", f"{PUBLISHED} cannot be read")


def test_a_camera_that_was_not_looked_at_before_is_not_left_out(moved: LoadedModel) -> None:
    with pytest.raises(RenderError, match="no way that tiny-animatediff knows; available: zoom_in, zoom_out"):
        clip(moved, camera(dolly=0.2))

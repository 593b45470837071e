"""Styles by IP-Adapters, on real classes with random weights: what is not given changes no bit, what is given changes
the whole clip by what it shows and how strongly."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.torch import save_file
from torch import zeros

from models.loaded import LoadedModel
from models.loader import load
from models.model import Pictures, TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant
from schemas.conditions import Condition, implied_mode
from schemas.errors import VariantLoadError
from schemas.inputs import Kind, Role
from schemas.task import RenderBatch
from tests.models import controlled
from tests.models.conftest import TinyFolder, TinyModel
from tests.models.tiny_adapters import FILE, ip_adapter
from tests.models.tiny_variants import T2V, V2V, group_of, noise_image, task_of, tiny_variant

Clip = npt.NDArray[np.uint8]
STYLE = Condition(role=Role.STYLE, medium="image")
SOURCE = Condition(role=Role.SOURCE, medium="video", strength=0.7)
EDGES = Condition(role=Role.STRUCTURE, medium="image", kind=Kind.EDGES)


def clips(model: LoadedModel, *given: tuple[Condition, Pictures], tasks: int = 1) -> list[Clip]:
    mode = implied_mode(one.role for one, _ in given)
    group = group_of(model.variant, mode, conditions=tuple(one for one, _ in given))
    made = tuple(task_of(group, "a shape", seed, media=("x",) * len(given)) for seed in range(tasks))
    media = (TaskMedia(tuple(pictures for _, pictures in given)),) * tasks
    out = model.render(RenderBatch(group, made), media, ignore_step, nobody_cancelled)
    assert all(isinstance(one, np.ndarray) for one in out), out
    return list(out)  # type: ignore[arg-type]


def clip(model: LoadedModel, *given: tuple[Condition, Pictures]) -> Clip:
    return clips(model, *given)[0]


def apart(one: Clip, other: Clip) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def variant(folder: Path, adapter: Path, **changes: Any) -> Variant:
    part = {"source": str(adapter), "weight_file": FILE}
    return tiny_variant("animatediff", folder, **{"ip_adapter": part, **changes})


@pytest.fixture(scope="module")
def adapter(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ip_adapter(tmp_path_factory.mktemp("ip") / "adapter", tiny_model("animatediff").pipes[T2V].unet)


@pytest.fixture(scope="module")
def styled(tiny_folder: TinyFolder, adapter: Path) -> LoadedModel:
    return load(variant(tiny_folder("animatediff"), adapter), device="cpu")


def with_strength(strength: float) -> Condition:
    return STYLE.model_copy(update={"strength": strength})


def test_without_a_style_the_clip_is_that_of_the_weights_without_the_adapter(
    styled: LoadedModel, tiny_model: TinyModel
) -> None:
    plain = tiny_model("animatediff")
    video = tuple(noise_image(frame) for frame in range(4))
    assert (clip(styled) == clip(plain)).all()
    assert (clip(styled, (SOURCE, video)) == clip(plain, (SOURCE, video))).all()
    clip(styled, (STYLE, noise_image(1)))
    assert (clip(styled) == clip(plain)).all(), "nothing stays of a style that was there before"


def test_a_style_changes_every_frame_by_what_it_shows(styled: LoadedModel) -> None:
    without, one, again, other = (
        clip(styled),
        *(clip(styled, (STYLE, noise_image(seed))) for seed in (1, 1, 2)),
    )
    assert (one == again).all()
    assert (np.abs(one.astype(int) - without.astype(int)).reshape(len(one), -1).max(axis=1) > 0).all()
    assert apart(one, other) > 0


def test_strength_is_how_much_a_style_counts(styled: LoadedModel) -> None:
    without, picture = clip(styled), noise_image(1)
    full = clip(styled, (STYLE, picture))
    assert (clip(styled, (with_strength(1.0), picture)) == full).all(), "all of it unless it says so"
    by_strength = [apart(without, clip(styled, (with_strength(share), picture))) for share in (0.1, 0.4, 1.0)]
    assert 0 < by_strength[0] < by_strength[1] < by_strength[2]


def test_several_pictures_of_a_style_are_all_seen(styled: LoadedModel) -> None:
    one, other = noise_image(1), noise_image(2)
    both = clip(styled, (STYLE, one), (STYLE, other))
    assert apart(both, clip(styled, (STYLE, one))) > 0
    assert apart(both, clip(styled, (STYLE, other))) > 0


def test_a_source_is_changed_in_a_style(styled: LoadedModel) -> None:
    video = tuple(noise_image(frame) for frame in range(4))
    assert V2V in styled.pipes
    assert apart(clip(styled, (SOURCE, video), (STYLE, noise_image(1))), clip(styled, (SOURCE, video))) > 0


def test_tasks_of_a_batch_are_what_they_are_alone(styled: LoadedModel) -> None:
    together = clips(styled, (STYLE, noise_image(1)), tasks=2)
    assert (together[0] == clip(styled, (STYLE, noise_image(1)))).all()
    assert apart(*together) > 0


def test_a_style_and_a_structure_have_strengths_of_their_own(
    tiny_folder: TinyFolder, adapter: Path, tmp_path: Path
) -> None:
    entry = {
        "pipeline": "AnimateDiffControlNetPipeline",
        "pipelines": {},
        "modes": (T2V,),
        "controlnet": {"source": str(controlled.random_controlnet(tmp_path)), "kind": "edges"},
    }
    model = load(variant(tiny_folder("animatediff"), adapter, **entry), device="cpu")
    assert model.variant.roles(T2V) == (Role.STRUCTURE, Role.STYLE)
    edges, style = (EDGES, noise_image(1)), (STYLE, noise_image(2))
    both, drawn, looks = clip(model, edges, style), clip(model, edges), clip(model, style)
    assert min(apart(both, drawn), apart(both, looks), apart(drawn, looks)) > 0
    weak = EDGES.model_copy(update={"strength": 1e-6})
    assert apart(clip(model, (weak, noise_image(1)), style), looks) < 0.1, "of the structure alone nothing is left"


def test_what_is_no_adapter_for_this_unet_is_refused(
    tiny_folder: TinyFolder, tiny_model: TinyModel, adapter: Path, tmp_path: Path
) -> None:
    folder, unet = tiny_folder("animatediff"), tiny_model("animatediff").pipes[T2V].unet

    def refused(source: Path, message: str, weight_file: str = FILE) -> None:
        part = {"source": str(source), "weight_file": weight_file}
        with pytest.raises(VariantLoadError, match=message):
            load(variant(folder, source, ip_adapter=part), device="cpu")

    refused(tmp_path / "gone", "gone: no such folder on this machine")
    refused(adapter, r"no other.safetensors in it; available: ip-adapter_tiny.safetensors", "models/other.safetensors")
    refused(adapter, r"other.bin: only .safetensors are read", "models/other.bin")
    refused(ip_adapter(tmp_path / "wide", unet, cross_attention_dim=16), "it was not made for this UNet")
    refused(ip_adapter(tmp_path / "blind", unet, encoder=False), "no image encoder in models/image_encoder")
    save_file({"lora.weight": zeros(1)}, tmp_path / "lora.safetensors")
    refused(tmp_path, "lora.safetensors is no IP-Adapter", "lora.safetensors")

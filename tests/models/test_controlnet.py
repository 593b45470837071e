"""Structures and drawn frames through ControlNets. The pipelines of `controlled` render what their ControlNet is shown,
so that it can be seen where and when it arrives."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.guide import guide_of
from models.loaded import LoadedModel
from models.loader import load
from models.model import Pictures, TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant
from schemas.conditions import Condition, implied_mode
from schemas.errors import VariantLoadError
from schemas.inputs import Kind, Role
from schemas.task import RenderBatch
from tests.models import controlled
from tests.models.conftest import TinyFolder
from tests.models.tiny_variants import I2V, T2V, V2V, group_of, task_of, tiny_variant

SIDE, FRAMES = 16, 6
SHAPE = {"divisor": 8, "max_frames": 32, "max_pixels": 65536, "native": [(SIDE, SIDE, FRAMES)]}
RED, GREEN, WHITE, BLACK, GRAY = (230, 30, 30), (30, 230, 30), (255, 255, 255), (0, 0, 0), (128, 128, 128)

Colour = tuple[int, int, int]
Clip = npt.NDArray[np.uint8]


def plain(colour: Colour) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour)


def halves(left: Colour, right: Colour) -> Image.Image:
    image = plain(right)
    image.paste(left, (0, 0, SIDE // 2, SIDE))
    return image


def is_like(pixels: Clip, colour: Colour) -> bool:
    return bool(np.abs(pixels.astype(int) - colour).max() <= 6)


def clips(model: LoadedModel, *given: tuple[Condition, tuple[Pictures, ...]], tasks: int = 1) -> list[Clip]:
    """A clip of each of `tasks`, whose media are the entries of each condition's."""
    mode = implied_mode(one.role for one, _ in given)
    group = group_of(model.variant, mode, conditions=tuple(one for one, _ in given))
    made = tuple(task_of(group, "a shape", seed, media=("x",) * len(given)) for seed in range(tasks))
    media = tuple(TaskMedia(tuple(pictures[seed] for _, pictures in given)) for seed in range(tasks))
    out = model.render(RenderBatch(group, made), media, ignore_step, nobody_cancelled)
    assert all(isinstance(one, np.ndarray) for one in out), out
    return list(out)  # type: ignore[arg-type]


def clip(model: LoadedModel, *given: tuple[Condition, Pictures]) -> Clip:
    (made,) = clips(model, *((one, (media,)) for one, media in given))
    return made


def variant(folder: Path, net: Path | None, kind: str = "edges", **changes: Any) -> Variant:
    part = {"source": None if net is None else str(net), "kind": kind}
    entry = {"pipeline": "AnimateDiffControlNetPipeline", "pipelines": {}, "modes": (T2V,), "guidance": 2.0}
    return tiny_variant("animatediff", folder, **{"shape": SHAPE, "controlnet": part, **entry, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return controlled.plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return controlled.controlnet(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def controlnet(folder: Path, net: Path) -> LoadedModel:
    on_source = {V2V: "AnimateDiffVideoToVideoControlNetPipeline"}
    return load(variant(folder, net, modes=(T2V, V2V), pipelines=on_source), device="cpu")


@pytest.fixture(scope="module")
def sparse(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    own = controlled.sparse_controlnet(tmp_path_factory.mktemp("sparse"))
    entry: dict[str, Any] = {"pipeline": "AnimateDiffSparseControlNetPipeline", "modes": (T2V, I2V)}
    return load(variant(folder, own, "scribble", **entry), device="cpu")


EDGES = Condition(role=Role.STRUCTURE, medium="image", kind=Kind.EDGES)
SOURCE = Condition(role=Role.SOURCE, medium="video", strength=1.0)


def drawn(frame: int, strength: float | None = None) -> Condition:
    return Condition(role=Role.KEYFRAME, medium="image", frame=frame, kind=Kind.SCRIBBLE, strength=strength)


def with_strength(strength: float) -> Condition:
    return EDGES.model_copy(update={"strength": strength})


def test_a_structure_is_seen_where_it_is(controlnet: LoadedModel) -> None:
    made = clip(controlnet, (EDGES, halves(WHITE, RED)))
    assert is_like(made[:, :, : SIDE // 2], WHITE)
    assert is_like(made[:, :, SIDE // 2 :], RED)


def test_a_structure_that_moves_is_seen_when_it_does(controlnet: LoadedModel) -> None:
    moving = tuple(plain(WHITE if frame < 2 else BLACK) for frame in range(FRAMES))
    made = clip(controlnet, (EDGES.model_copy(update={"medium": "video"}), moving))
    assert is_like(made[:2], WHITE)
    assert is_like(made[2:], BLACK)


def test_strength_is_how_much_a_structure_counts(controlnet: LoadedModel) -> None:
    assert is_like(clip(controlnet, (with_strength(0.5), plain(WHITE))), (191, 191, 191)), "half-way from gray to white"


def test_without_a_structure_the_clip_is_the_plain_class_s(
    controlnet: LoadedModel, tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    assert is_like(clip(controlnet), GRAY)
    folder, net = tiny_folder("animatediff"), controlled.random_controlnet(tmp_path)
    shape = {**SHAPE, "divisor": 16, "native": [(32, 32, 4)]}
    with_net = load(variant(folder, net, shape=shape), device="cpu")
    entry = {"pipelines": {}, "modes": (T2V,), "guidance": 2.0, "shape": shape}
    without = clip(load(tiny_variant("animatediff", folder, **entry), device="cpu"))
    assert without.std() > 1, "noise"
    assert (clip(with_net) == without).all()
    assert (clip(with_net, (EDGES, Image.new("RGB", (32, 32)))) != without).any(), "a black picture is a structure too"


def test_tasks_of_a_batch_have_their_own_structures(controlnet: LoadedModel) -> None:
    one, other = clips(controlnet, (EDGES, (plain(WHITE), plain(BLACK))), tasks=2)
    assert is_like(one, WHITE)
    assert is_like(other, BLACK)


def test_a_source_is_changed_under_its_structure(controlnet: LoadedModel) -> None:
    red = (plain(RED),) * FRAMES
    made = clip(controlnet, (SOURCE, red), (EDGES, halves(WHITE, GREEN)))
    assert is_like(made[:, :, : SIDE // 2], WHITE)
    assert is_like(made[:, :, SIDE // 2 :], GREEN)
    assert is_like(clip(controlnet, (SOURCE, red)), GRAY), "all of it is made anew, and nobody says as what"


def test_a_controlnet_may_be_in_the_weights(tmp_path: Path) -> None:
    model = load(variant(controlled.whole(tmp_path), None), device="cpu")
    assert is_like(clip(model, (EDGES, plain(RED))), RED)


def test_drawn_frames_are_seen_at_their_instants_and_nowhere_else(sparse: LoadedModel) -> None:
    made = clip(sparse, (drawn(1), plain(RED)), (drawn(4), halves(WHITE, GREEN)))
    assert is_like(made[1], RED)
    assert is_like(made[4, :, : SIDE // 2], WHITE)
    assert is_like(made[4, :, SIDE // 2 :], GREEN)
    assert all(is_like(made[frame], GRAY) for frame in (0, 2, 3, 5))


def test_strength_is_how_much_drawn_frames_count(sparse: LoadedModel) -> None:
    made = clip(sparse, (drawn(2, 0.5), plain(WHITE)))
    assert is_like(made[2], (191, 191, 191))
    assert is_like(clip(sparse), GRAY), "without any"


def test_the_guide_shows_the_structure() -> None:
    entry = variant(Path("/none"), Path("/none"), modes=(T2V, V2V), pipelines={V2V: "AnimateDiffVideoToVideoPipeline"})
    group = group_of(entry, T2V, conditions=(EDGES,))
    guide = guide_of(entry.pipeline, group, ((EDGES, plain(RED)),))
    assert guide is not None
    assert len(guide.video) == FRAMES
    assert guide.video[0].getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": (16,)}, r"block_out_channels is 16, and that of the UNet is 8"),
        ({"cross_attention_dim": 16}, r"cross_attention_dim is 16, and that of the UNet is 8"),
    ],
)
def test_a_controlnet_for_another_unet_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    net = controlled.controlnet(tmp_path, **changes)
    with pytest.raises(VariantLoadError, match=message):
        load(variant(folder, net), device="cpu")


def test_a_controlnet_of_another_class_is_refused(folder: Path, net: Path, tmp_path: Path) -> None:
    entry: dict[str, Any] = {"pipeline": "AnimateDiffSparseControlNetPipeline", "modes": (I2V,)}
    with pytest.raises(
        VariantLoadError, match="it is a ControlNetModel, and the pipeline takes a SparseControlNetModel"
    ):
        load(variant(folder, net, **entry), device="cpu")
    with pytest.raises(VariantLoadError, match=r"weights .*gone: no such folder"):
        load(variant(folder, tmp_path / "gone"), device="cpu")

"""Classes that get a whole control video beside the noise. Their weights are random: what is shown is that the class
gets exactly the tensors that it should, and that the clip is that of the class called by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.calibrate import time_calls
from models.guide import guide_of
from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant
from schemas.conditions import Condition
from schemas.errors import MediaError, VariantLoadError
from schemas.inputs import Kind, Role
from schemas.task import RenderBatch
from tests.models.shown import SIDE, as_bytes, as_tensor, clip, clips, moving
from tests.models.tiny_variants import T2V, group_of, task_of, tiny_variant
from training.tiny import build

POSE = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.POSE)


@pytest.fixture(scope="module")
def cog_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("cogvideox-control", tmp_path_factory.mktemp("cog-control"))


COG_FRAMES = 9


def cog_variant(folder: Path, **changes: Any) -> Variant:
    shape = {"divisor": 16, "frame_step": 8, "frame_offset": 1, "max_frames": 49, "max_pixels": 65536}
    entry = {
        "pipeline": "CogVideoXFunControlPipeline",
        "pipelines": {},
        "modes": (T2V,),
        "conditions": ("structure:pose", "structure:edges"),
        "shape": {**shape, "native": [(SIDE, SIDE, COG_FRAMES)]},
        "call_options": {"max_sequence_length": 32},
        "steps": 2,
    }
    return tiny_variant("cogvideox", folder, **{**entry, **changes})


@pytest.fixture(scope="module")
def cog(cog_folder: Path) -> LoadedModel:
    return load(cog_variant(cog_folder), device="cpu")


def test_cogvideox_fun_sees_its_control_video_s_own_latents_beside_the_noise(
    cog: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, seen = cog.pipes[T2V], []
    forward = pipe.transformer.forward

    def seeing(*given: Any, **named: Any) -> Any:
        seen.append(named["hidden_states"])
        return forward(*given, **named)

    monkeypatch.setattr(pipe.transformer, "forward", seeing)
    video = moving(1, COG_FRAMES)
    clip(cog, (POSE, video))
    with torch.no_grad():
        latents = pipe.vae.encode(as_tensor(video))[0].mode() * pipe.vae.config.scaling_factor
    expected = latents.permute(0, 2, 1, 3, 4)
    assert len(seen) == 2, "steps"
    for given in seen:
        assert torch.equal(given[:1, :, 16:], expected)
        assert torch.equal(given[1:, :, 16:], expected), "the run without the prompt sees it too"


def test_cogvideox_fun_s_clip_is_the_class_s_own_bit_for_bit(cog: LoadedModel) -> None:
    video, pipe = moving(1, COG_FRAMES), cog.pipes[T2V]
    by_hand = pipe(
        prompt=["a shape"], negative_prompt=[""], control_video=list(video), width=SIDE, height=SIDE,
        num_inference_steps=2, guidance_scale=3.0, generator=[torch.Generator().manual_seed(0)], output_type="pt",
        max_sequence_length=32,
    ).frames  # fmt: skip
    assert np.array_equal(clip(cog, (POSE, video)), as_bytes(by_hand[0]))


def test_cogvideox_fun_s_clip_changes_with_any_part_of_its_control_video(cog: LoadedModel) -> None:
    video, other = moving(1, COG_FRAMES), moving(2, COG_FRAMES)
    late = (*video[:5], *other[5:])
    plain, changed = (clip(cog, (POSE, one)) for one in (video, late))
    assert np.array_equal(plain, clip(cog, (POSE, video)))
    assert (plain != changed).any()
    still = Condition(role=Role.STRUCTURE, medium="image", kind=Kind.POSE)
    assert np.array_equal(clip(cog, (still, video[0])), clip(cog, (POSE, video[:1] * COG_FRAMES))), "it stands still"


def test_cogvideox_fun_s_tasks_of_a_batch_have_the_clips_that_they_have_alone(cog: LoadedModel) -> None:
    one, other = ((POSE, moving(seed, COG_FRAMES)) for seed in (1, 2))
    together = clips(cog, (one,), (other,))
    assert np.array_equal(together[0], clip(cog, one, seed=0))
    assert np.array_equal(together[1], clip(cog, other, seed=1))


def test_cogvideox_fun_makes_as_many_frames_as_its_rule_allows_and_others_off_it(cog: LoadedModel) -> None:
    assert clip(cog, (POSE, moving(1, 17)), frames=17).shape[0] == 17
    group = group_of(cog.variant, T2V, conditions=(POSE,), frames=13)
    work = RenderBatch(group, (task_of(group, "a shape", media=("x",)),))
    (off,) = cog.render(work, (TaskMedia((moving(1, 13),)),), ignore_step, nobody_cancelled)
    assert "the model returned 16×3×32×32, not 13×3×32×32" in str(off)
    assert cog.variant.shape.issues(group.shape)


def test_cogvideox_fun_renders_nothing_without_a_control_video(cog: LoadedModel) -> None:
    with pytest.raises(MediaError, match="needs a structure"):
        clip(cog)


def test_weights_that_see_no_control_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        VariantLoadError, match=r"its transformer takes 16 channels, .* shows beside them, available: 32"
    ):
        load(cog_variant(build("cogvideox", tmp_path / "plain")), device="cpu")


def test_what_a_call_takes_is_measured_over_a_black_control_video(cog: LoadedModel) -> None:
    (timed,) = time_calls(cog, [(cog.variant.shape.default(), 1, 2)], rounds=1)
    assert timed.wall_s[0] > 0


def test_the_guide_of_a_control_video_is_that_video(cog: LoadedModel) -> None:
    video = moving(1, COG_FRAMES)
    guide = guide_of(cog.variant.pipeline, group_of(cog.variant, T2V, conditions=(POSE,)), ((POSE, video),))
    assert guide is not None
    assert guide.video == video

"""Catalog entries over the tiny random pipelines: what each family can do, and the smallest shape that shows it."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.model import Pictures, TaskMedia
from schemas.catalog import Variant
from schemas.conditions import Condition, carried
from schemas.inputs import Role
from schemas.request import Mode
from schemas.task import Group, RenderBatch, Task

T2V, I2V, V2V = Mode.TEXT_TO_VIDEO, Mode.IMAGE_TO_VIDEO, Mode.VIDEO_TO_VIDEO

SIDE = 32

# Tiny pipeline → class, further classes by mode, modes, frames.
FAMILIES: dict[str, dict[str, Any]] = {
    "wan": {
        "folder": "wan",
        "pipeline": "WanPipeline",
        "pipelines": {I2V: "WanImageToVideoPipeline", V2V: "WanVideoToVideoPipeline"},
        "modes": (T2V, I2V, V2V),
        "frames": 5,
    },
    "wan-vace": {"folder": "wan-vace", "pipeline": "WanVACEPipeline", "modes": (T2V, I2V, V2V), "frames": 5},
    "ltx": {
        "folder": "ltx",
        "pipeline": "LTXPipeline",
        "pipelines": {I2V: "LTXImageToVideoPipeline"},
        "modes": (T2V, I2V),
        "frames": 9,
    },
    "ltx-condition": {"folder": "ltx", "pipeline": "LTXConditionPipeline", "modes": (T2V, I2V), "frames": 9},
    "cogvideox": {
        "folder": "cogvideox",
        "pipeline": "CogVideoXPipeline",
        "pipelines": {V2V: "CogVideoXVideoToVideoPipeline"},
        "modes": (T2V, V2V),
        "frames": 9,
    },
    "cogvideox-image": {
        "folder": "cogvideox-image",
        "pipeline": "CogVideoXImageToVideoPipeline",
        "modes": (I2V,),
        "frames": 9,
    },
    "animatediff": {
        "folder": "animatediff",
        "pipeline": "AnimateDiffPipeline",
        "pipelines": {V2V: "AnimateDiffVideoToVideoPipeline"},
        "modes": (T2V, V2V),
        "frames": 4,
    },
    "svd": {"folder": "svd", "pipeline": "StableVideoDiffusionPipeline", "modes": (I2V,), "frames": 4},
    "mochi": {"folder": "mochi", "pipeline": "MochiPipeline", "modes": (T2V,), "frames": 7},
    "hunyuanvideo": {"folder": "hunyuanvideo", "pipeline": "HunyuanVideoPipeline", "modes": (T2V,), "frames": 5},
    "hunyuanvideo15": {"folder": "hunyuanvideo15", "pipeline": "HunyuanVideo15Pipeline", "modes": (T2V,), "frames": 5},
}
SLOW = {"mochi", "svd", "hunyuanvideo", "hunyuanvideo15"}


def tiny_variant(family: str, folder: Path, **changes: Any) -> Variant:
    """The catalog entry of a tiny pipeline that lies in `folder`."""
    facts = dict(FAMILIES[family])
    facts.pop("folder")
    frames = facts.pop("frames")
    entry: dict[str, Any] = {
        "name": f"tiny-{family}",
        "weights": str(folder),
        "dtype": "float32",
        "steps": 3,
        "guidance": 3.0,
        "fps": 8,
        "shape": {"divisor": 16, "max_frames": 81, "max_pixels": 65536, "native": [(SIDE, SIDE, frames)]},
        "latent": {"channels": 4, "spatial": 8, "temporal": 4},
        **facts,
        **changes,
    }
    return Variant.model_validate(entry)


def group_of(variant: Variant, mode: Mode | None = None, *, strength: float | None = None, **changes: Any) -> Group:
    """The group of a variant's defaults."""
    shape = variant.shape.default()
    fields: dict[str, Any] = {
        "variant": variant.name,
        "variant_digest": variant.digest,
        "mode": mode or variant.modes[0],
        "width": shape.width,
        "height": shape.height,
        "frames": shape.frames,
        "fps": variant.fps,
        "steps": variant.steps,
        "guidance": variant.guidance,
    }
    if "conditions" not in changes:
        fields["conditions"] = usual_conditions(variant, mode or variant.modes[0], strength)
    return Group.model_validate(fields | changes)


def usual_conditions(variant: Variant, mode: Mode, strength: float | None = None) -> tuple[Condition, ...]:
    """What makes a call one of `mode`: a first frame, or a source."""
    if mode is T2V:
        return ()
    if mode is I2V:
        return (Condition(role=Role.FIRST_FRAME, medium="image", frame=0),)
    takes_strength = Role.SOURCE in carried(variant.pipeline_for(mode), mode).strengths
    said = (strength or variant.strength) if takes_strength else None
    return (Condition(role=Role.SOURCE, medium="video", strength=said),)


def task_of(group: Group, prompt: str, seed: int = 0, negative_prompt: str = "", media: tuple[str, ...] = ()) -> Task:
    return Task(group.fingerprint(prompt, negative_prompt, seed, media), prompt, negative_prompt, seed, media)


def batch_of(group: Group, *prompts: str) -> RenderBatch:
    """One task a prompt, seeds 0, 1, 2 …; every second one has a negative prompt."""
    return RenderBatch(
        group, tuple(task_of(group, p, seed, "grey" if seed % 2 else "") for seed, p in enumerate(prompts))
    )


def noise_image(seed: int, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def media_of(batch: RenderBatch) -> tuple[TaskMedia, ...]:
    """Images and videos of its own for every task, as its group's conditions need."""
    group = batch.group

    def pictures(k: int, condition: Condition) -> Pictures:
        if condition.medium == "image":
            return noise_image(k)
        return tuple(noise_image(100 * k + f) for f in range(group.frames))

    return tuple(
        TaskMedia(tuple(pictures(k, condition) for condition in group.conditions)) for k in range(len(batch.tasks))
    )

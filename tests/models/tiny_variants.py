"""Catalog entries over the tiny random pipelines: what each family can do, and the smallest shape that shows it."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.model import TaskMedia
from schemas.catalog import Variant
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


def group_of(variant: Variant, mode: Mode | None = None, **changes: Any) -> Group:
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
    return Group.model_validate(fields | changes)


def task_of(group: Group, prompt: str, seed: int = 0, negative_prompt: str = "", **media: str) -> Task:
    fingerprint = group.fingerprint(prompt, negative_prompt, seed, media.get("image"), media.get("video"))
    return Task(fingerprint, prompt, negative_prompt, seed, **media)


def batch_of(group: Group, *prompts: str) -> RenderBatch:
    """One task a prompt, seeds 0, 1, 2 …; every second one has a negative prompt."""
    return RenderBatch(
        group, tuple(task_of(group, p, seed, "grey" if seed % 2 else "") for seed, p in enumerate(prompts))
    )


def noise_image(seed: int, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def media_of(batch: RenderBatch) -> tuple[TaskMedia, ...]:
    """An image and a video of its own for every task, as its mode needs."""
    mode, frames = batch.group.mode, batch.group.frames
    return tuple(
        TaskMedia(
            image=noise_image(k) if mode is I2V else None,
            video=tuple(noise_image(100 * k + f) for f in range(frames)) if mode is V2V else None,
        )
        for k in range(len(batch.tasks))
    )

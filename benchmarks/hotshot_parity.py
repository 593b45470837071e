"""Does a converted Hotshot-XL compute what the original does? `python -m benchmarks.hotshot_parity REF_FOLDER`.

REF_FOLDER holds what the original's code made, from a small checkpoint for instance:

    ckpt/            a checkpoint in the hub's layout
    controlnet/      a ControlNet of SDXL for it (only where `pipe.controlnet` is there)
    ref.safetensors  NAME.x, .t, .e, .te, .ti → NAME.y    a call of the UNet: clips, timesteps, text, pooled text, sizes
                     pipe.ddim, pipe.eulera, pipe.batch2  clips (batch, 3, frames, height, width) of 0…1
                     pipe.controlnet, cn.images           the same over images (frames, height, width, 3) of 0…255

The checkpoint is converted and loaded as a variant, and called as a render batch calls it; shapes are those of the
reference, and the options say with what it was made. Prints the largest difference of each case, writes them as JSON,
and exits with 1 when one is above the goal.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.report import write_report
from models.families import arguments
from models.hotshot.control import with_controlnet
from models.hotshot.conversion import PIPELINE, convert
from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia
from schemas.catalog import Variant
from schemas.errors import ConfigError, RushesError
from schemas.request import Mode
from schemas.task import Group, RenderBatch, Task

GOAL = 1e-4
_PIPELINES = ("pipe.ddim", "pipe.eulera", "pipe.batch2", "pipe.controlnet")


@dataclass(frozen=True)
class Made:
    """With what the reference's clips were made. Of `prompts` and the like, a single clip takes the first."""

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    seed: int
    batch_seeds: tuple[int, ...]
    steps: int
    guidance: float
    original_size: tuple[float, ...]
    target_size: tuple[float, ...]
    control_scale: float


def parity(folder: Path, made: Made) -> dict[str, float]:
    """The largest absolute difference of each case in `folder`, by its name."""
    path = folder / "ref.safetensors"
    try:
        reference = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    calls = sorted(name.removesuffix(".y") for name in reference if name.endswith(".y"))
    clips = sorted(name for name in reference if name.startswith("pipe."))
    unknown = next((name for name in clips if name not in _PIPELINES), None)
    if unknown is not None or not calls + clips:
        raise ConfigError(f"{path}: {unknown or 'no case'}; available: NAME.y with its inputs, {', '.join(_PIPELINES)}")
    with tempfile.TemporaryDirectory(prefix="rushes-hotshot-") as scratch, torch.no_grad():
        variant = _variant(convert(folder / "ckpt", Path(scratch, "converted")).folder, made)
        model = load(variant, device="cpu")
        out = {name: _difference(_called(model, reference, name), reference[f"{name}.y"]) for name in calls}
        for name in clips:
            if name == "pipe.eulera":
                euler = variant.model_copy(update={"scheduler": "EulerAncestralDiscreteScheduler"})
                rendered = _rendered(load(euler, device="cpu"), reference[name], made)
            elif name == "pipe.controlnet":
                rendered = _controlled(model, folder / "controlnet", reference, made)
            else:
                rendered = _rendered(model, reference[name], made)
            out[name] = _difference(rendered, reference[name])
        return out


def _difference(made: Tensor, wanted: Tensor) -> float:
    if made.shape != wanted.shape:
        return float("inf")
    return float((made.float() - wanted.float()).abs().max())


def _variant(folder: Path, made: Made) -> Variant:
    """The catalog entry of the converted folder."""
    call_options = {
        "original_size": made.original_size,
        "crops_coords_top_left": (0, 0),
        "target_size": made.target_size,
    }
    return Variant.model_validate(
        {
            "name": "reference",
            "pipeline": PIPELINE,
            "weights": str(folder),
            "modes": [Mode.TEXT_TO_VIDEO],
            "dtype": "float32",
            "steps": made.steps,
            "guidance": made.guidance,
            "fps": 8,
            "call_options": call_options,
            "shape": {"divisor": 8, "max_frames": 24, "max_pixels": 1 << 20, "native": [(64, 64, 8)]},
            "latent": {"channels": 4, "spatial": 8, "temporal": 1, "patch": (1, 1, 1)},
        }
    )


def _called(model: LoadedModel, reference: Mapping[str, Tensor], name: str) -> Tensor:
    clips, timestep, text, pooled, time_ids = (reference[f"{name}.{part}"] for part in ("x", "t", "e", "te", "ti"))
    unet = model.pipes[Mode.TEXT_TO_VIDEO].unet
    made: Tensor = unet(
        clips, timestep, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}, return_dict=False
    )[0]
    return made


def _call(model: LoadedModel, wanted: Tensor, made: Made) -> dict[str, Any]:
    """The arguments of one model call, as a render batch of this shape makes them."""
    batch, _, frames, height, width = wanted.shape
    group = Group(
        variant=model.variant.name, variant_digest=model.variant.digest, mode=Mode.TEXT_TO_VIDEO, width=width,
        height=height, frames=frames, fps=model.variant.fps, steps=made.steps, guidance=made.guidance,
    )  # fmt: skip
    seeds = made.batch_seeds if batch > 1 else (made.seed,)
    if len(seeds) != batch or min(len(made.prompts), len(made.negative_prompts)) < batch:
        raise ConfigError(
            f"the reference has {batch} clips in a batch; --prompt, --negative-prompt and --seed name less"
        )
    tasks = tuple(
        Task(str(index), prompt, negative, seed)
        for index, (prompt, negative, seed) in enumerate(zip(made.prompts, made.negative_prompts, seeds, strict=False))
    )
    generators = [torch.Generator("cpu").manual_seed(task.seed) for task in tasks]
    media = [TaskMedia()] * batch
    return arguments(model.forms[Mode.TEXT_TO_VIDEO], model.variant, RenderBatch(group, tasks), media, generators)


def _rendered(model: LoadedModel, wanted: Tensor, made: Made) -> Tensor:
    pipeline = model.pipes[Mode.TEXT_TO_VIDEO]
    pipeline.set_progress_bar_config(disable=True)
    frames: Tensor = pipeline(**_call(model, wanted, made)).frames
    return frames.transpose(1, 2)


def _controlled(model: LoadedModel, folder: Path, reference: Mapping[str, Tensor], made: Made) -> Tensor:
    pipeline = with_controlnet(model.pipes[Mode.TEXT_TO_VIDEO], folder)
    pipeline.set_progress_bar_config(disable=True)
    images = [Image.fromarray(image.numpy()) for image in reference["cn.images"]]
    call = _call(model, reference["pipe.controlnet"], made)
    frames: Tensor = pipeline(
        call.pop("prompt"),
        conditioning_frames=[images],
        controlnet_conditioning_scale=made.control_scale,
        **call,
    ).frames
    return frames.transpose(1, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, compare, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hotshot_parity", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, metavar="REF_FOLDER")
    parser.add_argument("--prompt", action="append", help="may be given many times, for batches")
    parser.add_argument("--negative-prompt", action="append", help="may be given many times, for batches")
    parser.add_argument("--seed", type=int, default=455, help="of single clips")
    parser.add_argument("--batch-seed", type=int, action="append", help="of the clips of a batch, in turn")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--original-size", type=float, nargs=2, default=(1920, 1080), metavar=("A", "B"))
    parser.add_argument("--target-size", type=float, nargs=2, default=(512, 512), metavar=("A", "B"))
    parser.add_argument("--control-scale", type=float, default=0.7, help="of the ControlNet")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    made = Made(
        prompts=tuple(given.prompt or ("a red ball", "a blue cat")),
        negative_prompts=tuple(given.negative_prompt or ("blurry", "x")),
        seed=given.seed,
        batch_seeds=tuple(given.batch_seed or (1, 2)),
        steps=given.steps,
        guidance=given.guidance,
        original_size=tuple(given.original_size),
        target_size=tuple(given.target_size),
        control_scale=given.control_scale,
    )
    try:
        differences = parity(given.folder, made)
    except RushesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = Table("case", "largest difference", "goal", "")
    for name, difference in differences.items():
        table.add_row(name, f"{difference:.1e}", f"{GOAL:.0e}", "met" if difference <= GOAL else "MISSED")
    Console().print(table)
    met = all(difference <= GOAL for difference in differences.values())
    report = write_report("hotshot_parity", {"goal": GOAL, "met": met, "largest_difference": differences}, given.json)
    print(f"figures: {report}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

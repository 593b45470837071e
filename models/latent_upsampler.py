"""Clips made larger in the latents of a VAE, by pipelines as diffusers saves them.

| class | how |
| --- | --- |
| `LTXLatentUpsamplePipeline`, `LTX2LatentUpsamplePipeline` | one network over the latents: twice as large |
| `Kandinsky6SRPipeline` | tiles of larger latents are denoised and laid over one another: 2, 2.25 or 4 times |

A clip goes in whole: the VAE makes one latent of several frames, and the network sees its neighbours in time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.components import index_of
from models.model import Frames
from models.weights import WeightsStore, find_weights
from schemas.errors import BadOutputError, VariantLoadError

_DENOISES = "Kandinsky6SRPipeline"
PIPELINES = ("LTXLatentUpsamplePipeline", "LTX2LatentUpsamplePipeline", _DENOISES)
_SCALES = (2, 2.25, 4)  # that this one takes

# From a clip, and how many times larger it is wanted, to a larger one of as many frames: as large, or nearer to it.
Larger = Callable[[Frames, float], Frames]


def latent_upsampler(
    source: str,
    device: str,
    cache: Path | None = None,
    store: WeightsStore | None = None,
    steps: int | None = None,
) -> Larger:
    """What makes clips larger by the pipeline that lies in `source`, in so many denoising steps, or its own. Not
    thread-safe.

    Raises VariantLoadError for weights that cannot be had or are no such pipeline.
    """
    import diffusers
    import torch

    folder = find_weights(source, cache=cache, store=store, download=_download).folder
    wrong = upsampler_problem(folder, steps)
    if wrong is not None:
        raise VariantLoadError(f"weights {source}: {wrong}")
    name = str(index_of(folder)["_class_name"])
    pipe = getattr(diffusers, name).from_pretrained(
        str(folder),
        # Half precision on a CPU is emulated.
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    if name == _DENOISES:
        if device != "cpu":
            # As it stands its attention is a matrix of all tokens, which does not fit.
            pipe.transformer.compile_repeated_blocks(fullgraph=True)
        return lambda frames, factor: _refined(
            pipe, frames, factor, {} if steps is None else {"num_inference_steps": steps}
        )
    # A decoded clip at once is many times the memory of the clip; below its tile's size nothing changes.
    pipe.vae.enable_tiling()
    return lambda frames, _: _twice(pipe, frames)


def upsampler_problem(folder: Path, steps: int | None = None) -> str | None:
    """Why a folder holds no pipeline that makes clips larger; None where it does."""
    if not (folder / "model_index.json").is_file():
        return f"no model_index.json in it, which {' and '.join(PIPELINES)} have"
    name = index_of(folder).get("_class_name")
    if name not in PIPELINES:
        return f"{name} makes no clips larger; available: {', '.join(PIPELINES)}"
    return f"{name} denoises nothing: it takes no steps" if steps is not None and name != _DENOISES else None


def _download(hub_id: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    return str(snapshot_download(hub_id, revision=revision, allow_patterns=["*.safetensors", "*.json"]))


def _twice(pipe: Any, frames: Frames) -> Frames:
    whole = _padded(frames, pipe.vae_temporal_compression_ratio, pipe.vae_spatial_compression_ratio)
    made = pipe(**_told(whole), height=whole.shape[1], width=whole.shape[2]).frames[0]
    return _cut(made, whole, frames)


def _refined(pipe: Any, frames: Frames, factor: float, steps: dict[str, int]) -> Frames:
    scale = next((one for one in _SCALES if one >= factor), _SCALES[-1])
    tiles = pipe.transformer_tile_sizes
    # A tile is this much smaller before, and none may be larger than the clip.
    least = (max(side) // (4 if scale == 4 else 2) for side in zip(*tiles, strict=True))
    # For the odd one it enlarges pixels by 9/8 first, to sides that the VAE takes: so that it is 9/8 and no other.
    cell = pipe.vae_scale_factor_spatial * (8 if scale == 2.25 else 1)
    whole = _padded(frames, pipe.vae_scale_factor_temporal, cell, tuple(least))
    return _cut(pipe(**_told(whole), resolution_scale=scale, **steps).frames[0], whole, frames)


def _told(whole: Frames) -> dict[str, Any]:
    import torch

    # Latents and noise are drawn: the same clip is to give the same one.
    generator = torch.Generator("cpu").manual_seed(0)
    return {"video": [Image.fromarray(one) for one in whole], "generator": generator, "output_type": "np"}


def _padded(frames: Frames, span: int, cell: int, least: tuple[int, ...] = (0, 0)) -> Frames:
    """The edge and the last frame repeated until a VAE takes it whole."""
    length, *sides, _ = frames.shape
    more = [-(length - 1) % span]
    for side, floor in zip(sides, least, strict=True):
        wanted = max(side, floor)
        more.append(wanted + -wanted % cell - side)
    return np.pad(frames, (*((0, n) for n in more), (0, 0)), mode="edge")


def _cut(made: Any, whole: Frames, frames: Frames) -> Frames:
    """What came of the clip itself, as bytes. Raises BadOutputError for another number of frames, and what is none."""
    if len(made) != len(whole):
        raise BadOutputError(f"it made {len(made)} frames of {len(whole)}: an upsampler of time, not of size")
    if not np.isfinite(made).all():
        raise BadOutputError("frames that are not numbers (NaN or infinite)")
    length, height, width, _ = frames.shape
    down, across = (made.shape[axis] / whole.shape[axis] for axis in (1, 2))
    larger: Frames = (made[:length, : round(height * down), : round(width * across)] * 255).round().astype(np.uint8)
    return larger

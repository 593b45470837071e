"""Clips made larger in the latents of a VAE: LTX's and LTX-2's latent upsamplers, as diffusers saves them.

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

PIPELINES = ("LTXLatentUpsamplePipeline", "LTX2LatentUpsamplePipeline")


def latent_upsampler(
    source: str, device: str, cache: Path | None = None, store: WeightsStore | None = None
) -> Callable[[Frames], Frames]:
    """From a clip to a larger one of as many frames, by the pipeline that lies in `source`. Not thread-safe.

    Raises VariantLoadError for weights that cannot be had or are no such pipeline.
    """
    import diffusers
    import torch

    folder = find_weights(source, cache=cache, store=store, download=_download).folder
    wrong = upsampler_problem(folder)
    if wrong is not None:
        raise VariantLoadError(f"weights {source}: {wrong}")
    pipe = getattr(diffusers, str(index_of(folder)["_class_name"])).from_pretrained(
        str(folder),
        # Half precision on a CPU is emulated.
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
    )
    # A decoded clip at once is many times the memory of the clip; below its tile's size nothing changes.
    pipe.vae.enable_tiling()
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    return lambda frames: _larger(pipe, frames)


def upsampler_problem(folder: Path) -> str | None:
    """Why a folder holds no pipeline that makes clips larger; None where it does."""
    if not (folder / "model_index.json").is_file():
        return f"no model_index.json in it, which {' and '.join(PIPELINES)} have"
    name = index_of(folder).get("_class_name")
    return None if name in PIPELINES else f"{name} makes no clips larger; available: {', '.join(PIPELINES)}"


def _download(hub_id: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    return str(snapshot_download(hub_id, revision=revision, allow_patterns=["*.safetensors", "*.json"]))


def _larger(pipe: Any, frames: Frames) -> Frames:
    import torch

    length, height, width, _ = frames.shape
    cell, span = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    # The edge and the last frame are repeated until the VAE takes it whole, and what came of them is cut off.
    more = (-(length - 1) % span, -height % cell, -width % cell)
    whole = np.pad(frames, (*((0, n) for n in more), (0, 0)), mode="edge")
    made = pipe(
        video=[Image.fromarray(one) for one in whole],
        height=whole.shape[1],
        width=whole.shape[2],
        # The VAE draws its latents: the same clip is to give the same one.
        generator=torch.Generator("cpu").manual_seed(0),
        output_type="np",
    ).frames[0]
    if len(made) != len(whole):
        raise BadOutputError(f"it made {len(made)} frames of {len(whole)}: an upsampler of time, not of size")
    if not np.isfinite(made).all():
        raise BadOutputError("frames that are not numbers (NaN or infinite)")
    scale = made.shape[1] / whole.shape[1]
    out = made[:length, : round(height * scale), : round(width * scale)]
    larger: Frames = (out * 255).round().astype(np.uint8)
    return larger

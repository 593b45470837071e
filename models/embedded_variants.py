"""The model that ships in `models/embedded/`, as plain diffusers sees it: folders, adapters, call parameters.

The catalog says the same for the running system; this is for those who need no catalog: benchmarks, fine-
tuning, examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import LTXPipeline
from numpy.typing import NDArray

from models.weights import EMBEDDED

BASE = EMBEDDED / "shapes"
FPS = 8
FRAMES = 17


@dataclass(frozen=True)
class EmbeddedVariant:
    """One way to call the base folder. `loras` are folders that `load_lora_weights` reads."""

    name: str
    steps: int
    guidance: float
    loras: tuple[Path, ...] = ()
    folder: Path = BASE


def variants() -> tuple[EmbeddedVariant, ...]:
    """Those that ship."""
    return (
        EmbeddedVariant("embedded", steps=16, guidance=3.0),
        EmbeddedVariant("embedded-turbo", steps=4, guidance=2.0),
    )


class Sampler:
    """A variant, loaded in single precision on the CPU, or in bfloat16 on a GPU."""

    def __init__(self, variant: EmbeddedVariant, device: str = "cpu") -> None:
        self.variant = variant
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self.pipeline = LTXPipeline.from_pretrained(variant.folder, torch_dtype=dtype).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        for index, lora in enumerate(variant.loras):
            self.pipeline.load_lora_weights(lora, adapter_name=f"lora{index}")
        if variant.loras:
            self.pipeline.fuse_lora()

    def render(self, prompts: Sequence[str], canvas: tuple[int, int], seeds: Sequence[int]) -> list[NDArray[np.uint8]]:
        """One clip (17, height, width, 3) a prompt, each from its own seed; `canvas` is (width, height)."""
        frames = self.pipeline(
            list(prompts),
            width=canvas[0],
            height=canvas[1],
            num_frames=FRAMES,
            num_inference_steps=self.variant.steps,
            guidance_scale=self.variant.guidance,
            frame_rate=FPS,
            max_sequence_length=64,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        ).frames
        return list(np.rint(np.asarray(frames) * 255).astype(np.uint8))

"""Render with a directed folder, one clip a call: what `WanVACEPipeline` takes, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import WanVACEPipeline
from numpy.typing import NDArray
from PIL import Image

from models.cpu_convolution import quicken
from models.encodings import Encodings

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Order:
    """What a clip is asked for. `video` (frames, height, width, 3) and `mask` (frames, height, width; white is to be
    made) are as long as the clip; `reference` is (height, width, 3). What `spared` has where the mask is black is laid
    over the clip, as of a masked source (`models/overlay.py`)."""

    prompt: str
    width: int
    height: int
    frames: int
    seed: int
    video: Frames | None = None
    mask: Frames | None = None
    reference: Frames | None = None
    spared: Frames | None = None


class Director:
    """A folder, loaded in single precision on the CPU or in bfloat16 on a GPU, with its steps and guidance; its VAE as
    fast as that of a loaded variant."""

    def __init__(self, folder: Path, steps: int, guidance: float, device: str = "cpu") -> None:
        self.steps, self.guidance = steps, guidance
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self._pipeline = WanVACEPipeline.from_pretrained(str(folder), torch_dtype=dtype).to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        if device == "cpu":
            quicken(self._pipeline.vae)
        self._encodings = Encodings()
        self.cell_px = int(self._pipeline.vae_scale_factor_spatial)
        """Pixels of a latent, each side."""

    def render(self, order: Order) -> Frames:
        """The clip (frames, height, width, 3)."""
        with self._encodings.attached(self._pipeline):
            frames = self._pipeline(
                prompt=order.prompt,
                video=_images(order.video),
                mask=_images(order.mask),
                reference_images=None if order.reference is None else Image.fromarray(order.reference),
                width=order.width,
                height=order.height,
                num_frames=order.frames,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                max_sequence_length=64,
                generator=torch.Generator().manual_seed(order.seed),
                output_type="np",
            ).frames[0]
        clip = np.rint(np.asarray(frames) * 255).astype(np.uint8)
        if order.spared is None or order.mask is None:
            return clip
        return np.where(order.mask[..., None] > 127, clip, order.spared)

    @torch.no_grad()
    def through_vae(self, clip: Frames) -> Frames:
        """A clip as the VAE gives it back."""
        vae = self._pipeline.vae
        pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].to(vae.device, vae.dtype) / 127.5 - 1
        made = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0].float()
        return np.asarray(((made + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy())


def _images(frames: Sequence[NDArray[np.uint8]] | Frames | None) -> list[Image.Image] | None:
    return None if frames is None else [Image.fromarray(frame) for frame in frames]

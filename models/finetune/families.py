"""What differs between model families in training: latents, text, one prediction, and which layers see time.

A family takes the loaded text-to-video pipeline and works on its components; nothing here knows about losses.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from schemas.errors import VariantLoadError

_LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")


@dataclass(frozen=True)
class Text:
    """Encoded prompts: (batch, tokens, width), and the mask where the family has one."""

    embeds: Tensor
    mask: Tensor | None = None

    def pick(self, rows: Tensor) -> "Text":
        """Some of the prompts."""
        return Text(self.embeds[rows], None if self.mask is None else self.mask[rows])


class Family(Protocol):
    """How one kind of pipeline is trained."""

    def encode(self, clips: Tensor) -> Tensor:
        """Latents as the denoiser sees them, of clips (batch, 3, frames, height, width) in [-1, 1]."""
        ...

    def text(self, prompts: list[str]) -> Text:
        """Encode prompts as the pipeline would."""
        ...

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:
        """The denoiser's raw prediction, shaped like `noisy`; `timestep` (batch,) in 0…1000."""
        ...

    def target_modules(self, layers: str) -> list[str]:
        """Names, or endings of names, of the linear layers for an adapter on `all`, `spatial` or `temporal` layers."""
        ...


def family_of(pipeline: Any) -> tuple[Family, nn.Module]:
    """The family of a loaded pipeline and its denoiser. Raises VariantLoadError with the choices."""
    name = type(pipeline).__name__
    for prefix, make in (("AnimateDiff", AnimateDiffFamily), ("Wan", WanFamily), ("LTX", LtxFamily)):
        if name.startswith(prefix) and not name.startswith("LTX2"):
            denoiser = pipeline.unet if prefix == "AnimateDiff" else pipeline.transformer
            return make(pipeline), denoiser
    raise VariantLoadError(f"no fine-tuning for {name}; available: AnimateDiff…, LTX…, Wan…")


def _only_all(layers: str, family: str) -> None:
    if layers != "all":
        raise VariantLoadError(
            f"{family} attends to space and time at once: layers = {layers!r} is not to be had; available: all"
        )


class LtxFamily:
    """LTX-Video: packed latents, a prompt mask, positions in seconds and pixels."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def encode(self, clips: Tensor) -> Tensor:
        vae = self._pipeline.vae
        latents = vae.encode(clips.to(vae.dtype)).latent_dist.mode()
        mean = vae.latents_mean.view(1, -1, 1, 1, 1).to(latents)
        std = vae.latents_std.view(1, -1, 1, 1, 1).to(latents)
        return (latents - mean) * vae.config.scaling_factor / std

    def text(self, prompts: list[str]) -> Text:
        embeds, mask, _, _ = self._pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
        return Text(embeds, mask)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:
        _, _, frames, height, width = noisy.shape
        pipe = self._pipeline
        spatial = float(pipe.vae_spatial_compression_ratio)
        made = pipe.transformer(
            noisy.flatten(2).transpose(1, 2),
            text.embeds,
            timestep,
            text.mask,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(pipe.vae_temporal_compression_ratio / fps, spatial, spatial),
            return_dict=False,
        )[0]
        return made.transpose(1, 2).unflatten(2, (frames, height, width))

    def target_modules(self, layers: str) -> list[str]:
        _only_all(layers, "LTX")
        return [*_LINEAR, "proj_in", "proj_out"]


class WanFamily:
    """Wan 2.1 and 2.2: latents normalised per channel, prompts padded with zeros."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def encode(self, clips: Tensor) -> Tensor:
        vae = self._pipeline.vae
        latents = vae.encode(clips.to(vae.dtype)).latent_dist.mode()
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
        std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(latents)
        return (latents - mean) / std

    def text(self, prompts: list[str]) -> Text:
        embeds, _ = self._pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
        return Text(embeds)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:  # noqa: ARG002
        made: Tensor = self._pipeline.transformer(noisy, timestep, text.embeds, return_dict=False)[0]
        return made

    def target_modules(self, layers: str) -> list[str]:
        _only_all(layers, "Wan")
        return list(_LINEAR)


class AnimateDiffFamily:
    """A still-image UNet with motion modules between its blocks: here space and time can be trained apart."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def encode(self, clips: Tensor) -> Tensor:
        vae = self._pipeline.vae
        frames = clips.transpose(1, 2).flatten(0, 1).to(vae.dtype)
        latents = vae.encode(frames).latent_dist.mode() * vae.config.scaling_factor
        return latents.unflatten(0, (len(clips), -1)).transpose(1, 2)

    def text(self, prompts: list[str]) -> Text:
        pipe = self._pipeline
        embeds, _ = pipe.encode_prompt(prompts, pipe._execution_device, 1, False)
        return Text(embeds)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:  # noqa: ARG002
        made: Tensor = self._pipeline.unet(
            noisy, timestep.long(), text.embeds.repeat_interleave(noisy.shape[2], dim=0), return_dict=False
        )[0]
        return made

    def target_modules(self, layers: str) -> list[str]:
        linear = [
            name
            for name, module in self._pipeline.unet.named_modules()
            if isinstance(module, nn.Linear) and name.endswith(_LINEAR)
        ]
        if layers == "all":
            return linear
        return [name for name in linear if ("motion_modules" in name) is (layers == "temporal")]

"""What differs between model families in training: latents, text, one prediction, and which layers see time.

A family takes the loaded text-to-video pipeline and works on its components; nothing here knows about losses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from schemas.errors import VariantLoadError

_LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")


@dataclass(frozen=True)
class Text:
    """Encoded prompts: (batch, tokens, width), and the mask and the pooled text (batch, width) where the family has
    them."""

    embeds: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def pick(self, rows: Tensor) -> "Text":
        """Some of the prompts."""
        mask = None if self.mask is None else self.mask[rows]
        return Text(self.embeds[rows], mask, None if self.pooled is None else self.pooled[rows])


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


def family_of(pipeline: Any, options: Mapping[str, Any] | None = None) -> tuple[Family, nn.Module]:
    """The family of a loaded pipeline and its denoiser. `options` are the variant's `call_options`.

    Raises VariantLoadError with the choices, or saying what the denoiser takes beside the noisy clip.
    """
    name = type(pipeline).__name__
    make = next((made for prefix, made in _FAMILIES.items() if name.startswith(prefix)), None)
    if make is None or name.startswith(_OTHERS):
        raise VariantLoadError(f"no fine-tuning for {name}; available: {', '.join(f'{known}…' for known in _FAMILIES)}")
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    vae = pipeline.vae.config
    latents, taken = vae.get("latent_channels") or vae.get("z_dim"), denoiser.config.in_channels
    if taken != latents:
        raise VariantLoadError(
            f"no fine-tuning for {name}: its denoiser takes {taken} channels, of which a clip's latents are {latents}; "
            "available: the family's text-to-video models"
        )
    return make(pipeline, options or {}), denoiser


def _only_all(layers: str, family: str) -> None:
    if layers != "all":
        raise VariantLoadError(
            f"{family} attends to space and time at once: layers = {layers!r} is not to be had; available: all"
        )


class LtxFamily:
    """LTX-Video: packed latents, a prompt mask, positions in seconds and pixels."""

    def __init__(self, pipeline: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002
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

    def __init__(self, pipeline: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002
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

    def __init__(self, pipeline: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002
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


class AnimateDiffXlFamily(AnimateDiffFamily):
    """The same over SDXL, Hotshot-XL among it: two text encoders, and the sizes that SDXL is told of an image."""

    def __init__(self, pipeline: Any, options: Mapping[str, Any]) -> None:
        super().__init__(pipeline, options)
        self._options = options

    def text(self, prompts: list[str]) -> Text:
        embeds, _, pooled, _ = self._pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
        return Text(embeds, pooled=pooled)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:  # noqa: ARG002
        batch, _, frames, height, width = noisy.shape
        scale = self._pipeline.vae_scale_factor
        size = (height * scale, width * scale)
        # What the pipeline is told when it renders, else the clip's own size, as the pipeline has it.
        told = [
            *self._options.get("original_size", size),
            *self._options.get("crops_coords_top_left", (0, 0)),
            *self._options.get("target_size", size),
        ]
        made: Tensor = self._pipeline.unet(
            noisy,
            timestep.long(),
            text.embeds.repeat_interleave(frames, dim=0),
            added_cond_kwargs={"text_embeds": text.pooled, "time_ids": noisy.new_tensor([told] * batch)},
            return_dict=False,
        )[0]
        return made


class CogVideoXFamily:
    """CogVideoX: frames come before channels, and positions are rotations where the model has them."""

    def __init__(self, pipeline: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002
        self._pipeline = pipeline

    def encode(self, clips: Tensor) -> Tensor:
        pipe = self._pipeline
        latents: Tensor = pipe.vae.encode(clips.to(pipe.vae.dtype)).latent_dist.mode()
        step = pipe.transformer.config.patch_size_t
        if step is not None and latents.shape[2] % step:
            raise VariantLoadError(
                f"frames: the clip has {latents.shape[2]} latent frames, and this CogVideoX takes multiples of {step}"
            )
        return latents * pipe.vae_scaling_factor_image

    def text(self, prompts: list[str]) -> Text:
        pipe = self._pipeline
        length = pipe.transformer.config.max_text_seq_length
        embeds, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=length)
        return Text(embeds)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:  # noqa: ARG002
        _, _, frames, height, width = noisy.shape
        pipe = self._pipeline
        scale = pipe.vae_scale_factor_spatial
        rotations = None
        if pipe.transformer.config.use_rotary_positional_embeddings:
            rotations = pipe._prepare_rotary_positional_embeddings(height * scale, width * scale, frames, noisy.device)
        made: Tensor = pipe.transformer(
            noisy.transpose(1, 2), text.embeds, timestep.long(), image_rotary_emb=rotations, return_dict=False
        )[0]
        return made.transpose(1, 2)

    def target_modules(self, layers: str) -> list[str]:
        _only_all(layers, "CogVideoX")
        return list(_LINEAR)


class HunyuanVideoFamily:
    """HunyuanVideo: two text encoders, and guidance as an input of the network."""

    # Real clips are what no guidance would make; rendering may ask for more.
    _GUIDANCE = 1.0

    def __init__(self, pipeline: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002
        self._pipeline = pipeline

    def encode(self, clips: Tensor) -> Tensor:
        vae = self._pipeline.vae
        latents: Tensor = vae.encode(clips.to(vae.dtype)).latent_dist.mode()
        return latents * vae.config.scaling_factor

    def text(self, prompts: list[str]) -> Text:
        embeds, pooled, mask = self._pipeline.encode_prompt(prompts)
        return Text(embeds, mask, pooled)

    def predict(self, noisy: Tensor, timestep: Tensor, text: Text, fps: float) -> Tensor:  # noqa: ARG002
        transformer = self._pipeline.transformer
        guided = bool(transformer.config.guidance_embeds)
        made: Tensor = transformer(
            noisy,
            timestep,
            text.embeds,
            text.mask,
            text.pooled,
            guidance=noisy.new_full((len(noisy),), self._GUIDANCE * 1000) if guided else None,
            return_dict=False,
        )[0]
        return made

    def target_modules(self, layers: str) -> list[str]:
        _only_all(layers, "HunyuanVideo")
        return [*_LINEAR, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]


# By the beginning of the pipeline's name; the longer one first.
_FAMILIES: Mapping[str, Callable[[Any, Mapping[str, Any]], Family]] = {
    "AnimateDiffSDXL": AnimateDiffXlFamily,
    "AnimateDiff": AnimateDiffFamily,
    "CogVideoX": CogVideoXFamily,
    "HunyuanVideo": HunyuanVideoFamily,
    "LTX": LtxFamily,
    "Wan": WanFamily,
}
# Other models whose names begin so.
_OTHERS = ("LTX2", "HunyuanVideo15")

"""Hotshot-XL with a ControlNet of SDXL: every frame is drawn over an image of its own, its edges or depth for instance.

diffusers has no such pipeline. This one calls the ControlNet right before the UNet, frame by frame on the same noisy
latents, and hands its residuals to the UNet; all else is `AnimateDiffSDXLPipeline`'s.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AnimateDiffSDXLPipeline, ControlNetModel
from diffusers.video_processor import VideoProcessor
from PIL import Image
from torch import Tensor

from models.controlnet import check_fits, load_controlnet


def with_controlnet(pipeline: AnimateDiffSDXLPipeline, folder: Path) -> "HotshotControlNetPipeline":
    """A pipeline over the components of `pipeline` and the ControlNet in `folder` (safetensors, of SDXL).

    Raises VariantLoadError where there is none, or it was made for a UNet of other sizes.
    """
    controlnet = load_controlnet(folder, pipeline.unet.dtype)
    check_fits(controlnet, pipeline.unet, str(folder))
    return HotshotControlNetPipeline(
        **pipeline.components,
        controlnet=controlnet.to(pipeline.device),
        force_zeros_for_empty_prompt=pipeline.config.force_zeros_for_empty_prompt,
    )


class HotshotControlNetPipeline(AnimateDiffSDXLPipeline):
    """`AnimateDiffSDXLPipeline` with a ControlNet."""

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->controlnet->unet->vae"

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        motion_adapter: Any,
        scheduler: Any,
        controlnet: ControlNetModel,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__(
            vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, motion_adapter, scheduler,
            image_encoder, feature_extractor, force_zeros_for_empty_prompt,
        )  # fmt: skip
        self.register_modules(controlnet=controlnet)
        self.control_processor = VideoProcessor(
            vae_scale_factor=self.vae_scale_factor, do_convert_rgb=True, do_normalize=False
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        conditioning_frames: Sequence[Image.Image] | Sequence[Sequence[Image.Image]],
        controlnet_conditioning_scale: float = 1.0,
        control_guidance_start: float = 0.0,
        control_guidance_end: float = 1.0,
        height: int | None = None,
        width: int | None = None,
        **options: Any,
    ) -> Any:
        """Render as `AnimateDiffSDXLPipeline` does, whose `options` these are, over `conditioning_frames`.

        They are the frames of the clip or, for a list of prompts, a list of frames for each; they decide `num_frames`,
        and are scaled to the clip. The ControlNet acts with `controlnet_conditioning_scale` in the steps whose share of
        the way lies between `control_guidance_start` and `control_guidance_end` (0 to 1). Raises ValueError where the
        numbers of frames or of clips do not agree.
        """
        clips = _clips(conditioning_frames)
        prompts = 1 if isinstance(prompt, str) else len(prompt)
        lengths = sorted({len(clip) for clip in clips})
        if len(clips) != prompts or len(lengths) != 1:
            raise ValueError(
                f"conditioning_frames: {len(clips)} clips of {' and '.join(map(str, lengths))} frames for {prompts} "
                "prompts; available: a list of frames for each prompt, all of one length"
            )
        if options.setdefault("num_frames", lengths[0]) != lengths[0]:
            raise ValueError(f"num_frames is {options['num_frames']}, and there are {lengths[0]} conditioning_frames")
        height = height or self.default_sample_size * self.vae_scale_factor
        width = width or self.default_sample_size * self.vae_scale_factor
        images = self.control_processor.preprocess_video(clips, height=height, width=width)
        images = images.transpose(1, 2).to(self._execution_device, self.controlnet.dtype)
        calls = 0

        def add_residuals(_: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
            nonlocal calls
            # As UNet calls are counted: schedulers of second order make two a step.
            done = calls % self.num_timesteps
            calls += 1
            before, after = done / self.num_timesteps, (done + 1) / self.num_timesteps
            if before < control_guidance_start or after > control_guidance_end:
                return None
            return given, {**named, **self._residuals(given[0], given[1], named, images, controlnet_conditioning_scale)}

        hook = self.unet.register_forward_pre_hook(add_residuals, with_kwargs=True)
        try:
            return super().__call__(prompt, height=height, width=width, **options)
        finally:
            hook.remove()

    def _residuals(
        self, sample: Tensor, timestep: Tensor, named: Mapping[str, Any], images: Tensor, scale: float
    ) -> dict[str, Any]:
        """The UNet's further arguments for `sample` (guided or not, so a multiple of the clips in `images`)."""
        frames, dtype = sample.shape[2], self.controlnet.dtype
        text = named["encoder_hidden_states"]
        down, middle = self.controlnet(
            sample.transpose(1, 2).flatten(0, 1).to(dtype),
            timestep,
            encoder_hidden_states=text.to(dtype),
            controlnet_cond=torch.cat([images] * (len(sample) // len(images))).flatten(0, 1),
            conditioning_scale=scale,
            added_cond_kwargs={
                name: named["added_cond_kwargs"][name].repeat_interleave(frames, dim=0)
                for name in ("text_embeds", "time_ids")
            },
            return_dict=False,
        )
        return {
            "down_block_additional_residuals": tuple(part.to(sample.dtype) for part in down),
            "mid_block_additional_residual": middle.to(sample.dtype),
        }


def _signature() -> inspect.Signature:
    """Of a call with the base class's options named, as whoever reads what a call takes wants them."""
    own = inspect.signature(HotshotControlNetPipeline.__call__).parameters
    base = inspect.signature(AnimateDiffSDXLPipeline.__call__).parameters
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, one in base.items() if name not in own]
    return inspect.Signature([*(one for one in own.values() if one.kind is not one.VAR_KEYWORD), *named])


HotshotControlNetPipeline.__call__.__signature__ = _signature()  # type: ignore[attr-defined]


def _clips(frames: Sequence[Any]) -> list[list[Image.Image]]:
    return [list(frames)] if isinstance(frames[0], Image.Image) else [list(clip) for clip in frames]

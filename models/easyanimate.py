"""EasyAnimate with a control video, a camera or a mask: what its classes are given, and what they need to run.

In diffusers 0.42 the control class hands `encode_prompt` an argument that it does not have and decodes by a method that
is missing; the inpainting class reads a setting of its VAE that the VAE's configuration does not have, and cannot add
noise from a list of generators. The classes here are the same with that put right.
"""

from collections.abc import Sequence
from typing import Any, cast

import diffusers
import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from models.guide import Given, as_video, control_of
from models.motion.rays import plucker
from schemas.catalog import Variant
from schemas.inputs import Role
from schemas.motion import Steer
from schemas.task import Group

_MADE_ANEW = 255.0


class EasyAnimateControlPipeline(diffusers.EasyAnimateControlPipeline):
    """diffusers' class, which calls two things that are not there."""

    def encode_prompt(
        self,
        prompt: str | list[str],
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        max_sequence_length: int = 256,
        text_encoder_index: int = 0,  # noqa: ARG002 there is one
    ) -> Any:
        return super().encode_prompt(
            prompt, num_images_per_prompt, do_classifier_free_guidance, negative_prompt, prompt_embeds,
            negative_prompt_embeds, prompt_attention_mask, negative_prompt_attention_mask, device, dtype,
            max_sequence_length,
        )  # fmt: skip

    def decode_latents(self, latents: Tensor) -> Tensor:
        return cast(Tensor, self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0])


class EasyAnimateInpaintPipeline(diffusers.EasyAnimateInpaintPipeline):
    """diffusers' class, with the noise on what is kept from each task's own generator."""

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, transformer: Any, scheduler: Any) -> None:
        super().__init__(vae, text_encoder, tokenizer, transformer, scheduler)
        if vae is not None and "cache_mag_vae" not in vae.config:
            # Its codes have the first frame alone and four frames each of the others; so has the mask.
            vae.register_to_config(cache_mag_vae=True)

    def prepare_mask_latents(
        self,
        mask: Tensor | None,
        masked_image: Tensor,
        batch_size: int,  # noqa: ARG002
        height: int,  # noqa: ARG002
        width: int,  # noqa: ARG002
        dtype: torch.dtype,
        device: torch.device,
        generator: Any,
        do_classifier_free_guidance: bool,  # noqa: ARG002
        noise_aug_strength: float,
    ) -> tuple[Tensor | None, Tensor]:
        shown = masked_image.to(device=device, dtype=dtype)
        if self.transformer.config.add_noise_in_inpaint_model:
            noise = randn_tensor(shown.shape, generator=generator, device=device, dtype=dtype) * noise_aug_strength
            # -1 is what is to be made anew.
            shown = torch.where(shown == -1, shown, shown + noise)
        return None if mask is None else self._encoded(mask.to(device=device, dtype=dtype)), self._encoded(shown)

    def _encoded(self, video: Tensor) -> Tensor:
        codes = [self.vae.encode(one[None])[0].mode() for one in video]
        return torch.cat(codes) * self.vae.config.scaling_factor


def control_arguments(group: Group, given: Given, variant: Variant) -> dict[str, Any]:
    """Of a variant that follows cameras the rays of every frame, also of one that rests: its weights see them in every
    call. Of another its structure, where there is one. The first frame stands beside either."""
    out: dict[str, Any] = {}
    if Steer.CAMERA in variant.steers(group.mode):
        out["control_camera_video"] = torch.from_numpy(plucker(group.camera, group.shape, group.fps))[None]
    for one, media in given:
        if one.role is Role.STRUCTURE:
            out["control_video"] = as_tensor(as_video(media, group.frames))
        elif one.role is Role.FIRST_FRAME:
            out["ref_image"] = as_tensor([cast(Image.Image, media)])
    return out


def inpaint_arguments(group: Group, given: Given) -> dict[str, Any]:
    """What is known, a picture a frame, and a mask of what is to be made anew; nothing where nothing is known."""
    control = control_of(group, given)
    if control is None:
        return {}
    known = list(control.video)
    for one, media in given:
        if one.role is Role.SOURCE:
            # Whole: with a strength below 1 the noise begins from it where it is made anew, too.
            known = as_video(media, group.frames)
    for one, media in given:
        if one.frame is not None:
            known[one.frame] = cast(Image.Image, media)
    return {"video": as_tensor(known), "mask_video": as_tensor(control.mask)[:, :1] * _MADE_ANEW}


def as_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """(1, 3, pictures, height, width) in 0…1."""
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(pixels).permute(3, 0, 1, 2)[None] / 255

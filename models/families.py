"""What a pipeline's call takes, read off its signature; and the few facts that a signature does not say.

diffusers names the same thing in several ways (`num_frames`, `frames`, `video_length`). Everything here is decided by
the names of the parameters, so a family that is not in any table works as long as it uses a known name for each thing.
No torch: the functions take names and values and give back keyword arguments.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.conditions import NEEDED, batch_arguments, one_arguments, told
from models.ip_adapter import style_arguments, without_styles
from models.model import TaskMedia
from schemas.catalog import Variant
from schemas.conditions import carried, classes_with
from schemas.errors import VariantLoadError
from schemas.inputs import FRAMES as FRAME_ROLES
from schemas.inputs import Role
from schemas.parts import Part
from schemas.request import Mode
from schemas.sliding import prompt_of_each_window, slide_of, told_frames
from schemas.task import Group, RenderBatch, Task

# Parameter names for one thing, the preferred first.
FRAMES = ("num_frames", "frames", "video_length")
GUIDANCE = ("guidance_scale", "max_guidance_scale")
RATE = ("frame_rate", "fps")
IMAGE = ("image", "cond_image")
VIDEO = ("video",)
STRENGTH = ("strength",)

# What Rushes itself sets; a catalog's `call_options` may not.
_OURS = {
    "prompt", "negative_prompt", "width", "height", "num_inference_steps", "generator", "output_type", "latents",
    "return_dict", "num_videos_per_prompt", "callback_on_step_end", *FRAMES, *RATE, *IMAGE, *VIDEO, *STRENGTH,
    "last_image", "mask", "reference_images", "conditioning_scale", "conditions", "frame_index",
    "c2w", "action", "intrinsics", "conditioning_frames", "controlnet_conditioning_scale", "controlnet_frame_indices",
    "ip_adapter_image", "ip_adapter_image_embeds",
    "prompt_segments", "seed", "reference_conditions", "conditioning_attention_mask",
    "control_video", "control_video_latents",
    "controls", "controls_conditioning_scale", "num_ar_latent_conditional_frames",
    "control_camera_video", "ref_image", "mask_video", "masked_video_latents",
}  # fmt: skip

# Image pipelines that take a list of images, one a prompt, and were tested to give each prompt its own. The others
# either take one image for the whole batch (HunyuanVideo, LTXCondition) or multiply images with generators (Wan).
_ONE_IMAGE_A_PROMPT = {
    "LTXImageToVideoPipeline",
    "CogVideoXImageToVideoPipeline",
    "StableVideoDiffusionPipeline",
}

_NEVER_BATCHED = {
    # diffusers 0.42: its VAE builds an attention mask that does not broadcast over a batch.
    "HunyuanVideo15Pipeline",
    "HunyuanVideo15ImageToVideoPipeline",
    # One list of frames for all prompts of a call.
    *classes_with(Part.CONTROLNET),
    # Each task has a control video of its own, which is encoded in the call.
    "CogVideoXFunControlPipeline",
    "EasyAnimateControlPipeline",
    # Noise on what it continues from (`addnoise_condition`) is of torch's global generator.
    "SkyReelsV2DiffusionForcingPipeline",
}

# These refuse lists of prompts or of generators, also of one.
_ONE_A_CALL = {
    "WanVACEPipeline",
    "SanaWMPipeline",
    "LTXI2VLongMultiPromptPipeline",
    "HeliosPipeline",
    "HunyuanVideoFramepackPipeline",
    # Takes lists, and of generators uses the first.
    "LTX2ConditionPipeline",
    "LTX2InContextPipeline",
}

# Their output is the one clip, where others give a list of clips.
_BARE_CLIP = {"SanaWMPipeline"}

# Their output is as the VAE gives it: (clips, 3, frames, height, width) in -1…1.
_RAW_CLIPS = {"LTXI2VLongMultiPromptPipeline"}

# They make whole sections, from the end to the given beginning: what is beyond the asked length is left out.
_LONGER = {"HunyuanVideoFramepackPipeline"}

# How the names of arguments end that are pairs of numbers.
_PAIRS = ("original_size", "crops_coords_top_left", "target_size")


@dataclass(frozen=True)
class CallForm:
    """The call of one pipeline class."""

    pipeline: str
    parameters: frozenset[str]
    frames: str | None
    guidance: str | None
    rate: str | None
    image: str | None
    video: str | None
    strength: str | None

    @property
    def takes_prompt(self) -> bool:
        return "prompt" in self.parameters

    @property
    def lists(self) -> bool:
        """True when prompts and generators go in lists."""
        return self.pipeline not in _ONE_A_CALL

    def clips(self, frames: Any, length: int) -> Any:
        """What the call returned, as one clip of `length` frames a task."""
        if self.pipeline in _LONGER:
            return frames[:, :length]
        if self.pipeline in _RAW_CLIPS:
            return list(frames.permute(0, 2, 1, 3, 4) / 2 + 0.5)
        return [frames] if self.pipeline in _BARE_CLIP else frames

    def batches(self, mode: Mode) -> bool:
        """True when one call may hold several tasks of `mode`."""
        if not self.lists:
            return False
        if mode is Mode.TEXT_TO_VIDEO:
            return self.pipeline not in _NEVER_BATCHED
        return mode is Mode.IMAGE_TO_VIDEO and self.pipeline in _ONE_IMAGE_A_PROMPT


def call_form(pipeline: str, call: Callable[..., object]) -> CallForm:
    """Read the form off `call`, the class's `__call__`."""
    names = frozenset(inspect.signature(call).parameters) - {"self", "kwargs"}
    return CallForm(
        pipeline=pipeline,
        parameters=names,
        frames=_first(FRAMES, names),
        guidance=_first(GUIDANCE, names),
        rate=_first(RATE, names),
        image=_first(IMAGE, names),
        video=_first(VIDEO, names),
        strength=_first(STRENGTH, names),
    )


def check_modes(form: CallForm, variant: Variant, mode: Mode) -> None:
    """Refuse at load time what would fail at every call.

    Raises VariantLoadError when the class cannot render `mode` or does not know one of the `call_options`.
    """
    lacks = {
        Mode.TEXT_TO_VIDEO: not form.takes_prompt,
        Mode.IMAGE_TO_VIDEO: form.image is None
        and not (form.pipeline in NEEDED and carried(form.pipeline, mode).roles & FRAME_ROLES),
        Mode.VIDEO_TO_VIDEO: form.video is None
        and not (form.pipeline in NEEDED and Role.SOURCE in carried(form.pipeline, mode).roles),
    }
    if lacks[mode] or not NEEDED.get(form.pipeline, frozenset()) <= form.parameters:
        raise VariantLoadError(
            f"variant {variant.name!r}: {form.pipeline} cannot render {mode.value}; its call takes: "
            + ", ".join(sorted(form.parameters))
        )
    if mode is not variant.modes[0]:
        return
    unknown = sorted(set(variant.call_options) - (form.parameters - _OURS))
    if unknown:
        raise VariantLoadError(
            f"variant {variant.name!r}: {form.pipeline} has no call option {unknown[0]!r}; available: "
            + ", ".join(sorted(form.parameters - _OURS))
        )


def arguments(
    form: CallForm,
    variant: Variant,
    batch: RenderBatch,
    media: Sequence[TaskMedia],
    generators: Sequence[object],
) -> dict[str, Any]:
    """The keyword arguments of one call. Lists are as long as the batch, also when it is of one task, except for the
    classes that take no lists.

    A negative prompt goes along for every task, empty or not: if it went only when some task has one, a task's
    clip would depend on its batch mates. Raises MediaError when a task lacks what its mode needs, RenderError when a
    strength leaves no step to take.
    """
    group = batch.group
    out: dict[str, Any] = {k: v for k, v in call_options(variant.call_options).items() if k in form.parameters}
    if form.takes_prompt:
        out["prompt"] = [task.prompt for task in batch.tasks]
    if "negative_prompt" in form.parameters:
        out["negative_prompt"] = [task.negative_prompt for task in batch.tasks]
    _put(out, form, "width", group.width)
    _put(out, form, "height", group.height)
    _put(out, form, "num_inference_steps", group.steps)
    _put(out, form, "generator", list(generators))
    _put(out, form, "output_type", "pt")
    if form.frames is not None:
        out[form.frames] = told_frames(form.pipeline, out, group.frames, variant.latent.temporal)
    if form.guidance is not None:
        out[form.guidance] = group.guidance
    if form.guidance == "max_guidance_scale":
        # Stable Video Diffusion ramps from the first frame to the last; the ramp may not fall.
        out["min_guidance_scale"] = min(1.0, group.guidance)
    if form.rate is not None:
        out[form.rate] = _rate(form.rate, group)
    if not form.lists:
        for name in out.keys() & {"prompt", "negative_prompt", "generator"}:
            (out[name],) = out[name]
    if "prompt_segments" in form.parameters:
        out |= _segments(form, variant, group, batch.tasks[0])
    out.update(_media(form, variant, group, batch.tasks, media))
    return out


def _segments(form: CallForm, variant: Variant, group: Group, task: Task) -> dict[str, Any]:
    """Which window has which prompt. Without a seed of its own, which would be of the device, the class draws all
    windows' noise from the task's generator, one after the other."""
    slide = slide_of(form.pipeline, variant.call_options, group.frames, variant.latent.temporal)
    told = prompt_of_each_window(slide, group.turns)
    segments = [
        {"start_window": window, "end_window": window, "text": task.prompts[turn]} for window, turn in enumerate(told)
    ]
    return {"seed": None, "prompt_segments": segments}


def _media(
    form: CallForm, variant: Variant, group: Group, tasks: Sequence[Task], media: Sequence[TaskMedia]
) -> dict[str, Any]:
    if variant.ip_adapter is not None:
        styled = style_arguments(group, told(group, tasks[0], media[0]))
        rest = without_styles(group, media)
        return {**_media(form, variant.model_copy(update={"ip_adapter": None}), rest[0], tasks, rest[1]), **styled}
    if len(tasks) == 1:
        own = one_arguments(form.pipeline, group, tasks[0], media[0], variant)
        if own is not None:
            return own
    given = [told(group, task, one) for task, one in zip(tasks, media, strict=True)]
    out = batch_arguments(form.image, form.video, form.strength, variant.strength, group, given)
    if not form.batches(group.mode):
        for name in out.keys() & {form.image, form.video}:
            (out[name],) = out[name]
    return out


def call_options(said: Mapping[str, Any]) -> dict[str, Any]:
    """A catalog's `call_options` in the types that pipelines want: lists, but pairs for SDXL's sizes, which it joins
    with pairs of its own."""
    return {k: list(v) if isinstance(v, tuple) and not k.endswith(_PAIRS) else v for k, v in said.items()}


def _rate(parameter: str, group: Group) -> float | int:
    # `fps` is a micro-condition of trained whole values; `frame_rate` is a number to divide by.
    return max(1, round(group.fps)) if parameter == "fps" else group.fps


def _put(out: dict[str, Any], form: CallForm, name: str, value: object) -> None:
    if name in form.parameters:
        out[name] = value


def _first(candidates: Sequence[str], names: frozenset[str]) -> str | None:
    return next((name for name in candidates if name in names), None)

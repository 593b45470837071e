"""From a group's conditions and a task's media to the arguments of the class that takes them.

| class | how |
| --- | --- |
| `WanVACEPipeline` | a control video, a mask beside it (white: made anew), reference images, one scale for all |
| LTX's and LTX-2's `…ConditionPipeline` | images, each with its frame and strength; the camera's views are among them |
| `LTX2InContextPipeline` | the same, and videos or images that it sees beside the clip, each with its strength |
| `CogVideoXFunControlPipeline` | `control_video`, one picture a frame |
| `WanImageToVideoPipeline`, `HunyuanVideoFramepackPipeline` | `image` and `last_image` |
| `Cosmos2_5_TransferPipeline` | `controls`, one picture a frame, and a scale |
| `EasyAnimateControlPipeline` | `control_video`, or the camera as rays of every pixel; `ref_image` is the first frame |
| `EasyAnimateInpaintPipeline` | a video, and a mask beside it; `strength` |
| `SanaWMPipeline` | `image`, and the camera as matrices: where it is, and its lens |
| AnimateDiff's with a ControlNet, Hotshot-XL's | `conditioning_frames`, one a frame, and a scale; a `video` beside it |
| `AnimateDiffSparseControlNetPipeline` | `conditioning_frames`, and which frames of the clip they are |
| the others | `image`; or `video`, and `strength` where there is one |

`schemas.conditions` says what each of them can be told; a request that gets here was held against it. No torch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from models.guide import Given, as_video, control_of, keyframes_of
from models.model import Pictures, TaskMedia
from models.motion.camera import camera_to_world, intrinsics
from schemas.catalog import Variant
from schemas.conditions import Condition
from schemas.errors import MediaError, RenderError, VariantLoadError
from schemas.inputs import Role
from schemas.motion import Steer
from schemas.request import Mode
from schemas.sliding import COSMOS_TRANSFER, chunk_of
from schemas.task import Group, Task

# What the calls of the classes that have a way of their own must take.
_CONTROL = frozenset({"conditioning_frames", "controlnet_conditioning_scale"})
NEEDED = {
    "AnimateDiffControlNetPipeline": _CONTROL,
    "AnimateDiffVideoToVideoControlNetPipeline": _CONTROL | {"video", "strength"},
    "AnimateDiffSparseControlNetPipeline": _CONTROL | {"controlnet_frame_indices"},
    "HotshotControlNetPipeline": _CONTROL,
    "WanVACEPipeline": frozenset({"video", "mask", "reference_images", "conditioning_scale"}),
    "LTXConditionPipeline": frozenset({"conditions"}),
    "LTX2ConditionPipeline": frozenset({"conditions"}),
    "LTX2InContextPipeline": frozenset({"conditions", "reference_conditions"}),
    "WanImageToVideoPipeline": frozenset({"image", "last_image"}),
    "HunyuanVideoFramepackPipeline": frozenset({"image", "last_image"}),
    "SanaWMPipeline": frozenset({"image", "c2w", "intrinsics"}),
    "CogVideoXFunControlPipeline": frozenset({"control_video"}),
    COSMOS_TRANSFER: frozenset({"controls", "controls_conditioning_scale", "num_frames_per_chunk"}),
    "EasyAnimateControlPipeline": frozenset({"control_video", "control_camera_video", "ref_image"}),
    "EasyAnimateInpaintPipeline": frozenset({"video", "mask_video", "strength"}),
}


def one_arguments(pipeline: str, group: Group, task: Task, media: TaskMedia, variant: Variant) -> dict[str, Any] | None:
    """The arguments of a call for one task on a class of `NEEDED`; None for the other classes.

    Raises MediaError when there are fewer media than conditions.
    """
    make = _MAKERS.get(pipeline)
    return None if make is None else make(group, told(group, task, media), variant)


def told(group: Group, task: Task, media: TaskMedia) -> tuple[tuple[Condition, Pictures], ...]:
    """The conditions with their media. Raises MediaError when there are fewer media than conditions."""
    missing = group.conditions[len(media.inputs) :]
    if missing:
        raise MediaError(f"task {task.fingerprint}: {group.mode.value} needs {missing[0].role.value!r}")
    return tuple(zip(group.conditions, media.inputs, strict=True))


def _only(role: Role, group: Group, given: Given) -> list[Image.Image]:
    """The one input of a class that cannot be called without it, a picture a frame. Raises MediaError."""
    found = [media for one, media in given if one.role is role]
    if not found:
        raise MediaError(f"this model's call needs a {role}")
    return as_video(found[0], group.frames)


def check_weights(variant: Variant, mode: Mode, pipe: Any) -> None:
    """Refuse what the class carries and these weights do not. Raises VariantLoadError."""
    own = getattr(pipe, "vae_temporal_compression_ratio", variant.latent.temporal)
    if type(pipe).__name__ in ("LTX2ConditionPipeline", "LTX2InContextPipeline") and own != variant.latent.temporal:
        # Keyframes would stand at other frames than those that are said.
        raise VariantLoadError(
            f"variant {variant.name!r}: latent.temporal is {variant.latent.temporal}, and these weights make {own} "
            f"frames of a latent one; available: {own}"
        )
    smaller = _reference_factor(variant)
    if type(pipe).__name__ == "LTX2InContextPipeline" and smaller > 1:
        divides = pipe.vae_spatial_compression_ratio * smaller
        if variant.shape.divisor % divides:
            raise VariantLoadError(
                f"variant {variant.name!r}: shape.divisor is {variant.shape.divisor}: what is seen beside the clip is "
                f"{smaller} times smaller, and must divide too; available: {divides}"
            )
    cannot = Role.LAST_FRAME in variant.roles(mode) and type(pipe).__name__ == "WanImageToVideoPipeline"
    if cannot and pipe.config.get("expand_timesteps"):
        raise VariantLoadError(
            f"variant {variant.name!r}: conditions: weights with expand_timesteps (Wan 2.2 5B) take no last_frame; "
            "available: first_frame"
        )
    if type(pipe).__name__ in _BESIDE:
        _check_channels(variant, mode, pipe)


_RAYS = 6  # numbers of a pixel's ray
# What each class shows its transformer beside the noisy latents, in channels; `latents` are those of one video.
_BESIDE: dict[str, Callable[[int], dict[int, str]]] = {
    "CogVideoXFunControlPipeline": lambda latents: {latents: "structure"},
    "EasyAnimateControlPipeline": lambda latents: {2 * latents: "structure", latents + _RAYS: "camera"},
    "EasyAnimateInpaintPipeline": lambda latents: {latents + 1: "mask", 2 * latents: "mask"},
    "LucyEditPipeline": lambda latents: {latents: "source"},
}


def _check_channels(variant: Variant, mode: Mode, pipe: Any) -> None:
    config = pipe.vae.config  # of which Wan's calls them otherwise
    latents = config.z_dim if "z_dim" in config else config.latent_channels
    takes, can = pipe.transformer.config.in_channels, _BESIDE[type(pipe).__name__](latents)
    shown = can.get(takes - latents)
    if shown is None:
        able = ", ".join(str(latents + channels) for channels in can)
        raise VariantLoadError(
            f"variant {variant.name!r}: its transformer takes {takes} channels, {latents} of them the clip's latents; "
            f"with what {type(pipe).__name__} shows beside them, available: {able}"
        )
    said = {*variant.roles(mode), *variant.steers(mode)}
    other = {Role.STRUCTURE: "structure", Steer.CAMERA: "camera"}
    for one, name in other.items():
        if one in said and name != shown:
            raise VariantLoadError(
                f"variant {variant.name!r}: conditions: these weights follow no {name}; available: {shown}"
            )
    if shown == "camera" and Steer.CAMERA not in said:
        # They see the rays in every call, and nobody would tell them any.
        raise VariantLoadError(
            f"variant {variant.name!r}: conditions: these weights are told the camera: name 'camera'"
        )


def _vace(group: Group, given: Given, variant: Variant) -> dict[str, Any]:
    shown = [cast(Image.Image, media) for one, media in given if one.role in (Role.REFERENCE, Role.STYLE)]
    out: dict[str, Any] = {}
    control = control_of(group, given, variant.path_guide)
    if control is not None:
        out["video"], out["mask"] = list(control.video), list(control.mask)
    if shown:
        out["reference_images"] = shown
    strengths = [one.strength for one, _ in given if one.strength is not None]
    if strengths:
        out["conditioning_scale"] = strengths[0]
    return out


def _ltx(group: Group, given: Given, _: Variant) -> dict[str, Any]:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    placed = [
        LTXVideoCondition(image=picture, frame_index=frame, strength=1.0 if strength is None else strength)
        for frame, picture, strength in keyframes_of(group, given)
    ]
    return {"conditions": placed} if placed else {}


def _ltx2(group: Group, given: Given, variant: Variant) -> dict[str, Any]:
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    # Its index counts latent frames, which would put a picture up to `temporal` - 1 frames early. A fraction of one is
    # the very frame, as in the model's own code: its place is `temporal` times the index, and a power of two is exact.
    temporal = variant.latent.temporal
    placed = [
        LTX2VideoCondition(
            frames=picture,
            index=0 if frame == 0 else cast(int, 1 + (frame - 1) / temporal),
            strength=1.0 if strength is None else strength,
        )
        for frame, picture, strength in keyframes_of(group, given)
    ]
    return {"conditions": placed} if placed else {}


def _ltx2_in_context(group: Group, given: Given, variant: Variant) -> dict[str, Any]:
    from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition

    seen = [
        LTX2ReferenceCondition(
            frames=media if one.role is Role.REFERENCE else as_video(media, group.frames),
            strength=1.0 if one.strength is None else one.strength,
        )
        for one, media in given
        if one.role in (Role.STRUCTURE, Role.SOURCE, Role.REFERENCE)
    ]
    return {**_ltx2(group, given, variant), **({"reference_conditions": seen} if seen else {})}


def check_adapter(variant: Variant, file: Path) -> None:
    """Refuse a LoRA that was trained on videos of another size beside the clip than they would have. Raises
    VariantLoadError."""
    from safetensors import safe_open

    if "LTX2InContextPipeline" not in {variant.pipeline_for(mode) for mode in variant.modes}:
        return
    with safe_open(file, "np") as opened:
        trained = (opened.metadata() or {}).get("reference_downscale_factor")
    if trained is not None and int(float(trained)) != _reference_factor(variant):
        raise VariantLoadError(
            f"variant {variant.name!r}: {file.name} was trained on references {trained} times smaller; "
            f"available: call_options = {{ reference_downscale_factor = {trained} }}"
        )


def _reference_factor(variant: Variant) -> int:
    return int(cast(int, variant.call_options.get("reference_downscale_factor", 1)))


def _first_and_last(group: Group, given: Given, _: Variant) -> dict[str, Any]:  # noqa: ARG001
    names = {Role.FIRST_FRAME: "image", Role.LAST_FRAME: "last_image"}
    return {names[one.role]: media for one, media in given}


def _cog_control(group: Group, given: Given, _: Variant) -> dict[str, Any]:
    return {"control_video": _only(Role.STRUCTURE, group, given)}


def _cosmos_transfer(group: Group, given: Given, variant: Variant) -> dict[str, Any]:
    return {
        "controls": _only(Role.STRUCTURE, group, given),
        "controls_conditioning_scale": _scale(given[0][0]),
        # It always renders whole windows: of a clip that is shorter the rest would be left out.
        "num_frames_per_chunk": min(chunk_of(variant.call_options), group.frames),
    }


def _easy_control(group: Group, given: Given, variant: Variant) -> dict[str, Any]:
    from models.easyanimate import control_arguments

    return control_arguments(group, given, variant)


def _easy_inpaint(group: Group, given: Given, _: Variant) -> dict[str, Any]:
    from models.easyanimate import inpaint_arguments

    out = inpaint_arguments(group, given)
    for one, _media in given:
        if one.role is Role.SOURCE:
            out["strength"] = _share_made_anew(group, one)
    return out


def _sana_world(group: Group, given: Given, _: Variant) -> dict[str, Any]:
    lens = intrinsics(group.camera, group.shape, group.fps).astype(np.float32)
    return {
        "image": given[0][1],
        "c2w": camera_to_world(group.camera, group.frames, group.fps).astype(np.float32),
        # Focal lengths and the principal point, a frame each.
        "intrinsics": np.stack([lens[:, 0, 0], lens[:, 1, 1], lens[:, 0, 2], lens[:, 1, 2]], axis=1),
    }


def _controlled(group: Group, given: Given, _: Variant) -> dict[str, Any]:
    out: dict[str, Any] = {}
    # The call wants frames in any case. Without a structure they count nothing: the clip is the plain class's.
    shown, scale = [_black(group)] * group.frames, 0.0
    for one, media in given:
        if one.role is Role.SOURCE:
            out["video"] = as_video(media, group.frames)
            out["strength"] = _share_made_anew(group, one)
        else:
            shown, scale = as_video(media, group.frames), _scale(one)
    return {**out, "conditioning_frames": shown, "controlnet_conditioning_scale": scale}


def _sparse(group: Group, given: Given, _: Variant) -> dict[str, Any]:
    placed = keyframes_of(group, given)
    strengths = [one.strength for one, _ in given if one.strength is not None]
    return {
        "conditioning_frames": [one.picture for one in placed] or [_black(group)],
        "controlnet_frame_indices": [one.frame for one in placed] or [0],
        "controlnet_conditioning_scale": float((strengths or [1.0])[0]) if placed else 0.0,
    }


def _scale(condition: Condition) -> float:
    return 1.0 if condition.strength is None else float(condition.strength)


def _black(group: Group) -> Image.Image:
    return Image.new("RGB", (group.width, group.height))


_MAKERS: dict[str, Callable[[Group, Given, Variant], dict[str, Any]]] = {
    "WanVACEPipeline": _vace,
    "LTXConditionPipeline": _ltx,
    "LTX2ConditionPipeline": _ltx2,
    "LTX2InContextPipeline": _ltx2_in_context,
    "WanImageToVideoPipeline": _first_and_last,
    "HunyuanVideoFramepackPipeline": _first_and_last,
    "SanaWMPipeline": _sana_world,
    "CogVideoXFunControlPipeline": _cog_control,
    COSMOS_TRANSFER: _cosmos_transfer,
    "EasyAnimateControlPipeline": _easy_control,
    "EasyAnimateInpaintPipeline": _easy_inpaint,
    "AnimateDiffControlNetPipeline": _controlled,
    "AnimateDiffVideoToVideoControlNetPipeline": _controlled,
    "AnimateDiffSparseControlNetPipeline": _sparse,
    "HotshotControlNetPipeline": _controlled,
}


def batch_arguments(
    image: str | None,
    video: str | None,
    strength: str | None,
    usual_strength: float,
    group: Group,
    given: Sequence[tuple[tuple[Condition, Pictures], ...]],
) -> dict[str, Any]:
    """The arguments of a call for several tasks, by the names that the class has for an image, a video and a strength.

    Raises RenderError when a strength leaves no step to take, or is asked of a class that has none.
    """
    out: dict[str, Any] = {}
    for place, condition in enumerate(group.conditions):
        media = [one[place][1] for one in given]
        if condition.role is Role.FIRST_FRAME and image is not None:
            out[image] = media
        elif condition.role is Role.SOURCE and video is not None:
            out[video] = [as_video(one, group.frames) for one in media]
        else:
            raise RenderError(f"this model's call takes no {condition.role.value}")
        if condition.strength is None or condition.role is not Role.SOURCE:
            continue
        if strength is None:
            if condition.strength != usual_strength:
                raise RenderError("this model's call takes no strength of a source")
            continue
        out[strength] = _share_made_anew(group, condition)
    return out


def _share_made_anew(group: Group, condition: Condition) -> float:
    """A source's strength. Raises RenderError where it leaves no step to take."""
    share = condition.strength or 1.0
    if int(group.steps * share) < 1:
        # diffusers would denoise nothing, and fail on an empty list of timesteps.
        raise RenderError(f"strength {share} of {group.steps} steps leaves none; at least {1 / group.steps:.2g}")
    return share

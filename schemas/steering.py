"""A shot's motion on one variant: what its class needs beside it, and what cannot go together."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from schemas.directions import moved_axes
from schemas.errors import Issue
from schemas.inputs import FRAMES, InputSpec, Role
from schemas.motion import CameraKey, Edit, Path, Steer, absolute_camera, absolute_path
from schemas.request import Settings

# Classes that have one control video, in which only one thing can be shown at a place.
_ONE_CONTROL = frozenset({"WanVACEPipeline"})
# Classes that are shown the camera's views as keyframes, as they take pictures at frames and nothing else.
SHOWN_VIEWS = frozenset({"LTXConditionPipeline", "LTX2ConditionPipeline", "LTX2InContextPipeline"})
# What the camera moves over, by class.
_VIEWS = {
    "WanVACEPipeline": (Role.FIRST_FRAME, Role.SOURCE),
    **dict.fromkeys(SHOWN_VIEWS, (Role.FIRST_FRAME,)),
}

# Classes whose weights know the camera by how it moved since the clip began.
_FROM_THE_BEGINNING = frozenset({"EasyAnimateControlPipeline"})
# Classes that see of a source what a mask spares, and what a strength below 1 leaves of it.
_SEES_WHAT_IS_KEPT = frozenset({"EasyAnimateInpaintPipeline"})


class Steering(NamedTuple):
    """Motion and edit as a group holds them: keys are absolute and say everything, an edit that changes nothing is
    none."""

    camera: tuple[CameraKey, ...] = ()
    paths: tuple[Path, ...] = ()
    edit: Edit | None = None


def steering_of(settings: Settings) -> Steering:
    """The canonical form of what a request says."""
    return Steering(
        absolute_camera(settings.camera),
        tuple(map(absolute_path, settings.paths)),
        settings.edit if settings.edit is not None and settings.edit.changes else None,
    )


def steers_in(settings: Settings) -> tuple[Steer, ...]:
    """What of its motion a request says."""
    return tuple(s for s, said in ((Steer.CAMERA, settings.camera), (Steer.PATHS, settings.paths)) if said)


def edit_issues(settings: Settings, roles: Collection[Role]) -> tuple[Issue, ...]:
    """What is wrong with an edit whichever variant renders it."""
    edit, found = settings.edit, []
    if edit is not None and Role.SOURCE not in roles:
        text = "says how a source is changed, and there is no source"
        found.append(Issue("edit", text, "missing", (Role.SOURCE.value,)))
    if edit is not None and edit.region is not None and Role.MASK in roles:
        found.append(Issue("edit.region", "is a mask, and there is one among the inputs", "twice"))
    return tuple(found)


def range_issues(settings: Settings, frames: int, fps: float) -> tuple[Issue, ...]:
    """Keys that a clip of so many frames does not reach."""
    end_s = frames / fps
    said = [(f"camera.{number}", key.at_s) for number, key in enumerate(settings.camera)]
    said += [
        (f"paths.{place}.keys.{number}", key.at_s)
        for place, path in enumerate(settings.paths)
        for number, key in enumerate(path.keys)
    ]
    return tuple(
        Issue(f"{where}.at_s", f"{at_s:g} s is after the end: the clip is {end_s:.3f} s long", "range")
        for where, at_s in said
        if at_s > end_s + 1e-6
    )


def steering_issues(
    settings: Settings,
    pipeline: str,
    roles: Sequence[Role],
    takes: Collection[Role],
    key_frames: Collection[int],
    frames: int,
    fps: float,
) -> tuple[Issue, ...]:
    """What this class needs beside a motion that it can follow, and what it cannot show together.

    `roles` are those of the inputs, `takes` those that the variant takes; `key_frames` are frames that inputs give.
    """
    found: list[Issue] = []
    camera, edit = settings.camera, settings.edit
    if edit is not None and edit.region is not None and Role.MASK not in takes:
        found.append(
            Issue("edit.region", f"{pipeline} makes the whole of a source anew: it takes no mask", "not_taken")
        )
    if camera:
        views = _VIEWS.get(pipeline, ())
        if views and not set(views) & set(roles):
            needs = " or ".join(views)
            found.append(Issue("camera", f"moves over a {needs}, and there is none", "missing", views))
        rest = absolute_camera(camera)[0]
        if (Role.FIRST_FRAME in roles or pipeline in _FROM_THE_BEGINNING) and not _rests(rest):
            begins = "with the first_frame" if Role.FIRST_FRAME in roles else "where the camera stands"
            text = f"the clip begins {begins}: there the camera rests at 0 s"
            found.append(Issue("camera.0", text, "conflict"))
        if pipeline in SHOWN_VIEWS:
            taken = [frame for frame in view_frames(absolute_camera(camera), frames, fps) if frame in key_frames]
            if taken:
                text = f"at frame {taken[0]} the camera's view is a keyframe, and an input is one too"
                found.append(Issue("camera", text, "twice"))
    if pipeline in _ONE_CONTROL:
        found += _one_control(settings, roles)
    return tuple(found)


def unseen_source_issues(
    pipeline: str, inputs: Sequence[InputSpec], edit: Edit | None, usual_strength: float
) -> tuple[Issue, ...]:
    """A source of which this class would see nothing."""
    source = next((spec for spec in inputs if spec.role is Role.SOURCE), None)
    masked = any(spec.role is Role.MASK for spec in inputs) or (edit is not None and edit.region is not None)
    if source is None or masked or pipeline not in _SEES_WHAT_IS_KEPT or (source.strength or usual_strength) < 1:
        return ()
    text = f"nothing of it would be seen: {pipeline} makes all of it anew; a mask or a strength below 1 keeps some"
    return (Issue(source.at("role"), text, "missing", (Role.MASK.value, "edit.region", "strength")),)


def _rests(key: CameraKey) -> bool:
    return not moved_axes((key,))


def _one_control(settings: Settings, roles: Sequence[Role]) -> list[Issue]:
    region = settings.edit is not None and settings.edit.region is not None
    beside = [role for role in (Role.STRUCTURE, Role.MASK) if role in roles]
    if settings.camera and (beside or region or settings.paths):
        other = beside[0].value if beside else "edit.region" if region else "paths"
        return [Issue("camera", f"there is one control video: it shows the camera's view or {other}", "conflict")]
    if settings.paths and Role.STRUCTURE in roles:
        return [Issue("paths", "there is one control video: it shows a structure or the boxes of paths", "conflict")]
    if settings.paths and Role.SOURCE in roles and Role.MASK not in roles and not region:
        text = "beside a source, boxes need a mask or edit.region that says where they hold"
        return [Issue("paths", text, "conflict", (Role.MASK.value, "edit.region"))]
    return []


def view_frames(camera: Sequence[CameraKey], frames: int, fps: float) -> tuple[int, ...]:
    """The frames at which the camera's view is a keyframe, where a class takes nothing else: of the keys after the
    beginning."""
    return tuple(min(round(key.at_s * fps), frames - 1) for key in camera if key.at_s > 0)


def views_added(pipeline: str, camera: Sequence[CameraKey]) -> int:
    """Latent frames that the model sees beside the clip's own, of the camera's views."""
    return sum(key.at_s > 0 for key in camera) if pipeline in SHOWN_VIEWS else 0


def frames_given(roles_and_frames: Sequence[tuple[Role, int | None]]) -> frozenset[int]:
    """The frames that inputs give."""
    return frozenset(frame for role, frame in roles_and_frames if role in FRAMES and frame is not None)

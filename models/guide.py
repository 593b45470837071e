"""What a model is shown of a directed shot: a control video with its mask, or keyframes. Everything that a group says
of motion and edits becomes pictures here, so that it can be looked at before anything is rendered. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from PIL import Image

from models.model import Pictures
from models.motion.boxes import drawn
from models.motion.warp import edged, warped
from schemas.conditions import Condition
from schemas.inputs import Role
from schemas.motion import Box, PathGuide
from schemas.steering import SHOWN_VIEWS, view_frames
from schemas.task import Group

_WHITE, _BLACK, _GRAY = (255, 255, 255), (0, 0, 0), (128, 128, 128)

Given = Sequence[tuple[Condition, Pictures]]


@dataclass(frozen=True)
class Guide:
    """As many frames as the clip has, in its size: what is shown, and where it is white it is made anew."""

    video: tuple[Image.Image, ...]
    mask: tuple[Image.Image, ...]


class Keyframe(NamedTuple):
    """A picture that stands at a frame. The strength is the input's; None where it says none."""

    frame: int
    picture: Image.Image
    strength: float | None


def guide_of(pipeline: str, group: Group, given: Given, path_guide: PathGuide = PathGuide.BOXES) -> Guide | None:
    """What a call of this class is shown, as a video with a mask; None when nothing is."""
    if pipeline in ("WanVACEPipeline", "EasyAnimateInpaintPipeline"):
        return control_of(group, given, path_guide)
    keyframes = keyframes_of(group if pipeline in SHOWN_VIEWS else _at_rest(group), given)
    # Of a structure beside a source the structure: the source is what the clip begins from.
    timed = [media for role in (Role.STRUCTURE, Role.SOURCE) for one, media in given if one.role is role]
    if timed:
        return Guide(tuple(as_video(timed[0], group.frames)), (_plain(group, _WHITE),) * group.frames)
    if not keyframes:
        return None
    video, mask = [_plain(group, _GRAY)] * group.frames, [_plain(group, _WHITE)] * group.frames
    for one in keyframes:
        video[one.frame], mask[one.frame] = one.picture, _plain(group, _BLACK)
    return Guide(tuple(video), tuple(mask))


def control_of(group: Group, given: Given, path_guide: PathGuide = PathGuide.BOXES) -> Guide | None:
    """The control video and mask of a class that has one; None when nothing is to be shown.

    What is to be made anew is blanked out, or shows its structure, as in VACE's own preparation: what was there before
    would be taken for what should be there. Paths are a structure, `edit.region` is a mask. With a camera it
    is the first frame, or the source, as the camera sees it; what was uncovered is made anew.
    """
    videos = _videos(group, given)
    known = {one.frame: cast(Image.Image, media) for one, media in given if one.frame is not None}
    if group.paths:
        videos[Role.STRUCTURE] = drawn(group.paths, group.shape, group.fps, path_guide)
    if not videos and not known:
        return None
    if group.camera:
        seen = videos.get(Role.SOURCE) or [known[0]] * group.frames
        video, where = warped(seen, group.camera, group.shape, group.fps, _GRAY)
        mask = [Image.fromarray(~there).convert("RGB") for there in where]
    else:
        video, mask = _composed(videos, group)
    for frame, image in known.items():
        video[frame], mask[frame] = image, _plain(group, _BLACK)
    return Guide(tuple(video), tuple(mask))


def spared_of(group: Group, given: Given) -> Guide | None:
    """The source, and white where it is to be made anew: what is black is in the clip as it was. None without a mask;
    with a camera, which moves the source, what is kept is where the model puts it. A frame that is given is all new."""
    videos = _videos(group, given)
    source, mask = videos.get(Role.SOURCE), videos.get(Role.MASK)
    if source is None or mask is None or group.camera:
        return None
    known = {one.frame for one, _ in given}
    sharp = [_black_or_white(frame) for frame in mask]
    anew = _black_or_white(_plain(group, _WHITE))
    return Guide(tuple(source), tuple(anew if frame in known else one for frame, one in enumerate(sharp)))


def keyframes_of(group: Group, given: Given) -> list[Keyframe]:
    """The frames that are given, and where there is a camera what it sees of the first one at each of its keys. What it
    uncovers repeats the picture's edge: there is no mask to say that nobody knows."""
    found = [
        Keyframe(one.frame or 0, cast(Image.Image, media), one.strength)
        for one, media in given
        if one.frame is not None
    ]
    first = next((one for one in found if one.frame == 0), None)
    if first is None or not group.camera:
        return found
    frames = view_frames(group.camera, group.frames, group.fps)
    views = edged(first.picture, group.camera, group.shape, group.fps, frames)
    return [*found, *(Keyframe(frame, view, first.strength) for frame, view in zip(frames, views, strict=True))]


def _at_rest(group: Group) -> Group:
    return group.model_copy(update={"camera": ()})


def _videos(group: Group, given: Given) -> dict[Role, list[Image.Image]]:
    videos = {one.role: as_video(media, group.frames) for one, media in given if _is_timed(one)}
    if group.edit is not None and group.edit.region is not None:
        videos[Role.MASK] = [_region(group, group.edit.region)] * group.frames
    return videos


def as_video(media: Pictures, frames: int) -> list[Image.Image]:
    """A video; an image as one that stands still."""
    return [media] * frames if isinstance(media, Image.Image) else list(media)


def _composed(videos: dict[Role, list[Image.Image]], group: Group) -> tuple[list[Image.Image], list[Image.Image]]:
    source, mask, structure = (videos.get(role) for role in (Role.SOURCE, Role.MASK, Role.STRUCTURE))
    gray = [_plain(group, _GRAY)] * group.frames
    if source is None or mask is None:
        return list(source or structure or gray), [_plain(group, _WHITE)] * group.frames
    inside = structure or gray
    sharp = [_black_or_white(frame) for frame in mask]
    control = [Image.composite(*frames) for frames in zip(inside, source, sharp, strict=True)]
    return control, [frame.convert("RGB") for frame in sharp]


def _region(group: Group, region: Box) -> Image.Image:
    left, top, right, bottom = region
    mask = _plain(group, _BLACK)
    across, down = group.width, group.height
    mask.paste(_WHITE, (round(left * across), round(top * down), round(right * across), round(bottom * down)))
    return mask


def _plain(group: Group, colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (group.width, group.height), colour)


def _black_or_white(frame: Image.Image) -> Image.Image:
    return frame.convert("L").point(lambda value: 255 if value > 127 else 0)  # the pipeline's own threshold


def _is_timed(condition: Condition) -> bool:
    return condition.role in (Role.SOURCE, Role.MASK, Role.STRUCTURE)

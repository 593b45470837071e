"""Drawings of poses as OpenPose makes them, which ControlNets for poses were trained with: limbs and joints in fixed
colours on black. From COCO's 17 keypoints; the neck, which those have not, is between the shoulders."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

KEYPOINTS = 17
LEAST_SCORE = 0.3
"""Keypoints below are not seen."""
_SHOULDERS, _NECK = (5, 6), KEYPOINTS
_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip
# By COCO's numbers, in OpenPose's order: of joints, and of the limbs between them, which are a little darker.
_JOINTS = (0, _NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_LIMBS = (
    (_NECK, 6), (_NECK, 5), (6, 8), (8, 10), (5, 7), (7, 9), (_NECK, 12), (12, 14), (14, 16), (_NECK, 11), (11, 13),
    (13, 15), (_NECK, 0), (0, 2), (2, 4), (0, 1), (1, 3),
)  # fmt: skip
_LIMB_SHARE = 0.6
# Of the shorter side, as OpenPose's 4 pixels of 512.
_JOINT_SHARE = 4 / 512


class Keypoint(NamedTuple):
    """Pixels from the left upper corner, and how sure the model is, from 0."""

    x: float
    y: float
    score: float


def drawn(people: Sequence[Sequence[Keypoint]], width: int, height: int) -> Image.Image:
    """A picture of the people, each by its 17 keypoints in COCO's order."""
    image = Image.new("RGB", (width, height))
    canvas = ImageDraw.Draw(image)
    radius = max(1.0, _JOINT_SHARE * min(width, height))
    for person in people:
        points = {number: one for number, one in enumerate(person) if one.score >= LEAST_SCORE}
        if all(one in points for one in _SHOULDERS):
            left, right = (points[one] for one in _SHOULDERS)
            middle = ((left.x + right.x) / 2, (left.y + right.y) / 2)
            points[_NECK] = Keypoint(*middle, min(left.score, right.score))
        for (one, other), colour in zip(_LIMBS, _COLOURS, strict=False):
            if one in points and other in points:
                dark = tuple(round(_LIMB_SHARE * value) for value in colour)
                canvas.line([points[one][:2], points[other][:2]], fill=dark, width=round(2 * radius))
        for joint, colour in zip(_JOINTS, _COLOURS, strict=True):
            if joint in points:
                x, y, _ = points[joint]
                canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image

"""Who scores: an object of yours by entry point, of the same shape as the built-in word list and classifiers.

A scorer is what a callable without arguments returns, named in the entry points of its package:

    [project.entry-points."rushes.moderation"]
    mine = "my_package.moderation:scorer"

In settings it is named by that name, or by its value (`my_package.moderation:scorer`) where it is no package.
"""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from schemas import entry_points
from schemas.errors import ConfigError

GROUP = "rushes.moderation"

Scores = Mapping[str, float]
"""By category, from 0 (surely not) to 1 (surely). A category that is not named has 0."""


@runtime_checkable
class TextScorer(Protocol):
    """Scores prompts."""

    def score_text(self, prompts: Sequence[str]) -> Sequence[Scores]:
        """One entry a prompt. What it raises, or takes too long for, is the failure of these prompts alone."""
        ...


@runtime_checkable
class FrameScorer(Protocol):
    """Scores pictures: frames of a clip that was rendered, of an input video, or an input image as one frame."""

    def score_frames(self, frames: npt.NDArray[np.uint8]) -> Sequence[Scores]:
        """One entry a frame of (frames, height, width, 3), red green blue, 0…255. As `score_text`."""
        ...


def find_scorer(name: str) -> TextScorer | FrameScorer:
    """The scorer of that name. Raises ConfigError that says what there would be, or what is wrong with it."""
    made = entry_points.made(entry_point(name), "scorer")
    if not isinstance(made, TextScorer | FrameScorer):
        raise ConfigError(f"scorer {name!r}: {type(made).__name__} has neither score_text nor score_frames")
    return made


def entry_point(name: str) -> EntryPoint:
    """Where the scorer is made. Loads nothing. Raises ConfigError for a name that is none."""
    try:
        return entry_points.find(GROUP, name, f"scorers: unknown {name!r}", more=", or module:attribute")
    except ConfigError:
        if ":" in name:
            return EntryPoint(name, name, GROUP)
        raise


def checked(scores: Any, count: int) -> tuple[dict[str, float], ...]:
    """What a scorer returned for `count` prompts or frames. Raises ValueError that says why it is nonsense."""
    if isinstance(scores, str | bytes | Mapping) or not isinstance(scores, Sequence):
        raise ValueError(f"returned {type(scores).__name__}, not a list of scores by category")
    if len(scores) != count:
        raise ValueError(f"returned {len(scores)} entries for {count}")
    return tuple(_checked_one(one) for one in scores)


def _checked_one(scores: Any) -> dict[str, float]:
    if not isinstance(scores, Mapping):
        raise ValueError(f"returned {type(scores).__name__}, not scores by category")
    found: dict[str, float] = {}
    for category, score in scores.items():
        if not isinstance(category, str) or not category:
            raise ValueError(f"returned a category that is no name: {category!r:.40}")
        try:
            value = float(score)
        except (TypeError, ValueError) as error:
            raise ValueError(f"returned {score!r:.40} for {category!r:.40}, not a number") from error
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise ValueError(f"returned {value:g} for {category!r:.40}, not a number from 0 to 1")
        found[category] = value
    return found

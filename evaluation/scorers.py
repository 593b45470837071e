"""Scorers of others: what says how good a clip is for its prompt.

A scorer of yours is an object that a callable without arguments returns, named in the entry points of its package:

    [project.entry-points."rushes.scorers"]
    aesthetics = "my_package.scoring:scorer"
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas import entry_points
from schemas.errors import ConfigError

GROUP = "rushes.scorers"
Pictures = NDArray[np.uint8]
"""Frames of a clip, evenly taken: (pictures, height, width, 3), 8-bit RGB, small."""


class Scorer(Protocol):
    """What `score` raises counts as a clip that could not be scored, and is told of."""

    @property
    def name(self) -> str:
        """Of the metric: letters, digits and underscores."""

    @property
    def revision(self) -> str:
        """What decides its scores, such as a digest of its weights: kept scores are of one revision."""

    @property
    def better(self) -> int:
        """1 where more is better, -1 where less is, 0 where neither is."""

    @property
    def meaning(self) -> str:
        """In a few words, with the unit."""

    def score(self, pictures: Pictures, prompt: str) -> float:
        """Of one clip. Called from one thread."""


def find_scorer(name: str) -> Scorer:
    """The scorer of an entry point. Raises ConfigError that says what there would be."""
    made: Scorer = entry_points.made(entry_points.find(GROUP, name, f"--scorer: unknown {name!r}"), "--scorer")
    try:
        told = (made.name, made.revision, made.better, made.meaning)
    except Exception as error:
        raise ConfigError(f"--scorer {name!r}: {type(error).__name__}: {error}") from error
    if not str(told[0]).isidentifier():
        raise ConfigError(f"--scorer {name!r}: its name {told[0]!r} is not letters, digits and underscores")
    return made

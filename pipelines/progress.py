"""How far a run is, and what ends all of it."""

from dataclasses import dataclass

from schemas.errors import RushesError


class RunStoppedError(RushesError):
    """The run was ended for a reason that concerns all of it."""


@dataclass(frozen=True)
class Progress:
    """What came back so far."""

    clips: int = 0
    failed: int = 0
    elapsed_s: float = 0.0
    texts_encoded: int = 0
    texts_reused: int = 0

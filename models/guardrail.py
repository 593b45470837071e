"""The guardrail of Cosmos: who looks at the prompt and at the clip inside the call, as its license asks for.

NVIDIA's license ends for who leaves it out, so a variant of these classes loads with it or not at all. It is the
package `cosmos_guardrail`, which is not ours to install: it fetches its own weights into the hub's cache when the
variant is loaded. What it refuses is refused as by moderation: the classes would return a black clip.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ModerationRefusedError, VariantLoadError
from schemas.moderation import Finding, ModeratedPart, Moderation, ModerationOutcome

PACKAGE = "cosmos_guardrail"
Frames = NDArray[np.uint8]


class Guardrail:
    """`checker`, whose refusals are raised."""

    def __init__(self, checker: Any) -> None:
        self._checker = checker

    def to(self, device: Any) -> None:
        self._checker.to(device)

    def check_text_safety(self, prompt: str) -> bool:
        """True. Raises ModerationRefusedError for a prompt that is refused."""
        if not self._checker.check_text_safety(prompt):
            raise _refused(ModeratedPart.INPUT_TEXT)
        return True

    def check_video_safety(self, frames: Frames) -> Frames:
        """The frames (n, height, width, 3), faces blurred. Raises ModerationRefusedError for a clip that is refused."""
        seen = self._checker.check_video_safety(frames)
        if seen is None:
            raise _refused(ModeratedPart.OUTPUT_VIDEO)
        return np.asarray(seen)


def load_guardrail(pipeline: str) -> Guardrail:
    """Raises VariantLoadError where the package is not installed, or its weights cannot be had."""
    try:
        from cosmos_guardrail import CosmosSafetyChecker  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        text = f"{pipeline} loads with its guardrail only, as the license of its weights asks for"
        raise VariantLoadError(f"{text}: pip install {PACKAGE} ({error})") from error
    return Guardrail(CosmosSafetyChecker())


def _refused(part: ModeratedPart) -> ModerationRefusedError:
    finding = Finding(part=part, outcome=ModerationOutcome.REFUSE, scorer=PACKAGE, category="unsafe", score=1.0)
    return ModerationRefusedError(Moderation(findings=(finding,)))

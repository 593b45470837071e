"""A safety classifier that does what prompts and pictures tell it, in whichever process it is asked."""

import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NAME = "tests.scripted_scorer:ScriptedScorer"
RED, AMBER = (255, 0, 0), (255, 140, 0)
"""Colours of pictures that it would refuse, and flag."""


class ScriptedScorer:
    """`violence` of a prompt with FORBIDDEN in it is 0.99, with DOUBTFUL 0.6; of a picture as RED and AMBER say. A
    prompt with RAISE, QUOTE, HANG, DIE or NONSENSE in it has it do that."""

    def score_text(self, prompts: Sequence[str]) -> list[dict[str, float]]:
        for prompt in prompts:
            if "RAISE" in prompt:
                raise RuntimeError("the prompt said so")
            if "QUOTE" in prompt:
                raise ValueError(f"cannot read {prompt!r}, {prompt}" if "2" in prompt else f"cannot read {prompt}")
            if "HANG" in prompt:
                threading.Event().wait()
            if "DIE" in prompt:
                os._exit(3)
        scores = [
            {"violence": 0.99 if "FORBIDDEN" in prompt else 0.6 if "DOUBTFUL" in prompt else 0.01}
            | ({"public_figure": 0.9} if "FAMOUS" in prompt else {})
            for prompt in prompts
        ]
        return scores[1:] if any("NONSENSE" in prompt for prompt in prompts) else scores

    def score_frames(self, frames: npt.NDArray[np.uint8]) -> list[dict[str, float]]:
        return [{"violence": self._of(frame)} for frame in frames]

    def _of(self, frame: npt.NDArray[np.uint8]) -> float:
        near = {name: np.abs(frame.astype(int) - colour).mean() < 24 for name, colour in {"r": RED, "a": AMBER}.items()}
        return 0.99 if near["r"] else 0.6 if near["a"] else 0.01

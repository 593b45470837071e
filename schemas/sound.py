"""Which classes make sound with their pictures, and what files can hold it."""

from collections.abc import Mapping
from typing import Any

from schemas.clip import ClipFormat

# diffusers 0.42: their output has `audio` beside `frames`, of the clip's length.
SOUNDING = frozenset({"LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline", "LTX2InContextPipeline"})
FORMATS = (ClipFormat.MP4, ClipFormat.WEBM)


def passes_with_sound(options: Mapping[str, Any], guided: bool) -> int:
    """How often a step of LTX-2 runs its model on one clip: twice where its pictures or its sound are guided, once more
    with some attention left out, and once with pictures and sound apart. All that is on unless the entry's
    `call_options` turn it off."""

    def scale(name: str, usual: float) -> float:
        return float(options.get(name, usual))

    guided = guided or scale("audio_guidance_scale", 7.0) > 1
    skipping = max(scale("stg_scale", 1.0), scale("audio_stg_scale", 1.0)) > 0
    apart = max(scale("modality_scale", 3.0), scale("audio_modality_scale", 3.0)) > 1
    return 1 + guided + skipping + apart

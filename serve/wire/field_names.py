"""What the bodies call the fields of `schemas.request.Request` and of constraints."""

from collections.abc import Mapping

from schemas.request import Request

WIRE_NAMES: Mapping[str, str] = {
    "variant": "model",
    "mode": "model",
    "prompt": "promptText",
    "negative_prompt": "negativePrompt",
    "image": "promptImage",
    "video": "videoUri",
    "strength": "strength",
    "width": "ratio",
    "height": "ratio",
    "num_frames": "duration",
    "duration_s": "duration",
    "num_inference_steps": "numInferenceSteps",
    "guidance_scale": "guidanceScale",
    "at_s": "atSeconds",  # of keys
    "from_s": "fromSeconds",  # of prompts
    "max_credits": "maxCredits",
    "min_quality": "minQuality",
    "allow": "allowModels",
    "deny": "denyModels",
}

_BESIDE_INPUT = frozenset({"priority", "id", "metadata"})
# As `generate/video` calls them: a dot leads into an object.
GENERATE_NAMES: Mapping[str, str] = {
    **WIRE_NAMES,
    **{name: f"input.{WIRE_NAMES.get(name, name)}" for name in Request.model_fields if name not in _BESIDE_INPUT},
    "variant": "configId",
    "mode": "configId",
    "allow": "configId",
    "image": "input.referenceImages",
    "video": "input.referenceVideos",
    "width": "input.resolution",
    "height": "input.resolution",
    "ratio": "input.aspectRatio",
}

"""How well a clip fits its prompt, by a model of the user's that was trained on pictures with captions: CLIP, SigLIP.

The score is the mean cosine of the prompt's embedding and each frame's (Radford et al., "Learning transferable visual
models from natural language supervision", 2021; over frames as in Wu et al., "GODIVA", 2021). It says something beside
other scores of the same model, and nothing by itself.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.weights import Weights, WeightsStore, download_transformers, explain, find_weights
from schemas.errors import RushesError, VariantLoadError


@dataclass(frozen=True)
class Agreement:
    """A loaded model that scores clips. Not thread-safe."""

    revision: str
    _model: Any = field(repr=False)
    _processor: Any = field(repr=False)
    name: str = "agreement"
    better: int = 1
    meaning: str = "mean cosine of prompt and frames"

    def score(self, pictures: NDArray[np.uint8], prompt: str) -> float:
        """Of frames (pictures, height, width, 3) of 8-bit RGB, in [-1, 1]. A prompt is cut to what the model reads."""
        import torch

        inputs = self._processor(
            text=[prompt], images=list(pictures), return_tensors="pt", padding="max_length", truncation=True
        )
        with torch.inference_mode():
            found = self._model(**inputs.to(self._model.device))
        text, images = (
            torch.nn.functional.normalize(e.float(), dim=-1) for e in (found.text_embeds, found.image_embeds)
        )
        return float((images @ text[0]).mean())


def load_agreement(
    source: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    cache: Path | None = None,
    store: WeightsStore | None = None,
) -> Agreement:
    """The model at `source`, as a catalog names weights: a folder, `owner/name` of the hub, `s3://…`. Safetensors only,
    no code that comes with it. Raises VariantLoadError where it cannot be loaded or has no picture and text towers."""
    weights = find_weights(source, revision, cache=cache, store=store, download=download_transformers)
    try:
        return _loaded(source, weights, device)
    except RushesError:
        raise
    except Exception as error:
        raise VariantLoadError(f"{source}: {explain(error)}") from error


def _loaded(source: str, weights: Weights, device: str | None) -> Agreement:
    import torch
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(
        str(weights.folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        raise VariantLoadError(
            f"{source}: {type(model).__name__} does not compare pictures with text; CLIP and SigLIP do"
        )
    processor = AutoProcessor.from_pretrained(str(weights.folder), local_files_only=True, trust_remote_code=False)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Agreement(f"{source}@{weights.revision}", model.to(chosen).eval(), processor)

"""Safety classifiers of transformers: of texts and of pictures, from a folder, an object store or the hub.

Only safetensors are read and no code that comes with them runs (`models.weights`). What the labels say is the model's
own: each is a category, in lower case, but for the harmless ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.loader import quieten
from models.weights import Weights, WeightsStore, download_transformers, explain, find_weights
from schemas.errors import RushesError, VariantLoadError

_BATCH = 32
_MOST_TOKENS = 512  # where a tokenizer names no limit


@dataclass(frozen=True)
class ClassifierSource:
    """Where a classifier comes from, and where it runs: `cpu` or `cuda`."""

    source: str
    revision: str | None = None
    device: str = "cpu"
    harmless: tuple[str, ...] = ()


class TextClassifier:
    """A sequence classifier of transformers with its tokenizer. A prompt that is longer than the model reads is read in
    windows that overlap by half; the highest score of each category counts."""

    def __init__(
        self, source: ClassifierSource, *, cache: Path | None = None, store: WeightsStore | None = None
    ) -> None:
        """Raises VariantLoadError that names the source; errors of the store pass through."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        def load(folder: str) -> tuple[Any, Any]:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if not tokenizer.is_fast:
                raise VariantLoadError("its tokenizer has no tokenizer.json, by which long prompts are read in windows")
            return _model(AutoModelForSequenceClassification, folder), tokenizer

        self._loaded, self._tokenizer = _load(source, load, cache, store)

    @property
    def categories(self) -> tuple[str, ...]:
        return self._loaded.categories

    def score_text(self, prompts: Sequence[str]) -> list[dict[str, float]]:
        """One entry a prompt: each category's probability."""
        if not prompts:
            return []
        limit = min(self._tokenizer.model_max_length, self._loaded.most_tokens)
        read = self._tokenizer(
            list(prompts),
            truncation=True,
            max_length=limit,
            stride=(limit - self._tokenizer.num_special_tokens_to_add()) // 2,
            return_overflowing_tokens=True,
        )
        of_prompt = read.pop("overflow_to_sample_mapping")
        scores = np.zeros((len(prompts), len(self.categories)))
        for first in range(0, len(of_prompt), _BATCH):
            windows = {name: values[first : first + _BATCH] for name, values in read.items()}
            padded = self._tokenizer.pad(windows, return_tensors="pt")
            found = self._loaded.probabilities(dict(padded))
            np.maximum.at(scores, np.asarray(of_prompt[first : first + _BATCH]), found)
        return self._loaded.named(scores)


class FrameClassifier:
    """An image classifier of transformers with its image processor."""

    def __init__(
        self, source: ClassifierSource, *, cache: Path | None = None, store: WeightsStore | None = None
    ) -> None:
        """As `TextClassifier`."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        def load(folder: str) -> tuple[Any, Any]:
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return _model(AutoModelForImageClassification, folder), processor

        self._loaded, self._processor = _load(source, load, cache, store)

    @property
    def categories(self) -> tuple[str, ...]:
        return self._loaded.categories

    def score_frames(self, frames: npt.NDArray[np.uint8]) -> list[dict[str, float]]:
        """One entry a frame of (frames, height, width, 3), 0…255: each category's probability."""
        scores = [
            self._loaded.probabilities(dict(self._processor(images=list(part), return_tensors="pt")))
            for part in (frames[first : first + _BATCH] for first in range(0, len(frames), _BATCH))
        ]
        return self._loaded.named(np.concatenate(scores)) if scores else []


@dataclass(frozen=True)
class _Loaded:
    """A model in evaluation mode; `columns` are the outputs that are categories."""

    model: Any
    device: str
    is_multi_label: bool
    columns: tuple[int, ...]
    categories: tuple[str, ...]

    @property
    def most_tokens(self) -> int:
        most = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa has two positions that stand for padding: 514 of them are 512 tokens.
        return _MOST_TOKENS if most is None else int(most) - 2 * (most % 64 == 2)

    def probabilities(self, inputs: dict[str, Any]) -> npt.NDArray[np.float64]:
        """(inputs, categories)."""
        import torch

        with torch.inference_mode():
            logits = self.model(**{name: value.to(self.device) for name, value in inputs.items()}).logits.float()
            found = logits.sigmoid() if self.is_multi_label else logits.softmax(-1)
        chosen: npt.NDArray[np.float64] = found.cpu().numpy().astype(np.float64)[:, list(self.columns)]
        return chosen

    def named(self, scores: npt.NDArray[np.float64]) -> list[dict[str, float]]:
        return [dict(zip(self.categories, map(float, row), strict=True)) for row in scores]


def _load(
    source: ClassifierSource,
    load: Callable[[str], tuple[Any, Any]],
    cache: Path | None,
    store: WeightsStore | None,
) -> tuple[_Loaded, Any]:
    """(the model, what prepares its inputs)."""
    import torch

    quieten()
    if source.device.startswith("cuda") and not torch.cuda.is_available():
        raise VariantLoadError(f"classifier {source.source}: device {source.device!r}: no CUDA device; available: cpu")
    try:
        weights: Weights = find_weights(
            source.source, source.revision, cache=cache, store=store, download=download_transformers
        )
        model, prepares = load(str(weights.folder))
        model = model.to(source.device).eval()
    except VariantLoadError as error:
        raise VariantLoadError(f"classifier {source.source}: {error}") from error
    except RushesError:
        raise
    except Exception as error:
        raise VariantLoadError(f"classifier {source.source}: {explain(error)}") from error
    labels = {int(index): str(label).lower() for index, label in model.config.id2label.items()}
    if all(label == f"label_{index}" for index, label in labels.items()):
        raise VariantLoadError(f"classifier {source.source}: its labels have no names: which of them is harmful?")
    columns = tuple(index for index, label in sorted(labels.items()) if label not in source.harmless)
    if not columns:
        raise VariantLoadError(
            f"classifier {source.source}: all of its labels are harmless: {', '.join(labels.values())}"
        )
    config = model.config
    is_multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
    categories = tuple(labels[index] for index in columns)
    return _Loaded(model, source.device, is_multi_label, columns, categories), prepares


def _model(kind: Any, folder: str) -> Any:
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False)

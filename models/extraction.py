"""Structures of plain pictures: edges by OpenCV, depth and poses by models of transformers that the catalog names.

What was found is kept in a folder of the node's cache by the pixels that went in and by how it was found, so that a
video whose depth is known is not looked at again, whichever row or request brings it.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.model import Frames, Pictures
from models.pose import KEYPOINTS, Keypoint, drawn
from models.weights import WeightsStore, download_transformers, explain, find_weights
from schemas.errors import ConfigError, RushesError, VariantLoadError
from schemas.extract import Extraction

log = logging.getLogger(__name__)

_BATCH = 8  # frames in one call of a network

Find = Callable[[Frames], Frames]
Told = Callable[[int], dict[str, Any]]


def _nothing(_: int) -> dict[str, Any]:
    return {}


class Extractors:
    """Finds structures on one machine, on `device`. Thread-safe: one at a time. Nothing is loaded before it is needed.

    `cache` is where results are kept; None keeps none. `store` fetches `s3://` weights.
    """

    def __init__(self, cache: Path | None = None, store: WeightsStore | None = None, device: str = "cpu") -> None:
        self._cache, self._store, self._device = cache, store, device
        self._loaded: dict[Extraction, Find] = {}
        self._lock = threading.Lock()
        self.found = 0
        """Structures that were looked for, and not taken from the cache."""

    def __call__(self, how: Extraction, media: Pictures) -> Pictures:
        """The structure of a picture, or of every frame of a video, in the same size.

        Raises ConfigError where a library is missing, VariantLoadError for weights that cannot be read.
        """
        frames = [media] if isinstance(media, Image.Image) else list(media)
        pixels = np.stack([np.asarray(frame.convert("RGB")) for frame in frames])
        kept = self._kept(how, pixels)
        shown = _read(kept, pixels.shape)
        if shown is None:
            with self._lock:
                shown = self._find(how)(pixels)
                self.found += 1
            _write(kept, shown)
        made = tuple(Image.fromarray(frame) for frame in shown)
        return made[0] if isinstance(media, Image.Image) else made

    def _find(self, how: Extraction) -> Find:
        if how not in self._loaded:
            self._loaded[how] = _METHODS[how.method](how, self._weights(how), self._device)
        return self._loaded[how]

    def _weights(self, how: Extraction) -> Path | None:
        if how.weights is None:
            return None
        found = find_weights(
            how.weights, how.revision, cache=self._cache, store=self._store, download=download_transformers
        )
        return found.folder

    def _kept(self, how: Extraction, pixels: Frames) -> Path | None:
        if self._cache is None:
            return None
        hasher = hashlib.sha256(f"{how.model_dump_json()} {pixels.shape}".encode())
        hasher.update(np.ascontiguousarray(pixels).data)
        return self._cache / "structures" / f"{hasher.hexdigest()[:32]}.npz"


def _canny(how: Extraction, folder: Path | None, device: str) -> Find:  # noqa: ARG001
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("edges are found by OpenCV: pip install 'rushes[structure]'") from error

    def find(pixels: Frames) -> Frames:
        edges = [cv2.Canny(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), how.low, how.high) for one in pixels]
        return np.repeat(np.stack(edges)[..., None], 3, axis=3).astype(np.uint8)

    return find


def _depth(how: Extraction, folder: Path | None, device: str) -> Find:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    processor, model = _transformer(how, folder, device, AutoImageProcessor, AutoModelForDepthEstimation)

    def find(pixels: Frames) -> Frames:
        maps = [
            processor.post_process_depth_estimation(outputs, target_sizes=[pixels.shape[1:3]] * len(part))
            for part, outputs in _called(model, processor, pixels, device)
        ]
        depth = np.stack([one["predicted_depth"].float().cpu().numpy() for part in maps for one in part])
        return np.repeat(_as_bytes(depth)[..., None], 3, axis=3)

    return find


def _pose(how: Extraction, folder: Path | None, device: str) -> Find:
    import torch
    from transformers import AutoImageProcessor, VitPoseForPoseEstimation

    processor, model = _transformer(how, folder, device, AutoImageProcessor, VitPoseForPoseEstimation)
    keypoints = model.config.num_labels
    if keypoints != KEYPOINTS:
        text = f"pose of {how.weights}: it finds {keypoints} keypoints; available: models of COCO's {KEYPOINTS}"
        raise VariantLoadError(text)
    # Those that were trained on several data sets are told which: COCO is the first.
    of_several = model.config.backbone_config.num_experts > 1

    def told(count: int) -> dict[str, Any]:
        return {"dataset_index": torch.zeros(count, dtype=torch.long, device=device)} if of_several else {}

    def find(pixels: Frames) -> Frames:
        height, width = pixels.shape[1:3]
        # One person a picture, whom all of it shows.
        everywhere = [[0.0, 0.0, float(width), float(height)]]

        def processed(count: int) -> dict[str, Any]:
            return {"boxes": [everywhere] * count}

        shown = []
        for part, outputs in _called(model, processor, pixels, device, processed, told):
            for people in processor.post_process_pose_estimation(outputs, **processed(len(part))):
                said = [
                    [
                        Keypoint(x, y, score)
                        for (x, y), score in zip(one["keypoints"].tolist(), one["scores"].tolist(), strict=True)
                    ]
                    for one in people
                ]
                shown.append(np.asarray(drawn(said, width, height)))
        return np.stack(shown)

    return find


def _as_bytes(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The nearest white, the farthest black, over the whole video: a range of its own for each frame would flicker."""
    least, most = float(depth.min()), float(depth.max())
    share = (depth - least) / (most - least) if most > least else np.zeros_like(depth)
    return (share * 255).round().astype(np.uint8)


def _called(
    model: Any, processor: Any, pixels: Frames, device: str, processed: Told = _nothing, told: Told = _nothing
) -> Iterator[tuple[Frames, Any]]:
    """(frames, what the model says of them), a few at a time. `processed` and `told`: what the processor and the model
    are given beside so many frames."""
    import torch

    for first in range(0, len(pixels), _BATCH):
        part = pixels[first : first + _BATCH]
        given = processor(images=list(part), return_tensors="pt", **processed(len(part))).to(device)
        with torch.inference_mode():
            outputs = model(**given, **told(len(part)))
        yield part, outputs


def _transformer(how: Extraction, folder: Path | None, device: str, processor: Any, model: Any) -> tuple[Any, Any]:
    from models.loader import quieten

    quieten()
    try:
        return (
            processor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False),
            model.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True)
            .eval()
            .to(device),
        )
    except RushesError:
        raise
    except Exception as error:  # what transformers raises for a folder of something else
        raise VariantLoadError(f"{how.method} of {how.weights}: {explain(error)}") from error


def _read(path: Path | None, shape: tuple[int, ...]) -> Frames | None:
    """What was kept; None where nothing was, or it is damaged."""
    if path is None:
        return None
    with suppress(Exception), np.load(path, allow_pickle=False) as kept:
        found: Frames = kept["frames"]
        if found.shape == shape and found.dtype == np.uint8:
            return found
    return None


def _write(path: Path | None, frames: Frames) -> None:
    if path is None:
        return
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez_compressed(file, frames=frames)
        os.replace(part, path)
    except OSError as error:
        log.warning("%s: a structure is not kept: %s", path, error)
        part.unlink(missing_ok=True)


_METHODS: Mapping[str, Callable[[Extraction, Path | None, str], Find]] = {
    "canny": _canny,
    "depth": _depth,
    "pose": _pose,
}

"""Whoever does a finishing stage, by the catalog's entry: frames in, frames out.

A stage takes a clip and gives the one that the stage says: its size, its frames, its rate. Networks are read from
safetensors alone and kept once loaded: for single frames (`spandrel`, with the `finish` extra) or for clips as wholes
(`latent`).
"""

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.latent_upsampler import Larger, latent_upsampler
from models.model import Frames
from models.motion.warp import reframed
from models.resample import blended, fitted, moved, scaled
from models.weights import WeightsStore
from schemas.errors import BadOutputError, ConfigError, VariantLoadError
from schemas.finish import FLOOR, NETWORKS, Finisher, FinishStage, Operation


class Finishing:
    """Does stages on one device. Thread-safe: networks are called one at a time. `cache` and `store` are where `s3://`
    weights are kept and had from."""

    def __init__(
        self,
        finishers: Mapping[str, Finisher] = FLOOR,
        device: str = "cpu",
        cache: Path | None = None,
        store: WeightsStore | None = None,
    ) -> None:
        self._finishers, self._device, self._cache, self._store = finishers, device, cache, store
        self._networks: dict[str, Larger] = {}
        self._lock = threading.Lock()

    def finisher(self, stage: FinishStage) -> Finisher:
        """Who does it. Raises ConfigError for one that this catalog does not have."""
        found = self._finishers.get(stage.by)
        if found is None or stage.operation not in found.operations:
            able = ", ".join(name for name, one in self._finishers.items() if stage.operation in one.operations)
            raise ConfigError(f"nobody called {stage.by!r} does {stage.operation}; available: {able}")
        return found

    def apply(self, stage: FinishStage, frames: Frames, fps: float) -> Frames:
        """The clip after `stage`, of one at `fps`.

        Raises ConfigError for a finisher that is not there or lacks its library, VariantLoadError for weights that
        cannot be read, BadOutputError where it is not what the stage says.
        """
        method = self.finisher(stage).method
        if stage.operation is Operation.INTERPOLATE:
            between = moved if method == "motion" else blended
            out = between(frames, fps, stage.fps, stage.frames)
        elif stage.operation is Operation.FIT:
            out = fitted(frames, stage.width, stage.height, stage.fit or "pad")
        elif stage.operation is Operation.REFRAME:
            out = reframed(frames, stage.camera, fps, stage.width, stage.height)
        elif method in NETWORKS:
            out = scaled(self._enlarged(stage, frames), stage.width, stage.height)
        else:
            out = scaled(frames, stage.width, stage.height)
        wanted = (stage.frames, stage.height, stage.width, 3)
        if out.shape != wanted:
            raise BadOutputError(f"{stage.told}: it came to {out.shape}, not {wanted}")
        return out

    def _enlarged(self, stage: FinishStage, frames: Frames) -> Frames:
        """Through the network as often as the size needs; what is too large then is scaled down."""
        by = self.finisher(stage)
        with self._lock:
            network = self._networks.get(by.name)
            if network is None:
                network = self._networks[by.name] = self._loaded(by)
            while frames.shape[1] < stage.height or frames.shape[2] < stage.width:
                larger = network(frames, max(stage.height / frames.shape[1], stage.width / frames.shape[2]))
                if larger.shape[1] <= frames.shape[1]:
                    raise BadOutputError(f"{by.name}: its network makes nothing larger")
                frames = larger
        return frames

    def _loaded(self, by: Finisher) -> Larger:
        """What makes a clip larger."""
        if by.method == "spandrel":
            return partial(_frame_by_frame, _network(by, self._device), self._device)
        try:
            return latent_upsampler(str(by.weights), self._device, self._cache, self._store, by.steps)
        except VariantLoadError as error:
            raise VariantLoadError(f"{by.name}: {error}") from error


def _network(by: Finisher, device: str) -> Any:
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError as error:
        raise ConfigError(f"{by.name}: networks for frames need spandrel: pip install 'rushes[finish]'") from error
    except RuntimeError as error:
        # spandrel imports torchvision, whose wheels fit one build of torch each.
        raise ConfigError(f"{by.name}: torchvision is of another build than torch here: {error}") from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(str(by.weights)).expanduser()
    if path.suffix != ".safetensors":
        raise VariantLoadError(f"{by.name}: {path.name}: only .safetensors are read")
    try:
        found = ModelLoader(device=device).load_from_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise VariantLoadError(f"{by.name}: {path}: cannot be read: {error}") from error
    except Exception as error:  # what spandrel raises for weights that it does not know
        raise VariantLoadError(f"{by.name}: {path}: no network that spandrel knows: {error}") from error
    if not isinstance(found, ImageModelDescriptor):
        raise VariantLoadError(f"{by.name}: {path}: not a network from one picture to another")
    return found.eval()


def _frame_by_frame(network: Any, device: str, frames: Frames, _: float) -> Frames:
    return np.stack([_through(network, one, device) for one in frames])


def _through(network: Any, pixels: Frames, device: str) -> Frames:
    import torch

    with torch.inference_mode():
        given = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1)[None].float() / 255
        made = network(given)[0].clamp(0, 1).mul(255).round().to(torch.uint8)
    out: Frames = made.permute(1, 2, 0).cpu().numpy()
    return out

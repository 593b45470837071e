"""What a training needs to go on where it was stopped: `state.pt` in its folder, replaced as a whole."""

import time
from pathlib import Path
from typing import Any

import torch


class Checkpoints:
    """The state of one training, kept every so often."""

    def __init__(self, folder: Path, every_s: float) -> None:
        self.path = folder / "state.pt"
        self._every_s, self._kept = every_s, time.monotonic()

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """What was kept last, on the device; None where nothing was."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        return state

    @property
    def due(self) -> bool:
        """Whether it is time to keep the next one."""
        return time.monotonic() - self._kept > self._every_s

    def keep(self, state: dict[str, Any]) -> None:
        """Write it. Stopped meanwhile, the one before is still there."""
        self._kept = time.monotonic()
        new = self.path.with_suffix(".tmp")
        torch.save(state, new)
        new.replace(self.path)

"""Video features from TorchScript files: the I3D of FVD, an Inception applied frame by frame, or any other.

Files are given by path and never fetched. Common ones: `i3d_torchscript.pt` (the FVD of StyleGAN-V, Skorokhodov et al.,
2022) and `inception-2015-12-05.pt` (the FID of StyleGAN3). Both are called with `rescale`/`resize` done here.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from training.metrics import Clips


@dataclass(frozen=True)
class TorchScriptFeatures:
    """Features of a scripted network.

    `per_frame` networks get (frames, 3, size, size); their outputs are averaged over the clip and joined with the
    mean absolute change from frame to frame; the others get (1, 3, frames, size, size). Input range is [-1, 1].
    """

    path: Path
    per_frame: bool = False
    size_px: int = 224
    min_frames: int = 16
    device: str = "cpu"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.stem

    @torch.no_grad()
    def __call__(self, clips: Clips) -> NDArray[np.float64]:
        """(clips, width of the network's output, twice that when `per_frame`)."""
        if not self.path.is_file():
            raise FileNotFoundError(f"feature network {self.path}: no such file; give the path of a TorchScript file")
        network = torch.jit.load(str(self.path), map_location=self.device).eval()
        rows = []
        for clip in clips:
            x = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float().to(self.device)
            x = F.interpolate(x, (self.size_px, self.size_px), mode="bilinear", antialias=True) / 127.5 - 1
            if len(x) < self.min_frames and not self.per_frame:
                x = torch.cat([x, x[-1:].expand(self.min_frames - len(x), -1, -1, -1)])
            if self.per_frame:
                each = network(x).flatten(1)
                change = each.diff(dim=0).abs().mean(0) if len(each) > 1 else torch.zeros_like(each[0])
                rows.append(torch.cat([each.mean(0), change]))
            else:
                rows.append(network(x.transpose(0, 1)[None]).flatten())
        return torch.stack(rows).double().cpu().numpy()

"""Convolutions over time and plane on a CPU: torch has a fast kernel for them, and often does not take it.

For one video, `conv3d` goes to oneDNN only where channels × frames × rows come to more than 20,480 numbers, or the
kernel is wider than 3, and else to a path of torch's own that makes 3 to 10 GFLOP/s. A VAE that goes through a video
in chunks of a few frames is nearly always below that bound. Called directly, oneDNN is up to 15 times as fast on such
shapes (`benchmarks/vae_cpu.py`; [0039](../docs/decisions/0039-vaes-on-a-cpu.md)), and sums the same products in another
order: results differ by rounding.

Only `forward`'s inner step and the layout of weights are changed: modules, their classes, names and values stay.
"""

from math import prod
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _triple

# Multiplications below which what oneDNN needs for a call is more than it saves: of kernels that reach over the plane,
# and of those that are a point there, in which torch's own path is a plain matrix product. Measured on one thread.
_LEAST_IN_PLANE = 2_000_000
_LEAST_AT_POINTS = 16_000_000


def quicken(vae: nn.Module) -> None:
    """Let the convolutions over time and plane of a VAE that runs on this CPU take the fast kernel where it pays.
    Nothing where the processor is of a kind on which that was not measured."""
    if not _has_fast_kernels():
        return
    plain = nn.Conv3d._conv_forward
    found = [m for m in vae.modules() if isinstance(m, nn.Conv3d) and type(m)._conv_forward is plain]
    for module in found:
        # Bound to the module, so that a copy of the VAE has a method of its own.
        module._conv_forward = MethodType(_convolved, module)  # type: ignore[method-assign]
    # Norms over channels are several times as fast where these lie innermost, and activations take the layout of the
    # weights that made them. torch's group norm would lay them out anew each time.
    if found and not any(isinstance(module, nn.GroupNorm) for module in vae.modules()):
        lay_channels_innermost(vae)


def lay_channels_innermost(part: nn.Module) -> None:
    """The layout that convolutions read best; torch has one for pictures and one for volumes."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in part.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])


def _has_fast_kernels() -> bool:
    capability = str(torch.backends.cpu.get_cpu_capability())
    return torch.backends.mkldnn.is_available() and capability.startswith("AVX")


def _convolved(self: nn.Conv3d, video: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In place of `nn.Conv3d._conv_forward`."""
    if not _pays(self, video, weight):
        return nn.Conv3d._conv_forward(self, video, weight, bias)
    padding: Any = self.padding
    if self.padding_mode != "zeros":
        video = nn.functional.pad(video, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        padding = _triple(0)
    if weight.is_contiguous():
        # Else an input with channels innermost goes through another kernel: bits would depend on how it came to be.
        video = video.contiguous()
    return torch.mkldnn_convolution(video, weight, bias, padding, self.stride, self.dilation, self.groups)


def _pays(conv: nn.Conv3d, video: Tensor, weight: Tensor) -> bool:
    is_known = (
        video.device.type == "cpu"
        and video.dtype == weight.dtype == torch.float32
        and video.dim() == 5
        and len(video) == 1  # torch itself gives oneDNN several
        and not isinstance(conv.padding, str)
    )
    if not is_known:
        return False
    work = weight.numel() * prod(video.shape[2:]) // prod(conv.stride)
    # Patches that do not overlap are a matrix product too.
    reaches_over = any(side > step for side, step in zip(conv.kernel_size[1:], conv.stride[1:], strict=True))
    if reaches_over:
        return work >= _LEAST_IN_PLANE
    return prod(conv.stride) == 1 and work >= _LEAST_AT_POINTS

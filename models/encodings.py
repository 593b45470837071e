"""Videos and pictures are encoded once: what a VAE said of them is kept, up to a bound.

The same condition comes again and again: WanVACEPipeline encodes two videos in every call, which are both plain grey
where nothing but text is given; a study renders one first frame with many prompts or seeds; a window shows what the
one before has shown. While a model renders, a stand-in for `vae.encode` recognises them.

What is kept is the distribution, which is a function of the input and the weights alone: whoever draws from it does so
with the task's own generator, as ever. Bits are those that would be computed.

- On a CPU, inputs are known by a digest of their bytes: milliseconds, where the encoder takes a hundred times as long.
- On a GPU reading an input back would take a good part of what encoding it does. There only inputs that are one value
  throughout are known, for which it is enough to ask for the least and the greatest.
- Calls with further arguments, under autograd, or of a VAE that returns something else than one of the two known
  distributions, go to the VAE as they are.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

MEMORY_BYTES = 64 << 20
"""Where the VAE is, for one loaded model: four clips of 81 frames at 832 × 480, or hundreds of small ones."""


@dataclass(frozen=True)
class EncodingCounts:
    """Inputs of one loaded model so far: encoded, and taken from memory."""

    encoded: int = 0
    reused: int = 0


@dataclass(frozen=True)
class _Kept:
    kind: type
    parameters: Any = field(repr=False)

    @property
    def kept_bytes(self) -> int:
        return int(self.parameters.nbytes)


@dataclass
class Encodings:
    """Of one loaded model, whose VAE's weights and settings do not change. With `memory_bytes` 0 nothing is kept."""

    memory_bytes: int = MEMORY_BYTES
    counts: EncodingCounts = field(default_factory=EncodingCounts, init=False)
    _kept: LRUCache[Hashable, _Kept] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._kept = LRUCache(self.memory_bytes, getsizeof=lambda one: one.kept_bytes)

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """Inside, `pipe` encodes through the memory. One pipe at a time."""
        vae = getattr(pipe, "vae", None)
        if vae is None or not self.memory_bytes:
            yield
            return
        vae.encode = self._stand_in(vae.encode)
        try:
            yield
        finally:
            del vae.encode

    def _stand_in(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def known(*args: Any, **kwargs: Any) -> Any:
            key = _key(args[0]) if len(args) == 1 and not kwargs else None
            if key is None:
                return encode(*args, **kwargs)
            if key in self._kept:
                self.counts = EncodingCounts(self.counts.encoded, self.counts.reused + 1)
                return _output(self._kept[key])
            output = encode(*args)
            self.counts = EncodingCounts(self.counts.encoded + 1, self.counts.reused)
            kept = _as_kept(output)
            if kept is not None and kept.kept_bytes <= self._kept.maxsize:
                self._kept[key] = kept
            return output

        return known


def _key(video: Any) -> Hashable | None:
    """What decides an encoding; None where it is not known, or costs too much to know."""
    import torch

    if not isinstance(video, torch.Tensor) or not video.numel() or torch.is_grad_enabled():
        return None
    # The layout too: another one may go through other kernels, which sum in another order.
    form = (tuple(video.shape), video.stride(), video.dtype, video.device)
    least, greatest = video.aminmax()
    if bool(least == greatest):
        return form, float(least)
    if video.device.type != "cpu":
        return None
    # Where a mask blanks a negative number it leaves a negative zero, which is none to an encoder.
    content: Any = (video + 0.0).contiguous().flatten().view(torch.uint8).numpy()
    return form, hashlib.sha256(content).digest()


def _as_kept(output: Any) -> _Kept | None:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, IdentityDistribution

    found: Any = getattr(output, "latent_dist", None)
    if type(found) is IdentityDistribution or (type(found) is DiagonalGaussianDistribution and not found.deterministic):
        # A copy: pipelines may write to what they got.
        return _Kept(type(found), found.parameters.detach().clone())
    return None


def _output(kept: _Kept) -> Any:
    from diffusers.models.modeling_outputs import AutoencoderKLOutput

    return AutoencoderKLOutput(latent_dist=kept.kind(kept.parameters.clone()))

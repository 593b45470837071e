"""What a loaded model is to those who render with it. No torch here: actors and fakes import this module freely."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from schemas.catalog import Variant
from schemas.errors import PermanentError
from schemas.moderation import Moderation
from schemas.task import RenderBatch

# One clip: (frames, height, width, 3), red green blue, 0…255.
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sound:
    """`samples`: (channels, samples), −1…1, as many a second as `rate_hz` says."""

    samples: npt.NDArray[np.float32] = field(repr=False)
    rate_hz: int

    def of_length(self, seconds: float) -> "Sound":
        """Cut, or gone on in silence, to so many seconds."""
        wanted = round(seconds * self.rate_hz)
        own = self.samples[:, :wanted]
        return Sound(np.pad(own, ((0, 0), (0, wanted - own.shape[1]))), self.rate_hz)


class Sounding(NamedTuple):
    """A clip with its sound."""

    frames: Frames
    sound: Sound


def frames_of(clip: Frames | Sounding) -> Frames:
    """Its pictures alone."""
    return clip.frames if isinstance(clip, Sounding) else clip


# Told after every denoising step: steps done, steps in all, of the present model call.
OnStep = Callable[[int, int], None]

# Asked between steps: the fingerprints of the tasks that nobody wants any more.
Cancelled = Callable[[], frozenset[str]]


# One input: an image, or a video as long as the clip.
Pictures = Image.Image | tuple[Image.Image, ...]


@dataclass(frozen=True)
class TaskMedia:
    """What one task brings beside its prompt: an entry for each of its group's conditions, in their order."""

    inputs: tuple[Pictures, ...] = field(default=(), repr=False)
    # The files that they came in, as the clip's credentials tell of them.
    ingredients: tuple[bytes, ...] = field(default=(), repr=False)
    # What was found of it that is not refused.
    moderation: Moderation = field(default_factory=Moderation)
    # The pictures that structures among the inputs were found in, which the model does not see.
    originals: tuple[Pictures, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PromptCounts:
    """Texts that were encoded, and that were taken from memory or the store instead."""

    encoded: int = 0
    from_memory: int = 0
    from_store: int = 0

    @property
    def reused(self) -> int:
        return self.from_memory + self.from_store

    def __sub__(self, other: "PromptCounts") -> "PromptCounts":
        return PromptCounts(
            self.encoded - other.encoded, self.from_memory - other.from_memory, self.from_store - other.from_store
        )


def nobody_cancelled() -> frozenset[str]:
    return frozenset()


def ignore_step(done: int, total: int) -> None:
    """For callers who do not watch."""


class Model(Protocol):
    """One variant, loaded. A diffusers pipeline in production; tests wrap one to script its failures."""

    @property
    def variant(self) -> Variant: ...

    @property
    def revision(self) -> str:
        """What exactly was loaded: the hub's commit or a digest of the files."""
        ...

    @property
    def load_s(self) -> float: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the machine forced something other than the catalog says, in sentences."""
        ...

    @property
    def prompt_counts(self) -> PromptCounts:
        """So far. May be asked while it renders."""
        ...

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        """Render the tasks of `batch`; one entry a task, in order: its clip, or why it has none.

        `media` is as long as the batch. An entry is a BadOutputError (NaN, wrong shape) or a CancelledError.
        What concerns the whole call is raised: OutOfMemoryError, RenderError.
        """
        ...


class WrappedModel:
    """A model with something between it and its callers: subclasses change `render`."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner

    @property
    def variant(self) -> Variant:
        return self.inner.variant

    @property
    def revision(self) -> str:
        return self.inner.revision

    @property
    def load_s(self) -> float:
        return self.inner.load_s

    @property
    def notes(self) -> tuple[str, ...]:
        return self.inner.notes

    @property
    def prompt_counts(self) -> PromptCounts:
        return self.inner.prompt_counts

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        return self.inner.render(batch, media, on_step, cancelled)

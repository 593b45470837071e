"""A loaded diffusers model, and how it renders a batch.

**Independence of tasks.** A task's clip is a function of the task, its group and the loaded weights:

- every random number of a task comes from its own `torch.Generator` on the CPU, seeded with the task's seed, so it
  depends neither on batch mates nor on the kind or number of devices (diffusers draws there and moves the result);
- schedulers that draw from torch's global generator, caches that decide by the mean over the batch, and media modes
  whose class mixes inputs render one task a call, with the global generator seeded by the task;
- texts are encoded one by one, each once (`models/prompt_cache.py`), and so are videos (`models/encodings.py`);
- what remains is arithmetic: a matrix product over a batch of 3 sums in another order than over 1. In float32 on a
  CPU that has been measured at ≤ 4e-5 of the 0…1 range, so after rounding to bytes two clips of one task differ by
  at most 1 of 255, in few pixels. The same batch on the same machine is equal bit for bit.

**Progress and cancelling** hang on the pipeline's progress bar: every pipeline has one and moves it once a step,
while `callback_on_step_end` is missing on some and `_interrupt` is ignored by others. Raising from there leaves the
call at once, without decoding what nobody wants.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.adapters import Adapters
from models.conditions import told
from models.encodings import Encodings
from models.families import CallForm, arguments
from models.ip_adapter import style_scale
from models.model import Cancelled, Frames, OnStep, PromptCounts, Sound, Sounding, TaskMedia
from models.motion_loras import moving
from models.overlay import overlaid
from models.prompt_cache import PromptCache
from models.quantization import denoiser_bytes
from models.schedulers import draws_unseeded, swapped
from models.weights import explain
from schemas.catalog import Variant
from schemas.errors import (
    BadOutputError,
    CancelledError,
    OutOfMemoryError,
    PermanentError,
    RenderError,
    RushesError,
    VariantLoadError,
)
from schemas.request import Mode
from schemas.sliding import ONE_BAR, slide_of
from schemas.task import Group, RenderBatch, Task

log = logging.getLogger(__name__)

# Frames are turned into bytes a few at a time: a float32 copy of a long clip is gigabytes.
_FRAMES_AT_ONCE = 16


class _AllCancelled(Exception):
    """Leaves a model call from inside; never seen outside this module."""


@dataclass(frozen=True)
class LoadedModel:
    """One variant in memory, with a pipeline for each of its modes. One call at a time: not thread-safe."""

    variant: Variant
    revision: str
    device: str
    load_s: float
    notes: tuple[str, ...]
    pipes: Mapping[Mode, Any] = field(repr=False)
    forms: Mapping[Mode, CallForm] = field(repr=False)
    prompts: PromptCache = field(repr=False)
    adapters: Adapters = field(repr=False)
    encodings: Encodings = field(default_factory=Encodings, repr=False)
    _schedulers: dict[tuple[Mode, str | None], Any] = field(default_factory=dict, repr=False)

    @property
    def accelerator(self) -> str:
        """What it runs on, as the cost model names it: 'cpu', 'H200' …"""
        import torch

        if not self.device.startswith("cuda"):
            return "cpu"
        return str(torch.cuda.get_device_name()).replace(" ", "-").removeprefix("NVIDIA-")

    @property
    def denoiser_bytes(self) -> int:
        """What the weights of its denoiser take in memory."""
        return denoiser_bytes(next(iter(self.pipes.values())))

    @property
    def prompt_counts(self) -> PromptCounts:
        return self.prompts.counts

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        """Render `batch`: one entry a task, its clip or a BadOutputError or CancelledError.

        Raises OutOfMemoryError (accelerator memory is freed first), RenderError with the class and text of whatever
        else the pipeline raised, MediaError when a task lacks its image or video.
        """
        mode = batch.group.mode
        if mode not in self.pipes:
            available = ", ".join(mode.value for mode in self.pipes)
            raise RenderError(f"{self.variant.name} was not loaded for {mode.value}; available: {available}")
        pipe = self.pipes[mode]
        pipe.scheduler = self._scheduler(mode, batch.group.scheduler)
        parts = self._parts(batch, pipe)
        outcomes: list[Frames | Sounding | PermanentError] = []
        for index, part in enumerate(parts):
            part_media = media[len(outcomes) : len(outcomes) + len(part.tasks)]

            def step(done: int, total: int, before: int = index) -> None:
                on_step(before * total + done, len(parts) * total)

            outcomes.extend(self._render_one(pipe, part, part_media, step, cancelled))
        return tuple(outcomes)

    def _parts(self, batch: RenderBatch, pipe: Any) -> tuple[RenderBatch, ...]:
        """The batch itself, or its tasks one by one where they would otherwise not be independent."""
        together = (
            self.forms[batch.group.mode].batches(batch.group.mode)
            and not draws_unseeded(pipe.scheduler)
            and self.variant.speed.cache != "first_block"
            and self.variant.ip_adapter is None  # one list of pictures for all prompts of a call
        )
        return (batch,) if together else tuple(RenderBatch(batch.group, (task,)) for task in batch.tasks)

    def _render_one(
        self, pipe: Any, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        import torch

        def check() -> None:
            unwanted = cancelled()
            if unwanted and all(task.fingerprint in unwanted for task in batch.tasks):
                raise _AllCancelled

        generators = [torch.Generator("cpu").manual_seed(task.seed) for task in batch.tasks]
        call = arguments(self.forms[batch.group.mode], self.variant, batch, media, generators)
        _set_guider(pipe, batch.group.guidance)
        if self.variant.ip_adapter is not None:
            pipe.set_ip_adapter_scale(style_scale(batch.group))
        failure: RushesError | None = None
        try:
            check()
            with (
                self.adapters.acting(pipe, batch.group.loras, moving(self.variant, batch.group)) as on_text,
                self.prompts.attached(pipe, on_text),
                self.encodings.attached(pipe),
                _watched(pipe, on_step, check, self._windows(batch)),
                torch.random.fork_rng(devices=self._random_devices()),
            ):
                torch.manual_seed(batch.tasks[0].seed)
                made = pipe(**call)
            frames = self.forms[batch.group.mode].clips(made.frames, batch.group.frames)
            sounds = _sounds(made, pipe, batch)
            unwanted = cancelled()
            return tuple(
                CancelledError(f"task {task.fingerprint} was cancelled")
                if task.fingerprint in unwanted
                else _finished(to_clip(clip, batch, task.fingerprint), batch.group, task, one, sound)
                for task, clip, one, sound in zip(batch.tasks, _checked(frames, batch), media, sounds, strict=True)
            )
        except (_AllCancelled, RushesError) as error:
            failure = None if isinstance(error, _AllCancelled) else error
        except Exception as error:
            if _is_out_of_memory(error):
                failure = OutOfMemoryError(f"{self.variant.name}, {batch.group.shape}: {explain(error)}")
            else:
                log.warning("%s raised", type(pipe).__name__, exc_info=error)
                failure = RenderError(f"{self.variant.name}: {explain(error)}")
        # Out here, as an exception that is being handled keeps the tensors of the frames that it went through.
        self._tidy(pipe)
        if failure is not None:
            raise failure
        return tuple(CancelledError(f"task {task.fingerprint} was cancelled") for task in batch.tasks)

    def _windows(self, batch: RenderBatch) -> int:
        """How many progress bars of the class go by in one call."""
        pipeline, options = self.forms[batch.group.mode].pipeline, self.variant.call_options
        slide = slide_of(pipeline, options, batch.group.frames, self.variant.latent.temporal)
        return 1 if slide is None or pipeline in ONE_BAR else len(slide.begins_at)

    def _tidy(self, pipe: Any) -> None:
        """After a call that ended half way: offloaded parts go back, step caches forget, memory is given back."""
        import torch

        pipe.maybe_free_model_hooks()
        # EasyAnimate's VAE keeps what it saw last, and would go on from there.
        if hasattr(pipe.vae, "_clear_conv_cache"):
            pipe.vae._clear_conv_cache()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _random_devices(self) -> list[int]:
        import torch

        return [torch.cuda.current_device()] if self.device.startswith("cuda") else []

    def _scheduler(self, mode: Mode, name: str | None) -> Any:
        """The scheduler called `name`, made once; None is the variant's own. Schedulers keep state: one a mode."""
        own = self._schedulers.setdefault((mode, None), self.pipes[mode].scheduler)
        if name is None or name == type(own).__name__:
            return own
        if (mode, name) not in self._schedulers:
            try:
                self._schedulers[mode, name] = swapped(self.variant, own, name)
            except VariantLoadError as error:
                raise RenderError(str(error)) from error
        return self._schedulers[mode, name]


def to_clip(clip: Any, batch: RenderBatch, fingerprint: str) -> Frames | BadOutputError:
    """One clip of a model's output, a tensor (frames, 3, height, width) in 0…1, as bytes; or what is wrong with it."""
    import torch

    shape = batch.group.shape
    expected = (shape.frames, 3, shape.height, shape.width)
    if tuple(clip.shape) != expected:
        return BadOutputError(f"task {fingerprint}: the model returned {_size(clip.shape)}, not {_size(expected)}")
    out = np.empty((shape.frames, shape.height, shape.width, 3), dtype=np.uint8)
    for start in range(0, shape.frames, _FRAMES_AT_ONCE):
        piece = clip[start : start + _FRAMES_AT_ONCE].float()
        if not bool(torch.isfinite(piece).all()):
            return BadOutputError(
                f"task {fingerprint}: frames {start}… are not numbers (NaN or infinite); "
                "half precision often overflows in the VAE: try vae_dtype = 'float32'"
            )
        bytes_ = piece.clamp(0, 1).mul(255).round().to(torch.uint8)
        out[start : start + _FRAMES_AT_ONCE] = bytes_.permute(0, 2, 3, 1).cpu().numpy()
    return out


def _finished(
    clip: Frames | BadOutputError, group: Group, task: Task, media: TaskMedia, sound: Sound | None
) -> Frames | Sounding | BadOutputError:
    if isinstance(clip, BadOutputError):
        return clip
    frames = overlaid(clip, group, told(group, task, media))
    if sound is None:
        return frames
    if not np.isfinite(sound.samples).all():
        return BadOutputError(f"task {task.fingerprint}: its sound is not numbers (NaN or infinite)")
    return Sounding(frames, sound.of_length(group.frames / group.fps))


def _sounds(made: Any, pipe: Any, batch: RenderBatch) -> list[Sound | None]:
    """The sound of each task's clip, where the group has any."""
    if not batch.group.audio:
        return [None] * len(batch.tasks)
    rate_hz = int(pipe.vocoder.config.output_sampling_rate)
    return [Sound(one.float().clamp(-1, 1).cpu().numpy(), rate_hz) for one in made.audio]


def _checked(frames: Any, batch: RenderBatch) -> Any:
    if len(frames) != len(batch.tasks):
        raise BadOutputError(f"the model returned {len(frames)} clips for {len(batch.tasks)} tasks")
    return frames


def _size(shape: Any) -> str:
    return "×".join(map(str, shape))


def _set_guider(pipe: Any, guidance: float) -> None:
    """Pipelines with a guider (HunyuanVideo 1.5) take the guidance there and not in the call."""
    guider = getattr(pipe, "guider", None)
    if guider is not None and getattr(guider, "guidance_scale", guidance) != guidance:
        pipe.guider = guider.new(guidance_scale=guidance)


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class _Steps:
    """Stands in for tqdm's bar. diffusers uses it as a context manager and calls `update()`."""

    def __init__(self, total: int, on_step: OnStep, check: Any) -> None:
        self.total, self.n = total, 0
        self._on_step, self._check = on_step, check

    def __enter__(self) -> "_Steps":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        self.n = min(self.n + steps, self.total)
        self._on_step(self.n, self.total)
        if self.n < self.total:
            self._check()

    def set_postfix(self, *_: object, **__: object) -> None:
        pass

    set_description = set_postfix


@contextmanager
def _watched(pipe: Any, on_step: OnStep, check: Any, windows: int = 1) -> Iterator[None]:
    """Inside, `pipe`'s progress bar reports to `on_step` and asks `check` between steps. It has as many bars as there
    are `windows`, one after the other."""
    begun = -1

    def on_own_step(done: int, total: int) -> None:
        on_step(begun * total + done, windows * total)

    def progress_bar(iterable: Any = None, total: int | None = None) -> Any:
        nonlocal begun
        begun = min(begun + 1, windows - 1)
        if iterable is None:
            return _Steps(total or 1, on_own_step, check)
        return _stepped(iterable, on_own_step, check)

    pipe.progress_bar = progress_bar
    try:
        yield
    finally:
        del pipe.progress_bar


def _stepped(iterable: Any, on_step: OnStep, check: Any) -> Iterator[Any]:
    items = list(iterable)
    bar = _Steps(len(items), on_step, check)
    for item in items:
        yield item
        bar.update()

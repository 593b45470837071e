"""Time a variant's model calls at a few shapes, steps and batch sizes."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from actors.encoder import encode
from cluster.cost.fit import Measured
from models.model import Frames, Model, Sounding, TaskMedia, frames_of, ignore_step, nobody_cancelled
from schemas.catalog import Variant
from schemas.clip import ClipFormat
from schemas.conditions import Condition
from schemas.errors import PermanentError
from schemas.request import Mode
from schemas.shape import Shape
from schemas.task import Group, RenderBatch, Task


def measure(
    model: Model,
    shapes: Sequence[Shape],
    batches: Sequence[int],
    repeats: int,
    on_call: Callable[[Measured], None] = lambda call: None,
) -> tuple[list[Measured], float]:
    """(calls, encoding seconds a megapixel). Each call is made once to warm up and `repeats` times for the clock; the
    median counts. Steps are the variant's own and half of them, so that a step can be told from the rest."""
    variant = model.variant
    calls: list[Measured] = []
    encode_s, megapixels = 0.0, 0.0
    for shape in shapes:
        for steps in sorted({variant.steps, max(variant.min_steps, variant.steps // 2)}):
            for batch in batches if steps == variant.steps else (1,):
                work = _batch(variant, shape, steps, batch)
                clips, seconds = _timed(model, work, repeats)
                call = Measured(shape, steps, variant.guidance, batch, seconds)
                calls.append(call)
                on_call(call)
        with tempfile.TemporaryDirectory(prefix="rushes-calibrate-") as folder:
            if isinstance(clips[0], PermanentError):
                raise clips[0]
            started = time.perf_counter()
            encode(frames_of(clips[0]), variant.fps, ClipFormat.MP4, Path(folder, "clip.mp4"))
            encode_s += time.perf_counter() - started
            megapixels += shape.pixels * shape.frames / 1e6
    return calls, encode_s / megapixels


@dataclass(frozen=True)
class Sample:
    """One clip of a model, for comparison with another's: its pixels, the median of its calls' seconds, and what the
    weights of the denoiser take."""

    frames: Frames
    seconds: float
    denoiser_bytes: int


@dataclass(frozen=True)
class Quantized:
    """A quantized variant beside the same one unquantized: PSNR of one clip of both in dB (inf where they are equal),
    and ratios of the denoiser's memory and of the call's time, below 1 where the quantized one takes less."""

    psnr_db: float
    memory_ratio: float
    time_ratio: float


def sample(model: Model, denoiser_bytes: int, shape: Shape, repeats: int) -> Sample:
    """A clip at the variant's own steps, called once to warm up and `repeats` times for the clock."""
    work = _batch(model.variant, shape, model.variant.steps, 1)
    (clip,), seconds = _timed(model, work, repeats)
    if isinstance(clip, PermanentError):
        raise clip
    return Sample(frames_of(clip), seconds, denoiser_bytes)


def _timed(
    model: Model, work: RenderBatch, repeats: int
) -> tuple[tuple[Frames | Sounding | PermanentError, ...], float]:
    """(The last call's clips, the median seconds of `repeats` calls after one to warm up.)"""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        clips = model.render(work, _media(work), ignore_step, nobody_cancelled)
        times.append(time.perf_counter() - started)
    return clips, sorted(times[1:])[repeats // 2]


def compared(quantized: Sample, plain: Sample) -> Quantized:
    """What quantization costs and gains."""
    error = float(np.mean((quantized.frames.astype(np.float64) - plain.frames) ** 2))
    psnr_db = 10 * math.log10(255**2 / error) if error else math.inf
    memory = quantized.denoiser_bytes / max(1, plain.denoiser_bytes)
    return Quantized(psnr_db, memory, quantized.seconds / max(1e-9, plain.seconds))


@dataclass(frozen=True)
class Timed:
    """One kind of call, made once a round."""

    shape: Shape
    steps: int
    guidance: float
    batch: int
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)


def time_calls(model: Model, kinds: Sequence[tuple[Shape, int, int]], rounds: int) -> list[Timed]:
    """Every (shape, steps, batch) once a round, after a round that is not counted. CPU seconds are this process's: with
    one thread and no accelerator, what a call takes on a machine of its own."""
    variant = model.variant
    found = [Timed(shape, steps, variant.guidance, batch) for shape, steps, batch in kinds]
    for number in range(rounds + 1):
        for call in found:
            work = _batch(variant, call.shape, call.steps, call.batch)
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            model.render(work, _media(work), ignore_step, nobody_cancelled)
            if number:
                call.cpu_s.append(time.process_time() - cpu_s)
                call.wall_s.append(time.perf_counter() - wall_s)
    return found


def _batch(variant: Variant, shape: Shape, steps: int, batch: int) -> RenderBatch:
    group = Group(
        variant=variant.name,
        variant_digest=variant.digest,
        mode=Mode.TEXT_TO_VIDEO,
        width=shape.width,
        height=shape.height,
        frames=shape.frames,
        fps=variant.fps,
        steps=steps,
        guidance=variant.guidance,
        scheduler=variant.scheduler,
        conditions=tuple(
            Condition(role=role, medium="image", kind=next(iter(variant.kinds(role)), None))
            for role in variant.needed(Mode.TEXT_TO_VIDEO)
        ),
    )
    prompts = [f"a red circle moving left, take {i}" for i in range(batch)]
    tasks = tuple(Task(group.fingerprint(p, "", i), p, "", i) for i, p in enumerate(prompts))
    return RenderBatch(group, tasks)


def _media(work: RenderBatch) -> tuple[TaskMedia, ...]:
    """A black picture for each input without which the class cannot be called: what it shows costs no time."""
    black = Image.new("RGB", (work.group.width, work.group.height))
    return (TaskMedia((black,) * len(work.group.conditions)),) * len(work.tasks)

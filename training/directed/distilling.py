"""The turbo model: multistep consistency distillation of the guided denoiser (Heek et al., 2024; Song et al., 2023).

The way from noise to clip is cut into as many segments as turbo takes steps. At a level within a segment the student
sees the same noisy clip as the teacher; the teacher, guided, goes one small step down the path, the averaged student
says from there where the segment ends, and the student is to say the same from where it stands. Both speak of clean
clips: what lies at the end of the segment is translated into the clip that leads there in one straight step.
"""

import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.checkpoints import Checkpoints
from training.directed.codec import FastEncoder
from training.directed.denoising import NOT_MATRICES, DenoisingConfig, numerics, prompts_for, stacked
from training.directed.muon import Muons
from training.directed.networks import (
    NetworkConfig,
    Networks,
    broad,
    build,
    clip_error,
    encode_prompts,
    noised,
    predict,
    shifted,
)
from training.directed.shots import ShotPool
from training.ema import Average
from training.optimisers import rate_share


class DistillingConfig(BaseModel):
    """Schedule of the distillation; the defaults are the recipe."""

    model_config = ConfigDict(frozen=True)

    segments: int = 3
    """Steps of the turbo model."""
    teacher_steps: int = 18
    """Small steps that the teacher divides the whole way into; a multiple of `segments`."""
    guidance: float = 3.0
    shift: float = 2.0
    steps: int = 3000
    minutes: float | None = None
    batch: int = 32
    rate: float = 3e-4
    matrix_rate: float = 0.005
    warmup_steps: int = 50
    pool: int = 4000
    pool_start: int = 800
    pool_add_every: int = 2
    pool_add: int = 8
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoint_every_s: float = 180.0


def levels(config: DistillingConfig) -> Tensor:
    """Noise levels of the teacher's steps, from one down to zero: (teacher_steps + 1,)."""
    return shifted(torch.linspace(1, 0, config.teacher_steps + 1), config.shift)


def moved(noisy: Tensor, clean: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Down the straight path through `noisy` at level `start` and `clean`, to level `end`; levels are (batch,)."""
    share = broad(end / start)
    return share * noisy + (1 - share) * clean


def leading_to(noisy: Tensor, there: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The clean clip for which `moved(noisy, clean, start, end)` is `there`."""
    share = broad(end / start)
    return (there - share * noisy) / (1 - share)


def distilling_loss(
    student: Networks,
    averaged_student: Networks,
    teacher: Networks,
    latents: Tensor,
    control: Tensor,
    prompts: list[str],
    config: DistillingConfig,
    length: int,
) -> Tensor:
    """`consistency_loss` at random ones of the teacher's levels."""
    device = latents.device
    with torch.no_grad():
        text, empty = encode_prompts(teacher, prompts, length), encode_prompts(teacher, [""] * len(prompts), length)
    return consistency_loss(
        (student.transformer, averaged_student.transformer, teacher.transformer),
        latents,
        control,
        (text, empty),
        levels(config).to(device),
        torch.randint(0, config.teacher_steps, (len(latents),), device=device),
        torch.randn_like(latents),
        config,
    )


def consistency_loss(
    transformers: tuple[WanVACETransformer3DModel, WanVACETransformer3DModel, WanVACETransformer3DModel],
    latents: Tensor,
    control: Tensor,
    texts: tuple[Tensor, Tensor],
    grid: Tensor,
    at: Tensor,
    noise: Tensor,
    config: DistillingConfig,
) -> Tensor:
    """Weighted square error between what the student says and what it should have said.

    `transformers` are the student, its average and the teacher; `texts` the prompts and empty ones; `at` (batch,) are
    places in `grid`, the `levels` of noise.
    """
    student, averaged_student, teacher = transformers
    text, empty = texts
    each = config.teacher_steps // config.segments
    start, below, end = grid[at], grid[at + 1], grid[(at // each + 1) * each]
    noisy = noised(latents, noise, start)
    with torch.no_grad():
        told = predict(teacher, noisy, start, text, control)
        untold = predict(teacher, noisy, start, empty, control)
        lower = moved(noisy, untold + config.guidance * (told - untold), start, below)
        said = predict(averaged_student, lower, below.clamp_min(1e-4), text, control)
        there = torch.where(broad(below <= end), lower, moved(lower, said, below.clamp_min(1e-4), end))
        goal = leading_to(noisy, there, start, end)
    made = predict(student, noisy, start, text, control)
    return clip_error(made, goal, start)


def train(
    config: DistillingConfig, base: DenoisingConfig, teacher: Networks, vae: AutoencoderKLWan, out: Path
) -> Networks:
    """Distil the teacher's transformer, from where `out/state.pt` left it; the text encoder stays as it is."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    encode = FastEncoder(vae.to(device).eval())
    teacher.transformer.to(device).eval().requires_grad_(False)
    teacher.text_encoder.to(device).eval().requires_grad_(False)
    student, slow = (
        Networks(copy.deepcopy(teacher.transformer), teacher.text_encoder, teacher.tokenizer) for _ in range(2)
    )
    student.transformer.train().requires_grad_(True)
    trainers = Muons(student.transformer, rate=config.rate, matrix_rate=config.matrix_rate, slow=NOT_MATRICES)
    average = Average(student.transformer, decay=0.99)
    first, spent = 0, 0.0
    checkpoints = Checkpoints(out, config.checkpoint_every_s)
    if (state := checkpoints.read(device)) is not None:
        student.transformer.load_state_dict(state["transformer"])
        average.load(state["average"])
        trainers.load_state_dict(state["trainers"])
        first, spent = int(state["step"]), float(state["elapsed_s"])
    rng = np.random.default_rng([config.seed, 7, first])
    torch.manual_seed(config.seed * 1_000_003 + first)
    pool = ShotPool(encode, device, rng, config.pool)
    pool.fill(config.pool_start)
    started = time.monotonic()
    total, seen, step, last = 0.0, 0, first, False
    log = (out / "log.jsonl").open("a")
    while not last:
        elapsed = spent + time.monotonic() - started
        done = step / config.steps if config.minutes is None else max(elapsed / 60 / config.minutes, 1e-9)
        last = step + 1 >= config.steps if config.minutes is None else done >= 1
        done = min(1.0, done)
        if step % config.pool_add_every == 0:
            pool.add(config.pool_add)
        shots = pool.batch(config.batch)
        latents, told = stacked(shots, device)
        prompts = prompts_for(rng, shots, 0.0)
        average.applied(slow.transformer)
        with numerics(device):
            length = int(rng.choice([32, 64, 128], p=[0.6, 0.3, 0.1]))
            loss = distilling_loss(student, slow, teacher, latents, told, prompts, config, length)
        trainers.step(loss, rate_share(step, done, config.warmup_steps))
        average.update(student.transformer, step)
        total, seen, step = total + float(loss.detach()), seen + 1, step + 1
        if step % 25 == 0 or last:
            line = {"step": step, "loss": round(total / seen, 5), "elapsed_s": round(elapsed, 1)}
            log.write(json.dumps(line) + "\n")
            log.flush()
            total, seen = 0.0, 0
        if checkpoints.due or last:
            checkpoints.keep(
                {
                    "transformer": student.transformer.state_dict(),
                    "average": average.weights,
                    "trainers": trainers.state_dict(),
                    "step": step,
                    "elapsed_s": elapsed,
                }
            )
    log.close()
    return averaged(base.networks, teacher, checkpoints.path)


def averaged(config: NetworkConfig, teacher: Networks, state: Path) -> Networks:
    """The averaged student of a checkpoint, on the CPU, with the teacher's text encoder."""
    transformer = build(config).transformer
    transformer.load_state_dict(torch.load(state, map_location="cpu", weights_only=True)["average"])
    return Networks(transformer.eval(), teacher.text_encoder.to("cpu"), teacher.tokenizer)

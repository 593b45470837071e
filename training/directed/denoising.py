"""Train the directed model's transformer and text encoder, jointly, by flow matching with prediction of the clip.

The recipe is that of the first embedded model (`training/denoiser.py`, decision 0014): the text encoder reads first,
the first blocks learn where each token stands, noise levels begin near pure noise and come down. New are the
conditions, which `shots.py` mixes into every batch, as VACE's control latents.
"""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.checkpoints import Checkpoints
from training.directed import reading
from training.directed.codec import CELL_FRAMES, CELL_PX, FastEncoder
from training.directed.control import MASK_CHANNELS
from training.directed.muon import Muons
from training.directed.networks import (
    PATCH,
    NetworkConfig,
    Networks,
    build,
    clip_error,
    encode_prompts,
    noised,
    predict,
    shifted,
)
from training.directed.scenes import CANVASES, FRAMES
from training.directed.sentences import sentence
from training.directed.shots import Encoded, ShotPool
from training.ema import Average
from training.optimisers import rate_share
from training.placing import PlaceReader

Size = tuple[int, int, int]
TOKEN_PX = CELL_PX * PATCH[1]


class DenoisingConfig(BaseModel):
    """Schedule of one training; the defaults are the recipe."""

    model_config = ConfigDict(frozen=True)

    networks: NetworkConfig = NetworkConfig()
    reading_steps: int = 4000
    reading_batch: int = 32
    placing_steps: int = 300
    place_weight: float = 0.03
    steps: int = 16_000
    minutes: float | None = None
    """Wall-clock budget: the schedule then ends when the time does, whatever the steps."""
    batch: int = 32
    rate: float = 1e-3
    matrix_rate: float = 0.02
    warmup_steps: int = 100
    shift: float = 2.0
    first_shift: float = 8.0
    """The shift at the start, from where it falls to `shift` until `shift_until` of the training is over."""
    shift_until: float = 0.6
    prompt_drop: float = 0.1
    pool: int = 6000
    pool_start: int = 1200
    pool_add_every: int = 2
    pool_add: int = 8
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoint_every_s: float = 180.0


def numerics(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused attention is three times slower to train through than the plain one."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def tokens(width: int, height: int, frames: int = FRAMES) -> Size:
    """Frames, height and width of a clip in tokens."""
    return (frames - 1) // CELL_FRAMES + 1, height // TOKEN_PX, width // TOKEN_PX


def flow_loss(
    networks: Networks, latents: Tensor, control: Tensor, prompts: Sequence[str], shift: float, length: int
) -> Tensor:
    """`loss_at` random levels of noise, moved by `shift`."""
    sigma = shifted(torch.rand(len(latents), device=latents.device), shift)
    text = encode_prompts(networks, prompts, length)
    return loss_at(networks.transformer, latents, control, text, sigma, torch.randn_like(latents))


def loss_at(
    transformer: WanVACETransformer3DModel,
    latents: Tensor,
    control: Tensor,
    text: Tensor,
    sigma: Tensor,
    noise: Tensor,
) -> Tensor:
    """The error of the clip that is predicted out of noise."""
    return clip_error(predict(transformer, noised(latents, noise, sigma), sigma, text, control), latents, sigma)


def shift_at(config: DenoisingConfig, done: float) -> float:
    """The shift of the noise levels once the share `done` of the training is over."""
    return config.shift + (config.first_shift - config.shift) * max(0.0, 1 - done / config.shift_until)


def stacked(shots: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Tensor]:
    """Latents and control latents of a batch, single precision."""
    latents = torch.stack([s.latents for s in shots]).to(device).float()
    return latents, torch.stack([s.control for s in shots]).to(device).float()


def prompts_for(rng: np.random.Generator, shots: Sequence[Encoded], drop: float) -> list[str]:
    """A fresh sentence for each shot, and the empty one for a share of them (classifier-free guidance)."""
    return ["" if rng.random() < drop else sentence(rng, s.shot) for s in shots]


def learn_places(networks: Networks, reader: PlaceReader, config: DenoisingConfig, enough: float = 0.99) -> float:
    """Train the first blocks and the reader, on pure noise; stops once `enough` answers of every canvas are right."""
    torch.manual_seed(config.seed)
    transformer, device = networks.transformer, networks.device
    trainers = Muons(transformer, reader, rate=1e-3, matrix_rate=0.01, slow=NOT_MATRICES)
    sizes = [tokens(width, height) for width, height in CANVASES]
    right = dict.fromkeys(sizes, 0.0)
    z = config.networks.latent_channels
    for step in range(config.placing_steps):
        size = sizes[step % len(sizes)]
        frames, height, width = size
        plane = (frames, height * PATCH[1], width * PATCH[2])
        noise = torch.randn(config.batch, z, *plane, device=device)
        told = torch.zeros(config.batch, 2 * z + MASK_CHANNELS, *plane, device=device)
        told[:, 2 * z :] = 1.0
        text = torch.randn(config.batch, 4, config.networks.text_dim, device=device)
        with numerics(device):
            predict(transformer, noise, torch.ones(config.batch, device=device), text, told)
        loss, right[size] = reader.loss(size)
        trainers.step(loss, min(1.0, (step + 1) / 20))
        if min(right.values()) >= enough:
            break
    return min(right.values())


NOT_MATRICES = (
    "table",
    "embedding",
    "embedder",
    "time_proj",
    "proj_out",
    "shared",
    "relative",
    "heads",
    "text_encoder",
)
"""Parts of names of what AdamW trains though it has the form of a matrix: first and last layers, tables, heads."""


def train(config: DenoisingConfig, vae: AutoencoderKLWan, out: Path) -> Networks:
    """Train on drawn shots from where `out/state.pt` left it; returns the averaged weights. `out/log.jsonl` logs.

    What was read is kept before, in `out/read.pt`.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    encode = FastEncoder(vae.to(device).eval())
    networks = build(config.networks)
    networks.transformer.to(device).train()
    networks.text_encoder.to(device).train()
    reader = PlaceReader(networks.transformer).to(device)
    log = (out / "log.jsonl").open("a")

    def note(**values: object) -> None:
        log.write(json.dumps(values) + "\n")
        log.flush()

    checkpoints = Checkpoints(out, config.checkpoint_every_s)
    state = checkpoints.read(device)
    if state is None:
        if (out / "read.pt").exists():
            networks.text_encoder.load_state_dict(torch.load(out / "read.pt", map_location=device, weights_only=True))
        else:
            known = reading.teach(networks, steps=config.reading_steps, batch=config.reading_batch, seed=config.seed)
            note(read={name: round(share, 3) for name, share in known.items()})
            torch.save(networks.text_encoder.state_dict(), out / "read.pt")
        note(placed=round(learn_places(networks, reader, config), 4))
    averages = (Average(networks.transformer), Average(networks.text_encoder))
    trainers = Muons(networks.transformer, reader, rate=config.rate, matrix_rate=config.matrix_rate, slow=NOT_MATRICES)
    # The text encoder knows a lot already, and is held back.
    readers = Muons(networks.text_encoder, rate=0.3 * config.rate, matrix_rate=0.0, slow=("",))
    first, spent = 0, 0.0
    if state is not None:
        networks.transformer.load_state_dict(state["transformer"])
        networks.text_encoder.load_state_dict(state["text_encoder"])
        for average, weights in zip(averages, state["averages"], strict=True):
            average.load(weights)
        reader.load_state_dict(state["reader"])
        trainers.load_state_dict(state["trainers"])
        readers.load_state_dict(state["readers"])
        first, spent = int(state["step"]), float(state["elapsed_s"])
    rng = np.random.default_rng([config.seed, first])
    torch.manual_seed(config.seed * 1_000_003 + first)
    pool = ShotPool(encode, device, rng, config.pool)
    pool.fill(config.pool_start)
    started = time.monotonic()
    total, seen, step, last = 0.0, 0, first, False
    while not last:
        elapsed = spent + time.monotonic() - started
        done = step / config.steps if config.minutes is None else max(elapsed / 60 / config.minutes, 1e-9)
        last = step + 1 >= config.steps if config.minutes is None else done >= 1
        done = min(1.0, done)
        if step % config.pool_add_every == 0:
            pool.add(config.pool_add)
        shots = pool.batch(config.batch)
        latents, told = stacked(shots, device)
        length = int(rng.choice([32, 64, 128, 512], p=[0.6, 0.29, 0.09, 0.02]))
        with numerics(device):
            prompts = prompts_for(rng, shots, config.prompt_drop)
            loss = flow_loss(networks, latents, told, prompts, shift_at(config, done), length)
        place_loss, placed = reader.loss((latents.shape[2], latents.shape[3] // PATCH[1], latents.shape[4] // PATCH[2]))
        share = rate_share(step, done, config.warmup_steps)
        trainers.step(loss + config.place_weight * place_loss, share, readers)
        averages[0].update(networks.transformer, step)
        averages[1].update(networks.text_encoder, step)
        total, seen, step = total + float(loss.detach()), seen + 1, step + 1
        if step % 25 == 0 or last:
            note(step=step, loss=round(total / seen, 5), placed=round(placed, 3), elapsed_s=round(elapsed, 1))
            total, seen = 0.0, 0
        begun = state is None and step == first + 1  # what was read and placed before is kept at once
        if checkpoints.due or begun or last:
            checkpoints.keep(
                {
                    "transformer": networks.transformer.state_dict(),
                    "text_encoder": networks.text_encoder.state_dict(),
                    "averages": [average.weights for average in averages],
                    "trainers": trainers.state_dict(),
                    "readers": readers.state_dict(),
                    "reader": reader.state_dict(),
                    "step": step,
                    "elapsed_s": elapsed,
                }
            )
    log.close()
    return averaged(config.networks, checkpoints.path)


def averaged(config: NetworkConfig, state_path: Path) -> Networks:
    """The averaged weights of a checkpoint, ready for inference."""
    state = torch.load(state_path, map_location="cpu", weights_only=True)
    networks = build(config)
    networks.transformer.load_state_dict(state["averages"][0])
    networks.text_encoder.load_state_dict(state["averages"][1])
    networks.transformer.eval()
    networks.text_encoder.eval()
    return networks

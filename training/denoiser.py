"""Train the embedded denoiser: a small `LTXVideoTransformer3DModel` and its text encoder, jointly, by flow
matching.

Paths are straight, x_s = (1 - s) x + s noise (Lipman et al., 2023), with the noise levels shifted as in Esser et
al. (2024). The network predicts the clean clip, not the velocity: a narrow network need not carry the noise of
every channel through (Li & He, "Back to basics: let denoising generative models denoise", 2025). A share of the
batches keeps the first latent frame clean and gives every token its own timestep, which is how LTX continues a
given image.

Words decide most while nearly all is noise, and few draws of the noise level fall there; so training begins near
pure noise, where it learns what the words mean, and comes down to the fine work later. Before that the text encoder
learned to read (`reading.py`), and the first blocks where each token stands (`placing.py`).
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from training.captions import caption
from training.checkpoints import Checkpoints
from training.drawing import CANVASES, FRAMES, MOTIONS
from training.ema import Average
from training.latents import SHARES, Encoded, LatentPool
from training.numerics import CELL_FRAMES, CELL_PX, Size, attention_for, predict
from training.optimisers import Trainers, rate_share
from training.placing import PlaceReader, learn_places
from training.reading import teach
from training.text import build_text_encoder, build_tokenizer

TRAIN_TIMESTEPS = 1000


class DenoiserConfig(BaseModel):
    """Sizes and schedule of one denoiser training; the defaults are the shipped recipe."""

    model_config = ConfigDict(frozen=True)

    layers: int = 4
    heads: int = 4
    head_dim: int = 48
    text_dim: int = 96
    reading_steps: int = 1200
    """Of the text encoder alone, before the denoiser begins (`reading.py`)."""
    reading_batch: int = 32
    placing_steps: int = 300
    """At most, of the first blocks alone, until they know each token's place."""
    place_weight: float = 0.03
    """Of the same loss while the denoiser trains, so that it is not forgotten."""
    steps: int = 8048
    minutes: float | None = None
    """Wall-clock budget: the schedule then ends when the time does, whatever the steps."""
    batch: int = 32
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.02
    warmup_steps: int = 100
    shift: float = 2.0
    first_shift: float = 8.0
    """The shift at the start, from where it falls to `shift` until `shift_until` of the training is over."""
    shift_until: float = 0.6
    prompt_drop: float = 0.1
    first_frame_share: float = 0.08
    pairs: float = 0.0
    shares: tuple[float, float, float] = SHARES
    motions: tuple[str, ...] = MOTIONS
    speeds: tuple[str, ...] = ("medium", "medium", "slow", "fast")
    pool: int = 24_000
    pool_start: int = 3_000
    pool_add_every: int = 2
    pool_add: int = 8
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    checkpoint_every_s: float = 240.0


@dataclass(frozen=True)
class Denoiser:
    """What is trained together, and the tokenizer that both stand on."""

    transformer: LTXVideoTransformer3DModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast


def build(config: DenoiserConfig, latent_channels: int) -> Denoiser:
    """The untrained model, seeded."""
    tokenizer = build_tokenizer()
    text_encoder = build_text_encoder(len(tokenizer), config.seed, config.text_dim)
    torch.manual_seed(config.seed + 1)
    width = config.heads * config.head_dim
    transformer = LTXVideoTransformer3DModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        cross_attention_dim=width,
        num_layers=config.layers,
        caption_channels=config.text_dim,
    )
    return Denoiser(transformer, text_encoder, tokenizer)


def shifted(uniform: Tensor, shift: float) -> Tensor:
    """Noise levels in (0, 1), moved towards noise by `shift` (Esser et al., 2024, eq. 23)."""
    return shift * uniform / (1 + (shift - 1) * uniform)


def encode_prompts(model: Denoiser, prompts: list[str], max_length: int) -> tuple[Tensor, Tensor]:
    """Embeddings (batch, max_length, width) and mask, as `LTXPipeline` makes them: its encoder sees the padding."""
    tokens = model.tokenizer(prompts, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt")
    device = model.text_encoder.device
    return model.text_encoder(tokens.input_ids.to(device))[0], tokens.attention_mask.to(device)


def flow_loss(
    model: Denoiser, latents: Tensor, prompts: list[str], shift: float, *, keep_first: bool, max_length: int
) -> Tensor:
    """Weighted square error of the predicted clip, over normalised latents (batch, channels, frames, height, width).

    The weight, 1 / (s² + 0.05), is that of a velocity error, held back near s = 0.
    """
    embeds, mask = encode_prompts(model, prompts, max_length)
    batch, _, frames, height, width = latents.shape
    clean = latents.flatten(2).transpose(1, 2)
    noise = torch.randn_like(clean)
    sigma = shifted(torch.rand(batch, 1, device=latents.device), shift)
    first = height * width
    level = sigma
    if keep_first:
        level = sigma.repeat(1, frames * first)
        level[:, :first] = 0
    timestep = (level if keep_first else sigma[:, 0]) * TRAIN_TIMESTEPS
    noisy = (1 - level[..., None]) * clean + level[..., None] * noise
    made = predict(model.transformer, noisy, embeds, timestep, mask, (frames, height, width))
    error = (made.float() - clean).pow(2) / (sigma[..., None].pow(2) + 0.05)
    return error[:, first:].mean() if keep_first else error.mean()


def shift_at(config: DenoiserConfig, done: float) -> float:
    """The shift of the noise levels once the share `done` of the training is over."""
    return config.shift + (config.first_shift - config.shift) * max(0.0, 1 - done / config.shift_until)


def tokens(width: int, height: int) -> Size:
    """Frames, height and width of a clip of `FRAMES` frames on such a canvas, in tokens."""
    return (FRAMES - 1) // CELL_FRAMES + 1, height // CELL_PX, width // CELL_PX


def prompts_for(rng: np.random.Generator, clips: list[Encoded], drop: float) -> list[str]:
    """A fresh sentence for each clip, and the empty one for a share of them (classifier-free guidance)."""
    return ["" if rng.random() < drop else caption(rng, clip.scene) for clip in clips]


def train(config: DenoiserConfig, vae: AutoencoderKLLTXVideo, out: Path, *, resume: bool = False) -> Denoiser:
    """Train on drawn clips; returns the averaged weights. `out/state.pt` resumes, `out/log.jsonl` logs."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    vae = vae.to(device).eval()
    model = build(config, vae.config.latent_channels)
    model.transformer.to(device).train()
    model.text_encoder.to(device).train()
    reader = PlaceReader(model.transformer).to(device)
    checkpoints = Checkpoints(out, config.checkpoint_every_s)
    state = checkpoints.read(device) if resume else None
    log = (out / "log.jsonl").open("a")
    if state is None:
        known = teach(
            model.text_encoder,
            model.tokenizer,
            steps=config.reading_steps,
            batch=config.reading_batch,
            seed=config.seed,
        )
        log.write(json.dumps({"read": {name: round(share, 4) for name, share in known.items()}}) + "\n")
        sizes = [tokens(width, height) for width, height in CANVASES]
        placed = learn_places(
            model.transformer, reader, sizes, steps=config.placing_steps, batch=config.batch, seed=config.seed
        )
        log.write(json.dumps({"placed": round(placed, 4)}) + "\n")
    averages = (Average(model.transformer), Average(model.text_encoder))
    # The text encoder knows a lot already, and is held back.
    trainers = Trainers(
        model.transformer,
        (model.text_encoder, 0.3),
        (reader, 1.0),
        rate=config.learning_rate,
        matrix_rate=config.matrix_learning_rate,
    )
    first, spent = 0, 0.0
    if state is not None:
        model.transformer.load_state_dict(state["transformer"])
        model.text_encoder.load_state_dict(state["text_encoder"])
        for average, weights in zip(averages, state["averages"], strict=True):
            average.load(weights)
        reader.load_state_dict(state["reader"])
        trainers.load_state_dict(state["optimisers"])
        first, spent = int(state["step"]), float(state["elapsed_s"])
    rng = np.random.default_rng([config.seed, first])
    torch.manual_seed(config.seed * 1_000_003 + first)
    pool = LatentPool(
        vae, rng, config.pool, config.pairs, shares=config.shares, motions=config.motions, speeds=config.speeds
    )
    pool.fill(config.pool_start)
    started = time.monotonic()
    total = 0.0
    step, last = first, False
    while not last:
        elapsed = spent + time.monotonic() - started
        done = step / config.steps if config.minutes is None else max(elapsed / 60 / config.minutes, 1e-9)
        last = step + 1 >= config.steps if config.minutes is None else done >= 1
        done = min(1.0, done)
        if step % config.pool_add_every == 0:
            pool.add(config.pool_add)
        clips = pool.batch(config.batch)
        latents = torch.stack([clip.latents for clip in clips]).to(device).float()
        keep_first = bool(rng.random() < config.first_frame_share)
        max_length = int(rng.choice([32, 64, 128], p=[0.6, 0.3, 0.1]))
        prompts = prompts_for(rng, clips, config.prompt_drop)
        with torch.autocast(device.type, dtype=torch.bfloat16), attention_for(device):
            shift = shift_at(config, done)
            loss = flow_loss(model, latents, prompts, shift, keep_first=keep_first, max_length=max_length)
        place_loss, placed = reader.loss((latents.shape[2], latents.shape[3], latents.shape[4]))
        trainers.step(loss + config.place_weight * place_loss, rate_share(step, done, config.warmup_steps))
        averages[0].update(model.transformer, step)
        averages[1].update(model.text_encoder, step)
        total += float(loss.detach())
        step += 1
        if step % 50 == 0 or last:
            line = {
                "step": step,
                "loss": round(total / 50, 5),
                "placed": round(placed, 3),
                "elapsed_s": round(elapsed, 1),
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
            total = 0.0
        if checkpoints.due or last:
            checkpoints.keep(
                {
                    "transformer": model.transformer.state_dict(),
                    "text_encoder": model.text_encoder.state_dict(),
                    "averages": [average.weights for average in averages],
                    "optimisers": trainers.state_dict(),
                    "reader": reader.state_dict(),
                    "step": step,
                    "elapsed_s": elapsed,
                }
            )
    return averaged(config, vae.config.latent_channels, checkpoints.path)


def averaged(config: DenoiserConfig, latent_channels: int, state_path: Path) -> Denoiser:
    """The averaged weights of a checkpoint, ready for inference."""
    state = torch.load(state_path, map_location="cpu", weights_only=True)
    model = build(config, latent_channels)
    model.transformer.load_state_dict(state["averages"][0])
    model.text_encoder.load_state_dict(state["averages"][1])
    model.transformer.eval()
    model.text_encoder.eval()
    return model

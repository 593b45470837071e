"""Teach the turbo model what it does worst, and nothing else: `python -m training.directed.focusing --folder FOLDER`.

A distilled model is as good as its teacher, and both draw turning and circling shapes with bent sides: what a sentence
leaves open, the pace above all, they average. Here such motions are drawn at one pace, so that a sentence leaves little
open, and the model is asked for those very clips at the levels of noise that its steps have. Beside them, shots of all
kinds are to come out as they did before: their goals are what the model said when this began.
"""

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import WanVACEPipeline
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from training.checkpoints import Checkpoints
from training.directed.codec import FastEncoder
from training.directed.conditions import conditions
from training.directed.control import control
from training.directed.denoising import NOT_MATRICES, loss_at, numerics, stacked
from training.directed.distilling import DistillingConfig, levels
from training.directed.drawing import draw
from training.directed.muon import Muons
from training.directed.networks import Networks, clip_error, encode_prompts, noised, predict
from training.directed.scenes import CANVASES, Shot, act, fields, words
from training.directed.sentences import sentence
from training.directed.shots import SHARES, ShotPool
from training.drawing import BACKGROUNDS, Scene
from training.ema import Average
from training.folder import save
from training.optimisers import rate_share

PROMPT_TOKENS = 64


class FocusConfig(BaseModel):
    """What is taught, and the schedule; the defaults are the recipe."""

    model_config = ConfigDict(frozen=True)

    taught: dict[str, float] = {
        "triangle spinning": 0.3,
        "square spinning": 0.12,
        "star spinning": 0.12,
        "circle circling": 0.1,
        "triangle circling": 0.12,
        "square circling": 0.1,
        "star circling": 0.14,
    }
    """Shapes and motions, and their shares of what is drawn."""
    pace: float = 1.0
    minutes: float = 20.0
    batch: int = 8
    """Of what is taught, and as many of what is to stay."""
    keep_weight: float = 2.0
    rate: float = 1e-4
    matrix_rate: float = 0.002
    warmup_steps: int = 10
    pool: int = 600
    pool_start: int = 150
    seed: int = 0
    threads: int = 1
    checkpoint_every_s: float = 60.0


def taught(rng: np.random.Generator, config: FocusConfig, width: int, height: int) -> Shot:
    """One shape that does a motion at the pace, of a combination that training may draw."""
    shares = np.array(list(config.taught.values()))
    wanted, way = str(rng.choice(list(config.taught), p=shares / shares.sum())).split()
    background = str(rng.choice(list(BACKGROUNDS)))
    while True:
        colour, shape, motion = words(rng, background, (), (way,))
        if shape == wanted:
            break
    field = fields(width, height, 1)[0]
    actor = act(rng, shape, colour, motion, field, spread=0.01, pace=config.pace)
    return Shot(Scene((actor,), background, width, height, len(actor.path)), "text")


def levels_of_steps(config: DistillingConfig) -> Tensor:
    """The levels of noise at which the turbo model is called: (segments,)."""
    return levels(config)[:-1][:: config.teacher_steps // config.segments]


def kept_loss(
    networks: Networks, before: Networks, latents: Tensor, told: Tensor, prompts: Sequence[str], sigma: Tensor
) -> Tensor:
    """The error against what the model said `before`."""
    noisy = noised(latents, torch.randn_like(latents), sigma)
    text = encode_prompts(networks, prompts, PROMPT_TOKENS)
    with torch.no_grad():
        goal = predict(before.transformer, noisy, sigma, text, told)
    said = predict(networks.transformer, noisy, sigma, text, told)
    return clip_error(said, goal, sigma)


def train(config: FocusConfig, turbo: DistillingConfig, folder: Path, out: Path) -> WanVACEPipeline:
    """Train the transformer of a turbo folder, from where `out/state.pt` left it; the rest stays. Returns the pipeline
    with the averaged weights; `out/log.jsonl` logs."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    pipeline = WanVACEPipeline.from_pretrained(str(folder), torch_dtype=torch.float32)
    encode = FastEncoder(pipeline.vae.eval())
    pipeline.text_encoder.eval().requires_grad_(False)
    networks = Networks(pipeline.transformer, pipeline.text_encoder, pipeline.tokenizer)
    before = Networks(
        copy.deepcopy(pipeline.transformer).eval().requires_grad_(False), pipeline.text_encoder, pipeline.tokenizer
    )
    networks.transformer.train().requires_grad_(True)
    trainers = Muons(networks.transformer, rate=config.rate, matrix_rate=config.matrix_rate, slow=NOT_MATRICES)
    average = Average(networks.transformer, decay=0.98)
    step, spent = 0, 0.0
    device = torch.device("cpu")
    checkpoints = Checkpoints(out, config.checkpoint_every_s)
    if (state := checkpoints.read(device)) is not None:
        networks.transformer.load_state_dict(state["transformer"])
        average.load(state["average"])
        trainers.load_state_dict(state["trainers"])
        step, spent = int(state["step"]), float(state["elapsed_s"])
    rng = np.random.default_rng([config.seed, 29, step])
    torch.manual_seed(config.seed * 1_000_003 + step)
    pool = ShotPool(encode, device, rng, config.pool)
    pool.fill(config.pool_start)
    sigmas = levels_of_steps(turbo)
    log = (out / "log.jsonl").open("a")
    started = time.monotonic()
    done = 0.0
    while done < 1:
        elapsed = spent + time.monotonic() - started
        done = min(1.0, elapsed / 60 / config.minutes)
        width, height = CANVASES[int(rng.choice(len(CANVASES), p=SHARES))]
        shots = [taught(rng, config, width, height) for _ in range(config.batch)]
        clips = draw([shot.scene for shot in shots])
        told = control(encode, conditions(rng, shots, clips))
        pool.add(2)
        others = pool.batch(config.batch)
        latents, told_others = stacked(others, device)
        at = torch.randint(0, len(sigmas), (2, config.batch))
        with numerics(device):
            text = encode_prompts(networks, [sentence(rng, shot) for shot in shots], PROMPT_TOKENS)
            clean = encode.normalised(clips)
            new = loss_at(networks.transformer, clean, told, text, sigmas[at[0]], torch.randn_like(clean))
            said = [sentence(rng, one.shot) for one in others]
            old = kept_loss(networks, before, latents, told_others, said, sigmas[at[1]])
        trainers.step(new + config.keep_weight * old, rate_share(step, done, config.warmup_steps))
        average.update(networks.transformer, step)
        step += 1
        if step % 5 == 0 or done >= 1:
            line = {"step": step, "taught": round(float(new.detach()), 5), "kept": round(float(old.detach()), 5)}
            log.write(json.dumps(line | {"elapsed_s": round(elapsed)}) + "\n")
            log.flush()
        if checkpoints.due or done >= 1:
            checkpoints.keep(
                {
                    "transformer": networks.transformer.state_dict(),
                    "average": average.weights,
                    "trainers": trainers.state_dict(),
                    "step": step,
                    "elapsed_s": elapsed,
                }
            )
    log.close()
    average.applied(networks.transformer)
    networks.transformer.eval()
    return pipeline


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m training.directed.focusing", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="a turbo folder, as `turbo` leaves it")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="for the folder that comes out")
    parser.add_argument("--minutes", type=float, default=FocusConfig().minutes)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    config = FocusConfig(minutes=given.minutes, threads=given.threads, seed=given.seed)
    made = train(config, DistillingConfig(), given.folder, given.work)
    print(f"{save(made, given.out)} bytes in {given.out}")


if __name__ == "__main__":
    main()

"""Make the embedded model from nothing: `python -m models.training all --work FOLDER [--device cuda]`.

Stages, each resumable and each leaving its log in the work folder: `vae` (the linear code, then the decoder),
`denoiser`, `folder` (the diffusers folder), `turbo` (the distilled LoRA). `all` runs them in turn. On one free
CPU core the whole takes about an hour, on a GPU minutes; the result is written to `--out` (models/embedded by
default).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline

from models.training import denoiser, vae
from models.training.denoiser import DenoiserConfig
from models.training.distil import DistilConfig, distil
from models.training.folder import assemble, save
from models.training.vae import VaeConfig

STAGES = ("vae", "denoiser", "folder", "turbo")


def run(stage: str, work: Path, out: Path, device: str, threads: int, seed: int) -> None:
    """One stage, from where it was left."""
    vae_config = VaeConfig(device=device, threads=threads, seed=seed)
    denoiser_config = DenoiserConfig(device=device, threads=threads, seed=seed)
    if stage == "vae":
        vae.train(vae_config, work / "vae", resume=True)
    elif stage == "denoiser":
        codec = AutoencoderKLLTXVideo.from_pretrained(work / "vae" / "vae")
        denoiser.train(denoiser_config, codec, work / "denoiser", resume=True)
    elif stage == "folder":
        codec = AutoencoderKLLTXVideo.from_pretrained(work / "vae" / "vae")
        model = denoiser.averaged(denoiser_config, codec.config.latent_channels, work / "denoiser" / "state.pt")
        print(f"{save(assemble(codec, model, denoiser_config.shift), out / 'shapes')} bytes in {out / 'shapes'}")
    else:
        pipeline = LTXPipeline.from_pretrained(out / "shapes", torch_dtype=torch.float32)
        distil(
            DistilConfig(device=device, threads=threads, seed=seed),
            pipeline,
            out / "shapes-turbo",
            work / "turbo" / "log.jsonl",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("models/embedded"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for stage in STAGES if given.stage == "all" else (given.stage,):
        run(stage, given.work, given.out, given.device, given.threads, given.seed)


if __name__ == "__main__":
    main()

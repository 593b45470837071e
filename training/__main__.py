"""Make the embedded model from nothing: `python -m training all --work FOLDER [--device cuda]`.

Stages, each leaving what it made in the work folder: `vae` (fitted in a minute, not trained), `denoiser` (trained,
resumable, with a log), `folder` (the diffusers folder). `all` runs them in turn. `models/embedded/README.md` says how
long that took; on a GPU it is minutes. The result is written to `--out` (models/embedded by default).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLLTXVideo

from training import denoiser, vae
from training.denoiser import DenoiserConfig
from training.folder import assemble, save
from training.vae import VaeConfig

STAGES = ("vae", "denoiser", "folder")


def run(stage: str, work: Path, out: Path, codec: VaeConfig, drawer: DenoiserConfig) -> None:
    """One stage, from where it was left."""
    if stage == "vae":
        vae.make(codec).save_pretrained(work / "vae" / "vae")
        return
    trained = AutoencoderKLLTXVideo.from_pretrained(work / "vae" / "vae")
    if stage == "denoiser":
        denoiser.train(drawer, trained, work / "denoiser", resume=True)
        return
    model = denoiser.averaged(drawer, trained.config.latent_channels, work / "denoiser" / "state.pt")
    print(f"{save(assemble(trained, model, drawer.shift), out / 'shapes')} bytes in {out / 'shapes'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("models/embedded"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    codec = VaeConfig(seed=given.seed)
    drawer = DenoiserConfig(device=given.device, threads=given.threads, seed=given.seed)
    for stage in STAGES if given.stage == "all" else (given.stage,):
        run(stage, given.work, given.out, codec, drawer)


if __name__ == "__main__":
    main()

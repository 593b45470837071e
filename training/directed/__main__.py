"""Make the directed embedded model from nothing: `python -m training.directed all --work FOLDER [--device cuda]`.

Stages, each leaving what it made in the work folder and going on where it was left: `codec` (the VAE's encoder,
fitted in a minute), `decoder`, `denoiser`, `turbo` (trained, with logs and checkpoints), `folder` (the diffusers
folders, under `--out`). `decoder` and `denoiser` need the codec only, and may run side by side. `--minutes` ends a
trained stage by the clock, its schedule with it; a longer time given later goes on from there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from training.directed import codec, decoding, denoising, distilling
from training.directed.codec import CodecConfig
from training.directed.decoding import DecodingConfig
from training.directed.denoising import DenoisingConfig
from training.directed.distilling import DistillingConfig
from training.directed.folder import assemble
from training.folder import save

STAGES = ("codec", "decoder", "denoiser", "turbo", "folder")
FITTED_CLIPS = 192
TURBO_SHIFT = 2.0


def make_codec(config: CodecConfig, clips: int) -> AutoencoderKLWan:
    """The VAE with its encoder fitted to freshly drawn clips, and its decoder untrained."""
    rng = np.random.default_rng([config.seed, 3])
    vae = codec.build(config).eval()
    drawn: list[torch.Tensor] = []
    while len(drawn) < clips:
        some = decoding.clips_for(rng, 8, torch.device("cpu"))
        if some.shape[-1] == some.shape[-2]:  # blocks are as small on every canvas
            drawn += list(some)
    codec.fit(vae, config, torch.stack(drawn))
    return vae


def run(
    stage: str,
    work: Path,
    out: Path,
    first: CodecConfig,
    decoder: DecodingConfig,
    denoiser: DenoisingConfig,
    turbo: DistillingConfig,
    clips: int = FITTED_CLIPS,
    trained_vae: Path | None = None,
) -> None:
    """One stage, from where it was left. The decoder starts from that of `trained_vae`, if there is one."""
    if stage == "codec":
        if not (work / "vae").exists():
            make_codec(first, clips).save_pretrained(work / "vae")
        return
    vae = AutoencoderKLWan.from_pretrained(work / "vae")
    if stage == "decoder":
        start = vae if trained_vae is None else AutoencoderKLWan.from_pretrained(trained_vae, torch_dtype=torch.float32)
        decoding.train(decoder, start, work / "decoder")
    elif stage == "denoiser":
        denoising.train(denoiser, vae, work / "denoiser")
    elif stage == "turbo":
        teacher = denoising.averaged(denoiser.networks, work / "denoiser" / "state.pt")
        distilling.train(turbo, denoiser, teacher, vae, work / "turbo")
    else:
        decoding.averaged(vae, work / "decoder" / "state.pt")
        made = denoising.averaged(denoiser.networks, work / "denoiser" / "state.pt")
        print(f"{save(assemble(vae, made, denoiser.shift), out / 'directed')} bytes in {out / 'directed'}")
        if (work / "turbo" / "state.pt").exists():
            quick = distilling.averaged(denoiser.networks, made, work / "turbo" / "state.pt")
            vae = decoding.averaged(AutoencoderKLWan.from_pretrained(work / "vae"), work / "decoder" / "state.pt")
            place = out / "directed-turbo"
            print(f"{save(assemble(vae, quick, turbo.shift, order=1), place)} bytes in {place}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m training.directed", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("models/embedded"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="of each trained stage, instead of its number of steps")
    parser.add_argument("--vae", type=Path, help="one whose decoder the stage `decoder` is to train further")
    parser.add_argument("--rates", type=float, default=1.0, help="share of the decoder's rates; further: 0.35")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    common = {"device": given.device, "threads": given.threads, "seed": given.seed, "minutes": given.minutes}
    usual = DecodingConfig()
    rates = {"rate": usual.rate * given.rates, "matrix_rate": usual.matrix_rate * given.rates}
    for stage in STAGES if given.stage == "all" else (given.stage,):
        run(
            stage,
            given.work,
            given.out,
            CodecConfig(seed=given.seed),
            DecodingConfig(**common, **rates),
            DenoisingConfig(**common),
            DistillingConfig(**common),
            trained_vae=given.vae,
        )


if __name__ == "__main__":
    main()

"""Train on a GPU: `python -m training.directed.accelerated --work FOLDER --minutes 9 [--out FOLDER]`.

What the stages `decoder`, `denoiser` and `turbo` do one after the other, in one process and minutes instead of a day.
The networks are so small that a step of theirs is all launches of kernels and passes over memory: whole steps, with the
optimiser's, are CUDA graphs, one for each kind of batch, their blocks are compiled, and matrix products are in half
precision. The decoder trains on a stream of its own beside the denoiser, or is taken as `--vae` has it. Shots are
described by processes and drawn by the GPU (`supply.py`). Losses, schedules and what is written are the stages' own,
batches are larger.

On a CPU the same runs without graphs and in single precision, which is for tests.
"""

import argparse
import copy
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from training.directed import denoising
from training.directed.codec import FastEncoder
from training.directed.decoding import DecodingConfig
from training.directed.decoding_graph import Decoding
from training.directed.denoising import DenoisingConfig
from training.directed.denoising_graphs import Denoising
from training.directed.distilling import DistillingConfig
from training.directed.folder import assemble
from training.directed.graphs import Log
from training.directed.networks import build
from training.directed.supply import Supply
from training.folder import save


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m training.directed.accelerated", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with `vae`, from the stage `codec`")
    parser.add_argument("--vae", type=Path, help="a VAE that is trained already, instead: its decoder stays as it is")
    parser.add_argument("--teacher", type=Path, help="a trained `directed` folder: it is distilled, and nothing else")
    parser.add_argument("--student", type=Path, help="a `directed-turbo` folder to go on from, for --teacher")
    parser.add_argument("--out", type=Path, help="folder for weights and log; the work folder when not said")
    parser.add_argument("--folders", type=Path, help="for the diffusers folders; beside the weights when not said")
    parser.add_argument("--denoise-s", type=float, default=480.0)
    parser.add_argument("--turbo-s", type=float, default=100.0)
    parser.add_argument(
        "--total-s",
        type=float,
        help="for everything: the denoiser, or with --teacher the turbo model, gets what is left of it",
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--decoder-batch", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100_000, help="shots kept on the device, a fifth of a MiB each")
    parser.add_argument("--shots-per-s", type=float, default=300.0, help="drawn anew, at most")
    parser.add_argument("--processes", type=int, default=10, help="that describe shots")
    parser.add_argument("--read", type=int, default=3000, help="shots that each process only puts into words")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="the blocks: two minutes, for a third of a step's time")
    parser.add_argument("--layout", action="store_true", help="the decoder's weights by channels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    train(given, DenoisingConfig(batch=given.batch, seed=given.seed), DecodingConfig(), DistillingConfig())


def train(given: argparse.Namespace, config: DenoisingConfig, windows: DecodingConfig, turbo: DistillingConfig) -> None:
    """Everything, from the fitted codec to the weights of all three."""
    out: Path = given.out or given.work
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "log.jsonl")
    torch.set_num_threads(1)  # before anything runs: processes are forked from this one
    sys.setswitchinterval(5e-4)  # what draws must not keep what trains waiting
    supply = Supply(build(config.networks).tokenizer, seed=given.seed, processes=given.processes, read=given.read)
    device = torch.device(given.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(given.seed)
    vae = AutoencoderKLWan.from_pretrained(given.vae or given.work / "vae", torch_dtype=torch.float32).to(device).eval()
    encode = FastEncoder(vae)
    try:
        supply.open(encode, device, given.rows, None if given.vae else windows)
        with denoising.numerics(device):
            decoder = None if given.vae else Decoding(windows, vae, given.decoder_batch, given.layout, log)
            log(made="tables, and the decoder's graph if it is trained")
            denoiser = Denoising(config, turbo, supply, device, log, compile_blocks=given.compile)
            if given.teacher is not None:
                denoiser.take(given.teacher)
            else:
                known = denoiser.read(config.reading_steps, 8 * config.reading_batch)
                log(read={name: round(share, 3) for name, share in known.items()})
                log(placed=round(denoiser.place(config.placing_steps), 4))
            denoiser.prepare(distil_only=given.teacher is not None)
            first = min(4000, given.rows // 4)
            supply.receive(given.shots_per_s, at_once=first)
            while supply.shots < first:
                time.sleep(0.02)
            log(drawn=supply.shots)
            _train(given, supply, vae, decoder, denoiser, log, out)
    finally:
        supply.close()


def _train(
    given: argparse.Namespace,
    supply: Supply,
    vae: AutoencoderKLWan,
    decoder: Decoding | None,
    denoiser: Denoising,
    log: Log,
    out: Path,
) -> None:
    place: Path = given.folders or out

    def keep() -> None:
        if decoder is not None:
            (average,) = decoder.average.modules
            kept.decoder.load_state_dict({name: value.cpu() for name, value in average.state_dict().items()})
        ready(kept, denoiser, 0, denoiser.shift, place / "directed", log)

    kept = copy.deepcopy(vae).cpu()
    elapsed, to_write_s = time.monotonic() - log.started, 5.0
    denoise_s, turbo_s = given.denoise_s, given.turbo_s
    if given.total_s is not None and given.teacher is not None:
        turbo_s = max(1.0, given.total_s - elapsed - to_write_s)
    elif given.total_s is not None:
        denoise_s = max(1.0, given.total_s - elapsed - turbo_s - to_write_s)
    if given.teacher is None:
        log(denoise_s=round(denoise_s, 1))
        with trained_beside(decoder, supply, denoise_s - 1, given.seed):
            denoiser.train(denoise_s, keep, 120.0)
        log(denoiser_steps=denoiser.step, decoder_steps=decoder.step if decoder else 0, shots=supply.shots)
        supply.close()  # what is there is enough for the turbo model

    def keep_turbo() -> None:
        ready(kept, denoiser, 1, denoiser.turbo_shift, place / "directed-turbo", log)

    log(turbo_s=round(turbo_s, 1))
    denoiser.distil(turbo_s, keep_turbo, 25.0, given.student)
    used = torch.cuda.max_memory_allocated() / 2**30 if denoiser.networks.device.type == "cuda" else 0.0
    log(turbo_steps=denoiser.step, shots=supply.shots, gib=round(used, 1))


@contextmanager
def trained_beside(decoder: Decoding | None, supply: Supply, seconds: float, seed: int) -> Iterator[None]:
    """While this lasts, the decoder trains in a thread, for that long at most; an error of its is raised at the end."""
    started, ended = time.monotonic(), threading.Event()
    failed: list[BaseException] = []

    def beside() -> None:
        try:
            if decoder is not None:
                decoder.train(supply, seconds, started, seed, ended)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def ready(vae: AutoencoderKLWan, denoiser: Denoising, turbo: int, shift: float, folder: Path, log: Log) -> None:
    """Write the diffusers folder of the denoiser, or of the turbo model."""
    transformer, text_encoder = denoiser.average.modules
    if turbo:
        transformer = denoiser.slow.modules[0]
    made = build(denoiser.config.networks)
    for module, weights in ((made.transformer, transformer), (made.text_encoder, text_encoder)):
        module.load_state_dict({name: value.detach().cpu() for name, value in weights.state_dict().items()})
    size = save(assemble(copy.deepcopy(vae), made, shift, order=1 if turbo else 2), folder)
    log(written=folder.name, folder_bytes=size)


if __name__ == "__main__":
    main()

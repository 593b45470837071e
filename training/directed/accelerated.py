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
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file
from torch import Tensor, nn

from training.directed import decoding, denoising, distilling, reading
from training.directed.batches import Batch, batch_like
from training.directed.blocks import keep_single, share_blocks
from training.directed.codec import CELL_FRAMES, CELL_PX, FastEncoder, decode
from training.directed.control import MASK_CHANNELS
from training.directed.decoding import DecodingConfig
from training.directed.denoising import NOT_MATRICES, DenoisingConfig, shift_at, tokens
from training.directed.distilling import DistillingConfig
from training.directed.folder import assemble
from training.directed.graphs import Replayed, stream_on
from training.directed.muon import Muons
from training.directed.networks import PATCH, broad, build, predict, read_tokens, shifted
from training.directed.scenes import CANVASES, FRAMES
from training.directed.shots import Kind
from training.directed.supply import TOKENS, Supply, tokens_of
from training.folder import save
from training.optimisers import rate_share
from training.placing import PlaceReader

LENGTHS = ((TOKENS, 0.85), (512, 0.15))
"""Tokens that a prompt is padded to, and how often; the pipeline's own default is 512."""


def shares_of(stage_s: float, elapsed_s: float) -> float:
    """The share of a stage that is over."""
    return min(1.0, max(0.0, elapsed_s / stage_s))


class Follower:
    """A copy of modules that is moved towards them: their average, in modules of its own."""

    def __init__(self, *modules: nn.Module, decay: float) -> None:
        self.modules = tuple(copy.deepcopy(m).eval().requires_grad_(False) for m in modules)
        self._pairs = [
            (mine, theirs)
            for copied, module in zip(self.modules, modules, strict=True)
            for mine, theirs in zip(copied.parameters(), module.parameters(), strict=True)
        ]
        self._decay = decay

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """The horizon grows with the step."""
        keep = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mine for mine, _ in self._pairs], [theirs for _, theirs in self._pairs], 1 - keep)


@dataclass
class Log:
    """Lines of JSON, for all threads."""

    path: Path
    started: float = field(default_factory=time.monotonic)

    def __call__(self, **values: object) -> None:
        line = json.dumps(values | {"at_s": round(time.monotonic() - self.started, 1)})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


def half_products(device: torch.device) -> AbstractContextManager[object]:
    """On a GPU, matrix products in bfloat16."""
    if device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # a cast that is kept would not be replayed


class Decoding:
    """The decoder's training."""

    def __init__(self, config: DecodingConfig, vae: AutoencoderKLWan, batch: int, layout: bool, log: Log) -> None:
        self._config, self._vae, self._log = config, vae, log
        device = vae.device
        self.decoder = decoding.opened(vae)
        if layout:
            decoding.channels_last(self.decoder)
        self._trainers = Muons(self.decoder, rate=config.rate, matrix_rate=config.matrix_rate)
        self.average = Follower(self.decoder, decay=0.999)
        encode = FastEncoder(vae)
        side, frames = config.window_px, config.window_frames
        self._shown = torch.zeros(batch, 3, frames, side, side, dtype=torch.uint8, device=device)
        z = vae.config.z_dim
        plane = ((frames - 1) // CELL_FRAMES + 1, side // CELL_PX, side // CELL_PX)
        self._noise = torch.zeros(batch, z, *plane, device=device)
        self._error, self._seen = torch.zeros((), device=device), 0
        self.step = 0

        def body() -> None:
            true = self._shown.float() / 127.5 - 1
            error = decode(vae, encode.restored(encode.normalised(true) + self._noise)) - true
            self._trainers.descend(decoding.loss_of(error))
            self._error.add_(error.detach().pow(2).mean())

        self._trainers.set_share(0.0)
        self._stream = stream_on(device)
        self._body = Replayed(body, self._stream)
        self._trainers.forget()
        self._error.zero_()

    def train(self, supply: Supply, until_s: float, started: float, seed: int, ended: threading.Event) -> None:
        """Until that many seconds after `started`; `ended` stops it before."""
        device, config = self._shown.device, self._config
        generator = torch.Generator(device).manual_seed(seed + 5)
        stream = self._stream
        begun = time.monotonic() - started
        with torch.cuda.stream(stream):
            while not ended.is_set():
                elapsed = time.monotonic() - started
                done = shares_of(until_s - begun, elapsed - begun)
                rows = torch.randint(0, supply.windows_filled, (len(self._shown),), device=device, generator=generator)
                torch.index_select(supply.windows, 0, rows, out=self._shown)
                size = torch.rand(len(self._shown), device=device, generator=generator) * 1.5 - 0.5
                self._noise.normal_(generator=generator).mul_(config.noise * broad(size).clamp_min(0))
                self._trainers.set_share(rate_share(self.step, done, 30))
                self._body()
                self.average.follow(self.step)
                self.step, self._seen = self.step + 1, self._seen + 1
                if self.step % 10 == 0 and stream is not None:
                    stream.synchronize()
                if self.step % 200 == 0 or done >= 1:
                    quality = 10 * torch.log10(4 * self._seen / self._error)
                    self._log(stage="decoder", step=self.step, psnr=round(float(quality), 2), done=round(done, 3))
                    self._error.zero_()
                    self._seen = 0
                if done >= 1:
                    return


class Denoising:
    """The training of transformer and text encoder, and of the turbo model after it."""

    def __init__(
        self,
        config: DenoisingConfig,
        turbo: DistillingConfig,
        supply: Supply,
        device: torch.device,
        log: Log,
        compile_blocks: bool,
    ) -> None:
        self.config, self._turbo, self._supply, self._log, self._device = config, turbo, supply, log, device
        self.shift, self.turbo_shift = config.shift, turbo.shift
        self.networks = networks = build(config.networks)
        networks.transformer.to(device).train()
        networks.text_encoder.to(device).train()
        self._reader = PlaceReader(networks.transformer).to(device)
        self._stream = stream_on(device)
        self._compile = compile_blocks
        keep_single(networks.transformer)
        self.step = 0

    def read(self, steps: int, batch: int) -> dict[str, float]:
        """`reading.teach`, as a graph, over sentences drawn before; returns the share of the last tokens that knew
        each attribute."""
        device, encoder = self._device, self.networks.text_encoder
        said, answers = (part.to(device) for part in self._supply.sentences())
        heads = reading.heads(encoder.config.d_model).to(device)
        trainers = Muons(encoder, heads, rate=2e-3, matrix_rate=0.0, slow=("",))
        ids = torch.ones(batch, TOKENS, dtype=torch.long, device=device)
        goal = torch.zeros(batch, answers.shape[1], dtype=torch.long, device=device)
        known = torch.zeros(answers.shape[1], device=device)

        def body() -> None:
            with half_products(device):
                hidden = read_tokens(encoder, ids, TOKENS)
            loss, right = reading.loss(hidden, ids != 0, goal, heads)
            trainers.descend(loss)
            known.copy_(right)

        trainers.set_share(0.0)
        run = Replayed(body, self._stream)
        trainers.forget()
        for step in range(steps):
            rows = torch.randint(0, len(said), (batch,), device=device)
            ids.copy_(said[rows, torch.randint(0, said.shape[1], (batch,), device=device)])
            goal.copy_(answers[rows])
            trainers.set_share(rate_share(step, step / steps, 50))
            run()
        return {name: float(share) for (name, _), share in zip(reading.ATTRIBUTES, known, strict=True)}

    def place(self, steps: int, enough: float = 0.99) -> float:
        """`denoising.learn_places`, as graphs."""
        config, device = self.config, self._device
        transformer, reader = self.networks.transformer, self._reader
        trainers = Muons(transformer, reader, rate=1e-3, matrix_rate=0.01, slow=NOT_MATRICES)
        z = config.networks.latent_channels
        right = {size: torch.zeros((), device=device) for size in (tokens(w, h) for w, h in CANVASES)}
        runs = []
        trainers.set_share(0.0)
        for size, share in right.items():
            plane = (size[0], size[1] * PATCH[1], size[2] * PATCH[2])
            noise = torch.randn(config.batch, z, *plane, device=device)
            told = torch.zeros(config.batch, 2 * z + MASK_CHANNELS, *plane, device=device)
            told[:, 2 * z :] = 1.0
            text = torch.randn(config.batch, 4, config.networks.text_dim, device=device)
            full = torch.ones(config.batch, device=device)

            def body(
                size: denoising.Size = size,
                share: Tensor = share,
                given: tuple[Tensor, ...] = (noise, full, text, told),
            ) -> None:
                with half_products(device):
                    predict(transformer, *given)
                loss, known = reader.losses(size)
                trainers.descend(loss)
                share.copy_(known)

            runs.append((Replayed(body, self._stream), noise, text))
        trainers.forget()
        for step in range(steps):
            run, noise, text = runs[step % len(runs)]
            noise.normal_()
            text.normal_()
            trainers.set_share(min(1.0, (step + 1) / 20))
            run()
            if step % 15 == 14 and min(float(r) for r in right.values()) >= enough:
                break
        return min(float(r) for r in right.values())

    @torch.no_grad()
    def take(self, folder: Path) -> None:
        """The weights of a denoiser that is trained already."""
        for module, part in ((self.networks.transformer, "transformer"), (self.networks.text_encoder, "text_encoder")):
            (file,) = (folder / part).glob("*.safetensors")
            _copied(module, load_file(file))

    def prepare(self, distil_only: bool) -> None:
        """Optimisers, averages and graphs; the tables must be there, if empty."""
        config, turbo, device, networks = self.config, self._turbo, self._device, self.networks
        self._trainers = Muons(
            networks.transformer, self._reader, rate=config.rate, matrix_rate=config.matrix_rate, slow=NOT_MATRICES
        )
        self._readers = Muons(networks.text_encoder, rate=0.3 * config.rate, matrix_rate=0.0, slow=("",))
        hooks = networks.transformer.blocks[1 if len(networks.transformer.blocks) > 1 else 0]._forward_hooks
        kept = dict(hooks)
        hooks.clear()  # copies are not asked for places
        self.average = Follower(networks.transformer, networks.text_encoder, decay=0.999)
        student = copy.deepcopy(networks.transformer)
        hooks.update(kept)
        self.student = student.train().requires_grad_(True)
        self.slow = Follower(self.student, decay=0.99)
        copies = (self.average.modules[0], self.student, self.slow.modules[0])
        for copied in copies:
            keep_single(copied)
        for transformer in (networks.transformer, *copies):
            share_blocks(transformer, self._compile)
        self._students = Muons(self.student, rate=turbo.rate, matrix_rate=turbo.matrix_rate, slow=NOT_MATRICES)
        self._shift = torch.tensor(config.shift, device=device)
        self._loss, self._placed = torch.zeros((), device=device), torch.zeros((), device=device)
        self._grid = distilling.levels(turbo).to(device)
        self._empty = tokens_of(networks.tokenizer, [""]).to(device)
        self._batches = [  # the longer ones take as much memory in half as large a batch
            batch_like(table, config.batch if which.frames == FRAMES else max(1, config.batch // 2))
            for which, table in zip(self._supply.kinds, self._supply.tables, strict=True)
        ]
        for trainers in (self._trainers, self._readers, self._students):
            trainers.set_share(0.0)
        if not distil_only:
            self._denoise = [
                {length: self._denoising_step(b, length) for length, _ in LENGTHS if length == TOKENS or plain(which)}
                for b, which in zip(self._batches, self._supply.kinds, strict=True)
            ]
            self._log(made="denoiser's graphs")
        self._distil = [self._turbo_step(b) for b in self._batches]
        self._log(made="turbo's graphs")
        for trainers in (self._trainers, self._readers, self._students):
            trainers.forget()
        self._loss.zero_()

    def _denoising_step(self, b: Batch, length: int) -> Replayed:
        networks, config = self.networks, self.config
        frames, height, width = b.latents.shape[2:]
        size = (frames, height // PATCH[1], width // PATCH[2])

        def body() -> None:
            sigma = shifted(b.uniform, self._shift)
            with half_products(self._device):
                text = read_tokens(networks.text_encoder, b.tokens, length)
                loss = denoising.loss_at(networks.transformer, b.latents.float(), b.control, text, sigma, b.noise)
            self._loss.add_(loss.detach())
            placing, placed = self._reader.losses(size)
            self._placed.copy_(placed)
            self._trainers.descend(loss + config.place_weight * placing, self._readers)

        return Replayed(body, self._stream)

    def _turbo_step(self, b: Batch) -> Replayed:
        teacher, encoder = self.average.modules
        slow = self.slow.modules[0]

        def body() -> None:
            with torch.no_grad(), half_products(self._device):
                text = read_tokens(encoder, b.tokens, TOKENS)
                empty = read_tokens(encoder, self._empty.long().expand_as(b.tokens), TOKENS)
            at = (b.uniform * self._turbo.teacher_steps).long().clamp_max(self._turbo.teacher_steps - 1)
            with half_products(self._device):
                loss = distilling.consistency_loss(
                    (self.student, slow, teacher),
                    b.latents.float(),
                    b.control,
                    (text, empty),
                    self._grid,
                    at,
                    b.noise,
                    self._turbo,
                )
            self._loss.add_(loss.detach())
            self._students.descend(loss)

        return Replayed(body, self._stream)

    def train(self, seconds: float, save: Callable[[], None], every_s: float) -> None:
        """The denoiser, for that long; `save` is called every so often."""
        config = self.config

        def schedule(done: float) -> None:
            self._shift.fill_(shift_at(config, done))
            share = rate_share(self.step, done, config.warmup_steps)
            self._trainers.set_share(share)
            self._readers.set_share(share)

        self._loop("denoiser", seconds, config.prompt_drop, schedule, self.average, self._denoise, save, every_s)

    def distil(self, seconds: float, save: Callable[[], None], every_s: float, student: Path | None = None) -> None:
        """The turbo model, for that long, from the average of the denoiser, or on from a distilled `student`."""
        start = self.average.modules[0].state_dict()
        if student is not None:
            (file,) = (student / "transformer").glob("*.safetensors")
            start = load_file(file)
        for module in (self.student, self.slow.modules[0]):
            _copied(module, start)
        self.step = 0

        def schedule(done: float) -> None:
            self._students.set_share(rate_share(self.step, done, self._turbo.warmup_steps))

        steps = [{TOKENS: run} for run in self._distil]
        self._loop("turbo", seconds, 0.0, schedule, self.slow, steps, save, every_s)

    def _loop(
        self,
        name: str,
        seconds: float,
        drop: float,
        schedule: Callable[[float], None],
        average: Follower,
        steps: Sequence[dict[int, Replayed]],
        save: Callable[[], None],
        every_s: float,
    ) -> None:
        seed = self.config.seed + (1 if name == "turbo" else 0)
        generator = torch.Generator(self._device).manual_seed(seed)
        choose = torch.Generator().manual_seed(seed)
        shares = torch.tensor(self._supply.shares, dtype=torch.float64)
        lengths = torch.tensor([share for _, share in LENGTHS])
        began = saved = time.monotonic()
        seen = 0
        self._loss.zero_()
        while True:
            done = shares_of(seconds, time.monotonic() - began)
            there = torch.tensor([table.filled > 0 for table in self._supply.tables])
            which = int(torch.multinomial(shares * there, 1, generator=choose))
            length = LENGTHS[int(torch.multinomial(lengths, 1, generator=choose))][0]
            runs = steps[which]
            schedule(done)
            self._batches[which].draw(self._supply.tables[which], self._empty, drop, generator)
            runs.get(length, runs[TOKENS])()
            average.follow(self.step)
            self.step, seen = self.step + 1, seen + 1
            if self.step % 10 == 0 and self._device.type == "cuda":
                torch.cuda.current_stream().synchronize()
            if self.step % 200 == 0 or done >= 1:
                self._log(
                    stage=name,
                    step=self.step,
                    loss=round(float(self._loss) / seen, 5),
                    placed=round(float(self._placed), 3),
                    done=round(done, 3),
                    shots=self._supply.shots,
                )
                self._loss.zero_()
                seen = 0
            if time.monotonic() - saved > every_s or done >= 1:
                saved = time.monotonic()
                save()
            if done >= 1:
                return


@torch.no_grad()
def _copied(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """In place, since graphs read what is there."""
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])


def plain(which: Kind) -> bool:
    """Square, of the usual length, without a reference: prompts of such are padded to every length."""
    return not which.style and which.frames == FRAMES and which.canvas == 0


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
            supply.receive(given.shots_per_s, at_once=min(4000, given.rows // 4))
            while supply.shots < min(4000, given.rows // 4):
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

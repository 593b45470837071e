"""The denoiser's and the turbo model's training on a GPU: a graph for each kind of batch."""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from training.directed import denoising, distilling, reading
from training.directed.batches import Batch, batch_like
from training.directed.blocks import keep_single, share_blocks
from training.directed.control import MASK_CHANNELS
from training.directed.denoising import NOT_MATRICES, DenoisingConfig, shift_at, tokens
from training.directed.distilling import DistillingConfig
from training.directed.graphs import Follower, Log, Replayed, half_products, shares_of, stream_on
from training.directed.muon import Muons
from training.directed.networks import PATCH, build, predict, read_tokens, shifted
from training.directed.scenes import CANVASES, FRAMES
from training.directed.shots import Kind
from training.directed.supply import TOKENS, Supply, tokens_of
from training.optimisers import rate_share
from training.placing import PlaceReader

LENGTHS = ((TOKENS, 0.85), (512, 0.15))
"""Tokens that a prompt is padded to, and how often; the pipeline's own default is 512."""


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

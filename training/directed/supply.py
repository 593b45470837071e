"""Shots drawn, encoded and put into words by processes beside the training, and kept in tables on its device.

A GPU trains faster than one process draws. What is drawn stays: each shot is taken many times, with another noise and
one of several sentences each time.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.directed.codec import CELL_FRAMES, CELL_PX, FastEncoder
from training.directed.conditions import conditions, structure
from training.directed.control import MASK_CHANNELS, control, wanted
from training.directed.decoding import DecodingConfig, window
from training.directed.drawing import draw
from training.directed.reading import answers
from training.directed.scenes import CANVASES, Shot, kind, sample
from training.directed.sentences import sentence
from training.directed.shots import Kind, kinds

SENTENCES = 6
"""Of each shot."""
TOKENS = 64
"""Of each sentence, padding included."""
AT_ONCE = 16
"""Shots of a delivery."""
_SKETCHES = 0.125  # of the decoder's windows: drawings that control shots
_Arrays = tuple[NDArray[Any], ...]


def tokens_of(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    """Token numbers (prompts, `TOKENS`), 16 bits."""
    read = tokenizer(prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    return torch.as_tensor(read.input_ids).to(torch.int16)


def deliver(
    rng: np.random.Generator,
    encode: FastEncoder,
    tokenizer: PreTrainedTokenizerFast,
    which: Kind,
    windows: DecodingConfig,
    count: int = AT_ONCE,
) -> tuple[Tensor, ...]:
    """Shots of one kind: latents and control latents (half precision), the mask among the latter (bytes), tokens
    (count, sentences, tokens), and windows of their clips (count, 3, frames, height, width) as bytes."""
    width, height = CANVASES[which.canvas]
    shots: list[Shot] = []
    while len(shots) < count:
        task = "style" if which.style else kind(rng)
        if which.style or task != "style":
            shots.append(sample(rng, task, width=width, height=height, frames=which.frames))
    clips = draw([shot.scene for shot in shots])
    given = conditions(rng, shots, clips)
    steered = control(encode, given)
    said = [sentence(rng, shot) for shot in shots for _ in range(SENTENCES)]
    seen = [
        structure(shot.scene, bool(rng.random() < 0.3), clips.device) if rng.random() < _SKETCHES else clip
        for shot, clip in zip(shots, clips, strict=True)
    ]
    return (
        wanted(encode, clips, given).half(),
        steered[:, :-MASK_CHANNELS].half(),
        steered[:, -MASK_CHANNELS:].byte(),
        tokens_of(tokenizer, said).view(count, SENTENCES, TOKENS),
        torch.stack([((window(rng, clip, windows) + 1) * 127.5).round().byte() for clip in seen]),
    )


def told(rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, count: int) -> tuple[Tensor, Tensor]:
    """Sentences of shots that need not be drawn: tokens (count, sentences, tokens) and what they say (count,
    attributes)."""
    shots = [sample(rng, kind(rng), frames=1) for _ in range(count)]
    said = [sentence(rng, shot) for shot in shots for _ in range(SENTENCES)]
    return tokens_of(tokenizer, said).view(count, SENTENCES, TOKENS), torch.tensor([answers(shot) for shot in shots])


def _work(
    queue: "Queue[tuple[int, _Arrays]]",
    words: "Queue[_Arrays]",
    make: Callable[[np.random.Generator, Kind], tuple[Tensor, ...]],
    tell: Callable[[np.random.Generator], tuple[Tensor, ...]],
    seed: int,
) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 23])
    words.put(tuple(part.numpy() for part in tell(rng)))
    shares = kinds()
    which, weights = list(shares), np.array(list(shares.values())) / sum(shares.values())
    with torch.no_grad():
        while True:
            index = int(rng.choice(len(which), p=weights))
            queue.put((index, tuple(part.numpy() for part in make(rng, which[index]))))


@dataclass
class Table:
    """Shots of one kind on the device; of the rows, `filled` hold one, and the oldest are overwritten."""

    latents: Tensor
    told: Tensor
    mask: Tensor
    tokens: Tensor
    filled: int = 0
    next: int = 0

    def put(self, *parts: Tensor) -> None:
        """Copy shots in, on the stream of the caller; they count once `publish` says so."""
        if self.next + len(parts[0]) > len(self.latents):
            self.next = 0
        for table, part in zip((self.latents, self.told, self.mask, self.tokens), parts, strict=True):
            table[self.next : self.next + len(part)].copy_(part, non_blocking=True)

    def publish(self, count: int) -> None:
        """`count` shots have arrived."""
        self.next += count
        self.filled = max(self.filled, self.next)


class Supply:
    """Processes that draw, and the tables that they fill."""

    def __init__(
        self,
        encode: FastEncoder,
        tokenizer: PreTrainedTokenizerFast,
        windows: DecodingConfig,
        *,
        seed: int,
        processes: int,
        read: int,
    ) -> None:
        """`encode` lies on the CPU; `read` shots of each process are told and not drawn. Processes are forked: none
        may have touched a GPU before."""
        context = get_context("fork")
        # Long enough to hold what is drawn while graphs are made.
        self._queue: Queue[tuple[int, _Arrays]] = context.Queue(maxsize=40 * processes)

        def make(rng: np.random.Generator, which: Kind) -> tuple[Tensor, ...]:
            return deliver(rng, encode, tokenizer, which, windows)

        def tell(rng: np.random.Generator) -> tuple[Tensor, ...]:
            return told(rng, tokenizer, read)

        self._words: Queue[_Arrays] = context.Queue()
        self._processes: list[BaseProcess] = [
            context.Process(target=_work, args=(self._queue, self._words, make, tell, seed * 1000 + i), daemon=True)
            for i in range(processes)
        ]
        self.kinds = list(kinds())
        self.shares = list(kinds().values())
        self.tables: list[Table] = []
        self.shots = 0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._windows = windows
        for process in self._processes:
            process.start()

    def sentences(self) -> tuple[Tensor, Tensor]:
        """What `told` gave in every process; once only."""
        parts = [self._words.get(timeout=120) for _ in self._processes]
        said, answered = zip(*parts, strict=True)
        return torch.from_numpy(np.concatenate(said)), torch.from_numpy(np.concatenate(answered))

    def open(self, device: torch.device, rows: int, channels: int) -> None:
        """Make the tables for about `rows` shots."""
        self._device = device
        shares = kinds()
        for which in self.kinds:
            width, height = CANVASES[which.canvas]
            plane = (
                (which.frames - 1) // CELL_FRAMES + 1 + which.style,
                height // CELL_PX,
                width // CELL_PX,
            )
            count = max(4 * AT_ONCE, round(rows * shares[which] / sum(shares.values())) // AT_ONCE * AT_ONCE)
            self.tables.append(
                Table(
                    torch.zeros(count, channels, *plane, dtype=torch.half, device=device),
                    torch.zeros(count, 2 * channels, *plane, dtype=torch.half, device=device),
                    torch.zeros(count, MASK_CHANNELS, *plane, dtype=torch.uint8, device=device),
                    torch.zeros(count, SENTENCES, TOKENS, dtype=torch.int16, device=device),
                )
            )
        c = self._windows
        sides = (3, c.window_frames, c.window_px, c.window_px)
        self.windows = torch.zeros(max(4 * AT_ONCE, rows // 2), *sides, dtype=torch.uint8, device=device)
        self.windows_filled = self._next_window = 0

    def receive(self) -> None:
        """Begin to fill the tables, beside all else."""
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def take(self) -> None:
        """Put one delivery away."""
        index, arrays = self._queue.get(timeout=60)
        *parts, windows = (torch.from_numpy(a) for a in arrays)
        self.tables[index].put(*parts)
        if self._next_window + len(windows) > len(self.windows):
            self._next_window = 0
        self.windows[self._next_window : self._next_window + len(windows)].copy_(windows, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        self.tables[index].publish(len(windows))
        self._next_window += len(windows)
        self.windows_filled = max(self.windows_filled, self._next_window)
        self.shots += len(windows)

    def _receive(self) -> None:
        stream = torch.cuda.Stream() if self._device.type == "cuda" else None
        with torch.cuda.stream(stream):
            while not self._ending.is_set():
                self.take()

    def close(self) -> None:
        """Stop."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=65)
        for process in self._processes:
            process.terminate()

"""Shots described by processes beside the training, drawn and encoded on its device, and kept in tables there.

A GPU draws in passing; what Python has to do for a shot, choose it and put it into words, is left to processes. What is
drawn stays: each shot is taken several times, with another noise and one of several sentences each time.
"""

import threading
import time
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
AT_ONCE = 64
"""Shots of a delivery."""
_SKETCHES = 0.125  # of the decoder's windows: drawings that control shots
_Arrays = tuple[NDArray[Any], ...]


def tokens_of(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    """Token numbers (prompts, `TOKENS`), 16 bits."""
    read = tokenizer(prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    return torch.as_tensor(read.input_ids).to(torch.int16)


@dataclass(frozen=True)
class Described:
    """Shots of one kind that wait to be drawn: tokens (shots, sentences, tokens), and a seed for what conditions are
    made at random."""

    which: Kind
    shots: tuple[Shot, ...]
    tokens: NDArray[np.int16]
    seed: int


def describe(rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, which: Kind, count: int) -> Described:
    """`count` shots of one kind, and what may be said of each."""
    width, height = CANVASES[which.canvas]
    shots: list[Shot] = []
    while len(shots) < count:
        task = "style" if which.style else kind(rng)
        if which.style or task != "style":
            shots.append(sample(rng, task, width=width, height=height, frames=which.frames))
    said = [sentence(rng, shot) for shot in shots for _ in range(SENTENCES)]
    tokens = tokens_of(tokenizer, said).view(count, SENTENCES, TOKENS).numpy()
    return Described(which, tuple(shots), tokens, int(rng.integers(2**63)))


@torch.no_grad()
def deliver(
    described: Described, encode: FastEncoder, device: torch.device, windows: DecodingConfig | None
) -> tuple[Tensor, ...]:
    """Latents and control latents (half precision), the mask among the latter (bytes), tokens, and, where they are
    asked for, windows of the clips (count, 3, frames, height, width) as bytes."""
    rng, shots = np.random.default_rng(described.seed), described.shots
    clips = draw([shot.scene for shot in shots], device)
    given = conditions(rng, shots, clips)
    steered = control(encode, given)
    parts = (
        wanted(encode, clips, given).half(),
        steered[:, :-MASK_CHANNELS].half(),
        steered[:, -MASK_CHANNELS:].byte(),
        torch.from_numpy(described.tokens).to(device),
    )
    if windows is None:
        return parts
    seen = [
        structure(shot.scene, bool(rng.random() < 0.3), device) if rng.random() < _SKETCHES else clip
        for shot, clip in zip(shots, clips, strict=True)
    ]
    return (*parts, torch.stack([((window(rng, clip, windows) + 1) * 127.5).round().byte() for clip in seen]))


def told(rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, count: int) -> tuple[Tensor, Tensor]:
    """Sentences of shots that need not be drawn: tokens (count, sentences, tokens) and what they say (count,
    attributes)."""
    shots = [sample(rng, kind(rng), frames=1) for _ in range(count)]
    said = [sentence(rng, shot) for shot in shots for _ in range(SENTENCES)]
    return tokens_of(tokenizer, said).view(count, SENTENCES, TOKENS), torch.tensor([answers(shot) for shot in shots])


def _work(
    queue: "Queue[Described]", words: "Queue[_Arrays]", tokenizer: PreTrainedTokenizerFast, read: int, seed: int
) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 23])
    words.put(tuple(part.numpy() for part in told(rng, tokenizer, read)))
    shares = kinds()
    which, weights = list(shares), np.array(list(shares.values())) / sum(shares.values())
    while True:
        queue.put(describe(rng, tokenizer, which[int(rng.choice(len(which), p=weights))], AT_ONCE))


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
    """Processes that describe shots, and the tables that these fill once they are drawn."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, seed: int, processes: int, read: int) -> None:
        """`read` shots of each process are told and not drawn. Processes are forked: none may have touched a GPU
        before."""
        context = get_context("fork")
        self._queue: Queue[Described] = context.Queue(maxsize=16 * processes)
        self._words: Queue[_Arrays] = context.Queue()
        self._processes: list[BaseProcess] = [
            context.Process(
                target=_work, args=(self._queue, self._words, tokenizer, read, seed * 1000 + i), daemon=True
            )
            for i in range(processes)
        ]
        self.kinds = list(kinds())
        self.shares = list(kinds().values())
        self.tables: list[Table] = []
        self.shots = 0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        for process in self._processes:
            process.start()

    def sentences(self) -> tuple[Tensor, Tensor]:
        """What `told` gave in every process; once only."""
        parts = [self._words.get(timeout=120) for _ in self._processes]
        said, answered = zip(*parts, strict=True)
        return torch.from_numpy(np.concatenate(said)), torch.from_numpy(np.concatenate(answered))

    def open(self, encode: FastEncoder, device: torch.device, rows: int, windows: DecodingConfig | None) -> None:
        """Make the tables for about `rows` shots, and one of windows where a decoder is trained; `encode` lies on the
        device."""
        self._encode, self._device, self._windows = encode, device, windows
        channels = encode.channels
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
        self.windows_filled = self._next_window = 0
        if windows is not None:
            sides = (3, windows.window_frames, windows.window_px, windows.window_px)
            self.windows = torch.zeros(max(4 * AT_ONCE, rows // 2), *sides, dtype=torch.uint8, device=device)

    def receive(self, shots_per_s: float, at_once: int) -> None:
        """Begin to fill the tables, beside all else: `at_once` shots as fast as it goes, then so many a second."""
        self._thread = threading.Thread(target=self._receive, args=(shots_per_s, at_once), daemon=True)
        self._thread.start()

    def take(self) -> None:
        """Draw what was described next, and put it away."""
        described = self._queue.get(timeout=60)
        *parts, last = deliver(described, self._encode, self._device, self._windows)
        count, table = len(described.shots), self.tables[self.kinds.index(described.which)]
        if self._windows is None:
            parts.append(last)
        else:
            if self._next_window + count > len(self.windows):
                self._next_window = 0
            self.windows[self._next_window : self._next_window + count].copy_(last)
        table.put(*parts)
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        table.publish(count)
        self._next_window += count
        self.windows_filled = max(self.windows_filled, self._next_window)
        self.shots += count

    def _receive(self, shots_per_s: float, at_once: int) -> None:
        stream = torch.cuda.Stream() if self._device.type == "cuda" else None
        with torch.cuda.stream(stream):
            due = time.monotonic()
            while not self._ending.is_set():
                self.take()
                due = max(due, time.monotonic() - 1.0) + AT_ONCE / shots_per_s
                if self.shots >= at_once:
                    self._ending.wait(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        """Stop."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout=65)
        for process in self._processes:
            process.terminate()

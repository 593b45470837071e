"""One model over several GPUs: a process for each, with the denoiser's tokens split among them (diffusers' context
parallel, by Ulysses attention).

The process of the actor holds no model, only pipes to its *ranks*. Every rank runs the whole pipeline; in the denoiser,
each has a part of the tokens. The clips of rank 0 count. Ranks ask for what is cancelled together, and all get the
answer that rank 0 was given, so that they leave a call at the same step. Whatever else a rank raises leaves the others
waiting in the middle of a step: then all are ended, and the next call starts new ones.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from models.model import Cancelled, Frames, OnStep, PromptCounts, Sounding, TaskMedia
from models.weights import explain
from schemas.catalog import Variant
from schemas.errors import PermanentError, RenderError, RushesError, VariantLoadError
from schemas.task import RenderBatch

log = logging.getLogger(__name__)

# Of weights that are read cold, by all ranks at once.
_LOAD_S = 3600.0
# A rank waits so long for another one; the actor's own watchdog is quicker.
_MEETING = timedelta(hours=1)


@dataclass(frozen=True)
class Loaded:
    """What rank 0 says of itself."""

    revision: str
    notes: tuple[str, ...]
    accelerator: str


@dataclass(frozen=True)
class _Place:
    """Which of how many ranks one is, on which kind of device, and the file where they meet."""

    rank: int
    ranks: int
    device: str | None
    meeting: str


class ShardedModel:
    """`variant` on `ranks` devices of this machine; a Model. `options` are those of `load`, and are pickled."""

    def __init__(self, variant: Variant, ranks: int, device: str | None = None, **options: Any) -> None:
        """Blocks until all have loaded it. `device` is 'cuda' or 'cpu'; None: GPUs, where there are any. Raises
        VariantLoadError as `load` does."""
        self._variant, self._count, self._device, self._options = variant, ranks, device, options
        self._ranks: list[tuple[BaseProcess, Connection]] = []
        self._unfinished = False
        self._counts, self._before = PromptCounts(), PromptCounts()
        started = time.monotonic()
        loaded = self._start()
        self._loaded, self._load_s = loaded, time.monotonic() - started

    @property
    def variant(self) -> Variant:
        return self._variant

    @property
    def revision(self) -> str:
        return self._loaded.revision

    @property
    def load_s(self) -> float:
        return self._load_s

    @property
    def notes(self) -> tuple[str, ...]:
        return self._loaded.notes

    @property
    def accelerator(self) -> str:
        return self._loaded.accelerator

    @property
    def prompt_counts(self) -> PromptCounts:
        """Of rank 0, and of those before it; as of the last call."""
        here, before = self._counts, self._before
        return PromptCounts(
            here.encoded + before.encoded,
            here.from_memory + before.from_memory,
            here.from_store + before.from_store,
        )

    def render(
        self, batch: RenderBatch, media: tuple[TaskMedia, ...], on_step: OnStep, cancelled: Cancelled
    ) -> tuple[Frames | Sounding | PermanentError, ...]:
        """As `Model.render`. RenderError where a rank's process died; the next call has new ones."""
        if not self._ranks:
            self._start()
        self._unfinished = True
        try:
            for _, connection in self._ranks:
                connection.send((batch, media))
            return self._answers(on_step, cancelled)
        except (EOFError, ConnectionError) as error:
            raise RenderError(f"{self._variant.name}: {self._dead()}") from error
        finally:
            if self._unfinished:
                self.close()

    def close(self) -> None:
        """End the ranks, whatever they are doing."""
        ranks, self._ranks = self._ranks, []
        self._before, self._counts = self.prompt_counts, PromptCounts()
        for process, _ in ranks:
            process.kill()
        for process, connection in ranks:
            process.join()
            connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self, on_step: OnStep, cancelled: Cancelled) -> tuple[Frames | Sounding | PermanentError, ...]:
        """Serve the ranks until each has said how its call ended."""
        open_ones = {connection: rank for rank, (_, connection) in enumerate(self._ranks)}
        found: tuple[Frames | Sounding | PermanentError, ...] = ()
        while open_ones:
            for ready in wait(list(open_ones)):
                assert isinstance(ready, Connection)
                what, told = ready.recv()
                if what == "step":
                    on_step(*told)
                elif what == "cancelled?":
                    ready.send(cancelled())
                elif what == "failed":
                    if any(process.exitcode is not None for process, _ in self._ranks):
                        raise EOFError  # it failed as another is not there any more
                    raise told
                else:
                    if open_ones.pop(ready) == 0:
                        found, self._counts = told
        self._unfinished = False
        return found

    def _start(self) -> Loaded:
        # Not forked: this process has threads. Each needs CUDA for itself.
        context = multiprocessing.get_context("spawn")
        # Kept as long as they are: groups that are first used later meet here too.
        self._folder = tempfile.mkdtemp(prefix="rushes-ranks-")
        meeting = Path(self._folder, "meeting")
        for rank in range(self._count):
            ours, theirs = context.Pipe()
            place = _Place(rank, self._count, self._device, str(meeting))
            process = context.Process(target=_rank, args=(theirs, place, self._variant, self._options), daemon=True)
            process.start()
            theirs.close()
            self._ranks.append((process, ours))
        said: list[Any] = []
        try:
            for _, connection in self._ranks:
                if not connection.poll(_LOAD_S):
                    raise VariantLoadError(f"variant {self._variant.name!r}: not loaded within {_LOAD_S:g} s")
                said.append(connection.recv())
        except (EOFError, ConnectionError) as error:
            dead = self._dead()
            self.close()
            raise VariantLoadError(f"variant {self._variant.name!r}: {dead}") from error
        failed = next((one for one in said if isinstance(one, Exception)), None)
        if failed is not None:
            self.close()
            raise failed
        first: Loaded = said[0]
        return first

    def _dead(self) -> str:
        for rank, (process, _) in enumerate(self._ranks):
            process.join(0.5)
            if process.exitcode is not None:
                return f"the process of GPU {rank} ended with {process.exitcode}"
        return "a process of its GPUs closed its pipe"


def split_denoiser(pipe: Any, ranks: int, device: str) -> None:
    """Split the tokens of `pipe`'s denoisers among the ranks of this process's group."""
    from diffusers import ContextParallelConfig

    from models.quantization import denoisers

    for name, part in denoisers(pipe):
        if getattr(part, "_cp_plan", None) is None:
            raise VariantLoadError(f"{type(part).__name__} ({name}) cannot be split among GPUs")
        with _a_cpu_counts(device):
            part.enable_parallelism(config=ContextParallelConfig(ulysses_degree=ranks, ulysses_anything=True))


@contextmanager
def _a_cpu_counts(device: str) -> Iterator[None]:
    """diffusers 0.42 divides by the number of accelerators, of which a machine may have none."""
    import torch

    count = torch.accelerator.device_count
    if device == "cpu":
        torch.accelerator.device_count = lambda: 1
    try:
        yield
    finally:
        torch.accelerator.device_count = count


def _rank(connection: Connection, place: _Place, variant: Variant, options: dict[str, Any]) -> None:
    """One rank's life. It ends with its parent, whose end of the pipe then closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to act on
    with suppress(OSError, ValueError):  # stdout is the command's
        os.dup2(sys.stderr.fileno(), 1)
    _end_with_parent()
    try:
        model, group = _joined(place, variant, options)
    except Exception as error:
        connection.send(error if isinstance(error, RushesError) else VariantLoadError(explain(error)))
        return
    connection.send(Loaded(model.revision, model.notes, model.accelerator))
    while True:
        try:
            batch, media = connection.recv()
        except (EOFError, ConnectionError):
            os._exit(0)  # a process group that the others have left may wait for ever
        try:
            told = model.render(batch, media, _stepper(connection, place), _asker(connection, place, group))
        except Exception as error:
            connection.send(("failed", error if isinstance(error, RushesError) else RenderError(explain(error))))
        else:
            connection.send(("done", (told, model.prompt_counts) if place.rank == 0 else None))


def _joined(place: _Place, variant: Variant, options: dict[str, Any]) -> tuple[Any, Any]:
    """(the model, the group that ranks talk of cancelling in)."""
    import torch
    import torch.distributed as dist

    from models.loader import load

    # All are on this machine.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(max(1, torch.get_num_threads() // place.ranks))  # they are of one actor
    device = place.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu":
        if torch.cuda.device_count() < place.ranks:
            raise VariantLoadError(
                f"variant {variant.name!r}: needs {place.ranks} GPUs, this process sees {torch.cuda.device_count()}"
            )
        device = f"cuda:{place.rank}"
        torch.cuda.set_device(place.rank)
    dist.init_process_group(
        "gloo" if device == "cpu" else "nccl",
        init_method=f"file://{place.meeting}",
        rank=place.rank,
        world_size=place.ranks,
        timeout=_MEETING,
    )
    group = dist.new_group(backend="gloo", timeout=_MEETING)
    model = load(variant, device=device, **options)
    for pipe in {id(one.transformer): one for one in model.pipes.values()}.values():
        split_denoiser(pipe, place.ranks, device)
    return model, group


def _stepper(connection: Connection, place: _Place) -> OnStep:
    def step(done: int, total: int) -> None:
        if place.rank == 0:
            connection.send(("step", (done, total)))

    return step


def _asker(connection: Connection, place: _Place, group: Any) -> Cancelled:
    """What rank 0 is answered, on all ranks."""
    import torch.distributed as dist

    def cancelled() -> frozenset[str]:
        said: list[Any] = [None]
        if place.rank == 0:
            connection.send(("cancelled?", None))
            said = [connection.recv()]
        dist.broadcast_object_list(said, src=0, group=group)
        found: frozenset[str] = said[0]
        return found

    return cancelled


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""Training steps as CUDA graphs (decision 0030), and what goes with them: averages, half precision, a log."""

import copy
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn


class Replayed:
    """A step over fixed tensors: on a GPU a CUDA graph, elsewhere the function itself."""

    def __init__(self, body: Callable[[], None], stream: "torch.cuda.Stream | None") -> None:
        """Recorded on `stream`. Graphs that run at one time want streams of their own: what the libraries of matrix
        products keep is kept by stream."""
        self._body = body  # and all that it holds: a graph keeps none of the tensors that it reads
        self._run: Callable[[], None] = body
        if stream is None:
            return
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                body()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            body()
        torch.cuda.synchronize()
        self._run = graph.replay

    def __call__(self) -> None:
        self._run()


def stream_on(device: torch.device) -> "torch.cuda.Stream | None":
    """A stream of one's own, where there are any."""
    return torch.cuda.Stream() if device.type == "cuda" else None


def half_products(device: torch.device) -> AbstractContextManager[object]:
    """On a GPU, matrix products in bfloat16."""
    if device.type != "cuda":
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # a cast that is kept would not be replayed


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

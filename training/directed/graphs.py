"""Training steps as CUDA graphs (decision 0030)."""

from collections.abc import Callable

import torch


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

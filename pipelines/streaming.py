"""Small Ray Data executions: items in, values out, on every core there is."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data
from ray.data import DataContext


def streamed(stage: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`stage(item)` for every item, in the order in which they finish. An item's error ends the iteration.

    A single item is done here: starting a process for it would take longer than doing it.
    """
    if len(items) == 1:
        yield stage(items[0])
        return
    quiet_context()
    rows = [{"item": pickle.dumps(item)} for item in items]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(_Pickled(stage), batch_size=1)
    for block in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        for value in block["value"]:
            yield pickle.loads(value)


def quiet_context() -> DataContext:
    """The Ray Data context of this process without progress bars: the run shows its own."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    return context


class _Pickled:
    """Values travel as bytes, so that Arrow need not understand them."""

    def __init__(self, stage: Callable[[Any], Any]) -> None:
        self._stage = stage

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"value": [pickle.dumps(self._stage(pickle.loads(item))) for item in batch["item"]]}

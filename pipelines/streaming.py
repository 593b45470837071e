"""Small Ray Data executions: items in, values out, on every core there is."""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Ray Data takes a second to import, and a single item needs none of it
    from ray.data import DataContext


def streamed(stage: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`stage(item)` for every item, in the order in which they finish. An item's error ends the iteration.

    A single item is done here: starting a process for it would take longer than doing it. So are all where Ray answers
    no more, or has no CPU to do them with.
    """
    if len(items) == 1 or not _usable():
        yield from map(stage, items)
        return
    import ray.data

    quiet_context()
    rows = [{"item": pickle.dumps(item)} for item in items]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(_Pickled(stage), batch_size=1)
    for block in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        for value in block["value"]:
            yield pickle.loads(value)


def _usable() -> bool:
    from cluster.connect import answers

    if not answers():
        return False
    import ray

    return ray.cluster_resources().get("CPU", 0.0) >= 1


def quiet_context() -> "DataContext":
    """The Ray Data context of this process without progress bars, and its log without lines on the terminal: the run
    shows its own, and says itself why it ended. Ray's log files keep them."""
    from ray.data import DataContext

    log = logging.getLogger("ray.data")  # set up anew when ray.data is imported
    log.setLevel(logging.WARNING)
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)

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

"""Who is told what a run does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.run import RunQuote

if TYPE_CHECKING:
    from actors.monitor import Snapshot
    from pipelines.progress import Progress
    from pipelines.run_plan import RunPlan


@dataclass(frozen=True)
class Watcher:
    """The defaults look away; `confirm` says whether to go on after the quote."""

    said: Callable[[str], None] = lambda text: None
    planning: Callable[[int, int, int], None] = lambda chunks, of, rows: None
    quoted: Callable[["RunPlan"], None] = lambda plan: None
    confirm: Callable[[RunQuote], bool] = lambda quote: True
    started: Callable[[], None] = lambda: None
    rendering: Callable[["Snapshot", "Progress", RunQuote], None] = lambda snapshot, progress, quote: None


NOBODY = Watcher()

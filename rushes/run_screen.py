"""What `rushes render` shows while it works: lines for logs and pipes, a table on a terminal."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.live import Live
from rich.prompt import Confirm
from rich.text import Text

from rushes import console
from schemas.errors import ConfigError
from schemas.run import RunQuote

if TYPE_CHECKING:
    from actors.monitor import Snapshot
    from pipelines.progress import Progress
    from pipelines.run_plan import RunPlan

_LINE_EVERY_S = 30.0


class RunLines:
    """Progress for logs and pipes: a line every half minute and at each percent."""

    def __init__(self, yes: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.err = console.err()
        self._yes = yes
        self._clock = clock
        self._told_percent = 0
        self._told_s = clock()

    def __enter__(self) -> "RunLines":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""

    def say(self, text: str) -> None:
        self.err.print(text, markup=False)

    def planning(self, chunks: int, of: int, rows: int) -> None:
        if chunks == of or self._clock() - self._told_s >= _LINE_EVERY_S:
            self._told_s = self._clock()
            self.say(f"planning: {rows} rows, chunk {chunks} of {of}")

    def quoted(self, plan: "RunPlan") -> None:
        from pipelines.quote_table import quote_table

        self.err.print(quote_table(plan.quote, plan.rejected_sample, plan.notes))

    def confirm(self, quote: RunQuote) -> bool:
        """A free run needs no consent, and only a person can be asked for it. ConfigError when nobody can be."""
        if not (self._yes or quote.usd == 0):
            if not sys.stdin.isatty():
                raise ConfigError(
                    f"this run is quoted at {quote.usd:.2f} USD, and nobody can be asked here; --yes renders it"
                )
            asked = f"Render {quote.to_render} clips for about {quote.usd:.2f} USD?"
            if not Confirm.ask(asked, console=self.err):
                return False
        self.say("loading models …")
        return True

    def rendering(self, snapshot: "Snapshot", progress: "Progress", quote: RunQuote) -> None:
        from pipelines.report import progress_line

        done = progress.clips + progress.failed
        percent = 100 * done // quote.to_render
        if percent == self._told_percent and self._clock() - self._told_s < _LINE_EVERY_S:
            return
        self._told_percent, self._told_s = percent, self._clock()
        self.say(f"{percent} %  {progress_line(snapshot, progress, quote)}")


class RunScreen(RunLines):
    """Progress on a terminal: a table that is drawn over."""

    def __init__(self, yes: bool) -> None:
        super().__init__(yes)
        self._live = Live(Text(), console=self.err, refresh_per_second=4, transient=True)

    def __enter__(self) -> "RunScreen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.update(Text(text))

    def planning(self, chunks: int, of: int, rows: int) -> None:
        self.say(f"planning: {rows} rows, chunk {chunks} of {of}")

    def quoted(self, plan: "RunPlan") -> None:
        self._live.stop()
        super().quoted(plan)

    def confirm(self, quote: RunQuote) -> bool:
        agreed = super().confirm(quote)
        if agreed:
            self._live.start()
        return agreed

    def rendering(self, snapshot: "Snapshot", progress: "Progress", quote: RunQuote) -> None:
        from pipelines.report import progress_view

        self._live.update(progress_view(snapshot, progress, quote))

"""Progress without a terminal."""

import pytest

from actors.monitor import Snapshot
from pipelines.progress import Progress
from rushes.run_screen import RunLines
from schemas.errors import ConfigError
from schemas.run import RunQuote

NOTHING = Snapshot((), None, actors_lost=0)
QUOTE = RunQuote.model_construct(to_render=400, wall_s=800.0, usd=1.5)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_line_comes_at_each_percent_and_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = RunLines(yes=True, clock=clock)
    # A look every half second, a clip every eleven seconds: a percent is four clips.
    for look in range(200):
        clock.now_s = look / 2
        clips = int(clock.now_s // 11)
        lines.rendering(NOTHING, Progress(clips=clips, elapsed_s=clock.now_s), QUOTE)
    told = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in told] == ["0 %", "1 %", "1 %", "2 %"]
    assert told[1].startswith("1 %  4/400 clips  0.09 clips/s  ")


def test_a_priced_run_is_refused_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    with pytest.raises(ConfigError, match="quoted at 1.50 USD, and nobody can be asked here; --yes renders it"):
        RunLines(yes=False).confirm(QUOTE)
    assert RunLines(yes=True).confirm(QUOTE)
    assert RunLines(yes=False).confirm(QUOTE.model_copy(update={"usd": 0.0}))

"""What people see: durations, the progress view, the contact sheet."""

import io

import pytest
from PIL import Image
from rich.console import Console

from actors.monitor import PoolView, Snapshot
from pipelines.contact_sheet import SheetEntry, contact_sheet
from pipelines.progress import Progress
from pipelines.quote_table import duration
from pipelines.report import progress_line, progress_view
from schemas.run import RunQuote


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (190, "3 min 10 s"), (7500, "2 h 05 min"), (-3, "0 s")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_progress_view_shows_pools_rate_and_time_left() -> None:
    snapshot = Snapshot((PoolView("wan", 2, 1, 10.0, 20, 1),), None, actors_lost=1)
    console = Console(width=100, record=True, file=io.StringIO())
    quote = RunQuote.model_construct(to_render=100, wall_s=60.0)
    console.print(progress_view(snapshot, Progress(clips=20, failed=5, elapsed_s=20.0), quote))
    said = console.export_text()
    assert "wan" in said
    assert "1/2" in said, "one of two actors is ready"
    assert "50 %" in said, "busy 10 of 20 seconds"
    assert "25/100 clips, 5 failed  1.25 clips/s  1 min 00 s left  1 process died and restarted" in said
    assert progress_line(snapshot, Progress(), quote).startswith("0/100 clips  0.00 clips/s  1 min 00 s left")


def test_a_contact_sheet_shows_the_frames_of_every_clip_in_order() -> None:
    reds = [Image.new("RGB", (64, 64), (50 * i, 0, 0)) for i in range(1, 5)]
    blues = [Image.new("RGB", (96, 64), (0, 0, 50 * i)) for i in range(1, 5)]
    sheet = Image.open(io.BytesIO(contact_sheet([SheetEntry(reds, "red", ""), SheetEntry(blues, "blue", "")])))
    line = [sheet.getpixel((x, 66)) for x in range(0, sheet.width, 4)]
    reds_seen = [p[0] for p in line if p[0] in (50, 100, 150, 200) and p[2] == 0]
    blues_seen = [p[2] for p in line if p[2] in (50, 100, 150, 200) and p[0] == 0]
    for seen in (reds_seen, blues_seen):
        assert seen == sorted(seen)
        assert set(seen) == {50, 100, 150, 200}


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (160, 96), (64, 256)])
def test_a_strip_of_any_ratio_fills_its_width_with_whole_frames_and_no_gaps(size: tuple[int, int]) -> None:
    frames = [Image.new("RGB", size, (200, 10, 10)) for _ in range(17)]
    sheet = Image.open(io.BytesIO(contact_sheet([SheetEntry(frames, "", "")])))
    row = [sheet.getpixel((x, 20)) == (200, 10, 10) for x in range(10, 10 + 448)]
    assert sum(row) >= 448 - 8 * 3
    gaps = "".join("x" if filled else " " for filled in row).split("x")
    assert max(len(gap) for gap in gaps) <= 3


def test_a_sheet_without_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])

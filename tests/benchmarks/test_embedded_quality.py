"""The bookkeeping around the measurement: cases, intervals, tables."""

import numpy as np

from benchmarks.embedded_quality import Report, cases, contact_sheet, drawn_like, table
from evaluation.clip_measure import judge, measure
from evaluation.statistics import share_of
from training.drawing import held_out


def test_every_case_was_held_out_of_training_and_shapes_vary() -> None:
    wanted = cases(2)
    assert all(held_out(c.colour, c.shape, c.motion) for c in wanted)
    assert len({(c.width, c.height) for c in wanted}) == 3
    assert len({c.seed for c in wanted}) == len(wanted)


def test_drawn_clips_of_the_cases_are_judged_right() -> None:
    wanted = cases(1, 6)
    for case, clip in zip(wanted, drawn_like(wanted), strict=True):
        assert judge(measure(clip), case.colour, case.shape, case.motion).everything


def test_the_sheet_holds_the_square_clips_and_the_table_every_count() -> None:
    wanted = cases(1, 6)
    clips = drawn_like(wanted)
    verdicts = [judge(measure(clip), c.colour, c.shape, c.motion) for clip, c in zip(clips, wanted, strict=True)]
    sheet = np.asarray(contact_sheet(clips, verdicts, columns=2))
    assert sheet.shape[1] == 2 * (6 + 5 * 64)
    flags = share_of([True, True, False])
    report = Report(
        "embedded", 16, 3.0, flags, flags, flags, flags, flags, 0.5, 1.0, "none", 1.0, 0.1, 0.0, 0.0, ()
    )  # fmt: skip
    assert "66.7% (2/3)" in table([report])

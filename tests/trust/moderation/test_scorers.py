"""Scorers by entry point, what of their answers is nonsense, and what follows from the rest."""

import math
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from schemas import entry_points
from schemas.errors import ConfigError
from schemas.moderation import ModeratedPart, ModerationOutcome, ModerationSettings, OnError, Thresholds
from trust.moderation import scorers
from trust.moderation.decide import could_not_score, decide
from trust.moderation.scorers import checked, entry_point, find_scorer

CLIP = ModeratedPart.OUTPUT_VIDEO


class OfText:
    def score_text(self, prompts: Any) -> Any:
        return [{} for _ in prompts]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"mine": f"{__name__}:OfText", "gone": f"{__name__}:Gone", "odd": "builtins:object"}
    points = EntryPoints(EntryPoint(name, value, scorers.GROUP) for name, value in values.items())
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points.select(group=group))


def test_a_scorer_is_found_by_its_entry_points_name_or_its_value() -> None:
    assert isinstance(find_scorer("mine"), OfText)
    assert isinstance(find_scorer(f"{__name__}:OfText"), OfText)
    assert entry_point("gone").name == "gone", "nothing is loaded to know that there is one"


def test_one_that_cannot_be_had_is_said() -> None:
    with pytest.raises(ConfigError, match="scorers: unknown 'other'; available: gone, mine, odd, or module:attribute"):
        find_scorer("other")
    with pytest.raises(ConfigError, match="scorer 'gone': AttributeError"):
        find_scorer("gone")
    with pytest.raises(ConfigError, match="scorer 'odd': object has neither score_text nor score_frames"):
        find_scorer("odd")
    with pytest.raises(ConfigError, match="scorer 'no.such:thing': ModuleNotFoundError"):
        find_scorer("no.such:thing")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "returned NoneType"),
        ({"violence": 1.0}, "returned dict"),
        ("[]", "returned str"),
        ([{}], "returned 1 entries for 2"),
        ([{}, None], "returned NoneType, not scores by category"),
        ([{}, {"violence": "much"}], "returned 'much' for 'violence', not a number"),
        ([{}, {"violence": math.nan}], "returned nan for 'violence'"),
        ([{}, {"violence": 1.5}], "returned 1.5 for 'violence'"),
        ([{}, {3: 0.5}], "a category that is no name: 3"),
    ],
)
def test_nonsense_is_told_as_such(answer: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        checked(answer, 2)


def test_of_frames_the_highest_score_of_each_category_counts() -> None:
    scores = [{"gore": 0.1, "nudity": 0.6}, {"gore": 0.95}, {"nudity": 0.2, "smoke": 0.3}]
    found = decide(CLIP, "mine", scores, ModerationSettings())
    assert [(one.category, one.score, one.outcome.value) for one in found.findings] == [
        ("gore", 0.95, "refuse"),
        ("nudity", 0.6, "flag"),
    ]
    assert found.code == "SAFETY.OUTPUT.VIDEO"


def test_a_categorys_own_thresholds_count_before_those_of_all() -> None:
    settings = ModerationSettings(categories={"smoke": Thresholds(flag=0.1, refuse=0.2)})
    assert decide(CLIP, "mine", [{"smoke": 0.3}], settings).outcome is ModerationOutcome.REFUSE


def test_low_public_figures_are_flagged_where_others_are_refused() -> None:
    scores = [{"public_figure": 0.9}]
    assert decide(CLIP, "mine", scores, ModerationSettings()).outcome is ModerationOutcome.REFUSE
    assert decide(CLIP, "mine", scores, ModerationSettings(), "low").outcome is ModerationOutcome.FLAG


def test_a_scorer_that_failed_closes_or_opens_by_setting_and_says_which() -> None:
    closed = could_not_score(CLIP, "mine", "TimeoutError: late", ModerationSettings())
    assert (closed.outcome, closed.code) == (ModerationOutcome.REFUSE, "INTERNAL")
    opened = could_not_score(CLIP, "mine", "TimeoutError: late", ModerationSettings(on_error=OnError.ALLOW))
    assert (opened.outcome, opened.code) == (ModerationOutcome.FLAG, "")
    assert "could not score it: TimeoutError: late (flag)" in str(opened)

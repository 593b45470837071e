"""What follows from scores, and what is told of it."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ModerationRefusedError, is_transient
from schemas.moderation import (
    NEVER,
    Finding,
    ModeratedPart,
    Moderation,
    ModerationOutcome,
    ModerationSettings,
    OnError,
    Thresholds,
)

ALLOW, FLAG, REFUSE = ModerationOutcome


def finding(outcome: ModerationOutcome, score: float = 0.9, **more: str) -> Finding:
    told = {"category": "violence", **more}
    return Finding(part=ModeratedPart.INPUT_TEXT, outcome=outcome, scorer="words", score=score, **told)


@pytest.mark.parametrize(("score", "outcome"), [(0.0, ALLOW), (0.49, ALLOW), (0.5, FLAG), (0.8, REFUSE), (1.0, REFUSE)])
def test_a_score_is_flagged_or_refused_from_its_threshold_on(score: float, outcome: ModerationOutcome) -> None:
    assert Thresholds().outcome(score) is outcome


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_treated_more_mildly(one: float, other: float) -> None:
    least, most = sorted((one, other))
    assert Thresholds().outcome(least).strictness <= Thresholds().outcome(most).strictness


def test_a_threshold_that_is_not_set_is_never_reached() -> None:
    assert Thresholds(refuse=NEVER).outcome(1.0) is FLAG
    assert Thresholds(flag=NEVER).outcome(0.7) is ALLOW


def test_a_threshold_is_a_score() -> None:
    for wrong in (1.5, -0.1, "often"):
        with pytest.raises(ValueError, match="refuse"):
            Thresholds(refuse=wrong)


def test_a_flag_above_the_refusal_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"flag \(0.9\) is above refuse \(0.8\)"):
        Thresholds(flag=0.9)


def test_the_strictest_finding_decides_and_the_clearest_refusal_is_the_reason() -> None:
    assert Moderation().outcome is ALLOW
    assert Moderation(findings=(finding(FLAG),)).outcome is FLAG
    whole = Moderation(findings=(finding(FLAG),)) + Moderation(
        findings=(finding(REFUSE, 0.81), finding(REFUSE, 0.95, category="gore"), finding(FLAG, 0.99))
    )
    assert whole.is_refused
    assert whole.refusal == finding(REFUSE, 0.95, category="gore")
    assert whole.code == "SAFETY.INPUT.TEXT"
    assert str(whole).count(";") == 3


def test_what_could_not_be_scored_is_not_called_unsafe() -> None:
    failed = finding(REFUSE, 0.0, category="", error="TimeoutError: not done within 30 s")
    assert Moderation(findings=(failed,)).code == "INTERNAL"
    assert Moderation(findings=(failed, finding(REFUSE))).code == "SAFETY.INPUT.TEXT", "content is the better reason"
    assert "could not score it: TimeoutError" in str(failed)


@pytest.mark.parametrize("part", ModeratedPart)
def test_codes_are_those_of_runway(part: ModeratedPart) -> None:
    assert part.code.startswith("SAFETY.INPUT." if part.is_input else "SAFETY.OUTPUT.")


def test_a_refusal_is_an_error_for_good_that_travels() -> None:
    error = ModerationRefusedError(Moderation(findings=(finding(REFUSE),)))
    assert not is_transient(error)
    again = pickle.loads(pickle.dumps(error))
    assert again.moderation == error.moderation
    assert str(again) == "INPUT.TEXT: violence 0.90 by words (refuse)"


def test_a_client_may_ask_for_less_strictness_about_public_figures_only() -> None:
    settings = ModerationSettings(categories={"public_figure": Thresholds(flag=0.1, refuse=0.2)})
    assert settings.thresholds_of("public_figure").outcome(0.3) is REFUSE
    assert settings.thresholds_of("public_figure", "low").outcome(0.3) is ALLOW
    assert settings.thresholds_of("violence", "low") == settings.thresholds_of("violence", "auto")


def test_settings_without_scorers_look_at_nothing() -> None:
    assert not ModerationSettings().is_on
    assert not ModerationSettings().frames_digest
    assert ModerationSettings(word_list="words.toml").looks_at_text
    assert not ModerationSettings(word_list="words.toml").looks_at_frames
    assert ModerationSettings(scorers=("mine",)).looks_at_text
    assert ModerationSettings(scorers=("mine",)).looks_at_frames


def test_the_digest_of_what_decides_about_frames_changes_with_it_and_with_nothing_else() -> None:
    settings = ModerationSettings(frame_classifier="/models/nsfw")
    same = {"word_list": "words.toml", "device": "cuda", "on_error": OnError.ALLOW, "bill_refused_output": False}
    assert settings.model_copy(update=same).frames_digest == settings.frames_digest
    for change in ({"thresholds": Thresholds(refuse=0.9)}, {"frames": 3}, {"frame_classifier": "/models/other"}):
        assert settings.model_copy(update=change).frames_digest != settings.frames_digest

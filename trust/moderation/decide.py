"""From scores to findings: one decision for both ends. Pure."""

from collections.abc import Sequence

from schemas.moderation import (
    Finding,
    ModeratedPart,
    Moderation,
    ModerationOutcome,
    ModerationSettings,
    OnError,
    PublicFigures,
)
from trust.moderation.scorers import Scores

_ERROR_CHARS = 200


def decide(
    part: ModeratedPart,
    scorer: str,
    scores: Sequence[Scores],
    settings: ModerationSettings,
    public_figures: PublicFigures = "auto",
) -> Moderation:
    """What one scorer's `scores` of a part mean: of a text one entry, of pictures one a frame, of which the highest of
    each category counts. Only what is flagged or refused is told, the highest score first."""
    highest: dict[str, float] = {}
    for entry in scores:
        for category, score in entry.items():
            highest[category] = max(score, highest.get(category, 0.0))
    findings = []
    for category, score in sorted(highest.items(), key=lambda one: (-one[1], one[0])):
        outcome = settings.thresholds_of(category, public_figures).outcome(score)
        if outcome is not ModerationOutcome.ALLOW:
            findings.append(Finding(part=part, outcome=outcome, scorer=scorer, category=category, score=score))
    return Moderation(findings=tuple(findings))


def could_not_score(part: ModeratedPart, scorer: str, error: str, settings: ModerationSettings) -> Moderation:
    """What follows where a scorer failed on a part: by the settings it is refused, or allowed and flagged."""
    is_closed = settings.on_error is OnError.REFUSE
    outcome = ModerationOutcome.REFUSE if is_closed else ModerationOutcome.FLAG
    return Moderation(findings=(Finding(part=part, outcome=outcome, scorer=scorer, error=error[:_ERROR_CHARS]),))

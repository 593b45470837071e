"""Why a task went where it went: the filters in order with their survivors, what capacity skipped, the ranking."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Filter(StrEnum):
    """The filters, in the order in which they are applied."""

    CAPABILITY = "capability"  # the mode, the named variant and its fallbacks, an accelerator that holds it
    SHAPE = "shape"
    PROMPT_LENGTH = "prompt_length"
    INPUT_SUPPORT = "input_support"
    ALLOW_DENY = "allow_deny"
    QUALITY = "quality"
    PRICE = "price"
    DEADLINE = "deadline"


class Dropped(NamedTuple):
    """A variant that a filter dropped, and why, in words for a user."""

    variant: str
    why: str


class FilterStep(NamedTuple):
    """One filter: the variants that survived it, in the order of preference, and the ones that it dropped."""

    filter: Filter
    survivors: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()


class Candidate(NamedTuple):
    """One pool that could render the task: instants in seconds on the caller's clock, money in dollars."""

    rank: int  # place of the variant in the named variant's fallback order, 0 first
    pool: str
    variant: str
    start_s: float
    completion_s: float
    usd: float
    quality: float
    healthy: bool


class Reason(StrEnum):
    """One word for the whole trace."""

    LOWEST_COST = "lowest_cost"
    BEST_LATENCY = "best_latency"
    BEST_QUALITY = "best_quality"
    FIRST_CHOICE = "first_choice"
    ONLY_ELIGIBLE = "only_eligible_model"
    FALLBACK = "filter_order_fallback"
    NO_ELIGIBLE = "no_eligible_model"
    NO_CAPACITY = "no_healthy_pool"
    TOO_LATE = "deadline_cannot_be_kept"


@dataclass(frozen=True, slots=True)
class DecisionTrace:
    """The whole of it, as a value: it ends in the task and in the clip."""

    steps: tuple[FilterStep, ...]
    skipped: tuple[str, ...]  # variants preferred to the chosen one that could not start or were down
    all_exhausted: bool  # every eligible variant was busy or down
    outcome: str  # cost, latency, quality, selected, fallback, single_candidate, refused
    ranking: tuple[str, ...]  # "variant on pool: done in 12 s, $0.0030", best first
    reason: Reason

    @property
    def emptied_by(self) -> tuple[str, ...]:
        """The filters that left nobody."""
        return tuple(step.filter.value for step in self.steps if not step.survivors)

    def as_log(self) -> list[dict[str, object]]:
        """The entries of the Runway-style router log: filters, capacity, rank."""
        entries: list[dict[str, object]] = [
            {"type": "filter", "filter": step.filter.value, "models": list(step.survivors)} for step in self.steps
        ]
        if self.emptied_by:
            return entries
        entries.append({"type": "capacity", "skipped": list(self.skipped), "allExhausted": self.all_exhausted})
        entries.append({"type": "rank", "outcome": self.outcome})
        return entries

    def __str__(self) -> str:
        lines = []
        for step in self.steps:
            why = "; ".join(f"{name} dropped: {reason}" for name, reason in step.dropped)
            lines.append(f"{step.filter.value}: {', '.join(step.survivors) or 'nobody'}" + (f" ({why})" if why else ""))
        if self.skipped:
            lines.append(f"capacity: skipped {', '.join(self.skipped)}" + (", all busy" if self.all_exhausted else ""))
        lines += [f"{place}. {entry}" for place, entry in enumerate(self.ranking, start=1)]
        return "\n".join([*lines, f"→ {self.outcome} ({self.reason.value})"])

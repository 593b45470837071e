"""Bodies and answers of the organization, and Runway's names for models where only those are allowed."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import Field, JsonValue

from schemas.catalog import Catalog
from serve.admission.allowance import Allowance
from serve.tasks import CREDITS_PER_USD
from serve.wire.base import Wire, WireError, issue

# A strict client takes no other name in its usage (runwayml 5.24.0, OrganizationRetrieveUsageResponse), video models.
RUNWAY_MODELS = (
    "gen4.5",
    "gen3a_turbo",
    "gen4_turbo",
    "gen4_aleph",
    "aleph2",
    "act_two",
    "veo3",
    "veo3.1",
    "veo3.1_fast",
    "seedance2",
    "seedance2_5",
    "seedance2_fast",
    "seedance2_mini",
    "hailuo3",
    "h3_max",
    "wan3",
    "wan3_prime",
    "grok_imagine_1_5",
    "grok_imagine_1_5_lite",
    "gemini_omni_flash",
    "gemini_omni_flash_1.1",
    "kling2.5_turbo_pro",
    "kling_4",
    "kling3.0_pro",
    "kling3.0_4k",
    "kling3.0_standard",
    "klingO3_pro",
    "klingO3_standard",
    "klingO3_4k",
    "happyhorse_1_0",
)
MAX_DAYS = 90
USUAL_DAYS = 30


Day = Annotated[date, Field(ge=date(2000, 1, 1), le=date(2200, 1, 1))]


class UsageQuery(Wire):
    """`POST /v1/organization/usage`: days in UTC, the last one not included."""

    start_date: Day | None = None
    before_date: Day | None = None

    def span(self, now: float) -> tuple[date, date]:
        """As Runway has it: thirty days back, thirty days long, ninety at most. Raises WireError."""
        today = datetime.fromtimestamp(now, UTC).date()
        start = self.start_date or (self.before_date or today) - timedelta(days=USUAL_DAYS)
        before = self.before_date or start + timedelta(days=USUAL_DAYS)
        if self.start_date is None and self.before_date is None:
            before = today + timedelta(days=1)
        if before <= start:
            raise WireError([issue("invalid", "beforeDate", "must be after startDate")])
        if (before - start).days > MAX_DAYS + 1:
            raise WireError([issue("too_big", "beforeDate", f"must be at most {MAX_DAYS} days after startDate")])
        return start, before


def runway_name(model: str, catalog: Catalog) -> str:
    """The name itself where Runway has it, else an alias of the same variant that Runway has, else its first name."""
    if model in RUNWAY_MODELS:
        return model
    variant = catalog.find(model)
    named = variant.aliases if variant is not None else ()
    return next((alias for alias in named if alias in RUNWAY_MODELS), RUNWAY_MODELS[0])


def usage(rows: Iterable[tuple[str, str, int, float]], catalog: Catalog) -> dict[str, JsonValue]:
    """Credits by day and model. `names` are the models as the clients called them, which Runway need not know."""
    days: dict[str, dict[str, tuple[float, list[str]]]] = {}
    for day, model, _, usd in rows:
        entry = days.setdefault(day, {})
        name = runway_name(model, catalog)
        before, names = entry.get(name, (0.0, []))
        entry[name] = before + usd, [*names, model]
    models = sorted({model for entry in days.values() for model in entry})
    return {
        "models": list(models),
        "results": [
            {
                "date": day,
                "usedCredits": [
                    {"model": model, "amount": round(usd * CREDITS_PER_USD), "usd": usd, "names": list(names)}
                    for model, (usd, names) in sorted(entry.items())
                ],
            }
            for day, entry in sorted(days.items())
        ],
    }


def organization(
    *,
    models: Iterable[str],
    allowance: Allowance,
    spent_credits: int,
    today: Mapping[str, int],
) -> dict[str, JsonValue]:
    """Balance, limits and today's usage. The limits are of the key, over all models together."""
    limits: JsonValue = {
        "maxConcurrentGenerations": allowance.max_concurrent,
        "maxDailyGenerations": allowance.max_daily,
    }
    return {
        "creditBalance": max(0, allowance.monthly_credits - spent_credits),
        "tier": {"maxMonthlyCreditSpend": allowance.monthly_credits, "models": dict.fromkeys(models, limits)},
        "usage": {"models": {model: {"dailyGenerations": count} for model, count in today.items()}},
    }

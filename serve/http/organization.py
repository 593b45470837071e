"""`/v1/organization`: what a key may do, has left, and has used."""

import math
from datetime import UTC, date, datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.admission.allowance import Allowance
from serve.http.routes import Caller, body_of, context_of, documented, in_thread, json_answer
from serve.tasks import CREDITS_PER_USD
from serve.wire import organization as wire
from serve.wire.instants import day
from serve.wire.organization import UsageQuery

router = APIRouter(tags=["organization"])

_ORGANIZATION = {
    "creditBalance": 1_000_000,
    "tier": {
        "maxMonthlyCreditSpend": 1_000_000,
        "models": {"shapes": {"maxConcurrentGenerations": None, "maxDailyGenerations": None}},
    },
    "usage": {"models": {"shapes": {"dailyGenerations": 3}}},
}
_USAGE = {
    "models": ["gen4.5"],
    "results": [
        {"date": "2030-01-31", "usedCredits": [{"model": "gen4.5", "amount": 12, "usd": 0.12, "names": ["embedded"]}]}
    ],
}


@router.get("/v1/organization", **documented(None, "Limits, balance, today's usage", answer=_ORGANIZATION))
async def retrieve(request: Request, key: Caller) -> Response:
    context = context_of(request)
    now = context.now()
    month = datetime.fromtimestamp(now, UTC).date().replace(day=1)
    rows = await in_thread(context.store.tasks.usage, key.id, _instant(month), now + 1)
    served = context.admission.served.variants
    today: dict[str, int] = dict.fromkeys(served, 0)
    for when, model, count, _ in rows:
        if when == day(now):
            variant = context.catalog.find(model)
            name = variant.name if variant is not None else model
            today[name] = today.get(name, 0) + count
    spent_usd = sum(usd for _, _, _, usd in rows)
    aliases = {alias: name for name, variant in served.items() for alias in variant.aliases}
    today |= {alias: today[name] for alias, name in aliases.items() if alias not in today}
    body = wire.organization(
        models=(*served, *aliases),
        allowance=Allowance.of(key, context.config.limits),
        spent_credits=math.ceil(spent_usd * CREDITS_PER_USD - 1e-9),
        today=today,
    )
    return json_answer(body)


@router.post(
    "/v1/organization/usage",
    **documented(
        UsageQuery, "Credits by day and model", {"startDate": "2030-01-01", "beforeDate": "2030-02-01"}, _USAGE
    ),
)
async def usage(request: Request, key: Caller) -> Response:
    query = await body_of(request, UsageQuery, empty=b"{}")
    context = context_of(request)
    start, before = query.span(context.now())
    rows = await in_thread(context.store.tasks.usage, key.id, _instant(start), _instant(before))
    return json_answer(wire.usage(rows, context.catalog))


def _instant(of: date) -> float:
    return datetime(of.year, of.month, of.day, tzinfo=UTC).timestamp()

"""`POST /v1/estimates`: what a create would be told, and why, before anything is sent. Nothing is stored or fetched."""

import math
from dataclasses import replace

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import Response

from cluster.routing.decision_trace import DecisionTrace, Reason
from cluster.routing.router import Choice
from prompts.diagnosis import asked_of, diagnose_all
from schemas.catalog import Variant
from serve.admission.admission import Admission
from serve.admission.offer import Decision, NoCapacityError
from serve.admission.submission import Submission, SubmissionRefusedError
from serve.context import Context
from serve.http import generate
from serve.http.routes import Caller, any_body, context_of, in_thread, json_answer, json_of
from serve.wire.base import WireError, client_path
from serve.wire.instants import iso
from serve.wire.tasks import estimated_cost, prompts_shown, rendered

router = APIRouter(tags=["estimates"])

# For people; the code beside it is for programs.
WORDS = {
    Reason.LOWEST_COST: "the cheapest that can render this",
    Reason.BEST_LATENCY: "the one that is done first",
    Reason.BEST_QUALITY: "the best of those that can render this",
    Reason.FIRST_CHOICE: "the one you named",
    Reason.ONLY_ELIGIBLE: "the only one that can render this",
    Reason.FALLBACK: "in place of the one you named",
    Reason.NO_ELIGIBLE: "no model here can render this",
    Reason.NO_CAPACITY: "every model that could render this is down",
    Reason.TOO_LATE: "the deadline cannot be kept",
}
FILTERS = {
    "capability": "can render this mode here",
    "shape": "have this shape",
    "prompt_length": "take a prompt so long",
    "input_support": "take this input",
    "allow_deny": "are allowed by you",
    "quality": "are good enough",
    "price": "are within the price",
    "deadline": "keep the deadline",
}
_MOST_ALTERNATIVES = 12

_SCHEMA = any_body(
    ("TextToVideo", "ImageToVideo", "VideoToVideo", "GenerateVideo"),
    {"model": "auto", "promptText": "a red circle moving left", "duration": 2},
)


@router.post("/v1/estimates", summary="Price, seconds and ETA of a create, and why", openapi_extra=_SCHEMA)
async def estimate(request: Request, key: Caller) -> Response:
    # The media themselves are looked at when they are sent: whether there are any decides here.
    context = context_of(request)
    submission = await generate.routed_submission(await json_of(request), context, key)
    return json_answer(await in_thread(_answer, context, submission))


def _answer(context: Context, submission: Submission) -> dict[str, JsonValue]:
    admission, now = context.admission, context.now()
    try:
        decision = submission.consider(admission)
    except (SubmissionRefusedError, NoCapacityError) as error:
        others = _alternatives(admission, submission, None, now)
        issues: list[JsonValue] = []
        if isinstance(error, SubmissionRefusedError):
            issues += [one.as_json() for one in error.issues]
        return {**_refused(error.choice, str(error), now), "issues": issues, "alternatives": others}
    others = _alternatives(admission, submission, decision, now)
    variant = admission.served[decision.offer.variant]
    return {
        **shown(decision, variant, now),
        "promptText": submission.request.prompt,
        **prompts_shown(submission.request),
        "findings": _findings(submission, decision, variant),
        "alternatives": others,
    }


def _findings(submission: Submission, decision: Decision, variant: Variant) -> list[JsonValue]:
    """What looks like a mistake in the prompts, in the client's names."""
    request = submission.request
    found = diagnose_all(request.told.texts, request.negative_prompt, asked_of(decision.group, variant), variant)
    return [
        {
            "code": one.code,
            "path": list(client_path(one.field, submission.names)),
            "message": one.message,
            "suggestion": one.suggestion,
        }
        for one in found
    ]


def shown(decision: Decision, variant: Variant, now: float) -> dict[str, JsonValue]:
    """What would be chosen."""
    offer, story = decision.offer, decision.story
    how = WORDS[story.reason]
    return {
        "routed": True,
        "variant": offer.variant,
        "pool": offer.pool,
        "estimatedCost": estimated_cost(offer, decision.request.samples),
        "gpuSeconds": offer.gpu_s,
        "waitSeconds": offer.wait_s,
        "seconds": offer.eta_at - now,
        "secondsP90": offer.eta_p90_at - now,
        "eta": iso(offer.eta_at),
        "etaP90": iso(offer.eta_p90_at),
        "queuePosition": offer.position,
        "rendered": rendered(decision.group),
        "samples": decision.request.samples,
        "measured": variant.cost.measured,
        "reason": offer.reason,
        "words": how,
        "sentence": offer.sentence,
        "explanation": list(explained(story)),
        "ranking": list(story.ranking),
        "steps": list(offer.story),
    }


def _refused(choice: Choice, text: str, now: float) -> dict[str, JsonValue]:
    story = choice.story
    earliest = choice.earliest_s if choice.reason is Reason.TOO_LATE and math.isfinite(choice.earliest_s) else None
    return {
        "routed": False,
        "reason": choice.reason.value,
        "words": text,
        "earliest": iso(earliest),
        "earliestSeconds": None if earliest is None else max(0.0, earliest - now),
        "explanation": list(explained(story)),
        "ranking": list(story.ranking),
        "steps": [{name: _plain(value) for name, value in entry.items()} for entry in story.as_log()],
    }


def explained(story: DecisionTrace) -> tuple[str, ...]:
    """The story for people: what each filter left out and why, then what decided. Filters that left out nobody are
    not worth a line."""
    lines = []
    for step in story.steps:
        if step.dropped:
            why = "; ".join(f"{name}: {reason}" for name, reason in step.dropped)
            left = ", ".join(step.survivors) or "none"
            lines.append(f"{left} {FILTERS.get(step.filter.value, step.filter.value)} (not {why})")
    if not lines and story.steps and story.steps[-1].survivors:
        lines.append(f"{', '.join(story.steps[-1].survivors)} could render this")
    if story.skipped:
        lines.append(f"passed over, as they cannot start now: {', '.join(story.skipped)}")
    lines.append(f"chosen: {WORDS[story.reason]}" if story.outcome != "refused" else WORDS[story.reason])
    return tuple(lines)


def _alternatives(admission: Admission, submission: Submission, chosen: Decision | None, now: float) -> list[JsonValue]:
    """Each served variant that could render it, as if it had been named, limits left out: soonest first."""
    constraints = submission.constraints
    free = constraints.model_copy(
        update={"fall_back": False, "max_usd": math.inf, "deadline_at": math.inf, "skip_busy": False}
    )
    found: list[tuple[float, dict[str, JsonValue]]] = []
    for name, variant in list(admission.served.variants.items())[:_MOST_ALTERNATIVES]:
        named = submission.request.model_copy(update={"variant": name})
        try:
            other = replace(submission, request=named, constraints=free).consider(admission)
        except (WireError, NoCapacityError):
            continue
        offer = other.offer
        within = offer.usd <= constraints.max_usd and offer.eta_p90_at <= constraints.deadline_at
        entry: dict[str, JsonValue] = {
            "variant": name,
            "chosen": chosen is not None and chosen.offer.variant == name,
            "usd": offer.usd,
            "credits": offer.credits,
            "seconds": offer.eta_at - now,
            "secondsP90": offer.eta_p90_at - now,
            "waitSeconds": offer.wait_s,
            "quality": variant.quality,
            "withinLimits": within,
            "rendered": rendered(other.group),
        }
        found.append((offer.eta_at, entry))
    found.sort(key=lambda pair: pair[0])
    return [entry for _, entry in found]


def _plain(value: object) -> JsonValue:
    return list(value) if isinstance(value, list | tuple) else value  # type: ignore[return-value]

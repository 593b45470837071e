"""Admission control: whether a task is taken, as what, and what it is promised, or what would have to be asked instead.

One pure function for the live scheduler, for a snapshot in an ingress and for the simulator. It chooses by `preview`
(`Planner.preview` or that of a snapshot's planner), which counts in forecasts and keeps a margin for their spread, and
promises by the ETA estimator, which knows how forecasts come true: a deadline is taken where the promised estimate
keeps it. The bound is told beside it; to refuse whatever it does not keep would refuse far more than comes late.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cluster.routing.decision_trace import Reason
from cluster.routing.router import Choice
from cluster.routing.terms import RoutingRequest
from cluster.scheduling.eta import Eta

Preview = Callable[[RoutingRequest], Choice]
Promise = Callable[[Choice], Eta]
"""The ETA of a choice that is routed, from now."""

_TRIES = 4
_SLACK_S, _SLACK_SHARE = 2.0, 0.05  # between a refusal and the client's next try
_LATER = 1.5


@dataclass(frozen=True, slots=True)
class Offer:
    """The task is taken."""

    choice: Choice
    eta: Eta


@dataclass(frozen=True, slots=True)
class Refusal:
    """The task is not taken. `choice.reason` says why; where it is the deadline, `choice.earliest_s` is one that would
    be taken now, where it is the price, `least_usd`."""

    choice: Choice
    least_usd: float | None = None


def offer(request: RoutingRequest, now_s: float, preview: Preview, promise: Promise) -> Offer | Refusal:
    """Decide; nothing changes. Costs one preview where the first choice will do, and a few where it will not."""
    aimed = request
    for _ in range(_TRIES):
        choice = preview(aimed)
        if not choice.routed:
            break
        eta = promise(choice)
        if now_s + eta.estimate_s + min(0.0, choice.margin_s) <= request.deadline_s:
            return Offer(choice if aimed is request else choice._replace(wanted=request), eta)
        # Routing counts in forecasts; what this choice would need is so many times longer.
        share = min(0.99, eta.raw_s / eta.estimate_s)
        aimed = aimed._replace(deadline_s=now_s + (aimed.deadline_s - now_s) * share)
    if choice.reason in (Reason.NO_ELIGIBLE, Reason.NO_CAPACITY) and not choice.routed:
        return Refusal(choice._replace(wanted=request), _least_usd(choice))
    return _too_late(request, now_s, choice, preview, promise)


def _least_usd(choice: Choice) -> float | None:
    """Of those that could render it, if the price is what keeps it from them."""
    over_limit = [candidate.usd for candidate in choice.candidates if candidate.usd > choice.wanted.max_usd]
    return min(over_limit) if choice.reason is Reason.NO_ELIGIBLE and over_limit else None


def _too_late(request: RoutingRequest, now_s: float, choice: Choice, preview: Preview, promise: Promise) -> Refusal:
    refused = choice._replace(variant=None, pool=None, usd=0.0, reason=Reason.TOO_LATE, wanted=request)
    anytime = preview(request._replace(deadline_s=math.inf))
    if not anytime.routed:
        return Refusal(refused._replace(reason=anytime.reason), _least_usd(anytime))
    left_s = promise(anytime).p90_s
    for _ in range(_TRIES):
        at_s = now_s + left_s + max(_SLACK_S, _SLACK_SHARE * left_s)
        found = preview(request._replace(deadline_s=at_s))
        if found.routed and now_s + promise(found).p90_s <= at_s:
            break
        left_s *= _LATER
    return Refusal(refused._replace(earliest_s=at_s))

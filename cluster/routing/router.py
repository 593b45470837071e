"""Routing with fallback: which variant, on which pool, for one task, and why.

`choose` is pure: it reads the pools and returns a value. It never picks a variant that cannot render the task, does
not fit the accelerator or exceeds the price limit, and it always either routes or refuses with a reason. The order of
the pools does not matter: ties are broken by name.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from cluster.cost.model import Load, predict
from cluster.routing.decision_trace import Candidate, DecisionTrace, Dropped, Filter, FilterStep, Reason
from cluster.routing.eligibility import Eligible, filtered
from cluster.routing.terms import PoolView, Preference, RoutingRequest, Terms

Estimate = Callable[[PoolView, RoutingRequest], float]
"""Execution seconds of a task on a pool."""


class Valuation(Protocol):
    """What a fleet that is short of time thinks of a candidate: a named task takes its fallbacks where that pays."""

    def margin_s(self, pool: PoolView, wanted: RoutingRequest, wait_s: float, execution_s: float) -> float:
        """How long before the deadline a prediction must end for the deadline to be likely enough."""
        ...

    def worth(self, pool: PoolView, quality: float, wait_s: float, execution_s: float) -> float:
        """Of rendering it there, with such a share of the quality that was asked for."""
        ...

    def declines(self, pool: PoolView, quality: float, execution_s: float) -> bool:
        """Whether even the best that could be done is better not done: it would keep too many others from theirs."""
        ...


def estimate_by_cost(pool: PoolView, wanted: RoutingRequest) -> float:
    """What the cost model says, one clip a call."""
    variant, terms = pool.variant, wanted.terms
    cost = predict(
        variant,
        pool.accelerator,
        terms.shape or variant.shape.default(),
        terms.steps or variant.steps,
        variant.guidance if terms.guidance is None else terms.guidance,
        load=Load.NONE,
    )
    return cost.execution_s


class Choice(NamedTuple):
    """Where a task goes, or that it goes nowhere, with everything that was considered."""

    variant: str | None
    pool: str | None
    start_s: float
    completion_s: float
    usd: float
    reason: Reason
    earliest_s: float  # refused for its deadline: the earliest instant that could be kept
    wanted: RoutingRequest
    now_s: float
    candidates: tuple[Candidate, ...]
    filters: tuple[FilterStep, ...]
    margin_s: float = 0.0  # how long before the deadline its prediction had to end

    @property
    def routed(self) -> bool:
        return self.pool is not None

    @property
    def story(self) -> DecisionTrace:
        """The choice explained. Put together when asked for: most choices are never looked at."""
        return _tell(self)

    @property
    def sentence(self) -> str:
        """One line for a user."""
        terms = self.wanted.terms
        if self.routed:
            how = f" instead of {terms.variant}" if self.reason is Reason.FALLBACK else ""
            return f"{self.variant} on {self.pool}{how}: done in {self.completion_s - self.now_s:.0f} s"
        if self.reason is Reason.TOO_LATE:
            return f"deadline cannot be kept: the earliest is in {self.earliest_s - self.now_s:.0f} s"
        if self.reason is Reason.NO_CAPACITY:
            return "no pool that could render this is up"
        last = next((step for step in self.story.steps if not step.survivors), None)
        why = "; ".join(f"{name}: {text}" for name, text in last.dropped) if last else "no pool"
        return f"no eligible variant ({last.filter.value if last else 'capability'}: {why})"


class Router:
    """`choose` over a fixed set of pools, with the static filters remembered per `Terms`.

    The pools' own state may change between calls; a pool added or removed needs a new Router.
    """

    def __init__(self, pools: Sequence[PoolView], estimate: Estimate = estimate_by_cost) -> None:
        self.pools = tuple(sorted(pools, key=lambda pool: pool.name))
        self.estimate = estimate
        self._eligible: dict[Terms, Eligible] = {}

    def choose(self, wanted: RoutingRequest, now_s: float, valuation: Valuation | None = None) -> Choice:
        """As `choose`. With a valuation a named task gets the variant that is worth most, if it is worth anything."""
        terms = wanted.terms
        eligible = self._eligible.get(terms)
        if eligible is None:
            if len(self._eligible) > 10_000:  # prompts' lengths differ: bounded, not unbounded
                self._eligible.clear()
            eligible = self._eligible[terms] = filtered(terms, self.pools)
        return _rank(wanted, eligible, now_s, self.estimate, valuation)


def choose(
    wanted: RoutingRequest, pools: Sequence[PoolView], now_s: float, estimate: Estimate = estimate_by_cost
) -> Choice:
    """The earliest predicted completion that the limits allow, or the refusal.

    A task that names a variant gets that one, and the catalog's fallbacks in their order only when it is down, over
    the price limit or would miss the deadline. A task that says `auto` gets the best by its preference.
    """
    return Router(pools, estimate).choose(wanted, now_s)


def _rank(
    wanted: RoutingRequest, eligible: Eligible, now_s: float, estimate: Estimate, valuation: Valuation | None
) -> Choice:
    terms, max_usd, deadline_s, *_ = wanted
    named, prefer, skip_busy = eligible.named, terms.prefer, terms.skip_busy
    weighs = valuation is not None and named and not skip_busy
    asked_quality = eligible.pools[0][1].variant.quality if eligible.pools else 0.0
    candidates: list[Candidate] = []
    best: Candidate | None = None
    best_key: tuple[float, ...] = ()
    best_terms: tuple[PoolView, float, float] | tuple[()] = ()
    best_margin_s = 0.0
    earliest_s = math.inf
    for rank, pool in eligible.pools:  # in the order of preference
        variant = pool.variant
        quality = 1.0
        if rank and weighs:
            quality = min(_AS_GOOD, variant.quality / asked_quality if asked_quality > 0 else 1.0)
        if named and best is not None and rank > best.rank and not weighs and best_key[0] < 1:
            break  # the first choice will do
        if weighs and best is not None and -best_key[0] >= quality:
            continue  # at its best it is worth no more
        execution_s = estimate(pool, wanted)
        usd = execution_s * pool.price_usd_per_hour / 3600.0
        start_s = pool.start_s(now_s) if pool.healthy else math.inf
        completion_s = start_s + execution_s
        candidate = Candidate(rank, pool.name, variant.name, start_s, completion_s, usd, variant.quality, pool.healthy)
        candidates.append(candidate)
        if usd > max_usd or completion_s == math.inf:
            continue
        sure_s = completion_s
        if valuation is not None:
            sure_s += valuation.margin_s(pool, wanted, start_s - now_s, execution_s)
        earliest_s = min(earliest_s, sure_s)
        if sure_s > deadline_s:
            continue
        busy = 1 if skip_busy and start_s > now_s else 0
        order = rank if named else 0
        key: tuple[float, ...]
        if weighs:
            assert valuation is not None
            key = (-valuation.worth(pool, quality, start_s - now_s, execution_s), rank, completion_s)
        elif prefer is Preference.LATENCY:
            key = (busy, order, completion_s, usd)
        elif prefer is Preference.COST:
            key = (busy, order, usd, completion_s)
        else:
            key = (busy, order, -variant.quality, completion_s)
        if best is None or key < best_key:  # of equals the first stays: by rank, then by name
            best, best_key, best_terms = candidate, key, (pool, quality, execution_s)
            best_margin_s = sure_s - completion_s
    if best is None:
        best, reason = _NOWHERE, _refusal(candidates, max_usd)
    elif valuation is not None and weighs and valuation.declines(*best_terms):
        best, reason = _NOWHERE, Reason.TOO_LATE
    elif named:
        reason = Reason.FALLBACK if best.rank else Reason.FIRST_CHOICE
    else:
        reason = _BEST[prefer]
    return Choice(
        best.variant or None,
        best.pool or None,
        best.start_s,
        best.completion_s,
        best.usd,
        reason,
        earliest_s,
        wanted,
        now_s,
        tuple(candidates),
        eligible.steps,
        best_margin_s,
    )


_AS_GOOD = 0.9
"""What a fallback is worth at the most: whoever named another one has a reason."""
_NOWHERE = Candidate(0, "", "", math.inf, math.inf, 0.0, 0.0, False)
_BEST = {
    Preference.COST: Reason.LOWEST_COST,
    Preference.LATENCY: Reason.BEST_LATENCY,
    Preference.QUALITY: Reason.BEST_QUALITY,
}


def _refusal(candidates: list[Candidate], max_usd: float) -> Reason:
    affordable = [candidate for candidate in candidates if candidate.usd <= max_usd]
    if not affordable:
        return Reason.NO_ELIGIBLE
    if all(candidate.start_s == math.inf for candidate in affordable):
        return Reason.NO_CAPACITY
    return Reason.TOO_LATE


def _tell(choice: Choice) -> DecisionTrace:
    wanted = choice.wanted
    steps, candidates = list(choice.filters), choice.candidates
    names = steps[-1].survivors if steps else ()
    # Those behind the first choice that would do were not looked at, so nothing speaks against them.
    unseen = set(names) - {c.variant for c in candidates}
    cheap = unseen | {c.variant for c in candidates if c.usd <= wanted.max_usd}
    least_usd = {name: min((c.usd for c in candidates if c.variant == name), default=math.inf) for name in names}
    priced = tuple(name for name in names if name in cheap)
    steps.append(
        FilterStep(
            Filter.PRICE,
            priced,
            tuple(
                Dropped(name, f"${least_usd[name]:.4f} > ${wanted.max_usd:.4f}") for name in names if name not in cheap
            ),
        )
    )
    within = [c for c in candidates if c.usd <= wanted.max_usd]
    up = [c for c in within if c.start_s < math.inf]
    if wanted.deadline_s < math.inf and up:
        on_time = unseen | {c.variant for c in up if c.completion_s <= wanted.deadline_s}
        soonest = {name: min((c.completion_s for c in up if c.variant == name), default=math.inf) for name in priced}
        steps.append(
            FilterStep(
                Filter.DEADLINE,
                tuple(name for name in priced if name in on_time),
                tuple(
                    Dropped(name, f"{soonest[name] - wanted.deadline_s:.0f} s late")
                    for name in priced
                    if name not in on_time and soonest[name] < math.inf
                ),
            )
        )
    can_start = {c.variant for c in up if c.start_s <= choice.now_s}
    is_up = {c.variant for c in up}
    chosen_rank = min((c.rank for c in candidates if c.variant == choice.variant), default=math.inf)
    ahead = dict.fromkeys(c.variant for c in sorted(within) if c.rank < chosen_rank)
    skipped = tuple(name for name in ahead if name not in is_up or (wanted.terms.skip_busy and name not in can_start))
    usable = [c for c in up if c.completion_s <= wanted.deadline_s] or up
    ranked = sorted(usable, key=lambda c: (c.pool != choice.pool, c.rank, c.completion_s, c.pool))
    if not choice.routed:
        outcome = "refused"
    elif len({c.variant for c in within}) == 1:
        outcome = "single_candidate"
    elif choice.reason is Reason.FALLBACK:
        outcome = "fallback"
    else:
        outcome = "selected" if choice.reason is Reason.FIRST_CHOICE else wanted.terms.prefer.value
    single = outcome == "single_candidate" and choice.reason is not Reason.FALLBACK
    return DecisionTrace(
        steps=tuple(steps),
        skipped=skipped,
        all_exhausted=bool(within) and not can_start,
        outcome=outcome,
        ranking=tuple(
            f"{c.variant} on {c.pool}: starts in {c.start_s - choice.now_s:.0f} s, "
            f"done in {c.completion_s - choice.now_s:.0f} s, ${c.usd:.4f}"
            for c in ranked
        ),
        reason=Reason.ONLY_ELIGIBLE if single else choice.reason,
    )

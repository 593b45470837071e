"""Routing with fallback: which variant, on which pool, for one task, and why.

`choose` is pure: it reads the pools and returns a value. It never picks a variant that cannot render the task, does
not fit the accelerator or exceeds the price limit, and it always either routes or refuses with a reason. The order of
the pools does not matter: ties are broken by name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from cluster.cost import Load, predict
from cluster.story import Candidate, Dropped, Filter, FilterStep, Reason, Story
from schemas.catalog import Variant
from schemas.request import MAX_PROMPT_CHARS, Mode
from schemas.shape import Shape


class Preference(StrEnum):
    """What decides between variants that would all do."""

    COST = "cost"
    LATENCY = "latency"
    QUALITY = "quality"


@dataclass(frozen=True, slots=True)
class Terms:
    """The part of a task's constraints that has nothing to do with the moment: many tasks share one."""

    mode: Mode = Mode.TEXT_TO_VIDEO
    variant: str = "auto"
    shape: Shape | None = None  # None: each variant's own default
    steps: int | None = None
    guidance: float | None = None
    has_image: bool = False
    has_video: bool = False
    prompt_chars: int = 0
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    min_quality: float = 0.0
    fall_back: bool = True
    fallbacks: tuple[str, ...] | None = None  # instead of the catalog's
    prefer: Preference = Preference.LATENCY
    skip_busy: bool = False  # take the next variant when the preferred one cannot start now
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        shape = self.shape and (self.shape.width, self.shape.height, self.shape.frames)
        key = (self.mode, self.variant, shape, self.steps, self.guidance, self.allow, self.deny, self.prompt_chars)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash  # computed once: it is asked for at every decision


class Wanted(NamedTuple):
    """What one task asks of the fleet. `deadline_s` is an instant on the clock of `now_s`."""

    terms: Terms
    max_usd: float = math.inf
    deadline_s: float = math.inf
    task: int = 0  # the caller's own number, for its estimate


class PoolView(Protocol):
    """What routing reads of a pool: the actors that hold one variant on one accelerator type.

    A variant that could be loaded somewhere but is not has a pool with no replica, whose `start_s` includes the load.
    """

    @property
    def name(self) -> str: ...
    @property
    def variant(self) -> Variant: ...
    @property
    def accelerator(self) -> str: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def price_usd_per_hour(self) -> float: ...
    @property
    def vram_gib(self) -> float: ...  # of the accelerators of one replica together; 0 when not known
    def start_s(self, now_s: float) -> float:
        """When a task that is queued now would start: backlog and load included; infinite when never."""
        ...


@dataclass(frozen=True)
class PoolState:
    """A pool as a frozen value, for callers that keep no live one."""

    name: str
    variant: Variant
    accelerator: str
    wait_s: float = 0.0
    load_s: float = 0.0
    healthy: bool = True
    price_usd_per_hour: float = 0.0
    vram_gib: float = 0.0

    def start_s(self, now_s: float) -> float:
        return now_s + self.wait_s + self.load_s


Estimate = Callable[[PoolView, Wanted], float]
"""Execution seconds of a task on a pool."""


def estimate_by_cost(pool: PoolView, wanted: Wanted) -> float:
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


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a task goes, or that it goes nowhere, with everything that was considered."""

    variant: str | None
    pool: str | None
    start_s: float
    completion_s: float
    usd: float
    reason: Reason
    earliest_s: float  # refused for its deadline: the earliest instant that could be kept
    wanted: Wanted
    now_s: float
    candidates: tuple[Candidate, ...]
    filters: tuple[FilterStep, ...]

    @property
    def routed(self) -> bool:
        return self.pool is not None

    @property
    def story(self) -> Story:
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


class _Eligible(NamedTuple):
    steps: tuple[FilterStep, ...]
    pools: tuple[tuple[int, PoolView], ...]  # with the variant's rank
    named: bool


class Router:
    """`choose` over a fixed set of pools, with the static filters remembered per `Terms`.

    The pools' own state may change between calls; a pool added or removed needs a new Router.
    """

    def __init__(self, pools: Sequence[PoolView], estimate: Estimate = estimate_by_cost) -> None:
        self.pools = tuple(sorted(pools, key=lambda pool: pool.name))
        self.estimate = estimate
        self._eligible: dict[Terms, _Eligible] = {}

    def choose(self, wanted: Wanted, now_s: float) -> Choice:
        terms = wanted.terms
        eligible = self._eligible.get(terms)
        if eligible is None:
            if len(self._eligible) > 10_000:  # prompts' lengths differ: bounded, not unbounded
                self._eligible.clear()
            eligible = self._eligible[terms] = _filtered(terms, self.pools)
        return _rank(wanted, eligible, now_s, self.estimate)


def choose(wanted: Wanted, pools: Sequence[PoolView], now_s: float, estimate: Estimate = estimate_by_cost) -> Choice:
    """The earliest predicted completion that the limits allow, or the refusal.

    A task that names a variant gets that one, and the catalog's fallbacks in their order only when it is down, over
    the price limit or would miss the deadline. A task that says `auto` gets the best by its preference.
    """
    return Router(pools, estimate).choose(wanted, now_s)


def _rank(wanted: Wanted, eligible: _Eligible, now_s: float, estimate: Estimate) -> Choice:
    terms, max_usd, deadline_s, _ = wanted
    named, prefer, skip_busy = eligible.named, terms.prefer, terms.skip_busy
    candidates: list[Candidate] = []
    best: Candidate | None = None
    best_key: tuple[float, ...] = ()
    earliest_s = math.inf
    for rank, pool in eligible.pools:
        execution_s = estimate(pool, wanted)
        usd = execution_s * pool.price_usd_per_hour / 3600.0
        start_s = pool.start_s(now_s) if pool.healthy else math.inf
        completion_s = start_s + execution_s
        variant = pool.variant
        candidate = Candidate(rank, pool.name, variant.name, start_s, completion_s, usd, variant.quality, pool.healthy)
        candidates.append(candidate)
        if usd > max_usd or start_s == math.inf:
            continue
        earliest_s = min(earliest_s, completion_s)
        if completion_s > deadline_s:
            continue
        busy = 1 if skip_busy and start_s > now_s else 0
        order = rank if named else 0
        if prefer is Preference.LATENCY:
            key = (busy, order, completion_s, usd)
        elif prefer is Preference.COST:
            key = (busy, order, usd, completion_s)
        else:
            key = (busy, order, -variant.quality, completion_s)
        if best is None or key < best_key:  # pools come sorted by name: the first of equals stays
            best, best_key = candidate, key
    if best is None:
        best, reason = _NOWHERE, _refusal(candidates, max_usd)
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
    )


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


def _filtered(terms: Terms, pools: tuple[PoolView, ...]) -> _Eligible:
    """The static filters, in order. Survivors are in the order of preference."""
    variants = {pool.variant.name: pool.variant for pool in pools}
    named = terms.variant != "auto"
    order, unknown = _order(terms, variants)
    steps: list[FilterStep] = []

    def keep(name: Filter, tests: Callable[[Variant], str | None], extra: tuple[Dropped, ...] = ()) -> None:
        nonlocal order
        verdicts = [(variant, tests(variants[variant])) for variant in order]
        order = tuple(variant for variant, why in verdicts if why is None)
        dropped = tuple(Dropped(variant, why) for variant, why in verdicts if why is not None)
        steps.append(FilterStep(name, order, dropped + extra))

    fits = {pool.name: _misfit(pool) for pool in pools}
    keep(Filter.CAPABILITY, lambda variant: _incapable(variant, terms, pools, fits), unknown)
    keep(Filter.SHAPE, lambda variant: _wrong_shape(variant, terms))
    keep(Filter.PROMPT_LENGTH, lambda _: _too_long(terms))
    keep(Filter.INPUT_SUPPORT, lambda variant: _unsupported(variant, terms))
    keep(Filter.ALLOW_DENY, lambda variant: _not_allowed(variant, terms))
    keep(
        Filter.QUALITY,
        lambda variant: (
            None if variant.quality >= terms.min_quality else f"quality {variant.quality:g} < {terms.min_quality:g}"
        ),
    )
    rank = {variant: place for place, variant in enumerate(order)}
    # The place in the original chain says whether it is a fallback, also when the first choice was filtered out.
    chain, _ = _order(terms, variants)
    rank = {variant: chain.index(variant) for variant in rank}
    if named and unknown:
        rank = {variant: place + 1 for variant, place in rank.items()}
    survivors = tuple(
        (rank[pool.variant.name], pool) for pool in pools if pool.variant.name in rank and fits[pool.name] is None
    )
    return _Eligible(tuple(steps), survivors, named)


def _order(terms: Terms, variants: dict[str, Variant]) -> tuple[tuple[str, ...], tuple[Dropped, ...]]:
    """The variants to consider, first choice first, and a named one that no pool knows."""
    if terms.variant == "auto":
        return tuple(sorted(name for name, variant in variants.items() if variant.auto)), ()
    by_name = {name: variant.name for variant in variants.values() for name in (*variant.aliases, variant.name)}
    first = by_name.get(terms.variant)
    unknown = () if first else (Dropped(terms.variant, "no pool can hold it"),)
    chain = [first] if first else []
    if terms.fall_back:
        more = terms.fallbacks if terms.fallbacks is not None else (variants[first].fallbacks if first else ())
        chain += [by_name[name] for name in more if name in by_name]
    return tuple(dict.fromkeys(chain)), unknown


def _misfit(pool: PoolView) -> str | None:
    needs = pool.variant.needs
    if needs.accelerator_type and needs.accelerator_type != pool.accelerator:
        return f"needs {needs.accelerator_type}, {pool.name} has {pool.accelerator}"
    if pool.vram_gib and needs.vram_gib > pool.vram_gib:
        return f"needs {needs.vram_gib:g} GiB, {pool.name} has {pool.vram_gib:g}"
    return None


def _incapable(variant: Variant, terms: Terms, pools: tuple[PoolView, ...], fits: dict[str, str | None]) -> str | None:
    if terms.mode not in variant.modes:
        return f"does not do {terms.mode.value}"
    misfits = [fits[pool.name] for pool in pools if pool.variant.name == variant.name]
    return None if None in misfits else (misfits[0] if misfits else "has no pool")


def _wrong_shape(variant: Variant, terms: Terms) -> str | None:
    if terms.steps is not None and terms.steps < variant.min_steps:
        return f"needs at least {variant.min_steps} steps"
    issues = variant.shape.issues(terms.shape) if terms.shape else ()
    return "; ".join(map(str, issues)) or None


def _too_long(terms: Terms) -> str | None:
    if terms.prompt_chars <= MAX_PROMPT_CHARS:
        return None
    return f"the prompt has {terms.prompt_chars} characters, {MAX_PROMPT_CHARS} are the most"


def _unsupported(variant: Variant, terms: Terms) -> str | None:
    if terms.has_image and Mode.IMAGE_TO_VIDEO not in variant.modes:
        return "takes no image"
    if terms.has_video and Mode.VIDEO_TO_VIDEO not in variant.modes:
        return "takes no video"
    return None


def _not_allowed(variant: Variant, terms: Terms) -> str | None:
    if variant.name in terms.deny:
        return "denied"
    if terms.allow is not None and variant.name not in terms.allow:
        return "not on the allow list"
    return None


def _tell(choice: Choice) -> Story:
    wanted = choice.wanted
    steps, candidates = list(choice.filters), choice.candidates
    names = steps[-1].survivors if steps else ()
    cheap = {c.variant for c in candidates if c.usd <= wanted.max_usd}
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
        on_time = {c.variant for c in up if c.completion_s <= wanted.deadline_s}
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
    return Story(
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

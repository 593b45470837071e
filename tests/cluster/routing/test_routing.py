import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.routing.decision_trace import Filter, Reason
from cluster.routing.router import choose, estimate_by_cost
from cluster.routing.terms import PoolState, Preference, RoutingRequest, Terms
from schemas.catalog import CostProfile, Latent, Needs, Variant
from schemas.inputs import Role
from schemas.request import Mode
from schemas.shape import Shape, ShapeRule


def variant(
    name: str,
    second: float = 10.0,
    *,
    fallbacks: tuple[str, ...] = (),
    vram_gib: float = 10,
    quality: float = 0.5,
    modes: tuple[Mode, ...] = (Mode.TEXT_TO_VIDEO,),
    max_pixels: int = 10**6,
    auto: bool = True,
) -> Variant:
    """A variant that takes about `second` seconds on an L40S for its only native shape."""
    return Variant(
        name=name,
        pipeline="P",
        weights="x/y",
        modes=modes,
        steps=1,
        fps=8,
        shape=ShapeRule(divisor=8, max_frames=99, max_pixels=max_pixels, native=((80, 80, 8),)),
        latent=Latent(channels=4, spatial=8, temporal=1),
        needs=Needs(vram_gib=vram_gib),
        cost=CostProfile(accelerator="L40S", measured=True, fixed_s=second, decode_s_per_megapixel=1e-9),
        quality=quality,
        fallbacks=fallbacks,
        auto=auto,
    )


def pool(of: Variant, wait_s: float = 0.0, **fields: object) -> PoolState:
    name = str(fields.pop("name", f"{of.name}/L40S"))
    given = {"price_usd_per_hour": 3.6, "vram_gib": 48.0} | fields
    return PoolState(name=name, variant=of, accelerator="L40S", wait_s=wait_s, **given)  # type: ignore[arg-type]


BIG = variant("big", 20, fallbacks=("mid", "small"), quality=0.9)
MID = variant("mid", 10, quality=0.6)
SMALL = variant("small", 5, quality=0.3)
NAMED = Terms(variant="big")


def test_the_first_choice_is_taken_when_nothing_speaks_against_it() -> None:
    choice = choose(RoutingRequest(NAMED), [pool(BIG, 100), pool(MID), pool(SMALL)], now_s=0)
    assert (choice.variant, choice.reason) == ("big", Reason.FIRST_CHOICE)
    assert choice.completion_s == pytest.approx(120, abs=0.01)


def test_a_variant_that_needs_an_input_takes_no_task_without_it() -> None:
    over = MID.model_copy(update={"pipeline": "CogVideoXFunControlPipeline"})
    pools = [pool(BIG, healthy=False), pool(over), pool(SMALL)]
    assert choose(RoutingRequest(NAMED), pools, now_s=0).variant == "small"
    drawn = replace(NAMED, variant="mid", roles=(Role.STRUCTURE,))
    assert choose(RoutingRequest(drawn), pools, now_s=0).variant == "mid"
    story = choose(RoutingRequest(replace(NAMED, variant="mid")), pools, now_s=0).story
    support = next(step for step in story.steps if step.filter is Filter.INPUT_SUPPORT)
    assert support.dropped == (("mid", "needs a structure"),)


def test_a_deadline_makes_it_fall_back_in_the_catalogs_order() -> None:
    pools = [pool(BIG, 100), pool(MID, 30), pool(SMALL)]
    choice = choose(RoutingRequest(NAMED, deadline_s=60), pools, now_s=0)
    assert (choice.variant, choice.reason) == ("mid", Reason.FALLBACK)
    deadline = choice.story.steps[-1]
    assert deadline.filter is Filter.DEADLINE
    assert deadline.survivors == ("mid", "small")
    assert deadline.dropped[0] == ("big", "60 s late")


def test_a_first_choice_that_is_down_or_too_dear_is_passed_over_and_the_story_says_so() -> None:
    down = choose(RoutingRequest(NAMED), [pool(BIG, healthy=False), pool(MID)], now_s=0)
    assert (down.variant, down.story.skipped) == ("mid", ("big",))
    dear = choose(RoutingRequest(NAMED, max_usd=0.011), [pool(BIG), pool(MID)], now_s=0)
    assert dear.variant == "mid"
    assert dear.story.steps[-1].dropped[0].why == "$0.0200 > $0.0110"


def test_a_task_that_must_not_fall_back_is_refused_with_the_earliest_instant() -> None:
    terms = Terms(variant="big", fall_back=False)
    choice = choose(RoutingRequest(terms, deadline_s=1060), [pool(BIG, 100), pool(MID)], now_s=1000)
    assert not choice.routed
    assert choice.reason is Reason.TOO_LATE
    assert choice.earliest_s == pytest.approx(1120, abs=0.01)
    assert choice.sentence == "deadline cannot be kept: the earliest is in 120 s"


def test_affinity_a_pool_that_must_load_first_loses_to_one_that_has_the_model() -> None:
    cold = pool(BIG, load_s=35, name="big/cold")
    warm = pool(BIG, 30, name="big/warm")
    assert choose(RoutingRequest(NAMED), [cold, warm], now_s=0).pool == "big/warm"
    assert choose(RoutingRequest(NAMED), [cold, pool(BIG, 40, name="big/warm")], now_s=0).pool == "big/cold"


def test_auto_follows_the_preference() -> None:
    pools = [pool(BIG), pool(MID, 1), pool(SMALL, 8, price_usd_per_hour=0.1)]
    for prefer, name, reason in (
        (Preference.LATENCY, "mid", Reason.BEST_LATENCY),
        (Preference.COST, "small", Reason.LOWEST_COST),
        (Preference.QUALITY, "big", Reason.BEST_QUALITY),
    ):
        choice = choose(RoutingRequest(Terms(prefer=prefer)), pools, now_s=0)
        assert (choice.variant, choice.reason) == (name, reason)


def test_on_capacity_the_next_variant_that_can_start_now_is_taken_and_the_best_queues_when_all_are_busy() -> None:
    terms = Terms(variant="big", skip_busy=True)
    free = choose(RoutingRequest(terms), [pool(BIG, 5), pool(MID)], now_s=0)
    assert (free.variant, free.story.skipped, free.story.all_exhausted) == ("mid", ("big",), False)
    busy = choose(RoutingRequest(terms), [pool(BIG, 5), pool(MID, 5)], now_s=0)
    assert (busy.variant, busy.story.all_exhausted) == ("big", True)


def test_every_static_filter_says_whom_it_dropped_and_why() -> None:
    image = variant("image", modes=(Mode.IMAGE_TO_VIDEO,))
    tiny = variant("tiny", max_pixels=64)
    terms = Terms(shape=Shape(width=80, height=80, frames=8), deny=("mid",), min_quality=0.4)
    choice = choose(RoutingRequest(terms), [pool(v) for v in (image, tiny, BIG, MID, SMALL)], now_s=0)
    dropped = {drop.variant: step.filter for step in choice.story.steps for drop in step.dropped}
    assert dropped == {
        "image": Filter.CAPABILITY,
        "tiny": Filter.SHAPE,
        "mid": Filter.ALLOW_DENY,
        "small": Filter.QUALITY,
    }
    assert choice.variant == "big"


def test_the_router_log_has_runways_entries() -> None:
    log = choose(RoutingRequest(NAMED, deadline_s=60), [pool(BIG, 100), pool(MID)], now_s=0).story.as_log()
    assert log[0] == {"type": "filter", "filter": "capability", "models": ["big", "mid"]}
    assert log[-2:] == [
        {"type": "capacity", "skipped": [], "allExhausted": False},
        {"type": "rank", "outcome": "fallback"},
    ]


def test_an_unknown_variant_is_refused_by_name() -> None:
    choice = choose(RoutingRequest(Terms(variant="sora")), [pool(BIG)], now_s=0)
    assert choice.reason is Reason.NO_ELIGIBLE
    assert choice.story.emptied_by[0] == "capability"
    assert "sora: no pool can hold it" in choice.sentence


NAMES = ("a", "b", "c", "d")


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[PoolState], RoutingRequest]:
    pools = []
    for name in NAMES[: draw(st.integers(1, 4))]:
        held = variant(
            name,
            draw(st.integers(1, 30)),
            fallbacks=tuple(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))),
            vram_gib=draw(st.sampled_from([8, 24, 60])),
            quality=draw(st.sampled_from([0.2, 0.5, 0.9])),
            max_pixels=draw(st.sampled_from([64, 10**6])),
        )
        for place in range(draw(st.integers(1, 3))):
            pools.append(
                pool(
                    held,
                    draw(st.sampled_from([0.0, 5.0, 50.0, math.inf])),
                    name=f"{name}/{place}",
                    load_s=draw(st.sampled_from([0.0, 35.0])),
                    healthy=draw(st.booleans()),
                    vram_gib=draw(st.sampled_from([0.0, 16.0, 48.0])),
                    price_usd_per_hour=draw(st.sampled_from([0.0, 1.0, 9.0])),
                )
            )
    terms = Terms(
        variant=draw(st.sampled_from(["auto", *NAMES])),
        shape=draw(st.sampled_from([None, Shape(width=80, height=80, frames=8)])),
        min_quality=draw(st.sampled_from([0.0, 0.5])),
        fall_back=draw(st.booleans()),
        prefer=draw(st.sampled_from(Preference)),
        skip_busy=draw(st.booleans()),
        deny=tuple(draw(st.lists(st.sampled_from(NAMES), max_size=1))),
    )
    limits = draw(st.sampled_from([0.001, 0.02, math.inf])), draw(st.sampled_from([20.0, 100.0, math.inf]))
    return pools, RoutingRequest(terms, *limits)


@settings(max_examples=300, deadline=None)
@given(fleets(), st.randoms(use_true_random=False))
def test_a_choice_fits_keeps_the_limits_has_a_reason_and_ignores_the_order_of_the_pools(
    fleet: tuple[list[PoolState], RoutingRequest], shuffler: random.Random
) -> None:
    pools, wanted = fleet
    choice = choose(wanted, pools, now_s=7.0)
    if choice.routed:
        taken = next(p for p in pools if p.name == choice.pool)
        assert taken.healthy
        assert taken.variant.name == choice.variant
        assert not taken.vram_gib or taken.variant.needs.vram_gib <= taken.vram_gib
        assert not wanted.terms.shape or not taken.variant.shape.issues(wanted.terms.shape)
        assert estimate_by_cost(taken, wanted) * taken.price_usd_per_hour / 3600 <= wanted.max_usd
        assert choice.completion_s <= wanted.deadline_s
        assert taken.variant.name not in wanted.terms.deny
        assert taken.variant.quality >= wanted.terms.min_quality
    else:
        assert choice.reason in {Reason.NO_ELIGIBLE, Reason.NO_CAPACITY, Reason.TOO_LATE}
        assert choice.story.emptied_by or choice.reason is Reason.NO_CAPACITY
    assert choice.sentence
    assert str(choice.story)
    assert choice.story.as_log()
    shuffled = list(pools)
    shuffler.shuffle(shuffled)
    assert choose(wanted, shuffled, now_s=7.0) == choice


def test_a_tasks_deadline_never_changes_which_pool_would_be_earliest() -> None:
    pools = [pool(BIG, 3, name="z"), pool(BIG, 3, name="a"), pool(BIG, 9, name="b")]
    assert (
        choose(RoutingRequest(NAMED), pools, 0).pool
        == choose(RoutingRequest(NAMED, deadline_s=40), pools, 0).pool
        == "a"
    )


@settings(max_examples=200, deadline=None)
@given(fleets())
def test_the_quickest_choice_is_the_one_that_trying_all_pools_finds(
    fleet: tuple[list[PoolState], RoutingRequest],
) -> None:
    pools, wanted = fleet
    wanted = wanted._replace(terms=replace(wanted.terms, variant="auto", prefer=Preference.LATENCY, skip_busy=False))
    able = [
        (p.start_s(7.0) + estimate_by_cost(p, wanted), p.name)
        for p in pools
        if p.healthy
        and p.start_s(7.0) < math.inf
        and not (p.vram_gib and p.variant.needs.vram_gib > p.vram_gib)
        and not (wanted.terms.shape and p.variant.shape.issues(wanted.terms.shape))
        and p.variant.name not in wanted.terms.deny
        and p.variant.quality >= wanted.terms.min_quality
        and estimate_by_cost(p, wanted) * p.price_usd_per_hour / 3600 <= wanted.max_usd
    ]
    in_time = [one for one in able if one[0] <= wanted.deadline_s]
    choice = choose(wanted, pools, now_s=7.0)
    assert choice.routed == bool(in_time)
    if in_time:
        assert choice.completion_s == pytest.approx(min(in_time)[0])
    elif able:
        assert choice.earliest_s == pytest.approx(min(able)[0])

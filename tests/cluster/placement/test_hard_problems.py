"""What `place` holds whatever it is asked: pools alike or all different, few tasks or many, fits mixed or single."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.placement_cases import Case, Hard, draw_hard
from cluster.placement.collapse import collapse
from cluster.placement.plan import BulkGroup, BulkPool, BulkVariant, Plan, place
from cluster.placement.prices import Instance, Prices


@st.composite
def cases(draw: st.DrawFn) -> Case:
    pools = draw(st.integers(1, 60))
    hard = Hard(
        "any",
        types=draw(st.integers(1, pools)),
        variants=draw(st.integers(1, 12)),
        groups=draw(st.integers(1, 6)),
        tasks=draw(st.sampled_from([0, 1, 7, 60, 900, 20_000])),
        pools=pools,
        gpus=draw(st.integers(1, 3)),
        fits=draw(st.sampled_from([1.0, 0.3])),
        own_type=draw(st.booleans()),
        alike=draw(st.booleans()),
        giant=draw(st.booleans()),
    )
    return draw_hard(hard, draw(st.integers(0, 1000)))


def assert_valid(case: Case, plan: Plan) -> None:
    """Each task once, only where it fits, at times that add up."""
    groups = {group.name: group for group in case.groups}
    variants = {variant.name: variant for variant in case.variants}
    rendered: Counter[str] = Counter()
    places = [(pool.name, index) for pool in case.pools for index in range(pool.gpus)]
    assert [(schedule.pool, schedule.index) for schedule in plan.schedules] == places
    accelerator = {pool.name: pool.accelerator for pool in case.pools}
    for schedule in plan.schedules:
        now_s, loaded = 0.0, []
        for segment in schedule.segments:
            where = accelerator[schedule.pool]
            if not loaded or loaded[-1] != segment.variant:
                loaded.append(segment.variant)
                now_s += variants[segment.variant].load_s[where]
            now_s += segment.tasks * groups[segment.group].task_s[where]
            assert segment.variant == groups[segment.group].variant
            assert segment.end_s == pytest.approx(now_s)
            rendered[segment.group] += segment.tasks
        assert len(loaded) == len(set(loaded)), "a variant is loaded once a GPU"
        assert now_s <= plan.makespan_s * (1 + 1e-9)
    assert rendered == Counter({group.name: group.tasks for group in case.groups if group.tasks})
    assert plan.bound_s <= plan.makespan_s


@settings(max_examples=60, deadline=None)
@given(cases())
def test_any_problem_is_placed_validly(case: Case) -> None:
    assert_valid(case, place(case.groups, case.variants, case.pools))


@settings(max_examples=10, deadline=None)
@given(cases())
def test_the_same_hard_problem_has_the_same_plan(case: Case) -> None:
    assert place(case.groups, case.variants, case.pools) == place(case.groups, case.variants, case.pools)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_no_prices_prove_more_than_a_plan_takes(case: Case, seed: int) -> None:
    plan = place(case.groups, case.variants, case.pools)
    if not plan.makespan_s:
        return
    instance, rng = instance_of(case), np.random.default_rng(seed)
    for _ in range(3):
        pool_price = rng.lognormal(0, 2, len(instance.gpus)) * (rng.random(len(instance.gpus)) < 0.9)
        task_price = rng.lognormal(0, 2, len(instance.tasks)) * (rng.random(len(instance.tasks)) < 0.9)
        prices = Prices(instance, plan.makespan_s, pool_price + 1e-12, task_price)
        assert prices.proven_s() <= plan.makespan_s * (1 + 1e-9)


def instance_of(case: Case) -> Instance:
    groups = [group for group in case.groups if group.tasks]
    names = sorted({group.variant for group in groups})
    variants = {variant.name: variant for variant in case.variants}
    kinds = [pool.accelerator for pool in case.pools]
    whole = Instance(
        np.array([[group.task_s.get(kind, np.inf) for kind in kinds] for group in groups]),
        np.array([[variants[name].load_s.get(kind, np.inf) for kind in kinds] for name in names]),
        np.array([group.tasks for group in groups]),
        np.array([names.index(group.variant) for group in groups]),
        np.array([pool.gpus for pool in case.pools]),
    )
    return collapse(whole).instance


def forty_pools(differ: float) -> Case:
    """Forty pools of one GPU, whose seconds grow by `differ` from one to the next; fifty groups of ten variants."""
    rng = np.random.default_rng(3)
    kinds = [f"kind-{k}" for k in range(40)]
    pools = tuple(BulkPool(kind, kind, 1, 80) for kind in kinds)
    factor = {kind: 1 + differ * k for k, kind in enumerate(kinds)}
    variants = tuple(BulkVariant(f"v{v}", 8, {kind: 30 * factor[kind] for kind in kinds}) for v in range(10))
    groups = []
    for g in range(50):
        own_s = float(rng.lognormal(3, 0.6))
        groups.append(BulkGroup(f"g{g}", f"v{g % 10}", 40, {kind: own_s * factor[kind] for kind in kinds}))
    return Case(tuple(groups), variants, pools)


def test_pools_that_hardly_differ_have_the_bound_of_equal_ones() -> None:
    # The first are too many pairs to be solved at once, and the bound is what prices prove; the others are one pool.
    many, one = (forty_pools(differ) for differ in (1e-9, 0.0))
    assert instance_of(many).task_s.shape == (50, 40)
    assert instance_of(one).task_s.shape == (50, 1)
    plan, exact = (place(case.groups, case.variants, case.pools) for case in (many, one))
    assert plan.bound_s == pytest.approx(exact.bound_s, rel=2e-3)
    assert plan.ratio <= 1.03


def test_pools_and_groups_that_are_alike_are_one_problem() -> None:
    groups = [BulkGroup(f"g{g}", "v", 5, {"L4": 10.0}) for g in range(20)]
    variants = [BulkVariant("v", 8, {"L4": 30.0})]
    apart = place(groups, variants, [BulkPool(f"p{k}", "L4", 1, 24) for k in range(10)])
    together = place([BulkGroup("g", "v", 100, {"L4": 10.0})], variants, [BulkPool("p", "L4", 10, 24)])
    assert apart.makespan_s == together.makespan_s == 130.0
    assert apart.bound_s == together.bound_s


def test_a_task_as_long_as_all_others_has_a_gpu_to_itself() -> None:
    groups = [BulkGroup("giant", "v", 1, {"L4": 1000.0}), BulkGroup("g", "v", 900, {"L4": 10.0})]
    plan = place(groups, [BulkVariant("v", 8, {"L4": 0.0})], [BulkPool("p", "L4", 10, 24)])
    assert plan.makespan_s == 1000.0 == plan.bound_s * plan.ratio
    assert [{s.group for s in one.segments} for one in plan.schedules].count({"giant"}) == 1

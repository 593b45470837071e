import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from cluster.placement.plan import BulkGroup, BulkPool, BulkVariant, Plan, place

Problem = tuple[list[BulkGroup], list[BulkVariant], list[BulkPool]]

ACCELERATORS = ("H100", "L40S", "L4")
SECONDS = st.floats(0.5, 200)


@st.composite
def problems(draw: st.DrawFn, most_tasks: int = 300, most_gpus: int = 5) -> Problem:
    # The first pool holds everything, so that each group has a home.
    pools = [BulkPool("big", "H100", draw(st.integers(1, most_gpus)), 80)]
    for k in range(draw(st.integers(0, 2))):
        vram_gib = draw(st.sampled_from([16, 24, 48]))
        pools.append(BulkPool(f"p{k}", draw(st.sampled_from(ACCELERATORS)), draw(st.integers(0, most_gpus)), vram_gib))
    variants, groups = [], []
    for v in range(draw(st.integers(1, 3))):
        load_s = {accelerator: draw(st.floats(0, 100)) for accelerator in ACCELERATORS}
        variants.append(BulkVariant(f"v{v}", draw(st.sampled_from([8, 20, 40, 70])), load_s))
        for g in range(draw(st.integers(1, 2))):
            task_s = {"H100": draw(SECONDS)} | draw(st.dictionaries(st.sampled_from(ACCELERATORS[1:]), SECONDS))
            groups.append(BulkGroup(f"v{v}/{g}", f"v{v}", draw(st.integers(0, most_tasks)), task_s))
    return groups, variants, pools


def replay(problem: Problem, plan: Plan) -> Counter[str]:
    """Walk every schedule from the problem alone; returns the tasks rendered by group."""
    groups = {group.name: group for group in problem[0]}
    variants = {variant.name: variant for variant in problem[1]}
    pools = {pool.name: pool for pool in problem[2]}
    rendered: Counter[str] = Counter()
    for schedule in plan.schedules:
        pool, now_s, loaded = pools[schedule.pool], 0.0, []
        for segment in schedule.segments:
            group = groups[segment.group]
            assert segment.tasks > 0
            assert segment.variant == group.variant
            assert variants[group.variant].vram_gib <= pool.vram_gib
            assert segment.start_s == pytest.approx(now_s)
            if not loaded or loaded[-1] != group.variant:
                loaded.append(group.variant)
                now_s += variants[group.variant].load_s[pool.accelerator]
            now_s += segment.tasks * group.task_s[pool.accelerator]
            assert segment.end_s == pytest.approx(now_s)
            rendered[segment.group] += segment.tasks
        assert len(loaded) == len(set(loaded)), "a variant is loaded once a GPU"
        assert now_s <= plan.makespan_s * (1 + 1e-9)
    return rendered


@settings(max_examples=120, deadline=None)
@given(problems())
def test_every_task_is_placed_once_where_it_fits_and_no_sooner_than_the_bound(problem: Problem) -> None:
    plan = place(*problem)
    assert replay(problem, plan) == Counter({group.name: group.tasks for group in problem[0] if group.tasks})
    assert plan.makespan_s == max(schedule.finish_s for schedule in plan.schedules)
    assert plan.makespan_s >= plan.bound_s
    assert len(plan.schedules) == sum(pool.gpus for pool in problem[2])


@settings(max_examples=20, deadline=None)
@given(problems())
def test_the_same_problem_has_the_same_plan(problem: Problem) -> None:
    assert place(*problem) == place(*problem)


def exact_s(problem: Problem) -> float:
    """The best makespan, by a mixed-integer program that shares nothing with the planner."""
    groups, variants, pools = problem
    groups = [group for group in groups if group.tasks]
    gpus = [pool for pool in pools for _ in range(pool.gpus)]
    by_name = {variant.name: variant for variant in variants}
    names = sorted(by_name)
    x = {key: k for k, key in enumerate(itertools.product(range(len(groups)), range(len(gpus))))}
    y = {key: len(x) + k for k, key in enumerate(itertools.product(names, range(len(gpus))))}
    size = len(x) + len(y) + 1
    upper = np.array([0.0] * len(x) + [1.0] * len(y) + [np.inf])
    rows, low, high = [], [], []
    finish = np.zeros((len(gpus), size))
    finish[:, -1] = -1
    for g, group in enumerate(groups):
        every = np.zeros(size)
        for m, gpu in enumerate(gpus):
            every[x[g, m]] = 1
            if by_name[group.variant].vram_gib <= gpu.vram_gib and gpu.accelerator in group.task_s:
                upper[x[g, m]] = group.tasks
                finish[m, x[g, m]] = group.task_s[gpu.accelerator]
            needs = np.zeros(size)
            needs[x[g, m]], needs[y[group.variant, m]] = 1, -group.tasks
            rows, low, high = [*rows, needs], [*low, -np.inf], [*high, 0]
            finish[m, y[group.variant, m]] = by_name[group.variant].load_s[gpu.accelerator]
        rows, low, high = [*rows, every], [*low, group.tasks], [*high, group.tasks]
    rows, low, high = [*rows, *finish], [*low, *[-np.inf] * len(gpus)], [*high, *[0] * len(gpus)]
    answer = milp(
        np.eye(size)[-1],
        integrality=[1] * (size - 1) + [0],
        bounds=Bounds(np.zeros(size), upper),
        constraints=LinearConstraint(np.array(rows), low, high),
        options={"mip_rel_gap": 1e-6, "time_limit": 5},
    )
    assert answer.status in (0, 1)
    # Cut short, what has been proven so far is still below every plan.
    return float(answer.fun if answer.status == 0 else answer.mip_dual_bound)


def drawn(seed: int) -> Problem:
    """Three GPUs of two types, about fifteen tasks of two variants."""
    rng = np.random.default_rng(seed)
    pools = [BulkPool("big", "H100", 1, 80), BulkPool("small", "L4", 2, 24)]
    variants = [
        BulkVariant(f"v{v}", (12, 60)[v], {"H100": rng.uniform(5, 40), "L4": rng.uniform(5, 60)}) for v in (0, 1)
    ]
    groups = []
    for g in range(3):
        task_s = {"H100": rng.uniform(5, 50), "L4": rng.uniform(10, 150)}
        groups.append(BulkGroup(f"g{g}", f"v{g % 2}", int(rng.integers(1, 8)), task_s))
    return groups, variants, pools


def test_the_exact_optimum_lies_between_bound_and_plan_and_the_plan_is_near_it() -> None:
    ratios = []
    for seed in range(12):
        problem = drawn(seed)
        plan, best_s = place(*problem), exact_s(problem)
        assert plan.bound_s <= best_s * (1 + 1e-6)
        assert plan.makespan_s >= best_s * (1 - 1e-6)
        ratios.append(plan.makespan_s / best_s)
    assert np.mean(ratios) <= 1.03
    assert max(ratios) <= 1.15


def test_one_type_and_one_variant_is_an_even_split() -> None:
    groups = [BulkGroup("g", "v", 100, {"H100": 10.0})]
    plan = place(groups, [BulkVariant("v", 8, {"H100": 30.0})], [BulkPool("p", "H100", 4, 80)])
    assert [schedule.finish_s for schedule in plan.schedules] == [280.0] * 4
    assert plan.ratio == pytest.approx(1, abs=1e-4)


def test_few_tasks_do_not_pay_for_loads_that_win_nothing() -> None:
    groups = [BulkGroup("g", "v", 3, {"H100": 1.0, "L4": 2.0})]
    variants = [BulkVariant("v", 8, {"H100": 5.0, "L4": 50.0})]
    plan = place(groups, variants, [BulkPool("h", "H100", 1, 80), BulkPool("l", "L4", 3, 24)])
    assert plan.makespan_s == 8.0 == plan.schedules[0].finish_s


def test_a_large_run_on_four_types_is_within_two_percent_of_the_bound() -> None:
    rng = np.random.default_rng(7)
    speed = {"H100": 2.5, "A100": 1.3, "L40S": 1.0, "L4": 0.3}
    pools = [BulkPool(a.lower(), a, 15, vram) for a, vram in zip(speed, (80, 80, 48, 24), strict=True)]
    variants = [BulkVariant(f"v{v}", vram, dict.fromkeys(speed, 40.0)) for v, vram in enumerate((8, 20, 40, 60))]
    groups = []
    for g in range(16):
        seconds = float(rng.lognormal(3.5, 0.7))
        groups.append(BulkGroup(f"g{g}", f"v{g % 4}", 600, {a: seconds / s for a, s in speed.items()}))
    plan = place(groups, variants, pools)
    assert plan.ratio <= 1.02
    switches = sum(len({segment.variant for segment in schedule.segments}) for schedule in plan.schedules)
    assert switches <= 60 + 2 * 4 * 4, "a GPU keeps to few variants"


def test_nothing_to_do_takes_no_time() -> None:
    plan = place([], [], [BulkPool("p", "H100", 2, 80)])
    assert (plan.makespan_s, plan.bound_s, plan.ratio, len(plan.schedules)) == (0, 0, 1, 2)


def test_what_cannot_be_placed_is_refused_by_name() -> None:
    variants = [BulkVariant("wan", 60, {"L4": 1.0})]
    small = [BulkPool("p", "L4", 2, 24)]
    with pytest.raises(ValueError, match=r"no pool can render group 'g' \(wan, 60 GiB\); pools: p \(L4, 24 GiB\)"):
        place([BulkGroup("g", "wan", 1, {"L4": 1.0})], variants, small)
    with pytest.raises(ValueError, match="unknown variant 'ltx'; available: wan"):
        place([BulkGroup("g", "ltx", 1, {"L4": 1.0})], variants, small)
    with pytest.raises(ValueError, match="want more than 0"):
        place([BulkGroup("g", "wan", 1, {"L4": 0.0})], variants, small)
    with pytest.raises(ValueError, match="nan s a task on L4"):
        place([BulkGroup("g", "wan", 1, {"L4": math.nan})], variants, small)
    with pytest.raises(ValueError, match="twice: g"):
        place([BulkGroup("g", "wan", 1, {"L4": 1.0})] * 2, variants, small)

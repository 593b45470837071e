"""How a bulk run shares a cluster out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.placement.bulk_pools import ActorPool, BulkPlan, BulkWork, drain_s, plan_pools
from cluster.topology import Topology
from schemas.catalog import Needs, Variant
from tests.cluster.test_topology import variant

SIX = Topology(cpus=28.0, gpus=6.0, nodes=2, accelerators={"H200": 6.0})
MIXED = Topology(cpus=64.0, gpus=8.0, nodes=2, accelerators={"H100": 4.0, "L4": 4.0})


def planned(
    work_s: dict[str, float],
    batches: int = 1000,
    load_s: float = 0.0,
    topology: Topology = SIX,
    gpus: float = 1,
    device: str = "auto",
) -> tuple[BulkPlan, dict[str, Variant]]:
    """Groups of equal batches, one a variant; L4 is a quarter as fast as the others."""
    variants = {name: variant(name, gpus) for name in work_s}
    pace = {"H200": 1.0, "H100": 1.0, "L4": 4.0, "cpu": 1.0}
    works = [
        BulkWork(f"{name}-group", name, batches, {kind: seconds / batches * slow for kind, slow in pace.items()})
        for name, seconds in work_s.items()
    ]
    loads = {name: dict.fromkeys(pace, load_s) for name in work_s}
    return plan_pools(works, loads, variants, topology, device), variants


def test_one_variant_gets_the_whole_cluster() -> None:
    plan, _ = planned({"v": 600.0}, load_s=5.0)
    assert plan.actors == {"v": 6}
    assert (plan.wall_s, plan.bound_s) == (pytest.approx(105, rel=0.01), pytest.approx(105, rel=0.01))


def test_a_pool_is_as_large_as_its_share_of_the_work() -> None:
    plan, _ = planned({"slow": 500.0, "quick": 100.0})
    assert plan.actors == {"slow": 5, "quick": 1}


def test_no_pool_is_larger_than_its_batches() -> None:
    plan, _ = planned({"v": 500.0}, batches=2)
    assert plan.actors == {"v": 2}
    assert plan.wall_s == pytest.approx(250)


def test_a_load_longer_than_the_work_is_not_paid_twice() -> None:
    plan, _ = planned({"v": 30.0}, load_s=100.0)
    assert plan.actors["v"] <= 6
    assert plan.wall_s <= 130
    short, _ = planned({"v": 30.0}, batches=1, load_s=100.0)
    assert short.actors == {"v": 1}


def test_more_variants_than_accelerators_take_turns() -> None:
    plan, _ = planned({f"v{n}": 10.0 * (n + 1) for n in range(12)}, load_s=1.0)
    assert len(plan.pools) == 12
    assert plan.wall_s <= 1.1 * plan.bound_s


def test_an_actor_on_two_accelerators_counts_twice() -> None:
    plan, _ = planned({"v": 600.0}, gpus=2)
    assert plan.actors == {"v": 3}
    assert plan.wall_s == pytest.approx(200, rel=0.01)


def test_on_the_cpu_the_cpus_are_shared_out() -> None:
    plan, _ = planned({"v": 280.0}, device="cpu")
    assert plan.actors == {"v": 28}
    assert plan.pools[0].accelerator is None


def test_with_two_types_each_gets_what_it_is_good_at_and_all_batches_are_handed_out() -> None:
    plan, _ = planned({"v": 1000.0}, batches=1000, topology=MIXED)
    by_kind = {pool.accelerator: pool for pool in plan.pools}
    assert by_kind.keys() == {"H100", "L4"}
    fast, slow = (by_kind[kind].batches["v-group"] for kind in ("H100", "L4"))
    assert fast + slow == 1000
    assert fast / slow == pytest.approx(4, rel=0.05)
    assert plan.wall_s == pytest.approx(plan.bound_s, rel=0.02)


def test_a_variant_that_is_pinned_to_a_type_stays_there() -> None:
    pinned = {"v": variant("v", 1, "L4"), "w": variant("w", 1)}
    works = [BulkWork(name, name, 100, {"H100": 1.0, "L4": 4.0}) for name in pinned]
    plan = plan_pools(works, {name: {"H100": 1.0, "L4": 1.0} for name in pinned}, pinned, MIXED)
    assert {pool.accelerator for pool in plan.pools if pool.variant == "v"} == {"L4"}


def test_a_variant_goes_where_its_memory_is() -> None:
    large = variant("v", 1).model_copy(update={"needs": Needs(gpus=1, vram_gib=60)})
    plan = plan_pools(
        [BulkWork("g", "v", 100, {"H100": 1.0, "L4": 1.0})], {"v": {"H100": 1, "L4": 1}}, {"v": large}, MIXED
    )
    assert [pool.accelerator for pool in plan.pools] == ["H100"]


def test_groups_beyond_counting_are_summed_and_still_all_handed_out() -> None:
    variants = {"v": variant("v", 1)}
    works = [BulkWork(f"g{n}", "v", 1 + n % 3, {"H100": 1.0 + n % 5, "L4": 4.0}) for n in range(500)]
    plan = plan_pools(works, {"v": {"H100": 2.0, "L4": 2.0}}, variants, MIXED)
    for work in works:
        assert sum(pool.batches.get(work.group, 0) for pool in plan.pools) == work.batches


def test_actors_without_room_start_when_a_pool_has_drained() -> None:
    variants = {name: variant(name, 1) for name in "ab"}
    first = ActorPool("a", None, 2, {"a": 100}, work_s=20.0, load_s=1.0)
    second = ActorPool("b", None, 3, {"b": 100}, work_s=40.0, load_s=1.0)
    # a: 2 actors until 11; b: one actor from 0, two more from 11; 10 s done by then, 30 s left for three.
    assert drain_s([first, second], variants, {"H200": 3.0}, 28, "auto") == pytest.approx(
        11 + (30 + 2 * 1.0) / 3, rel=0.03
    )


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.1, 1e4), min_size=1),
    st.integers(1, 60),
    st.floats(0, 100),
    st.sampled_from([SIX, MIXED]),
)
def test_every_batch_has_a_pool_and_no_run_ends_before_the_bound(
    work_s: dict[str, float], batches: int, load_s: float, topology: Topology
) -> None:
    plan, _ = planned(work_s, batches, load_s, topology)
    for name in work_s:
        assert sum(pool.batches.get(f"{name}-group", 0) for pool in plan.pools) == batches
        assert 1 <= plan.actors[name] <= batches
    assert 0 < plan.bound_s <= plan.wall_s * (1 + 1e-9)
    assert plan == planned(work_s, batches, load_s, topology)[0]


def test_nothing_to_render_has_no_pools() -> None:
    assert plan_pools([], {}, {}, SIX) == BulkPlan((), 0.0, 0.0)

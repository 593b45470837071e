"""What `auto` prefers."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.placement.bulk_pools import ActorPool
from pipelines.plan_stage import Span, rank_by_price
from pipelines.run_plan import hand_out
from schemas.catalog import Variant
from schemas.request import Mode
from schemas.task import Group
from tests.pipelines.catalogs import two_variants


def rank(variant: Variant) -> float:
    group = Group(
        variant=variant.name,
        variant_digest=variant.digest,
        mode=Mode.TEXT_TO_VIDEO,
        width=64,
        height=64,
        frames=17,
        fps=8,
        steps=variant.steps,
        guidance=variant.guidance,
    )
    return rank_by_price("cpu", "auto", variant, group)


def test_the_cheaper_of_two_priced_variants_comes_first() -> None:
    small = two_variants()["small"]
    dearer = small.model_copy(update={"price_usd_per_gpu_hour": 3.0})
    assert rank(small) < rank(dearer)


def test_a_free_variant_comes_after_every_priced_one_and_the_quicker_free_one_first() -> None:
    small = two_variants()["small"]
    free = small.model_copy(update={"price_usd_per_gpu_hour": 0.0})
    slower = free.model_copy(update={"steps": 20})
    assert rank(small.model_copy(update={"price_usd_per_gpu_hour": 1e5})) < rank(free) < rank(slower)


def group(frames: int) -> Group:
    return Group(
        variant="small",
        variant_digest="0" * 16,
        mode=Mode.TEXT_TO_VIDEO,
        width=64,
        height=64,
        frames=frames,
        fps=8,
        steps=2,
        guidance=1.0,
    )


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=3),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_spans_are_cut_between_pools_without_a_batch_lost_or_twice(lengths: list[list[int]], cuts: list[float]) -> None:
    spans = {
        group(5 + 4 * number): [Span(f"part-{number}-{i}", 10, 10 + length, 4, 1.0) for i, length in enumerate(mine)]
        for number, mine in enumerate(lengths)
    }
    left = {g: sum(span.stop - span.start for span in mine) for g, mine in spans.items()}
    pools = []
    for cut in (*cuts, 1.0):
        shares = {g: int(cut * count) for g, count in left.items()}
        left = {g: left[g] - shares[g] for g in left}
        pools.append(ActorPool("small", None, 1, {g.key: count for g, count in shares.items()}, 1.0, 0.0))
    handed = hand_out(pools, spans)
    rows = [(span.part, row) for pool in handed for span in pool.spans for row in range(span.start, span.stop)]
    assert sorted(rows) == sorted(
        (span.part, row) for mine in spans.values() for span in mine for row in range(span.start, span.stop)
    )

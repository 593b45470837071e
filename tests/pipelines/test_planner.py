"""What `auto` prefers."""

from pipelines.planner import rank_by_price
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

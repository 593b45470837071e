"""What the cluster has."""

import pytest

from cluster.topology import Topology, counted, topology_of
from schemas.catalog import Latent, Needs, Variant
from schemas.shape import ShapeRule

NODES = [
    {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0, "accelerator_type:H200": 1.0, "node:10.0.0.1": 1.0}},
    {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:L40S": 1.0}},
    {"Alive": True, "Resources": {"CPU": 4.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]
CLUSTER = Topology(cpus=28.0, gpus=6.0, nodes=3, accelerators={"H200": 4.0, "L40S": 2.0})


def variant(name: str, gpus: float, kind: str | None = None) -> Variant:
    return Variant(
        name=name,
        pipeline="WanPipeline",
        weights="owner/name",
        modes=("text_to_video",),
        steps=4,
        fps=8,
        shape=ShapeRule(divisor=16, max_frames=17, max_pixels=4096, native=((64, 64, 17),)),
        latent=Latent(channels=4, spatial=8, temporal=4),
        needs=Needs(gpus=gpus, accelerator_type=kind),
    )


def test_the_topology_counts_live_nodes_and_gpus_by_type() -> None:
    assert topology_of(NODES) == CLUSTER
    assert CLUSTER.accelerator == "H200"
    assert Topology(4.0, 0.0, 1, {}).accelerator == "cpu"


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (variant("v", 8), "needs 8 GPUs, the cluster has 6; choose a variant that runs on CPU"),
        (variant("v", 1, "B200"), "needs accelerator 'B200'; the cluster has: H200, L40S"),
    ],
)
def test_a_variant_that_cannot_be_placed_says_why(needs: Variant, said: str) -> None:
    import re

    assert re.search(said, CLUSTER.why_not(needs) or "")
    assert CLUSTER.why_not(needs, device="cpu") is None


def test_one_is_one_and_more_are_many() -> None:
    assert (counted(1, "GPU"), counted(0.5, "GPU"), counted(2, "CPU")) == ("1 GPU", "0.5 GPUs", "2 CPUs")


def test_a_head_without_cpus_can_place_nothing_and_says_so() -> None:
    head = topology_of([{"Alive": True, "Resources": {"memory": 1.0}}])
    assert head.why_not(variant("v", 0)) == "variant 'v' needs 1 CPU, the cluster has 0"

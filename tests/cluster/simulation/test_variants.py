import numpy as np
import pyarrow as pa
import pytest

from cluster.simulation.engine import SimulationConfig, run, simulate
from cluster.simulation.fleet import Fleet, FleetPool, FleetVariant, parse_fleet
from cluster.simulation.machine import machines_of
from cluster.simulation.policies import POLICIES
from cluster.simulation.report import fates
from cluster.simulation.trace import Trace, trace_from
from cluster.simulation.variants import variant_table
from schemas.errors import ConfigError

FALLS_BACK = [policy for policy in POLICIES if policy.endswith(("_refuse", "_fallback", "_soft", "ect", "rushes"))]


def rush(tasks: int = 120, allowance_s: float = 60.0) -> Trace:
    """More of one variant than can be on time."""
    columns = {"variant": ["slow"] * tasks, "exec_s": np.full(tasks, 10.0), "deadline_s": np.full(tasks, allowance_s)}
    return trace_from(pa.table({"arrival_s": np.arange(tasks) * 3.0, **columns}), "made up")


def fleet(fast: FleetVariant, vram_gib: float = 80) -> Fleet:
    pool = FleetPool(accelerator="A100", count=2, vram_gib=vram_gib, load_cold_s=3)
    slow = FleetVariant(vram_gib=60, fallbacks=("fast",), quality=0.8)
    return Fleet(pools=(pool,), variants={"slow": slow, "fast": fast})


@pytest.mark.parametrize("policy", FALLS_BACK)
def test_a_variant_that_the_trace_never_asks_for_may_be_a_fallback(policy: str) -> None:
    made, over = rush(), fleet(FleetVariant(vram_gib=10, time_factor=0.1, quality=0.4))
    outcome = run(made, over, SimulationConfig(made, over, policy=policy), seed=0)
    found = fates(made, over, outcome).of()
    assert found.downgraded_share > 0
    assert found.as_asked_share < found.on_time_share
    assert found.quality_goodput == pytest.approx(
        found.as_asked_share + 0.5 * (found.on_time_share - found.as_asked_share)
    )


def test_variants_that_share_weights_load_once() -> None:
    own, shared = (FleetVariant(vram_gib=60, weights=weights, time_factor=0.3) for weights in ("", "slow"))
    loads = {}
    for name, fast in (("own", own), ("shared", shared)):
        outcome = run(rush(), fleet(fast), SimulationConfig(rush(), fleet(fast), policy="rushes"), seed=0)
        loads[name] = outcome.loads_cold
        assert any(fates(rush(), fleet(fast), outcome).downgraded)
    assert loads["shared"] == 2  # a machine each
    assert loads["own"] > 2


def test_shared_weights_take_what_the_largest_of_their_variants_needs_once() -> None:
    variants = {
        "a": FleetVariant(vram_gib=30, fallbacks=("b",)),
        "b": FleetVariant(vram_gib=40, weights="a"),
        "c": FleetVariant(vram_gib=30),
    }
    over = Fleet(pools=(FleetPool(accelerator="A100", count=1, vram_gib=80, host_cache=2),), variants=variants)
    table = variant_table(("a", "c"), over)
    assert (table.names, table.vram_gib) == (("a", "c", "b"), (40, 30, 40))
    (machine,) = machines_of(over, table)
    a, c, b = range(3)
    assert [machine.use(variant) for variant in (a, b, c, a, b, c)] == [35, 0, 35, 0, 0, 0]
    assert machine.is_warm(b)


def test_fallbacks_keep_their_order_and_those_of_a_fallback_do_not_count() -> None:
    variants = {"a": FleetVariant(fallbacks=("c", "a", "b", "c")), "c": FleetVariant(fallbacks=("d",))}
    variants |= {"b": FleetVariant(), "d": FleetVariant()}
    table = variant_table(("a", "b"), Fleet(pools=(FleetPool(accelerator="A100", count=1),), variants=variants))
    assert [table.names[number] for number in table.chains[0]] == ["a", "c", "b"]
    assert "d" not in table.names


def test_a_fallback_that_nobody_knows_is_refused_with_the_choices() -> None:
    over = parse_fleet('[[pools]]\ncount = 1\n[variants.slow]\nfallbacks = ["fats"]\n[variants.fast]\n', "fleet")
    with pytest.raises(ConfigError, match=r"variants.slow.fallbacks: unknown variant 'fats'; available: fast, slow"):
        simulate(SimulationConfig(rush(), over))


def test_a_fallback_that_fits_no_accelerator_is_left_out() -> None:
    over = fleet(FleetVariant(vram_gib=100, time_factor=0.1))
    for policy in POLICIES:
        outcome = run(rush(), over, SimulationConfig(rush(), over, policy=policy), seed=0)
        assert set(outcome.variant) <= {-1, 0}, policy


def test_a_better_variant_than_the_one_asked_for_is_worth_no_more() -> None:
    better = fleet(FleetVariant(vram_gib=10, time_factor=0.1, quality=1.0))
    outcome = run(rush(), better, SimulationConfig(rush(), better, policy="ect"), seed=0)
    found = fates(rush(), better, outcome).of()
    assert found.downgraded_share > 0
    assert found.quality_goodput == pytest.approx(found.on_time_share)

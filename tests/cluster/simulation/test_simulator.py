import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.simulation.baselines import Bound
from cluster.simulation.engine import SimulationConfig, run, simulate, with_deadlines
from cluster.simulation.fleet import Fleet, FleetPool, FleetVariant, parse_fleet
from cluster.simulation.outages import Failure
from cluster.simulation.policies import POLICIES
from cluster.simulation.report import measure
from cluster.simulation.trace import Trace, load_trace, trace_from
from schemas.errors import ConfigError


def trace(tasks: int = 300, seed: int = 0, gap_s: float = 2.0, variants: int = 5, allowance_s: float = 120.0) -> Trace:
    random = np.random.default_rng(seed)
    width = random.choice([256, 512, 768], size=tasks)
    table = pa.table(
        {
            "arrival_s": np.cumsum(random.exponential(gap_s, tasks)),
            "variant": [f"v{code}" for code in random.integers(0, variants, tasks)],
            "exec_s": width / 100 * np.exp(random.normal(0, 0.1, tasks)),
            "deadline_s": np.full(tasks, allowance_s),
            "width": width,
            "tenant": [f"t{code}" for code in random.integers(0, 3, tasks)],
            "priority": random.integers(-1, 2, tasks),
        }
    )
    return trace_from(table, "made up")


FLEET = Fleet(
    pools=(
        FleetPool(accelerator="H100", count=3, speed=2, vram_gib=80, host_cache=2, price_usd_per_hour=4),
        FleetPool(accelerator="L4", count=3, speed=0.5, vram_gib=24, price_usd_per_hour=0.6),
    ),
    variants={
        "v0": FleetVariant(vram_gib=40, fallbacks=("v1",), time_factor=2),
        "v1": FleetVariant(vram_gib=10),
        "v2": FleetVariant(vram_gib=12),
        "v3": FleetVariant(vram_gib=20),
        "v4": FleetVariant(vram_gib=20),
    },
)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_conserves_tasks_bills_the_whole_fleet_and_repeats_itself(policy: str) -> None:
    made = trace()
    config = SimulationConfig(made, FLEET, policy=policy)
    outcome = run(made, FLEET, config, seed=3)
    found = measure(made, FLEET, outcome)
    assert (found.lost, found.completed + found.refused) == (0, len(made))
    assert len(set(outcome.completions)) == len(outcome.completions) == found.completed
    assert found.billed_usd == pytest.approx(found.fleet_usd, rel=1e-3)
    again = run(made, FLEET, config, seed=3)
    assert (again.done_s, again.machine) == (outcome.done_s, outcome.machine)


@pytest.mark.parametrize("policy", ["fifo", "p2c", "ect", "rushes"])
def test_no_task_is_lost_when_a_pool_dies_and_no_machine_runs_two_at_once(policy: str) -> None:
    made = trace()
    failures = (Failure("H100", at_s=100, back_s=300),)
    outcome = run(made, FLEET, SimulationConfig(made, FLEET, policy=policy, failures=failures), seed=0)
    found = measure(made, FLEET, outcome)
    fits_l4_only_after = [t for t in range(len(made)) if made.names[made.variant[t]] == "v0"]
    assert fits_l4_only_after
    assert found.lost == 0
    for machine in range(FLEET.count):
        spans = sorted(
            (outcome.start_s[t], outcome.done_s[t])
            for t in range(len(made))
            if outcome.machine[t] == machine and math.isfinite(outcome.done_s[t])
        )
        assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(spans))


def test_a_variant_never_runs_where_it_does_not_fit() -> None:
    for policy in POLICIES:
        made = trace()
        outcome = run(made, FLEET, SimulationConfig(made, FLEET, policy=policy), seed=0)
        ran_large = [t for t in range(len(made)) if outcome.variant[t] == 0]
        assert ran_large
        assert all(outcome.machine[t] < 3 for t in ran_large), policy


def test_rushes_keeps_more_deadlines_than_policies_that_do_not_see_loads() -> None:
    made = trace(tasks=800, gap_s=1.6, variants=5)
    share = {
        policy: run(made, FLEET, SimulationConfig(made, FLEET, policy=policy), seed=0).on_time_share
        for policy in ("p2c", "jsq", "ect", "rushes")
    }
    assert share["rushes"] >= share["ect"]
    assert share["ect"] > share["p2c"]


def test_the_predictor_never_reads_a_service_time_before_its_completion() -> None:
    made = trace(tasks=200)
    twisted = Trace(**{**made.__dict__, "exec_s": made.exec_s.copy()})
    twisted.exec_s[150:] *= 3  # what is yet to come must not change what was decided before
    before = float(made.arrival_s[150])
    one, two = (run(t, FLEET, SimulationConfig(t, FLEET), seed=0) for t in (made, twisted))
    for task in range(150):
        if one.done_s[task] < before:
            assert (one.done_s[task], one.machine[task], one.estimate_s[task]) == (
                two.done_s[task],
                two.machine[task],
                two.estimate_s[task],
            )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(POLICIES)), st.floats(0.2, 5), st.booleans())
def test_tasks_are_conserved_whatever_the_load(seed: int, policy: str, gap_s: float, fails: bool) -> None:
    made = trace(tasks=80, seed=seed, gap_s=gap_s, allowance_s=40)
    failures = (Failure("L4", at_s=20, back_s=60),) if fails else ()
    config = SimulationConfig(made, FLEET, policy=policy, failures=failures, service_noise=0.3)
    found = measure(made, FLEET, run(made, FLEET, config, seed))
    assert found.lost == 0
    assert found.billed_usd == pytest.approx(found.fleet_usd, rel=1e-3)


def test_a_report_is_plain_json_and_finds_lambda90(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "trace.csv"
    path.write_text(
        "arrival_s,variant,exec_s,note\n" + "".join(f"{t * 3},m{t % 3},{5 + t % 4},x\n" for t in range(120))
    )
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[pools]]\naccelerator = "A100"\ncount = 4\nhost_cache = 2\n')
    report = simulate(SimulationConfig(path, fleet, seeds=2))
    plain = report.as_json()
    assert plain["tasks"] == 120
    assert plain["deadlines"] == "assumed"
    assert report.lambda90 is not None
    assert report.lambda90 > 0
    assert report.measures[0].lost == 0


def test_wrong_files_are_refused_with_file_field_and_choices(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,model\n1,a\n")
    with pytest.raises(ConfigError, match="no column 'variant'; available: arrival_s, model"):
        load_trace(path)
    with pytest.raises(ConfigError, match=r"fleet: pools.0.count"):
        parse_fleet("[[pools]]\ncount = -1\n", "fleet")
    with pytest.raises(ConfigError, match="unknown policy 'best'; available: fifo"):
        simulate(SimulationConfig(trace(), FLEET, policy="best"))


def test_deadlines_are_read_as_instants_or_as_allowances() -> None:
    arrival_s = np.arange(0.0, 500.0, 5.0)
    columns = {"variant": ["a"] * 100, "exec_s": np.ones(100)}
    instants = trace_from(pa.table({"arrival_s": arrival_s, "deadline_s": arrival_s + 60, **columns}), "x")
    spans = trace_from(pa.table({"arrival_s": arrival_s, "deadline_s": np.full(100, 60.0), **columns}), "x")
    assert np.allclose(instants.allowance_s, 60)
    assert np.allclose(spans.allowance_s, 60)
    none = trace_from(pa.table({"arrival_s": arrival_s, **columns}), "x")
    assert np.isfinite(with_deadlines(none, FLEET).allowance_s).all()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("3,a,", "row 3: exec_s is nan, not a finite number"),
        ("3,a,-1", "row 3: exec_s is -1.0, not a finite number of seconds, at least 0"),
        ("nan,a,1", "row 3: arrival_s is nan"),
        ("3,,1", "row 3: variant is nothing, not a name"),
        ("3,a,fast", "column 'exec_s' is not numbers: .*'fast'"),
    ],
)
def test_a_wrong_row_is_named_with_its_value(tmp_path, row: str, said: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "t.csv"
    path.write_text(f"arrival_s,variant,exec_s\n1,a,1\n2,a,1\n{row}\n4,a,1\n")
    with pytest.raises(ConfigError, match=f"t.csv: {said}"):
        load_trace(path)


def test_columns_that_are_there_twice_or_files_that_are_not_there_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,variant,exec_s,exec_s\n1,a,1,1\n")
    with pytest.raises(ConfigError, match="column 'exec_s' is there twice"):
        load_trace(path)
    path.write_text("arrival_s,variant,exec_s\n")
    with pytest.raises(ConfigError, match="no rows"):
        load_trace(path)
    with pytest.raises(ConfigError, match="nowhere.csv: cannot be read"):
        load_trace(tmp_path / "nowhere.csv")


def test_a_wrong_fleet_is_refused_with_field_value_and_choices() -> None:
    for text, said in (
        ("[[pools]]\ncount = -1\n", r"fleet: pools.0.count: .* \(got -1\)"),
        ("[[pools]]\ncount = 1\nsped = 2\n", "fleet: pools.0.sped: unknown key; available: name, accelerator, count"),
        ("", "fleet: pools: missing"),
        ("[[pools]]\ncount = 0\n", "there is no accelerator in it"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse_fleet(text, "fleet")
    small = parse_fleet("[[pools]]\nname = 'p'\ncount = 1\nvram_gib = 10\n[variants.v1]\nvram_gib = 20\n", "fleet")
    with pytest.raises(ConfigError, match="variant 'v1' fits no accelerator of the fleet: it needs 20 GiB, of p 10"):
        simulate(SimulationConfig(trace(), small))


def test_a_trace_may_be_minimal_unsorted_of_unknown_variants_and_turn_to_decimals_late(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "t.csv"
    rows = [f"{t},{'auto' if t % 2 else 'unheard-of'},{1 if t < 29_000 else 1.5},prompt {t}" for t in range(30_000)]
    path.write_text("arrival_s,variant,exec_s,prompt\n" + "\n".join(reversed(rows)) + "\n")
    read = load_trace(path)
    assert (read.names, len(read), read.exec_s[-1]) == (("auto", "unheard-of"), 30_000, 1.5)
    assert (np.diff(read.arrival_s) >= 0).all()
    some = Trace(**{**read.__dict__, **{k: getattr(read, k)[:500] for k in ("arrival_s", "variant", "exec_s")}})
    few = trace_from(pa.table({"arrival_s": some.arrival_s, "variant": ["auto"] * 500, "exec_s": some.exec_s}), "few")
    found = simulate(SimulationConfig(few, FLEET, search_lambda90=False)).measures[0]
    assert (found.completed, found.lost, found.downgraded) == (500, 0, 0)


def test_a_backlog_that_never_ends_is_not_predicted_anew_at_every_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.simulation.engine._FIRST_FORECASTS", 100)
    predicted: list[int] = []
    refitted = Bound.refitted

    def counted(self: Bound, now_s: float) -> None:
        predicted.append(sum(map(len, self.queues)))
        refitted(self, now_s)

    monkeypatch.setattr(Bound, "refitted", counted)
    made = trace(tasks=4000, gap_s=0.1)
    run(made, FLEET, SimulationConfig(made, FLEET, policy="jsq"), seed=0)
    assert max(predicted) > 1000
    assert sum(predicted) <= 100 + 3 * len(made)


def test_the_time_that_decisions_take_is_charged() -> None:
    made = trace(tasks=200, gap_s=0.5)
    quick, slow = (
        run(made, FLEET, SimulationConfig(made, FLEET, decision_s=seconds), seed=0) for seconds in (1e-4, 0.4)
    )
    assert min(np.array(slow.start_s)[:50] - made.arrival_s[:50]) >= 0.4 - 1e-9
    assert np.nanmean(slow.done_s) > np.nanmean(quick.done_s)


def test_what_a_dead_pool_ran_is_started_again_and_the_report_says_how_soon() -> None:
    made = trace()
    found = simulate(SimulationConfig(made, FLEET, failures=(Failure("H100", 100.0),), search_lambda90=False))
    measured = found.measures[0]
    assert measured.interrupted > 0
    assert 5.0 <= measured.recovery_s < 200.0
    assert measured.lost == 0


@pytest.mark.parametrize("policy", ["ect", "rushes"])
def test_promises_are_frozen_at_admission_and_kept_nine_times_of_ten(policy: str) -> None:
    made = trace(tasks=2500, gap_s=2.2)
    outcome = run(made, FLEET, SimulationConfig(made, FLEET, policy=policy), seed=0)
    found = measure(made, FLEET, outcome).eta
    assert found.tasks > 2000
    assert found.coverage == pytest.approx(0.9, abs=0.05)

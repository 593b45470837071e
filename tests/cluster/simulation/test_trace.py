import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.simulation.engine import SimulationConfig, run, simulate
from cluster.simulation.fleet import load_fleet, parse_fleet
from cluster.simulation.trace import load_trace, trace_from
from schemas.errors import ConfigError
from tests.cluster.simulation.test_simulator import FLEET, trace


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        ("", "inf,a,1", "row 2: arrival_s is inf"),
        ("", "1e300,a,1", r"row 2: arrival_s is 1e\+300, not a finite number of seconds, no more than 1e\+12"),
        ("", "2,a,1e300", r"row 2: exec_s is 1e\+300"),
        ("", "2, ,1", "row 2: variant is nothing, not a name"),
        (",priority", "2,a,1,1.5", "row 2: priority is 1.5, not a whole number from -1000 to 1000"),
        (",priority", "2,a,1,inf", "row 2: priority is inf"),
        (",priority", "2,a,1,1e30", r"row 2: priority is 1e\+30"),
        (",priority", "2,a,1,high", "column 'priority' is not numbers: .*'high'"),
        (",deadline_s", "2,a,1,-5", "row 2: deadline_s is -5.0, not above 0"),
        (",deadline_s", "2,a,1,0", "row 2: deadline_s is 0.0, not above 0"),
        (",deadline_s", "2,a,1,-inf", "row 2: deadline_s is -inf, not a number of seconds"),
        (",note,note", "2,a,1,x,y", "column 'note' is there twice"),
    ],
)
def test_a_wrong_cell_or_column_is_named(tmp_path: Path, header: str, row: str, said: str) -> None:
    path = tmp_path / "t.csv"
    more = ",".join("1" for _ in header.split(",")[1:])
    path.write_text(f"arrival_s,variant,exec_s{header}\n1,a,1{',' if more else ''}{more}\n{row}\n")
    with pytest.raises(ConfigError, match=f"t.csv: {said}"):
        load_trace(path)


def test_an_instant_before_its_arrival_is_named_and_does_not_turn_the_others_into_allowances() -> None:
    arrival_s = np.arange(0.0, 500.0, 5.0)
    deadline_s = arrival_s + 60
    deadline_s[40] = arrival_s[40] - 1
    columns = {"variant": ["a"] * 100, "exec_s": np.ones(100)}
    with pytest.raises(ConfigError, match="row 41: deadline_s is 199.0, not an instant after its arrival"):
        trace_from(pa.table({"arrival_s": arrival_s, "deadline_s": deadline_s, **columns}), "x")


def test_a_task_without_a_deadline_among_others_is_never_late_and_never_refused() -> None:
    made = trace(tasks=400, gap_s=0.4, allowance_s=40)
    without = np.arange(400) % 2 == 0
    table = {
        "arrival_s": made.arrival_s,
        "variant": [made.names[code] for code in made.variant],
        "exec_s": made.exec_s,
        "deadline_s": [None if none else 40.0 for none in without],
    }
    some = trace_from(pa.table(table), "x")
    assert some.deadlines == "from the trace; 200 tasks have none"
    for policy in ("ect_refuse", "rushes"):
        outcome = run(some, FLEET, SimulationConfig(some, FLEET, policy=policy), seed=0)
        refused = np.array(outcome.refused)
        assert refused[~without].any()
        assert not refused[without].any()
    infinite = trace_from(pa.table({**table, "deadline_s": np.full(400, math.inf)}), "x")
    assert np.isinf(infinite.allowance_s).all()


def test_names_may_be_of_any_script_and_files_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "spūr.csv"
    path.write_bytes("\ufeffarrival_s,variant,exec_s,tenant\n1,模型,1,Łódź\n2,🎬,2,\n".encode())
    read = load_trace(path)
    assert read.names == ("模型", "🎬")
    assert set(read.tenants) == {"Łódź", ""}
    fleet = parse_fleet('[[pools]]\nname = "gpu-☃"\ncount = 1\n[variants."模型"]\nfallbacks = ["🎬"]\n', "fleet")
    assert simulate(SimulationConfig(read, fleet, policy="fifo")).measures[0].completed == 2


def test_one_request_and_requests_at_one_instant_are_simulated(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for rows in ("5,a,0\n", "5,a,1\n5,b,2\n5,a,0\n"):
        path.write_text("arrival_s,variant,exec_s\n" + rows)
        report = simulate(SimulationConfig(load_trace(path), FLEET))
        assert (report.span_s, report.lambda90, report.measures[0].lost) == (0, None, 0)


def test_the_span_in_a_report_is_that_of_the_trace_as_it_was_run() -> None:
    made = trace(tasks=50)
    report = simulate(SimulationConfig(made, FLEET, speed=4.0, search_lambda90=False))
    assert report.span_s == pytest.approx(made.span_s / 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pools]\ncount = 3\n", "fleet: pools"),
        ("pools = 5\n", "fleet: pools"),
        ("[[pools]]\ncount = 1\nspeed = nan\n", "fleet: pools.0.speed: .*finite"),
        ("[[pools]]\ncount = 1\nload_cold_s = inf\n", "fleet: pools.0.load_cold_s: .*finite"),
        ("[[pools]]\ncount = 1\nspeed = 0\n", "fleet: pools.0.speed"),
        ("[[pools]]\ncount = 1000000000\n", "fleet: pools.0.count: .*100000"),
        ("[[pools]]\ncount = 1\n[variants.a]\ntime_factor = nan\n", "fleet: variants.a.time_factor"),
        ("[[pools]]\ncount = 1\n[variants.a]\nweight = 'a'\n", "unknown key; available: vram_gib, weights, fallbacks"),
        ("[[pools]]\ncount = 1\n[other]\n", "fleet: other: unknown key; available: pools, variants"),
        ("pools = []\n", "fleet: pools"),
    ],
)
def test_a_fleet_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_fleet(text, "fleet")


def test_a_fleet_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="fleet.toml: not UTF-8"):
        load_fleet(path)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("speed", math.nan, "speed is nan"),
        ("speed", math.inf, "speed is inf"),
        ("speed", 0.0, "speed is 0.0, not a finite number above 0"),
        ("speed", -1.0, "speed is -1.0"),
        ("speed", 1e-320, "a finite length"),
        ("service_noise", math.nan, "noise is nan, not a number from 0 to 5"),
        ("service_noise", -0.1, "noise is -0.1"),
        ("service_noise", 1e9, "noise is"),
        ("decision_s", math.nan, "decision_s is nan"),
        ("decision_s", -1.0, "decision_s is -1.0"),
        ("seeds", 0, "seeds is 0, not at least 1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(option: str, value: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        simulate(SimulationConfig(trace(tasks=20), FLEET, **{option: value}))  # type: ignore[arg-type]

"""The command line: what it prints and how it ends."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.topology import Topology
from rushes.cli import app
from rushes.exits import Exit
from tests.pipelines.catalogs import TWO_VARIANTS

RUN = CliRunner()


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    (tmp_path / "catalog.toml").write_text(TWO_VARIANTS)
    return str(tmp_path / "catalog.toml")


def test_help_names_every_command_and_render_explains_its_exit_codes() -> None:
    told = RUN.invoke(app, ["--help"]).stdout
    for name in ("render", "estimate", "catalog", "simulate"):
        assert name in told
    told = RUN.invoke(app, ["render", "--help"]).stdout
    assert "Exit codes" in told
    assert "--retry-quarantined" in told


def test_the_catalog_command_lists_the_variants_and_checks_a_file(tmp_path: Path, catalog: str) -> None:
    listed = RUN.invoke(app, ["catalog", catalog])
    assert listed.exit_code == Exit.OK
    assert "small" in listed.stdout
    (tmp_path / "wrong.toml").write_text(TWO_VARIANTS.replace("fps = 8", "fps = -8", 1))
    wrong = RUN.invoke(app, ["catalog", str(tmp_path / "wrong.toml")])
    assert wrong.exit_code == Exit.USAGE
    assert "wrong.toml: variants.small.fps" in wrong.stderr


def test_an_option_out_of_range_is_a_usage_error(catalog: str) -> None:
    told = RUN.invoke(app, ["estimate", "m.jsonl", "--device", "tpu", "--catalog", catalog])
    assert told.exit_code == Exit.USAGE
    assert "--device" in told.stderr


@pytest.mark.ray
def test_a_manifest_that_is_not_there_is_a_usage_error(ray_cluster: Topology, tmp_path: Path, catalog: str) -> None:
    told = RUN.invoke(app, ["estimate", str(tmp_path / "none.jsonl"), "--catalog", catalog])
    assert told.exit_code == Exit.USAGE
    assert "none.jsonl: no such file" in told.stderr.replace("\n", " ")


@pytest.mark.ray
def test_an_estimate_in_json_is_json_and_exits_3_when_rows_are_rejected(
    ray_cluster: Topology, tmp_path: Path, catalog: str
) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "variant": "none"}\n')
    told = RUN.invoke(app, ["estimate", str(tmp_path / "m.jsonl"), "--catalog", catalog, "--json"])
    assert told.exit_code == Exit.INCOMPLETE
    quote = json.loads(told.stdout)
    assert (quote["rows"], quote["to_render"], quote["rejected"]) == (2, 1, 1)


@pytest.mark.ray
def test_an_estimate_for_people_shows_groups_and_the_rejected_line(
    ray_cluster: Topology, tmp_path: Path, catalog: str
) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "variant": "none"}\n')
    told = RUN.invoke(app, ["estimate", str(tmp_path / "m.jsonl"), "--catalog", catalog])
    assert "64x64x17" in told.stdout
    assert "m.jsonl:2: variant: unknown variant 'none'" in told.stdout.replace("\n", "")


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("policy", ["rushes", "jsq"])
def test_the_example_fleet_is_simulated_and_reported(tmp_path: Path, policy: str) -> None:
    told = ["--trace", str(EXAMPLES / "arrivals-synthetic.csv"), "--fleet", str(EXAMPLES / "fleet.toml")]
    report = tmp_path / "report.json"
    ran = RUN.invoke(app, ["simulate", *told, "--policy", policy, "--no-search", "--json", str(report)])
    assert ran.exit_code == Exit.OK, ran.stderr
    found = json.loads(report.read_text())
    (seed,) = found["measures"]
    assert (found["policy"], seed["tasks"], seed["lost"]) == (policy, 400, 0)
    assert seed["completed"] + seed["refused"] == 400


def test_an_unknown_policy_is_a_usage_error_with_the_choices() -> None:
    told = ["--trace", str(EXAMPLES / "arrivals-synthetic.csv"), "--fleet", str(EXAMPLES / "fleet.toml")]
    ran = RUN.invoke(app, ["simulate", *told, "--policy", "best"])
    assert ran.exit_code == Exit.USAGE
    assert "unknown policy 'best'; available: " in ran.stderr


def test_the_example_manifest_has_what_the_demo_promises() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "prompts.jsonl").read_text().splitlines()]
    assert len(rows) >= 24
    assert len({row["variant"] for row in rows if "variant" in row}) >= 2
    assert len({(row.get("width"), row.get("height")) for row in rows if "width" in row}) >= 3

"""The command line: what it prints and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rushes
from cluster.simulation.policies import POLICIES
from rushes.cli import app
from rushes.exits import Exit
from rushes.run_options import moderation_settings
from schemas.errors import ConfigError
from schemas.run import RunOptions
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


def test_the_catalog_command_checks_classes_and_folders_of_a_file(tmp_path: Path) -> None:
    text = TWO_VARIANTS.replace('"WanPipeline"', '"WanPipelin"', 1).replace("embedded:tiny-random", "./gone", 2)
    (tmp_path / "wrong.toml").write_text(text)
    told = RUN.invoke(app, ["catalog", str(tmp_path / "wrong.toml")])
    assert told.exit_code == Exit.USAGE
    lines = told.stderr.splitlines()
    assert len(lines) == 3
    assert "variants.small.pipeline: diffusers has no pipeline 'WanPipelin'; available: WanPipeline" in lines[0]
    assert lines[1].endswith("variants.small.weights: " + str(tmp_path / "gone") + ": not there")
    assert "variants.swift.weights: " in lines[2]


def test_auto_never_chooses_a_variant_whose_folder_is_not_there(tmp_path: Path) -> None:
    text = TWO_VARIANTS.replace("embedded:tiny-random", "./gone", 1)
    (tmp_path / "c.toml").write_text(text)
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n')
    words = ["estimate", str(tmp_path / "m.jsonl"), "--variant", "auto", "--json", "--catalog"]
    whole = tmp_path / "whole.toml"
    whole.write_text(TWO_VARIANTS)
    chosen = [
        json.loads(RUN.invoke(app, [*words, str(path)]).stdout)["groups"][0]["group"]["variant"]
        for path in (whole, tmp_path / "c.toml")
    ]
    assert chosen == ["small", "swift"]


@pytest.mark.parametrize(
    "words", [["estimate", "none.jsonl"], ["catalog", "none.toml"], ["simulate", "--trace", "none", "--fleet", "none"]]
)
def test_where_an_error_came_from_is_shown_with_debug_alone(words: list[str]) -> None:
    plain = python("-m", "rushes", *words)
    assert plain.returncode in (Exit.USAGE, Exit.BROKE)
    assert "Traceback" not in plain.stderr
    assert plain.stderr.startswith("error: ")
    shown = python("-m", "rushes", *words, "--debug")
    assert "Traceback" in shown.stderr
    assert shown.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


def test_an_option_out_of_range_is_a_usage_error(catalog: str) -> None:
    told = RUN.invoke(app, ["estimate", "m.jsonl", "--device", "tpu", "--catalog", catalog])
    assert told.exit_code == Exit.USAGE
    assert "--device" in told.stderr


def test_what_is_split_among_gpus_is_not_calibrated_on_one(tmp_path: Path) -> None:
    on_two = TWO_VARIANTS.replace("needs = { gpus = 0, cpus = 1 }", "needs = { gpus = 2, cpus = 1 }", 1)
    (tmp_path / "c.toml").write_text(on_two)
    told = RUN.invoke(app, ["calibrate", "--variant", "small", "--catalog", str(tmp_path / "c.toml")])
    assert told.exit_code == Exit.USAGE
    assert "'small' is split among 2 GPUs" in told.stderr


def test_calibrating_a_quantized_variant_measures_what_that_costs_and_gains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSHES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    speed = 'speed = { quantization = "int8" }\nfps = 8\n'
    (tmp_path / "c.toml").write_text(TWO_VARIANTS.replace("fps = 8\n", speed, 1))
    words = ["calibrate", "--variant", "small", "--catalog", str(tmp_path / "c.toml"), "--repeats", "1"]
    told = RUN.invoke(app, [*words, "--batches", "1", "--shape", "64x64x5", "--json", str(tmp_path / "out.json")])
    assert told.exit_code == Exit.OK, told.output
    found = json.loads((tmp_path / "out.json").read_text())["quantized"]
    assert 35 < found["psnr_db"] < 90
    assert 0.2 < found["memory_ratio"] < 0.8
    assert f"# int8: {found['psnr_db']:.1f} dB beside the same clip unquantized" in told.stdout
    listed = RUN.invoke(app, ["catalog", str(tmp_path / "c.toml")]).stdout.splitlines()
    assert [line.split()[0] for line in listed if line.strip()][2:4] == ["small", "int8"]


def test_a_manifest_that_is_not_there_is_a_usage_error(tmp_path: Path, catalog: str) -> None:
    told = RUN.invoke(app, ["estimate", str(tmp_path / "none.jsonl"), "--catalog", catalog])
    assert told.exit_code == Exit.USAGE
    assert "none.jsonl: no such file" in told.stderr.replace("\n", " ")


def test_an_estimate_in_json_is_json_and_exits_3_when_rows_are_rejected(tmp_path: Path, catalog: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "variant": "none"}\n')
    told = RUN.invoke(app, ["estimate", str(tmp_path / "m.jsonl"), "--catalog", catalog, "--json"])
    assert told.exit_code == Exit.INCOMPLETE
    quote = json.loads(told.stdout)
    assert (quote["rows"], quote["to_render"], quote["rejected"]) == (2, 1, 1)


def test_an_estimate_for_people_shows_groups_and_the_rejected_line(tmp_path: Path, catalog: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "variant": "none"}\n')
    told = RUN.invoke(app, ["estimate", str(tmp_path / "m.jsonl"), "--catalog", catalog])
    assert "64x64x17" in told.stdout
    assert "m.jsonl:2: variant: unknown variant 'none'" in told.stdout.replace("\n", "")


def python(*code: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, input=stdin, check=False)


def test_listing_the_commands_and_small_ones_import_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("ray", "torch", "pyarrow", "numpy", "scipy", "serve", "pipelines", "cluster")
    for words in (["--help"], ["--version"], ["catalog"], ["render", "--help"]):
        code = (
            "import sys\nfrom rushes.cli import app\n"
            f"try: app({words!r})\nexcept SystemExit as end: assert not end.code\n"
            f"print('HEAVY', [name for name in {heavy!r} if name in sys.modules])"
        )
        said = python("-c", code)
        assert said.stdout.splitlines()[-1] == "HEAVY []", (words, said.stdout, said.stderr)


def test_a_small_estimate_starts_no_ray(tmp_path: Path, catalog: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt": "a"}\n')
    words = ["estimate", str(tmp_path / "m.jsonl"), "--catalog", catalog]
    code = (
        "import sys\nfrom rushes.cli import app\n"
        f"try: app({words!r})\nexcept SystemExit as end: assert not end.code\n"
        "print('RAY', 'ray' in sys.modules)"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "RAY False"


def test_the_version_is_told_by_the_command_and_by_the_package() -> None:
    said = python("-m", "rushes", "--version")
    assert said.stdout == f"rushes {rushes.__version__}\n"
    assert rushes.__version__.count(".") == 2


def test_the_public_names_are_there_and_typed() -> None:
    assert all(hasattr(rushes, name) for name in rushes.__all__)
    assert set(rushes.Options.__annotations__) == set(RunOptions.model_fields) - {"manifest", "out"}
    assert (Path(rushes.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'Renderer'"):
        _ = rushes.Renderer


def test_the_catalog_is_json_when_asked_and_never_cut_in_a_pipe(catalog: str) -> None:
    found = json.loads(RUN.invoke(app, ["catalog", catalog, "--json"]).stdout)
    assert [variant["name"] for variant in found] == ["small", "swift"]
    shipped = RUN.invoke(app, ["catalog"]).stdout
    assert "…" not in shipped
    assert max(map(len, shipped.splitlines())) <= 80


def test_the_catalog_says_who_knows_only_which_way_a_camera_goes() -> None:
    found = {one["name"]: one for one in json.loads(RUN.invoke(app, ["catalog", "--json"]).stdout)}
    ways = found["animatediff-camera"]["camera_directions"]["text_to_video"]
    assert ways[:3] == ["zoom_in", "zoom_out", "pan_left"]
    assert len(ways) == 8
    assert not any(found["wan2.1-vace-1.3b"]["camera_directions"].values())
    words = RUN.invoke(app, ["catalog"]).stdout.partition("animatediff-camera")[2].partition("animatediff-canny")[0]
    shown = "".join(line[16:40] for line in words.splitlines()[1:]).split()
    assert shown == ["camera", "(only", "which", "way:", "zoom,", "pan,", "tilt,", "roll)"]


NET = """
[finishers.net]
method = "spandrel"
weights = "./net.safetensors"
s_per_megapixel = 0.25
price_usd_per_hour = 4.0
"""


def test_the_catalog_lists_who_finishes_clips_with_what_each_does_and_costs(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TWO_VARIANTS + NET)
    (tmp_path / "net.safetensors").touch()
    words = ["catalog", str(tmp_path / "c.toml")]
    found = {one["name"]: one for one in json.loads(RUN.invoke(app, [*words, "--finishers", "--json"]).stdout)}
    assert list(found) == ["lanczos", "blend", "motion", "window", "net"]
    assert found["lanczos"]["operations"] == ["upscale", "fit"]
    assert (found["net"]["operations"], found["net"]["price_usd_per_hour"]) == (["upscale"], 4.0)
    rows = {line.split()[0]: line.split() for line in RUN.invoke(app, words).stdout.splitlines() if line.strip()}
    assert rows["net"] == ["net", "upscale", "spandrel", "0.25", "4"]
    assert "small" not in RUN.invoke(app, [*words, "--finishers"]).stdout


DEPTH = """
[extractors.far]
title = "Depth Anything, small"
method = "depth"
weights = "./depth"
"""


def test_the_catalog_lists_who_finds_structures_and_checks_their_folders(tmp_path: Path) -> None:
    words = ["catalog", str(tmp_path / "c.toml"), "--extractors"]
    (tmp_path / "c.toml").write_text(TWO_VARIANTS + DEPTH)
    wrong = RUN.invoke(app, words)
    assert wrong.exit_code == Exit.USAGE
    assert f"extractors.far.weights: {tmp_path / 'depth'}: no config.json in it" in wrong.stderr
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "config.json").write_text("{}")
    found = {one["name"]: one["kind"] for one in json.loads(RUN.invoke(app, [*words, "--json"]).stdout)}
    assert found == {"canny": "edges", "far": "depth"}
    listed = RUN.invoke(app, words)
    assert listed.exit_code == 0
    assert ["far", "depth", "Depth", "Anything,", "small"] in [line.split() for line in listed.stdout.splitlines()]
    assert "small " not in listed.stdout.replace("Anything, small", "")
    (tmp_path / "c.toml").write_text(TWO_VARIANTS + DEPTH.replace('weights = "./depth"', ""))
    assert "extractors.far: depth needs weights" in RUN.invoke(app, words).stderr


def test_the_catalog_command_checks_the_networks_of_a_file(tmp_path: Path) -> None:
    words = ["catalog", str(tmp_path / "c.toml"), "--finishers"]
    (tmp_path / "c.toml").write_text(TWO_VARIANTS + NET)
    told = RUN.invoke(app, words)
    assert told.exit_code == Exit.USAGE
    assert f"finishers.net.weights: {tmp_path / 'net.safetensors'}: not there" in told.stderr
    (tmp_path / "c.toml").write_text(TWO_VARIANTS + NET.replace("net.safetensors", "net.pth"))
    assert "only .safetensors are read" in RUN.invoke(app, words).stderr


def test_unknown_columns_are_told_of_once_and_refused_when_strict(tmp_path: Path, catalog: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt": "a", "steps": 3}\n{"prompt": "b", "steps": 4, "shot": 1}\n')
    words = ["estimate", str(tmp_path / "m.jsonl"), "--catalog", catalog]
    told = RUN.invoke(app, words).stdout
    assert told.count("column 'steps' (2 rows) is no field") == 1
    strict = RUN.invoke(app, [*words, "--strict"])
    assert strict.exit_code == Exit.USAGE
    assert "'steps' (2 rows, did you mean 'num_inference_steps'?), 'shot' (1 row)" in strict.stderr


def test_fine_tuning_overwrites_nothing_unasked_and_checks_its_data_first(tmp_path: Path, catalog: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pytorch_lora_weights.safetensors").write_bytes(b"weeks of work")
    (tmp_path / "data").mkdir()
    words = ["finetune", "--variant", "small", "--catalog", catalog, "--data", str(tmp_path / "data")]
    told = RUN.invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert told.exit_code == Exit.USAGE
    assert "is not empty (pytorch_lora_weights.safetensors); available: --resume, --overwrite" in told.stderr
    told = RUN.invoke(app, [*words, "--out", str(tmp_path / "new")])
    assert told.exit_code == Exit.BROKE
    assert "no captioned clips; wanted: " in told.stderr


def test_prompts_that_the_embedded_model_has_no_word_of_are_told_of(tmp_path: Path) -> None:
    rows = ["a cat surfs at sunset", "a RED circle", "a neon city", ""]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"prompt": p, "variant": "shapes"}) + "\n" for p in rows))
    told = RUN.invoke(app, ["estimate", str(tmp_path / "m.jsonl")]).stdout
    assert "2 prompts for 'shapes' with none of the words that it was taught" in told
    assert "use some of: circle, square" in told


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


SIMULATED = ["simulate", "--trace", str(EXAMPLES / "arrivals-synthetic.csv"), "--fleet", str(EXAMPLES / "fleet.toml")]


def test_every_policy_is_in_the_help_of_simulate() -> None:
    told = " ".join(RUN.invoke(app, ["simulate", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert [policy for policy in POLICIES if policy not in told] == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--speed", "nan", "speed is nan"),
        ("--speed", "inf", "speed is inf"),
        ("--speed", "0", "speed is 0.0"),
        ("--speed", "-1", "speed is -1.0"),
        ("--noise", "nan", "noise is nan"),
        ("--seeds", "0", "--seeds"),
        ("--fail", "h100@nan", "failure of 'h100': it begins at nan"),
        ("--fail", "h100@-5", "it begins at -5.0"),
        ("--fail", "h100@9-5", "it ends at 5.0, not a finite number after 9"),
        ("--fail", "b200@5", "unknown pool 'b200'; available: a100, h100, l4, l40s"),
        ("--fail", "h100", "is not POOL@SECONDS"),
        ("--fail", "@5", "is not POOL@SECONDS"),
        ("--json", "/dev/null/report.json", "--json: /dev/null/report.json: cannot be written"),
    ],
)
def test_an_option_of_simulate_that_makes_no_sense_is_a_usage_error(option: str, value: str, said: str) -> None:
    ran = RUN.invoke(app, [*SIMULATED, "--no-search", option, value], env={"COLUMNS": "200"})
    assert ran.exit_code == Exit.USAGE, ran.stdout
    assert said in ran.stderr


def test_failures_add_up_and_the_report_fits_eighty_columns(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    outages = ["--fail", "h100@10-1.2e2", "--fail", "l4@20-30", "--fail", "h100@1e-3-5"]
    ran = RUN.invoke(app, [*SIMULATED, "--no-search", "--policy", "ect_soft", *outages, "--json", str(report)])
    assert ran.exit_code == Exit.OK, ran.stderr
    assert max(map(len, ran.stdout.splitlines())) <= 80
    assert "as_asked_share" in ran.stdout
    (seed,) = json.loads(report.read_text())["measures"]
    assert (seed["lost"], seed["shares"]["tasks"]) == (0, 400)
    assert seed["interrupted"] > 0


def test_a_report_shows_the_tenants_with_the_least_on_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"{t},a,1,[bold]tenant number {t % 12:02d} of a long name\n" for t in range(48))
    path.write_text("arrival_s,variant,exec_s,tenant\n" + rows)
    told = ["simulate", "--trace", str(path), "--fleet", str(EXAMPLES / "fleet.toml"), "--no-search"]
    ran = RUN.invoke(app, told)
    assert ran.exit_code == Exit.OK, ran.stderr
    assert max(map(len, ran.stdout.splitlines())) <= 80
    assert "[bold]tenant" in ran.stdout
    assert "the 10 tenants with the least on time, of 12" in ran.stdout


@pytest.mark.parametrize("batches", ["two", "0", "1,,2", "-1"])
def test_batches_to_calibrate_are_whole_numbers_from_one_on(batches: str, catalog: str) -> None:
    told = RUN.invoke(app, ["calibrate", "--variant", "small", "--catalog", catalog, "--batches", batches])
    assert told.exit_code == Exit.USAGE
    assert "--batches" in told.stderr


def test_the_example_manifest_has_what_the_demo_promises() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "prompts.jsonl").read_text().splitlines()]
    assert len(rows) >= 24
    assert len({row["variant"] for row in rows if "variant" in row}) >= 2
    assert len({(row.get("width"), row.get("height")) for row in rows if "width" in row}) >= 3


def test_moderation_is_read_from_the_table_of_any_file_that_has_it(tmp_path: Path) -> None:
    file = tmp_path / "endpoint.toml"
    file.write_text('out = "x"\n[moderation]\nword_list = "words.toml"\nthresholds.refuse = "never"\n')
    found = moderation_settings(file)
    assert found.word_list == Path.cwd() / "words.toml"
    assert found.thresholds.refuse == "never"
    assert not moderation_settings(None).is_on
    for text, said in (
        ("", r"no table \[moderation\] in it"),
        ("[moderation", "--moderation: .*endpoint.toml: "),
        ("[moderation]\nword = 'x'", "moderation.word: Extra inputs are not permitted"),
        ("[moderation]\nthresholds.flag = 0.9", "moderation.thresholds: .*flag .0.9. is above refuse"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            moderation_settings(file)

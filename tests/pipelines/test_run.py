"""The golden path, over a folder and over a real S3 server: every row once in the results, every clip once in the
store."""

import functools
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
from PIL import Image

from cluster.topology import Topology
from pipelines.audit import RunAuditLog
from pipelines.estimate import estimate
from pipelines.run import render
from schemas.audit import AuditFilter
from schemas.clip import ClipFormat
from schemas.config import read_config
from schemas.errors import ConfigError
from schemas.run import RunOptions, RunSummary
from storage import keys
from storage.store import ObjectStore, open_store
from tests.pipelines.catalogs import TWO_VARIANTS
from tests.s3_server import S3Server

pytestmark = pytest.mark.ray

ROWS: list[dict[str, Any]] = [
    {"id": "one", "prompt": "a red circle", "variant": "small", "num_frames": 5, "shot": 1},
    {"id": "wide", "prompt": "a red circle", "variant": "small", "width": 96, "height": 64, "num_frames": 5},
    {"id": "quick", "prompt": "a blue square", "variant": "swift", "num_frames": 5, "seed": 7},
    {"id": "twin", "prompt": "a blue square", "variant": "swift", "num_frames": 5, "seed": 7},
    {"id": "bad", "prompt": "a blue square", "variant": "large"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module", autouse=True)
def own_cache(folder: Path) -> Iterator[None]:
    """Of all these tests, some of which look at the same run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUSHES_CACHE_DIR", str(folder / "cache"))
        patch.setenv("RUSHES_STATE_DIR", str(folder / "state"))
        yield


Golden = Callable[[str], tuple[RunOptions, RunSummary]]


@pytest.fixture(scope="module")
def golden(folder: Path, s3_server: S3Server, ray_cluster: Topology) -> Golden:
    """The run of ROWS into a "folder" or into "s3", which happens once."""

    @functools.cache
    def run(kind: str) -> tuple[RunOptions, RunSummary]:
        place = folder / kind
        place.mkdir()
        told = options(place, str(place / "out") if kind == "folder" else f"{s3_server.make_bucket('golden')}/a run")
        return told, render(told)

    return run


def options(folder: Path, out: str, rows: list[dict[str, Any]] = ROWS, **more: Any) -> RunOptions:
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "catalog.toml").write_text(TWO_VARIANTS)
    return RunOptions(manifest=str(folder / "m.jsonl"), out=out, catalog=str(folder / "catalog.toml"), **more)


def clips(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("clips/") if info.key.endswith(".mp4")]


def results(store: ObjectStore, run_id: str) -> "pd.DataFrame":
    parts = [info.key for info in store.list(keys.results_prefix(run_id))]
    tables = [pq.read_table(io.BytesIO(store.get(part))).to_pandas() for part in parts]
    return pd.concat(tables).sort_values("row").set_index("id")


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_manifest_becomes_clips_and_a_results_table(golden: Golden, kind: str) -> None:
    told, summary = golden(kind)
    assert (summary.rows, summary.succeeded, summary.failed, summary.rejected) == (5, 4, 0, 1)
    assert (summary.rendered, summary.reused, summary.exit_code) == (3, 1, 3)
    # `small` is guided: a prompt and a negative prompt each.
    assert summary.texts_encoded + summary.texts_reused == 5

    store = open_store(told.out)
    table = results(store, told.run_id)
    assert list(table.index) == [row["id"] for row in ROWS]
    assert table.status.value_counts().to_dict() == {"SUCCEEDED": 4, "REJECTED": 1}
    assert table.uri["quick"] == table.uri["twin"], "rows that are equal but for the id share a clip when seeds agree"
    assert len(clips(store)) == 3
    assert json.loads(table.metadata["one"]) == {"shot": 1}
    assert "unknown variant 'large'" in table.error["bad"]
    assert table.billed_usd.sum() == pytest.approx(summary.billed_usd)
    assert table.billed_gpu_s["twin"] == 0.0
    assert (table.render_s[["one", "wide", "quick"]] > 0).all()

    data = store.get(keys.clip("small", table.fingerprint["wide"]))
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height) == (5, 96, 64)
    assert len(data) == table.clip_bytes["wide"]

    (reject,) = [json.loads(line) for line in store.get(keys.rejects_part(told.run_id, 0)).splitlines()]
    assert (reject["line"], reject["field"], reject["id"]) == (5, "variant", "bad")
    assert store.head(keys.CONTACT_SHEET)

    report = RunAuditLog(store).verify()
    assert (report.faults, report.notes, report.anchors) == ((), (), 1)
    told_of = [record.entry for _, record, _ in RunAuditLog(store).records(AuditFilter(action="task.succeeded"))]
    assert {entry.clip.sha256 for entry in told_of if entry.clip} == set(table.sha256.dropna())


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_the_same_command_again_renders_nothing_and_says_the_same(golden: Golden, kind: str) -> None:
    told, _ = golden(kind)
    store = open_store(told.out)
    before = {info.key: info.etag for info in store.list("clips/")}
    again = render(told)
    assert (again.rendered, again.reused, again.succeeded, again.rejected) == (0, 4, 4, 1)
    assert {info.key: info.etag for info in store.list("clips/")} == before


@pytest.mark.slow
def test_a_new_row_is_all_that_a_longer_manifest_costs(tmp_path: Path, golden: Golden) -> None:
    out = str(tmp_path / "out")
    shutil.copytree(golden("folder")[0].out, out)
    more = render(options(tmp_path, out, [*ROWS[:3], {"prompt": "a new one", "variant": "swift", "num_frames": 5}]))
    assert (more.rendered, more.reused) == (1, 3)


@pytest.mark.slow
def test_data_tools_read_the_results(golden: Golden) -> None:
    tables = f"{golden('folder')[0].out}/results"
    assert len(pd.read_parquet(tables)) == 5
    counted = duckdb.sql(f"select count(*) from '{tables}/*/*.parquet'").fetchall()
    assert counted == [(5,)]
    assert ray.data.read_parquet(tables).count() == 5


def test_an_estimate_quotes_what_the_run_then_plans_and_writes_nothing(tmp_path: Path, ray_cluster: Topology) -> None:
    out = str(tmp_path / "out")
    told = options(tmp_path, out)
    quote = estimate(told).quote
    assert (quote.rows, quote.to_render, quote.duplicates, quote.rejected) == (5, 3, 1, 1)
    assert {g.group.variant for g in quote.groups} == {"small", "swift"}
    assert quote.usd > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("limit", "rows"), [(1, 1), (3, 3), (100, 5)])
def test_a_limit_takes_the_first_rows(tmp_path: Path, ray_cluster: Topology, limit: int, rows: int) -> None:
    assert estimate(options(tmp_path, "", limit=limit)).quote.rows == rows


@pytest.mark.slow
@pytest.mark.parametrize("clip_format", [ClipFormat.WEBM, ClipFormat.GIF, ClipFormat.PNG])
def test_clips_come_in_other_formats_on_request(tmp_path: Path, ray_cluster: Topology, clip_format: ClipFormat) -> None:
    out = str(tmp_path / "out")
    summary = render(options(tmp_path, out, ROWS[2:3], clip_format=clip_format))
    assert summary.succeeded == 1
    (clip,) = [i for i in open_store(out).list("clips/") if i.key.endswith(f".{clip_format.suffix}")]
    assert clip.size_bytes > 0


def test_a_variant_that_no_node_can_hold_is_refused_before_anything_is_rendered(
    tmp_path: Path, ray_cluster: Topology
) -> None:
    told = options(tmp_path, str(tmp_path / "out"), ROWS[:1])
    catalog = TWO_VARIANTS.replace("needs = { gpus = 0, cpus = 1 }", "needs = { gpus = 8, cpus = 1 }", 1)
    (tmp_path / "catalog.toml").write_text(catalog)
    with pytest.raises(ConfigError, match=r"'small' needs 8 GPUs, the cluster has 2"):
        render(told)


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [1, 2])
def test_logical_gpus_are_taken_and_given_back(gpus: int, tmp_path: Path, ray_cluster: Topology) -> None:
    """One of two splits its clip among two processes."""
    told = options(tmp_path, str(tmp_path / "out"), ROWS[:1], device="auto")
    catalog = TWO_VARIANTS.replace("needs = { gpus = 0, cpus = 1 }", f"needs = {{ gpus = {gpus}, cpus = 1 }}", 1)
    (tmp_path / "catalog.toml").write_text(catalog)
    assert render(told).succeeded == 1


def test_an_unknown_variant_option_names_the_choices(tmp_path: Path, ray_cluster: Topology) -> None:
    with pytest.raises(ConfigError, match=r"--variant: unknown variant 'huge'; available: auto, petit, small, swift"):
        estimate(options(tmp_path, "", variant="huge"))


@pytest.mark.slow
def test_images_come_from_a_path_from_s3_or_from_the_row_itself_and_a_missing_one_is_rejected_alone(
    tmp_path: Path, s3_server: S3Server, ray_cluster: Topology
) -> None:
    s3_server.make_bucket("stills")
    Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "red.png")
    open_store("s3://stills").put("red.png", (tmp_path / "red.png").read_bytes())
    row = {"prompt": "it moves", "variant": "small", "num_frames": 5, "seed": 3}
    rows = [{**row, "id": uri, "image": uri} for uri in ("red.png", "s3://stills/red.png", "none.png")]
    told = options(tmp_path, str(tmp_path / "out"), rows)
    summary = render(told)
    assert (summary.succeeded, summary.rejected) == (2, 1)
    table = results(open_store(told.out), told.run_id)
    assert "none.png: not there" in table.error["none.png"]

    # As Hugging Face's data sets have images: the same content is the same clip.
    image = {"bytes": (tmp_path / "red.png").read_bytes(), "path": "gone.png"}
    brought = pa.Table.from_pylist([{**row, "image": image}, {**row, "image": image, "seed": 4}])
    pq.write_table(brought, tmp_path / "m.parquet")
    again = render(told.model_copy(update={"manifest": str(tmp_path / "m.parquet")}))
    assert (again.succeeded, again.rendered, again.reused) == (2, 1, 1)


@pytest.mark.slow
def test_weights_come_from_s3_once_into_a_cache_that_actors_share(
    tmp_path: Path, s3_server: S3Server, ray_cluster: Topology
) -> None:
    s3_server.make_bucket("weights")
    store = open_store("s3://weights/tiny")
    folder = Path(__file__).parents[2] / "models" / "embedded" / "tiny-random"
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path)
    told = options(tmp_path, str(tmp_path / "out"), [{**row, "num_frames": 5} for row in ROWS[:3]])
    (tmp_path / "catalog.toml").write_text(TWO_VARIANTS.replace("embedded:tiny-random", "s3://weights/tiny"))
    cache = tmp_path / "cache"
    summary = render(told, config=read_config({"RUSHES_CACHE_DIR": str(cache)}))
    assert summary.succeeded == 3
    assert len([path for path in (cache / "weights").iterdir() if path.is_dir()]) == 1

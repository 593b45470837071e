"""Scripted faults in a bulk run: what fails, what does not, and what the ledger and the books say after."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.topology import Topology
from pipelines.progress import RunStoppedError
from pipelines.run import render
from schemas.clip import Status
from schemas.run import RunOptions, RunSummary
from storage.ledger import Ledger
from storage.store import open_store
from storage.tables import table_to_records
from tests.failures.scripted import Deed, Script
from tests.pipelines.catalogs import TWO_VARIANTS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BATCH = 4


class Bench:
    """A manifest of `prompts`, one task each, all of one group; batches of four."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        (folder / "book").mkdir()
        (folder / "catalog.toml").write_text(TWO_VARIANTS)

    def run(
        self, prompts: list[str], script: Script | None, swift: tuple[str, ...] = (), actors: int = 1, **options: Any
    ) -> RunSummary:
        """With one actor a variant where nothing else is said: to start one takes longer than to render."""
        manifest = self.folder / "m.jsonl"
        rows = [{"id": p, "prompt": p, "variant": "small", "num_frames": 5} for p in prompts]
        rows += [{"id": p, "prompt": p, "variant": "swift", "num_frames": 5} for p in swift]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        catalog = str(self.folder / "catalog.toml")
        told = RunOptions(
            manifest=str(manifest), out=str(self.out), catalog=catalog, max_concurrent=BATCH * actors, **options
        )
        return render(told, wrap=script)

    def script(self, deeds: dict[str, Deed], **more: Any) -> Script:
        return Script(self.folder / "book", deeds, **more)

    def ledger(self) -> dict[str, Any]:
        store = open_store(str(self.out))
        return {r.fingerprint: r for r in table_to_records(Ledger(store).load())}

    def clips(self) -> list[str]:
        return [info.key for info in open_store(str(self.out)).list("clips/") if info.key.endswith(".mp4")]

    def failures(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.out / "failures").glob("*.json"))]


@pytest.fixture
def bench(tmp_path: Path, ray_cluster: Topology) -> Bench:
    return Bench(tmp_path)


def test_a_task_that_raises_fails_alone_and_its_batch_mates_are_rendered(bench: Bench) -> None:
    script = bench.script({"bad": "raise"})
    summary = bench.run(["a", "bad", "b", "c"], script)
    assert (summary.succeeded, summary.failed, summary.exit_code) == (3, 1, 3)
    (failure,) = bench.failures()
    assert (failure["prompt"], failure["error_class"]) == ("bad", "RenderError")
    assert "the script says so" in failure["error"]
    assert len(bench.clips()) == 3
    assert script.calls_of("bad") == 2, "once in the batch and once alone"
    assert script.calls_of("a") == 2


def test_a_failed_task_is_tried_again_by_the_next_run_and_then_only_it(bench: Bench) -> None:
    bench.run(["a", "bad", "b", "c"], bench.script({"bad": "raise"}))
    mended = bench.script({})
    summary = bench.run(["a", "bad", "b", "c"], mended)
    assert (summary.succeeded, summary.failed, summary.rendered, summary.reused) == (4, 0, 1, 3)
    assert mended.calls_of("a") == 2, "not once more"


def test_a_batch_that_runs_out_of_memory_is_split_until_it_fits(bench: Bench) -> None:
    script = bench.script({}, most_in_a_call=1)
    summary = bench.run(["a", "b", "c", "d"], script)
    assert (summary.succeeded, summary.failed) == (4, 0)
    assert {record.attempts for record in bench.ledger().values()} == {3}, "in fours, in twos, alone"


def test_a_process_that_dies_once_loses_nothing(bench: Bench) -> None:
    script = bench.script({"b": "die once"})
    summary = bench.run(["a", "b", "c", "d", "e", "f"], script, actors=2)
    assert (summary.succeeded, summary.failed, summary.actors_lost) == (6, 0, 1)
    records = bench.ledger()
    assert len(records) == len(bench.clips()) == 6
    # Two batches of three: the one that died is rendered again, task by task; the other never knew.
    assert sorted(r.attempts for r in records.values()) == [1, 1, 1, 2, 2, 2]


def test_a_task_that_kills_its_process_twice_is_quarantined_and_the_rest_is_rendered(bench: Bench) -> None:
    script = bench.script({"poison": "die"})
    summary = bench.run(["a", "poison", "b", "c", "d"], script)
    assert (summary.succeeded, summary.failed, summary.actors_lost) == (4, 1, 2)
    (failure,) = bench.failures()
    assert (failure["prompt"], failure["error_class"], failure["quarantined"]) == ("poison", "QuarantinedError", True)
    assert script.calls_of("poison") == 2
    again = bench.run(["a", "poison", "b", "c", "d"], script)
    assert (again.failed, again.rendered, script.calls_of("poison")) == (1, 0, 2), "quarantine outlives the run"
    freed = bench.run(["a", "poison", "b", "c", "d"], bench.script({}), retry_quarantined=True)
    assert (freed.succeeded, freed.failed) == (5, 0)


def test_a_batch_that_hangs_is_killed_and_rendered_again(bench: Bench) -> None:
    script = bench.script({"b": "hang once"})
    summary = bench.run(["a", "b"], script, stall_timeout_s=6.0)
    assert (summary.succeeded, summary.failed, summary.actors_lost) == (2, 0, 1)


def test_a_variant_that_cannot_be_loaded_fails_its_rows_and_the_others_are_rendered(bench: Bench) -> None:
    text = TWO_VARIANTS.replace("embedded:tiny-random", "/nowhere/weights", 1)
    (bench.folder / "catalog.toml").write_text(text)
    summary = bench.run(["a", "b"], None, swift=("c", "d"), actors=2)
    assert (summary.succeeded, summary.failed, summary.exit_code) == (2, 2, 3)
    assert {failure["error_class"] for failure in bench.failures()} == {"VariantLoadError"}
    assert all("/nowhere/weights" in failure["error"] for failure in bench.failures())


def test_a_variant_that_cannot_be_loaded_ends_a_run_that_has_no_other_and_names_the_cause(bench: Bench) -> None:
    text = TWO_VARIANTS.replace("embedded:tiny-random", "/nowhere/weights", 1)
    (bench.folder / "catalog.toml").write_text(text)
    with pytest.raises(RunStoppedError, match=r"variant 'small' cannot be loaded: .*/nowhere/weights"):
        bench.run(["a"], None)
    note = json.loads((bench.out / "run.json").read_text())
    assert note["status"] == Status.FAILED.value
    assert "/nowhere/weights" in note["reason"]

"""Runs are measured and compared by attributes: who is worse is named, who is not is not, and broken clips are told
of."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation.comparison import Comparison
from evaluation.report import Evaluation
from evaluation.scorers import Pictures
from pipelines.evaluation import EvaluationOptions, evaluate
from pipelines.evaluation_table import WIDTH, as_text
from schemas.clip import ClipFormat, Status
from schemas.errors import ConfigError
from storage import keys
from storage.store import open_store
from tests.pipelines.drawn_run import RUN_ID, DrawnRow, two_tongues, write_run
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(autouse=True)
def own_cache(figures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests measure many clips again: starting processes for each would be most of their time."""
    monkeypatch.setenv("RUSHES_CACHE_DIR", str(figures))


@pytest.fixture
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: None) -> None:
    monkeypatch.setenv("RUSHES_CACHE_DIR", str(tmp_path / "cache"))


def evaluated(target: object, by: str = "language", **more: object) -> Evaluation:
    return evaluate(EvaluationOptions(str(target), (by,), **more))  # type: ignore[arg-type]


def metric(found: Evaluation, name: str) -> Comparison:
    return next(one for one in found.comparisons if one.metric.name == name)


def values(found: Evaluation, name: str) -> dict[str, float]:
    return {one.group: one.value for one in metric(found, name).groups}


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose clips in "fr" are of the wrong colour three times in four."""
    out = str(tmp_path_factory.mktemp("worse"))
    write_run(out, two_tongues(worse=0.75))
    return out


def test_a_group_that_is_worse_is_named_and_comes_first(worse: str) -> None:
    found = evaluated(worse)
    assert (found.rows, found.clips, found.unreadable) == (32, 32, 0)
    assert values(found, "colour_obeyed") == {"fr": 0.25, "en": 1.0}
    assert values(found, "object_obeyed") == {"en": 1.0, "fr": 1.0}
    assert values(found, "hallucinated") == {"fr": 0.75, "en": 0.0}
    assert metric(found, "colour_obeyed").groups[0].group == "fr"
    assert any(w.startswith("language = fr: colour_obeyed is 25.0 %, -75.0 points") for w in found.warnings)
    assert not any("language = en: " in w and "_obeyed" in w for w in found.warnings)
    assert values(found, "as_recorded") == {"en": 1.0, "fr": 1.0}
    assert values(found, "frozen") == values(found, "black") == {"en": 0.0, "fr": 0.0}


def test_groups_that_do_not_differ_are_not_warned_of(tmp_path: Path) -> None:
    write_run(str(tmp_path), two_tongues())
    found = evaluated(tmp_path)
    assert found.warnings == ()
    assert "no group stands out" in as_text(found)
    assert values(found, "all_obeyed") == {"en": 1.0, "fr": 1.0}


def test_prompts_that_are_the_same_but_for_the_attribute_are_compared_in_pairs(worse: str) -> None:
    found = evaluated(worse, paired_by="template")
    colour = metric(found, "colour_obeyed")
    assert colour.paired
    assert {one.others for one in colour.groups} == {16}
    assert any("within its pairs" in warning and "colour_obeyed" in warning for warning in found.warnings)
    # A square is as bright as its pair's: what differs between templates drops out.
    (apart,) = {abs(one.difference or 0) for one in metric(found, "motion").groups}
    assert apart == pytest.approx(abs(np.subtract(*values(found, "motion").values())), rel=1e-6)


def test_the_table_fits_a_terminal_and_says_how_it_was_made(worse: str) -> None:
    for text in (as_text(evaluated(worse)), as_text(evaluated(worse, paired_by="template"))):
        assert max(map(len, text.splitlines())) <= WIDTH
        for part in (
            "! language = fr: colour_obeyed",
            "  language ",
            "hallucinated, %",
            "Wilson",
            "Holm",
            "less is better",
        ):
            assert part in text


def test_long_names_of_groups_and_columns_fit_too(tmp_path: Path) -> None:
    rows = [
        DrawnRow({"a rather long name of a column": f"a very long name of group {k % 2}"}, seed=k) for k in range(4)
    ]
    write_run(str(tmp_path), rows)
    text = as_text(evaluated(tmp_path, "a rather long name of a column"))
    assert max(map(len, text.splitlines())) <= WIDTH


def test_clips_that_cannot_be_read_are_told_of_and_the_rest_goes_on(tmp_path: Path, nothing_kept: None) -> None:
    rows = two_tongues(clips=4)
    store = write_run(str(tmp_path), rows)
    clip = [keys.clip("shapes", row.fingerprint) for row in rows]
    store.delete([clip[0]])
    store.put(clip[2], store.get(clip[4]))
    broken = b"not a clip at all" * 50
    store.put(clip[6], broken)
    found = evaluated(tmp_path)
    assert found.unreadable == 3
    assert {one.clip: one.reason for one in found.unread} == {
        clip[0]: "recorded, and not there",
        clip[2]: "not the bytes that the run recorded",
        clip[6]: "not the bytes that the run recorded",
    }
    assert values(found, "unreadable") == {"en": 0.75, "fr": 0.0}
    assert metric(found, "brightness").groups[0].count + metric(found, "brightness").groups[1].count == 5
    assert "not read:" in as_text(found)


def test_a_file_that_is_recorded_and_is_no_clip_is_told_of(tmp_path: Path) -> None:
    rows = two_tongues(clips=2)
    store = write_run(str(tmp_path), rows)
    key = keys.clip("shapes", rows[0].fingerprint)
    cut = store.get(key)[:400]
    store.put(key, cut)
    rows[0] = DrawnRow(
        rows[0].metadata, rows[0].colour, seed=rows[0].seed, extra={"sha256": hashlib.sha256(cut).hexdigest()}
    )
    write_run(str(tmp_path), rows)
    store.put(key, cut)
    found = evaluated(tmp_path)
    (unread,) = found.unread
    assert unread.clip == key
    assert "no pictures in it" in unread.reason


def test_what_was_measured_is_not_measured_again(tmp_path: Path, nothing_kept: None) -> None:
    rows = two_tongues(worse=0.5, clips=4)
    store = write_run(str(tmp_path), rows)
    first = evaluated(tmp_path)
    store.delete([info.key for info in store.list(keys.CLIPS)])
    again = evaluated(tmp_path)
    assert (first.kept, again.kept, again.unreadable) == (0, 8, 0)
    assert again.comparisons == first.comparisons


def test_rows_that_failed_or_were_rejected_count_as_such_and_unfinished_ones_nowhere(tmp_path: Path) -> None:
    rows = [
        *two_tongues(clips=3),
        DrawnRow({"language": "fr"}, seed=90, status=Status.FAILED),
        DrawnRow({"language": "fr"}, seed=91, status=Status.REJECTED),
        DrawnRow({"language": "fr"}, seed=92, status=Status.PENDING),
        DrawnRow({}, seed=93, status=Status.FAILED),
    ]
    write_run(str(tmp_path), rows)
    found = evaluated(tmp_path)
    assert values(found, "succeeded") == {"(none)": 0.0, "fr": 0.6, "en": 1.0}
    assert values(found, "failed") == {"(none)": 1.0, "fr": 0.2, "en": 0.0}
    assert values(found, "rejected") == {"fr": 0.2, "(none)": 0.0, "en": 0.0}
    assert found.unfinished == 1
    assert "1 rows have no outcome" in as_text(found)


def test_rows_that_share_a_clip_are_one_clip(tmp_path: Path) -> None:
    rows = [*two_tongues(clips=3), *two_tongues(clips=3)]
    write_run(str(tmp_path), rows)
    found = evaluated(tmp_path)
    assert (found.rows, found.clips) == (12, 6)
    assert {one.count for one in metric(found, "succeeded").groups} == {6}
    assert {one.count for one in metric(found, "brightness").groups} == {3}


@pytest.mark.parametrize("clip_format", [ClipFormat.GIF, ClipFormat.PNG, ClipFormat.WEBM])
def test_clips_of_every_format_are_measured(tmp_path: Path, clip_format: ClipFormat) -> None:
    write_run(str(tmp_path), two_tongues(clips=1), clip_format)
    found = evaluated(tmp_path)
    assert found.unreadable == 0
    assert values(found, "as_recorded") == {"en": 1.0, "fr": 1.0}
    assert values(found, "all_obeyed") == {"en": 1.0, "fr": 1.0}


def test_a_clip_of_another_length_than_was_asked_for_is_seen(tmp_path: Path) -> None:
    rows = [DrawnRow({"language": "en"}, seed=1), DrawnRow({"language": "fr"}, seed=2, extra={"frames": 17})]
    write_run(str(tmp_path), rows)
    assert values(evaluated(tmp_path), "as_recorded") == {"fr": 0.0, "en": 1.0}
    write_run(str(tmp_path), [rows[0], DrawnRow({"language": "fr"}, seed=2, extra={"fps": 16.0})])
    assert values(evaluated(tmp_path), "as_recorded") == {"fr": 0.0, "en": 1.0}


def test_obedience_is_for_clips_that_the_oracle_can_read_unless_it_is_asked_for(tmp_path: Path) -> None:
    write_run(str(tmp_path), two_tongues(clips=1), variant="wan2.1-t2v-1.3b")
    assert not [one for one in evaluated(tmp_path).comparisons if one.metric.name.endswith("_obeyed")]
    assert values(evaluated(tmp_path, metrics=("obedience",)), "all_obeyed") == {"en": 1.0, "fr": 1.0}
    only = evaluated(tmp_path, metrics=("motion", "steadiness"))
    assert {one.metric.name for one in only.comparisons} == {"motion", "warp_error"}


@pytest.mark.parametrize("said", [{"prompts": '[{"from_s": 0, "text": "a red square"}]'}, {"motion": '{"paths": []}'}])
def test_a_clip_is_not_judged_by_a_prompt_that_does_not_say_all_of_it(said: dict[str, str], tmp_path: Path) -> None:
    plain, told = DrawnRow({"language": "en"}, seed=1), DrawnRow({"language": "fr"}, shown="blue", seed=2, extra=said)
    write_run(str(tmp_path), [plain, told])
    found = evaluated(tmp_path)
    assert values(found, "all_obeyed") == {"en": 1.0}
    assert set(values(found, "brightness")) == {"en", "fr"}


def test_what_is_asked_for_may_be_said_in_columns_where_prompts_are_in_words_that_nobody_here_reads(
    tmp_path: Path,
) -> None:
    said = {"asked_colour": "blue", "asked_object": "square", "asked_place": ["no", "place"]}
    rows = [DrawnRow({"language": "en"}, seed=1), DrawnRow({"language": "fr", **said}, seed=2)]
    write_run(str(tmp_path), rows)
    found = evaluated(tmp_path)
    assert values(found, "colour_obeyed") == {"fr": 0.0, "en": 1.0}, "the column is believed, not the prompt"
    assert values(found, "place_obeyed") == {"en": 1.0, "fr": 1.0}, (
        "what the oracle does not know is left to the prompt"
    )


def test_columns_of_the_run_itself_may_be_compared_by(tmp_path: Path) -> None:
    write_run(str(tmp_path), two_tongues(clips=1))
    assert set(values(evaluated(tmp_path, "seed"), "brightness")) == {"0", "1"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"by": "tongue"}, "--by tongue: no row of run 0123456789ab has it; available: language, template, variant"),
        ({"paired_by": "pair"}, "--paired-by pair: no row"),
        ({"metrics": ("beauty",)}, "--metric: unknown 'beauty'"),
        ({"run": "ffffffffffff"}, f"no results of run ffffffffffff; available with --run: {RUN_ID}"),
    ],
)
def test_what_is_not_there_is_told_with_the_choices(worse: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        evaluated(worse, **options)  # type: ignore[arg-type]


def test_an_attribute_has_few_values(tmp_path: Path) -> None:
    rows = [DrawnRow({"user": f"u{k}", "pair": k}, seed=k, status=Status.FAILED) for k in range(60)]
    write_run(str(tmp_path), rows)
    with pytest.raises(ConfigError, match="--by user: more than 50 values, such as 'u0'"):
        evaluated(tmp_path, "user")
    with pytest.raises(ConfigError, match="no results of `rushes render`"):
        evaluated(tmp_path / "elsewhere")


class Redness:
    """Counts how often it is asked."""

    name, better, meaning = "redness", 0, "mean red, 0 to 255"

    def __init__(self, revision: str = "1", fails_on: str = "-") -> None:
        self.revision = revision
        self.fails_on = fails_on
        self.asked: list[str] = []

    def score(self, pictures: Pictures, prompt: str) -> float:
        self.asked.append(prompt)
        if self.fails_on in prompt:
            raise RuntimeError(f"will not look at {self.fails_on}")
        assert pictures.shape == (8, 64, 64, 3)
        return float(pictures[..., 0].mean())


def test_a_scorer_is_asked_once_a_clip_and_revision(tmp_path: Path, nothing_kept: None) -> None:
    write_run(str(tmp_path), two_tongues(clips=4))
    options = EvaluationOptions(str(tmp_path), ("language",), metrics=("rows",))
    first, again, newer = Redness(), Redness(), Redness("2")
    found = evaluate(options, [first])
    assert len(first.asked) == 8
    assert evaluate(options, [again]).comparisons == found.comparisons
    assert evaluate(options, [newer]).comparisons == found.comparisons
    assert (len(again.asked), len(newer.asked)) == (0, 8)
    assert 0 < values(found, "redness")["en"] < 60


def test_a_scorer_that_fails_on_a_clip_costs_its_score_alone(tmp_path: Path) -> None:
    write_run(str(tmp_path), two_tongues(clips=4))
    found = evaluate(EvaluationOptions(str(tmp_path), ("language",)), [Redness(fails_on="purple")])
    assert {one.count for one in metric(found, "redness").groups} == {3}
    assert {one.count for one in metric(found, "brightness").groups} == {4}
    assert "redness: 2 clips have no score, the first because: will not look at purple" in found.notes
    with pytest.raises(ConfigError, match="two metrics of one name"):
        evaluate(EvaluationOptions(str(tmp_path), ("language",)), [Redness(), Redness()])


def test_the_report_is_left_with_the_figures_of_each_clip_and_a_sheet_a_group(
    tmp_path: Path, nothing_kept: None
) -> None:
    rows = two_tongues(worse=0.5, clips=4)
    store = write_run(str(tmp_path / "run"), rows)
    store.delete([keys.clip("shapes", rows[0].fingerprint)])
    found = evaluated(tmp_path / "run", out=str(tmp_path / "report"), sheets=True)
    told = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert told == json.loads(json.dumps(found.as_json()))
    assert (tmp_path / "report" / "evaluation.txt").read_text() == as_text(found)
    table = pq.read_table(tmp_path / "report" / "clips.parquet").to_pandas().set_index("id")
    assert len(table) == 8
    assert table["metric.unreadable"]["row0"] == 1
    assert table["metric.colour_obeyed"].isna().sum() == 1
    assert table[table.language == "fr"]["metric.colour_obeyed"].mean() == 0.5
    assert [Path(sheet).name for sheet in found.sheets] == ["en.png", "fr.png"]
    with Image.open(tmp_path / "report" / "sheets" / "language" / "fr.png") as sheet:
        assert sheet.width > 1000


@pytest.mark.s3
def test_a_run_in_a_bucket_is_read_and_reported_there(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    out = f"{s3_server.make_bucket('evaluated')}/a run"
    write_run(out, two_tongues(worse=1, clips=2))
    found = evaluated(out, out=f"{out}/evaluation", sheets=True)
    assert values(found, "colour_obeyed") == {"fr": 0.0, "en": 1.0}
    assert found.sheets[0].startswith("s3://evaluated/")
    assert pq.read_table(io.BytesIO(open_store(out).get("evaluation/clips.parquet"))).num_rows == 4

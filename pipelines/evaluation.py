"""The clips of a run measured, and compared by columns of its manifest: what `rushes evaluate` calls."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.asked import Shown, asked_by, obedience
from evaluation.comparison import Tallies, compare
from evaluation.metrics import Family, chosen, scored
from evaluation.pairs import Pairs
from evaluation.report import Evaluation, Unread
from evaluation.scorers import Scorer
from pipelines.catalogs import open_catalog
from pipelines.clip_look import PIXELS, SHAPE, WARP
from pipelines.clip_measuring import ClipMeasuring, Measurement
from pipelines.evaluated_rows import Place, metadata_of, run_table
from pipelines.evaluation_files import EvaluationFiles
from schemas.clip import ClipFormat, Status
from schemas.config import Config, read_config
from schemas.errors import ConfigError, RushesError
from storage.clip_figures import ClipFigures, Figures
from storage.store import open_store

_KINDS = {Family.PIXELS: PIXELS, Family.OBEDIENCE: SHAPE, Family.STEADINESS: WARP}
_OBEDIENT_WEIGHTS = "embedded:shapes"
"""Of which variants obedience is measured unasked: their clips show one shape on a plain background."""
_UNREAD_SHOWN = 20
_FPS_TOLERANCE = 0.01
_VIDEO = (ClipFormat.MP4.suffix, ClipFormat.WEBM.suffix)


@dataclass(frozen=True)
class EvaluationOptions:
    """The run at `target` (its last, or `run`), by these columns. No `metrics` are the usual ones. `out` is a folder or
    s3://bucket/prefix for the report; with `sheets` there is a picture a group in it."""

    target: str
    by: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    paired_by: str | None = None
    run: str | None = None
    out: str | None = None
    sheets: bool = False


@dataclass
class _Counts:
    """What is counted meanwhile."""

    rows: int = 0
    unfinished: int = 0
    clips: int = 0
    kept: int = 0
    unreadable: int = 0
    unread: list[Unread] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    def take(self, one: Measurement) -> None:
        self.clips += 1
        self.kept += one.kept
        if one.unread is not None:
            self.unreadable += 1
            if len(self.unread) < _UNREAD_SHOWN:
                self.unread.append(Unread(one.clip.key, one.unread))
        for name, reason in one.unscored.items():
            self.unscored[name] += 1
            self.reasons.setdefault(name, reason)

    def notes(self) -> Iterator[str]:
        if self.unfinished:
            yield f"{self.unfinished} rows have no outcome yet and count nowhere: the run was interrupted"
        for name, count in self.unscored.items():
            yield f"{name}: {count} clips have no score, the first because: {self.reasons[name]}"


def evaluate(
    options: EvaluationOptions,
    scorers: Sequence[Scorer] = (),
    config: Config | None = None,
    on_clips: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Measure every clip of the run, and compare. What was measured before on this machine is not measured again, so
    the same command goes on where it was stopped. A clip that cannot be read is told of and counts as that.

    Raises ConfigError for a target that is no run and for columns or metrics that are not there, and what the store
    raises while it does not answer.
    """
    config = config or read_config()
    if not options.by:
        raise ConfigError("--by: which column? Name one of the manifest's, such as --by language")
    metrics = (*chosen(options.metrics), *(scored(s.name, s.better, s.meaning) for s in scorers))
    names = frozenset(metric.name for metric in metrics)
    if len(names) < len(metrics):
        raise ConfigError(f"--scorer: two metrics of one name among {', '.join(metric.name for metric in metrics)}")
    table = run_table(open_store(options.target), options.run)
    table.check(options.by, options.paired_by)
    judged = None if options.metrics else _obedient(table.note, config)
    families = {metric.family for metric in metrics}
    kinds = frozenset(kind for family, kind in _KINDS.items() if family in families)
    counts = _Counts()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rushes-evaluate-")))
        pairs = stack.enter_context(Pairs(folder / "pairs.sqlite")) if options.paired_by else None
        tallies = Tallies(options.by, pairs)
        figures = stack.enter_context(closing(ClipFigures(config.cache_dir)))
        measuring = stack.enter_context(
            closing(ClipMeasuring(table.store, folder, figures, kinds, scorers, config.media_timeout_s, table.rows))
        )
        files = stack.enter_context(
            closing(EvaluationFiles(options.out, folder, options.by, metrics, with_sheets=options.sheets))
        )
        for page in table.pages(options.by, options.paired_by):
            for place, status in page.statuses:
                counts.rows += 1
                counts.unfinished += not _tally(tallies, place, _of_row(status), names)
            if not kinds and not scorers:
                continue
            for one in measuring.measure(page.clips):
                counts.take(one)
                values = _of_clip(one, judged)
                for place in one.clip.places:
                    _tally(tallies, place, values, names)
                files.add(one.clip, {name: value for name, value in values.items() if name in names})
                on_clips(counts.clips)
        found = Evaluation(
            run_id=table.run_id,
            rows=counts.rows,
            unfinished=counts.unfinished,
            clips=counts.clips,
            kept=counts.kept,
            unreadable=counts.unreadable,
            unread=tuple(counts.unread),
            pairs_by=options.paired_by,
            comparisons=compare(tallies, metrics),
            notes=tuple(counts.notes()),
        )
        return files.written(found, measuring.pictures)


def _tally(tallies: Tallies, place: Place, values: Mapping[str, float], names: frozenset[str]) -> bool:
    """Whether there was anything to count."""
    wanted = {name: value for name, value in values.items() if name in names}
    if wanted:
        tallies.add(place.groups, place.pair, wanted)
    return bool(values)


def _of_row(status: str) -> dict[str, float]:
    if status == Status.PENDING.value:
        return {}
    outcomes = {"succeeded": Status.SUCCEEDED, "failed": Status.FAILED, "rejected": Status.REJECTED}
    return {name: float(status == outcome.value) for name, outcome in outcomes.items()}


def _of_clip(one: Measurement, judged: frozenset[str] | None) -> dict[str, float]:
    """Values by metric; those that are not to be had are not there."""
    if one.unread is not None:
        return {"unreadable": 1.0}
    row, pixels = one.clip.row, one.figures.get(PIXELS, {})
    values = {name: float(value) for name, value in pixels.items() if name not in ("width", "height", "frames", "fps")}
    if pixels:
        values |= {"unreadable": 0.0, "as_recorded": float(_is_as_recorded(row, one.clip.key, pixels))}
    values |= {name: float(value) for name, value in one.figures.get(WARP, {}).items()}
    shape = one.figures.get(SHAPE)
    # A prompt says what the whole of a clip shows only where no other prompt does, nor a camera or a path.
    if shape and (judged is None or row["variant"] in judged) and not (row.get("prompts") or row.get("motion")):
        shown = Shown(*(str(shape[name]) for name in ("colour", "object", "motion", "place")))
        values |= {
            name: float(held)
            for name, held in obedience(asked_by(row["prompt"] or "", metadata_of(row)), shown).items()
        }
    return {**values, **{name: score for name, score in one.scores.items() if math.isfinite(score)}}


def _is_as_recorded(row: Mapping[str, Any], key: str, seen: Figures) -> bool:
    """Size, length and frame rate. Video holds colour for 2×2 pixels, so that odd sides are one larger there."""
    even = 2 if key.endswith(_VIDEO) else 1
    width, height = (-(-int(row[side] or 0) // even) * even for side in ("width", "height"))
    fps = seen.get("fps")
    in_time = fps is None or abs(float(fps) - row["fps"]) <= _FPS_TOLERANCE * row["fps"]
    return (width, height, row["frames"]) == (seen["width"], seen["height"], seen["frames"]) and in_time


def _obedient(note: Mapping[str, Any], config: Config) -> frozenset[str]:
    """The variants, of the run's catalog, whose clips the oracle can read."""
    try:
        catalog = open_catalog(note.get("options", {}).get("catalog"), config)
    except RushesError:
        catalog = open_catalog(None, config)
    return frozenset(v.name for v in catalog.variants.values() if v.weights == _OBEDIENT_WEIGHTS)

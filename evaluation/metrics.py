"""The metrics by name: what each is, and which way is better."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import ConfigError


class Kind(StrEnum):
    """What the values of a metric are."""

    SHARE = "share"  # yes or no
    MEAN = "mean"  # a number


class Family(StrEnum):
    """What a metric is measured from."""

    ROWS = "rows"  # the results table
    PIXELS = "pixels"
    STEADINESS = "steadiness"
    OBEDIENCE = "obedience"
    SCORER = "scorer"


@dataclass(frozen=True)
class Metric:
    """`better` is 1 where more is better, -1 where less is, 0 where neither is."""

    name: str
    family: Family
    kind: Kind
    better: int
    meaning: str


def _share(name: str, family: Family, better: int, meaning: str) -> Metric:
    return Metric(name, family, Kind.SHARE, better, meaning)


def _mean(name: str, family: Family, better: int, meaning: str) -> Metric:
    return Metric(name, family, Kind.MEAN, better, meaning)


_ROWS, _PIXELS, _STEADINESS, _OBEDIENCE = Family.ROWS, Family.PIXELS, Family.STEADINESS, Family.OBEDIENCE
METRICS: tuple[Metric, ...] = (
    _share("succeeded", _ROWS, 1, "rows that have their clip"),
    _share("failed", _ROWS, -1, "rows whose task could not be rendered"),
    _share("rejected", _ROWS, -1, "rows that never became a task"),
    _share("unreadable", _PIXELS, -1, "clips that are missing, changed or broken"),
    _share("as_recorded", _PIXELS, 1, "clips of the size, length and frame rate that were asked for"),
    _share("black", _PIXELS, -1, "clips that are black for half of their time or more"),
    _share("frozen", _PIXELS, -1, "clips in which nothing moves"),
    _mean("brightness", _PIXELS, 0, "mean luma, 0 to 1"),
    _mean("contrast", _PIXELS, 0, "deviation of the luma within a frame, 0 to 0.5"),
    _mean("saturation", _PIXELS, 0, "mean saturation, 0 to 1"),
    _mean("colourfulness", _PIXELS, 0, "after Hasler and Süsstrunk: 0 is grey, above 80 is vivid"),
    _mean("sharpness", _PIXELS, 0, "variance of the Laplacian of the luma, in levels of 255"),
    _mean("motion", _PIXELS, 0, "mean change from frame to frame, in levels of 255"),
    _mean("flicker", _PIXELS, -1, "unsteadiness of the frames' brightness, in levels of 255"),
    _mean("warp_error", _STEADINESS, -1, "change from frame to frame that no motion explains"),
    _share("colour_obeyed", _OBEDIENCE, 1, "clips whose shape has the colour that the prompt says"),
    _share("object_obeyed", _OBEDIENCE, 1, "clips that show the shape that the prompt says"),
    _share("motion_obeyed", _OBEDIENCE, 1, "clips that move as the prompt says"),
    _share("place_obeyed", _OBEDIENCE, 1, "clips on the background that the prompt says"),
    _share("all_obeyed", _OBEDIENCE, 1, "clips that are right in all that the prompt says"),
    _share("hallucinated", _OBEDIENCE, -1, "clips that clearly show something other than the prompt says"),
)
_FAMILIES = (Family.ROWS, Family.PIXELS, Family.STEADINESS, Family.OBEDIENCE)


def scored(name: str, better: int = 1, meaning: str = "") -> Metric:
    """The metric of a scorer."""
    return _mean(name, Family.SCORER, better, meaning or "by a scorer")


def chosen(names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics, or families of them, that are named; of no names rows, pixels and obedience. ConfigError, with the
    choices, for another name."""
    wanted = set(names) or {Family.ROWS.value, Family.PIXELS.value, Family.OBEDIENCE.value}
    known = {metric.name for metric in METRICS} | {family.value for family in _FAMILIES}
    if unknown := sorted(wanted - known):
        raise ConfigError(f"--metric: unknown {unknown[0]!r}; available: {', '.join(sorted(known))}")
    return tuple(metric for metric in METRICS if metric.name in wanted or metric.family.value in wanted)

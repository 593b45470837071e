"""Groups beside each other: who is worst, who stands out, who cannot be judged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from evaluation.comparison import FEWEST, Comparison, Tallies, compare
from evaluation.metrics import METRICS, Metric, chosen
from evaluation.pairs import Pairs
from evaluation.report import Evaluation, lines
from schemas.errors import ConfigError

BY_NAME = {metric.name: metric for metric in METRICS}
OBEYED, MOTION, FLICKER = BY_NAME["all_obeyed"], BY_NAME["motion"], BY_NAME["flicker"]


def compared(values: dict[str, list[float]], metric: Metric = OBEYED) -> Comparison:
    tallies = Tallies(("tongue",))
    for group, some in values.items():
        for value in some:
            tallies.add({"tongue": group}, None, {metric.name: value})
    (found,) = compare(tallies, [metric])
    return found


@contextmanager
def paired(folder: Path, rows: dict[str, dict[str, list[float]]], metric: Metric) -> Iterator[Comparison]:
    with Pairs(folder / "pairs.sqlite") as pairs:
        tallies = Tallies(("tongue",), pairs)
        for pair, groups in rows.items():
            for group, values in groups.items():
                for value in values:
                    tallies.add({"tongue": group}, pair, {metric.name: value})
        (found,) = compare(tallies, [metric])
        yield found


def report(*comparisons: Comparison, pairs_by: str | None = None) -> Evaluation:
    return Evaluation("r", 1, 0, 1, 0, 0, (), pairs_by, comparisons)


def test_the_worst_group_comes_first_and_is_named() -> None:
    found = compared({"en": [1] * 30, "de": [1] * 29 + [0], "fr": [1] * 12 + [0] * 18})
    assert [one.group for one in found.groups] == ["fr", "de", "en"]
    assert [one.group for one in found.standing_out] == ["fr"], "the others differ only in that they are better"
    worst = found.groups[0]
    assert worst.value == pytest.approx(0.4)
    assert worst.difference == pytest.approx(0.4 - 59 / 60)
    assert worst.others == 60
    (warning,) = report(found).warnings
    assert warning.startswith("tongue = fr: all_obeyed is 40.0 %, -58.3 points from the others (95 %: -73.8 to -39.2)")


def test_less_is_worse_where_more_is_better_and_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    low, high = list(rng.normal(1, 0.2, 40)), list(rng.normal(2, 0.2, 40))
    assert compared({"a": low, "b": high}, FLICKER).groups[0].group == "b"
    assert [one.group for one in compared({"a": low, "b": high}, FLICKER).standing_out] == ["b"]


def test_where_neither_way_is_better_the_furthest_comes_first() -> None:
    rng = np.random.default_rng(1)
    found = compared({g: list(rng.normal(mean, 0.2, 30)) for g, mean in {"a": 1, "b": 1, "c": 3}.items()}, MOTION)
    assert found.groups[0].group == "c"
    assert "c" in {one.group for one in found.standing_out}


def test_groups_that_are_alike_do_not_stand_out() -> None:
    """Nor by chance: of two hundred evaluations of what does not differ, few may warn, whatever is compared."""
    rng = np.random.default_rng(2)
    warned = 0
    for _ in range(200):
        tallies = Tallies(("a", "b"))
        for _ in range(40):
            groups = {"a": str(rng.integers(2)), "b": str(rng.integers(3))}
            values = {"all_obeyed": float(rng.random() < 0.8), "motion": rng.normal(), "flicker": rng.normal()}
            tallies.add(groups, None, values)
        warned += any(one.standing_out for one in compare(tallies, METRICS))
    assert warned / 200 <= 0.08


def test_few_clips_are_shown_and_not_judged() -> None:
    found = compared({"a": [1] * (FEWEST - 1), "b": [0] * 50})
    assert all(one.few and one.corrected_p is None and not one.differs for one in found.groups)
    assert found.groups[0].difference == -1
    assert "few" in [line[-1] for line in lines(found)]


def test_one_group_alone_is_compared_with_nothing() -> None:
    found = compared({"a": [1, 0, 1]})
    (one,) = found.groups
    assert (one.difference, one.few, found.standing_out) == (None, False, ())


def test_a_value_that_is_the_same_everywhere_is_no_test() -> None:
    found = compared({"a": [1] * 40, "b": [1] * 40})
    assert report(found).tests == 0
    assert report(compared({"a": [1] * 40, "b": [1] * 39 + [0]})).tests == 1


def test_within_pairs_the_prompts_own_differences_drop_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    bases = rng.normal(10, 5, 25)
    rows = {f"t{k}": {"en": [base], "fr": [base + rng.normal(0.3, 0.2)]} for k, base in enumerate(bases)}
    apart = {g: [values[g][0] for values in rows.values()] for g in ("en", "fr")}
    assert not compared(apart, FLICKER).standing_out
    with paired(tmp_path, rows, FLICKER) as found:
        (one,) = found.standing_out
    assert (one.group, one.others) == ("fr", 25)
    assert one.difference == pytest.approx(0.3, abs=0.1)
    assert "within its pairs" in report(found, pairs_by="template").warnings[0]


def test_pairs_of_several_groups_and_clips_are_compared_with_the_rest_of_the_pair(tmp_path: Path) -> None:
    rows = {f"t{k}": {"a": [1.0, 1.0], "b": [1.0, 0.0], "c": [0.0, 0.0]} for k in range(12)}
    rows["alone"] = {"a": [0.0]}  # has nobody to be compared with
    with paired(tmp_path, rows, OBEYED) as found:
        by_name = {one.group: one for one in found.groups}
    assert by_name["a"].difference == pytest.approx(1 - 0.25)
    assert by_name["c"].difference == pytest.approx(0 - 0.75)
    assert by_name["a"].others == 12
    assert by_name["a"].count == 25
    assert found.groups[0].group == "c"
    assert [one.group for one in found.standing_out] == ["c"]


def test_pairs_that_never_meet_are_told_of_as_not_compared(tmp_path: Path) -> None:
    with paired(tmp_path, {"t1": {"a": [1.0]}, "t2": {"b": [0.0]}}, OBEYED) as found:
        assert all(one.difference is None for one in found.groups)


def test_a_metric_that_is_none_is_refused_with_the_choices() -> None:
    assert {metric.name for metric in chosen(["obedience", "motion"])} >= {"hallucinated", "motion"}
    assert "warp_error" not in {metric.name for metric in chosen([])}
    with pytest.raises(ConfigError, match="unknown 'beauty'; available: all_obeyed, as_recorded"):
        chosen(["beauty"])


def test_the_json_has_every_figure() -> None:
    told = report(compared({"a": [1] * 20, "b": [0] * 20})).as_json()
    (comparison,) = told["comparisons"]
    assert comparison["groups"][0]["group"] == "b"
    assert comparison["groups"][0]["differs"] is True
    assert comparison["groups"][0]["interval"][1] < 0.2
    assert len(told["warnings"]) == 1
    assert any("Holm over 1 differences" in method for method in told["methods"])

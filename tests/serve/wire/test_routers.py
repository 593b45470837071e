"""A router's settings under changes, and decisions in Runway's words."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.wire.base import WireError, read
from serve.wire.organization import RUNWAY_MODELS, UsageQuery, runway_name, usage
from serve.wire.routers import RouterSettings, merged, pipeline
from tests.serve.http.endpoint import catalog_with

FULL = RouterSettings.model_validate(
    {
        "optimizeFor": "quality",
        "models": {"mode": "allow_new_except", "ids": ["a", "b"]},
        "maxCreditsPerGeneration": {"video": 5, "audio": 1},
        "fallback": {"onCapacity": True},
    }
).as_json()


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"optimizeFor": "cost"}, "optimizeFor", "cost"),
        ({"models": {"ids": ["c"]}}, "models", {"mode": "allow_new_except", "ids": ["c"]}),
        ({"models": {"mode": "allowlist_only"}}, "models", {"mode": "allowlist_only", "ids": ["a", "b"]}),
        ({"maxCreditsPerGeneration": {"video": None}}, "maxCreditsPerGeneration", {"audio": 1}),
        ({"maxCreditsPerGeneration": {"image": 2}}, "maxCreditsPerGeneration", {"audio": 1, "image": 2, "video": 5}),
        ({"maxCreditsPerGeneration": None}, "maxCreditsPerGeneration", None),
        ({"fallback": {"onCapacity": False}}, "fallback", {"onCapacity": False}),
    ],
)
def test_a_change_touches_only_what_it_names(changes: dict[str, object], field: str, expected: object) -> None:
    after = merged(FULL, changes).as_json()
    assert after.get(field) == expected
    assert {name: value for name, value in after.items() if name != field} == {
        name: value for name, value in FULL.items() if name != field
    }


def test_wrong_changes_name_their_place() -> None:
    with pytest.raises(WireError) as caught:
        merged(FULL, {"models": {"mode": "some"}})
    assert caught.value.issues[0].path == ("settings", "models", "mode")


@given(st.recursive(st.none() | st.text(max_size=3) | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_change_is_laid_over_or_refused(changes: object) -> None:
    with suppress(WireError):
        merged(FULL, {"settings": changes} if not isinstance(changes, dict) else changes)


def story(*steps: tuple[str, list[str]], rank: str = "cost") -> list[dict[str, object]]:
    told: list[dict[str, object]] = [{"type": "filter", "filter": name, "models": models} for name, models in steps]
    return [*told, {"type": "capacity", "skipped": [], "allExhausted": False}, {"type": "rank", "outcome": rank}]


EVERY = ["capability", "shape", "prompt_length", "input_support", "allow_deny", "quality", "price", "deadline"]


def test_our_filters_are_told_as_runway_s() -> None:
    told, emptied = pipeline(story(*((name, ["a"]) for name in EVERY)), skipped=(), all_exhausted=False, capacity=False)
    names = [one["filter"] for one in told if isinstance(one, dict) and one["type"] == "filter"]
    assert names == ["capability", "prompt_length", "input_support", "allow_deny", "price"]
    assert emptied == []
    assert told[-1] == {"type": "rank", "outcome": "cost"}


@pytest.mark.parametrize(
    ("empty_from", "stage"),
    [("shape", "capability"), ("quality", "allow_deny"), ("price", "price"), ("deadline", "price")],
)
def test_the_filter_that_left_nobody_is_named(empty_from: str, stage: str) -> None:
    steps = [(name, [] if EVERY.index(name) >= EVERY.index(empty_from) else ["a"]) for name in EVERY]
    told, emptied = pipeline(story(*steps), skipped=(), all_exhausted=False, capacity=True)
    assert emptied == [stage]
    last = told[-1]
    assert isinstance(last, dict)
    assert (last["filter"], last["models"]) == (stage, [])


@pytest.mark.parametrize(("rank", "outcome"), [("latency", "selected"), ("quality", "selected"), ("cost", "cost")])
def test_ranks_are_told_as_runway_s(rank: str, outcome: str) -> None:
    told, _ = pipeline(story(("price", ["a"]), rank=rank), skipped=["b"], all_exhausted=False, capacity=True)
    assert told[-2:] == [
        {"type": "capacity", "skipped": ["b"], "allExhausted": False},
        {"type": "rank", "outcome": outcome},
    ]


def test_usage_has_runway_s_names_and_ours_beside_them() -> None:
    catalog = catalog_with()
    assert runway_name("veo3.1", catalog) == "veo3.1"
    assert runway_name("embedded", catalog) == runway_name("gen4.5", catalog) == "gen4.5"
    assert runway_name("gone", catalog) in RUNWAY_MODELS
    told = usage([("2030-01-01", "embedded", 3, 0.10), ("2030-01-01", "gen4.5", 1, 0.02)], catalog)
    assert told == {
        "models": ["gen4.5"],
        "results": [
            {
                "date": "2030-01-01",
                "usedCredits": [
                    {
                        "model": "gen4.5",
                        "amount": 12,
                        "usd": pytest.approx(0.12),
                        "names": ["embedded", "gen4.5"],
                    }
                ],
            }
        ],
    }


NOON = 1_900_000_000.0  # 2030-03-17


@pytest.mark.parametrize(
    ("given", "span"),
    [
        ({}, ("2030-02-15", "2030-03-18")),
        ({"startDate": "2030-01-01"}, ("2030-01-01", "2030-01-31")),
        ({"beforeDate": "2030-03-01"}, ("2030-01-30", "2030-03-01")),
        ({"startDate": "2030-01-01", "beforeDate": "2030-01-02"}, ("2030-01-01", "2030-01-02")),
    ],
)
def test_usage_spans_what_runway_s_does(given: dict[str, str], span: tuple[str, str]) -> None:
    start, before = UsageQuery.model_validate(given).span(NOON)
    assert (start.isoformat(), before.isoformat()) == span


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-02", "1999-12-31", "2200-01-02"])
@pytest.mark.parametrize("field", ["startDate", "beforeDate"])
def test_the_ends_of_time_are_refused(day: str, field: str) -> None:
    with pytest.raises(WireError) as caught:
        read(UsageQuery, f'{{"{field}": "{day}"}}'.encode())
    assert caught.value.issues[0].path == (field,)

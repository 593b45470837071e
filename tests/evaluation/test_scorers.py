"""Scorers come by entry point, as signers do."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from evaluation import scorers
from evaluation.scorers import GROUP, find_scorer
from schemas import entry_points
from schemas.errors import ConfigError


class Redness:
    name, revision, better, meaning = "redness", "1", 0, "mean red, 0 to 255"

    def score(self, pictures: scorers.Pictures, prompt: str) -> float:
        return float(pictures[..., 0].mean())


class Nameless(Redness):
    name = "no name"


class Broken(Redness):
    def __init__(self) -> None:
        raise OSError("no such weights")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of somebody, as installing it would have it."""
    points = [EntryPoint(kind.__name__, f"{__name__}:{kind.__name__}", GROUP) for kind in (Redness, Nameless, Broken)]
    monkeypatch.setattr(entry_points, "entry_points", lambda group: EntryPoints(points).select(group=group))


def test_a_scorer_is_found_by_its_name() -> None:
    assert find_scorer("Redness").name == "redness"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Blueness", "unknown 'Blueness'; available: Broken, Nameless, Redness"),
        ("Nameless", "its name 'no name' is not letters"),
        ("Broken", "OSError: no such weights"),
    ],
)
def test_a_scorer_that_cannot_be_had_is_told_of(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find_scorer(name)

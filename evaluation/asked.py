"""What a prompt for the embedded model asks for, and whether a clip shows it.

Words are those that the model was taught (`training/words.py`). What a prompt leaves open, or says twice in different
ways, is not asked for, and not judged.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from evaluation.clip_measure import GROUNDS_RGB, HUES_DEG, UNKNOWN
from training.words import (
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    GROUNDS,
    MOTION_PHRASES,
    ONE_WORD_MOVES,
    PLACES,
    SHAPE_WORDS,
)


@dataclass(frozen=True)
class Asked:
    """Colour, object, motion and place (the background); None where the prompt does not say."""

    colour: str | None = None
    object: str | None = None
    motion: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Shown:
    """The same of a clip, "unknown" where it shows nothing of the kind clearly."""

    colour: str
    object: str
    motion: str
    place: str


KNOWN: Mapping[str, frozenset[str]] = {
    "colour": frozenset(HUES_DEG),
    "object": frozenset(SHAPE_WORDS),
    "motion": frozenset((*MOTION_PHRASES, *PLACES)),
    "place": frozenset(GROUNDS_RGB),
}
"""What can be recognised in a clip."""


def asked_by(prompt: str, said: Mapping[str, object]) -> Asked:
    """What is asked for: by columns `asked_colour`, `asked_object`, `asked_motion` and `asked_place`, where they say
    what can be recognised, else by the prompt. With columns, prompts may be in any language."""
    named = {name: said.get(f"asked_{name}") for name in KNOWN}
    known = {name: value for name, value in named.items() if isinstance(value, str) and value in KNOWN[name]}
    return replace(asked_in(prompt), **known)


def asked_in(prompt: str) -> Asked:
    """What a prompt says, in whatever order."""
    text = " ".join(re.findall(r"[a-z0-9-]+", prompt.lower()))
    text, places = _taken(text, _GROUND)
    # Motions before objects: "moving in a circle" names none.
    text, motions = _taken(text, _MOTION)
    text, objects = _taken(text, _OBJECT)
    _, colours = _taken(text, _COLOUR)
    asked = Asked(_only(colours), _only(objects), _only(motions), _only(places))
    if (asked.object, asked.motion) == ("circle", "spinning"):
        return Asked(asked.colour, asked.object, None, asked.place)  # nobody could see it
    return asked


def obedience(asked: Asked, shown: Shown) -> dict[str, bool]:
    """By metric, of what was asked for. Empty where nothing was.

    `hallucinated` is a clip that clearly shows something else: one that shows nothing clearly only disobeys.
    """
    pairs = [(name, said, getattr(shown, name)) for name, said in asdict(asked).items() if said is not None]
    if not pairs:
        return {}
    found = {f"{name}_obeyed": said == seen for name, said, seen in pairs}
    return {
        **found,
        "all_obeyed": all(found.values()),
        "hallucinated": any(seen not in (said, UNKNOWN) for _, said, seen in pairs),
    }


def _only(names: set[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


@dataclass(frozen=True)
class _Reader:
    """Finds phrases, the longest first, and says what each means."""

    pattern: re.Pattern[str]
    meanings: Mapping[str, str]


def _reader(tables: Iterable[Mapping[str, Iterable[str]]]) -> _Reader:
    meanings = {phrase: name for table in tables for name, phrases in table.items() for phrase in phrases}
    longest_first = sorted(meanings, key=len, reverse=True)
    return _Reader(re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"), meanings)


def _taken(text: str, reader: _Reader) -> tuple[str, set[str]]:
    """The text without the phrases, and what they meant."""
    found = {reader.meanings[phrase] for phrase in reader.pattern.findall(text)}
    return reader.pattern.sub("|", text), found


_GROUND = _reader(
    [{name: [ground.format(word) for ground in GROUNDS for word in words] for name, words in BACKGROUND_WORDS.items()}]
)
_MOTION = _reader([MOTION_PHRASES, PLACES, ONE_WORD_MOVES])
_OBJECT = _reader([SHAPE_WORDS])
_COLOUR = _reader([COLOUR_WORDS, {"lime": ("lime",)}])

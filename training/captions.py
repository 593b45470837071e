"""English sentences for drawn scenes.

Speeds and backgrounds are often left out, so that a prompt need not mention them.
"""

from collections.abc import Sequence

import numpy as np

from training.drawing import Actor, Scene
from training.words import (
    ADJECTIVES,
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    ENDINGS,
    FILLERS,
    GROUNDS,
    MOTION_PHRASES,
    ONE_WORD_MOVES,
    OPENINGS,
    PLACES,
    SHAPE_WORDS,
    SPEED_WORDS,
    STRAIGHT_VERBS,
)


def pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One of them."""
    return words[int(rng.integers(len(words)))]


def mostly_first(rng: np.random.Generator, words: Sequence[str]) -> str:
    """The usual word two times in three, so that the synonyms do not slow down learning it."""
    return words[0] if rng.random() < 0.67 else pick(rng, words)


def motion_phrase(rng: np.random.Generator, actor: Actor) -> str:
    """What the actor does, and how fast unless it is the usual speed."""
    speed = pick(rng, SPEED_WORDS[actor.speed]) if actor.speed in SPEED_WORDS and actor.motion != "still" else ""
    if actor.motion not in PLACES:
        phrase = mostly_first(rng, MOTION_PHRASES[actor.motion])
        return f"{speed} {phrase}" if rng.random() < 0.4 else f"{phrase} {speed}"
    if actor.motion in ONE_WORD_MOVES and rng.random() < 0.1:
        phrase = pick(rng, ONE_WORD_MOVES[actor.motion])
        return f"{speed} {phrase}" if rng.random() < 0.4 else f"{phrase} {speed}"
    verb, place = mostly_first(rng, STRAIGHT_VERBS), mostly_first(rng, PLACES[actor.motion])
    if "-" in actor.motion and rng.random() < 0.1:
        place = "diagonally"
    order = rng.random()
    if order < 0.3:
        return f"{speed} {verb} {place}"
    return f"{verb} {speed} {place}" if order < 0.5 else f"{verb} {place} {speed}"


def subject(rng: np.random.Generator, actor: Actor) -> str:
    """Article, now and then an adjective, colour and shape."""
    article = pick(rng, ("a", "a", "a", "the", "one", ""))
    adjective = pick(rng, ADJECTIVES) if rng.random() < 0.15 else ""
    colour, shape = mostly_first(rng, COLOUR_WORDS[actor.colour]), mostly_first(rng, SHAPE_WORDS[actor.shape])
    return f"{article} {adjective} {colour} {shape}"


def caption(rng: np.random.Generator, scene: Scene, *, noise: float = 0.12) -> str:
    """One sentence for the scene; with probability `noise`, words without meaning are thrown in."""
    order = rng.permutation(len(scene.actors))
    parts = [f"{subject(rng, scene.actors[i])} {motion_phrase(rng, scene.actors[i])}" for i in order]
    words = " and ".join(parts).split()
    if rng.random() < 0.75:
        words += mostly_first(rng, GROUNDS).format(mostly_first(rng, BACKGROUND_WORDS[scene.background])).split()
    if rng.random() < 0.2:
        words = [*pick(rng, OPENINGS).split(), *words]
    if rng.random() < 0.15:
        words += pick(rng, ENDINGS).split()
    if rng.random() < noise:
        for _ in range(int(rng.integers(1, 4))):
            extra = "qwx" if rng.random() < 0.4 else pick(rng, FILLERS)  # "qwx" is no known word: it becomes <unk>
            words.insert(int(rng.integers(len(words) + 1)), extra)
    return " ".join(words)


def plain_caption(colour: str, shape: str, motion: str, background: str | None = None) -> str:
    """The most ordinary sentence for one combination."""
    phrase = f"moving {PLACES[motion][0]}" if motion in PLACES else MOTION_PHRASES[motion][0]
    ground = f" on a {background} background" if background else ""
    return f"a {colour} {shape} {phrase}{ground}"

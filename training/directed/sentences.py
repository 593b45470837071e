"""English sentences for shots: what the shapes are and do, what the camera does, and what a condition says instead."""

import numpy as np

from training.captions import mostly_first, motion_phrase, pick, plain_caption, subject
from training.directed.scenes import Shot
from training.drawing import Actor
from training.words import BACKGROUND_WORDS, ENDINGS, FILLERS, GROUNDS, OPENINGS, SHAPE_WORDS, vocabulary

# fmt: off
CAMERA_PHRASES: dict[str, tuple[str, ...]] = {
    "pan-left": ("the camera pans left", "camera pans to the left", "camera pan left", "panning left"),
    "pan-right": ("the camera pans right", "camera pans to the right", "camera pan right", "panning right"),
    "pan-up": ("the camera pans up", "camera tilts up", "camera pan up", "the camera moves up"),
    "pan-down": ("the camera pans down", "camera tilts down", "camera pan down", "the camera moves down"),
    "zoom-in": ("the camera zooms in", "camera zoom in", "zooming in", "the camera pushes in"),
    "zoom-out": ("the camera zooms out", "camera zoom out", "zooming out", "the camera pulls out"),
}
PATH_PHRASES: tuple[str, ...] = (
    "following the path", "", "moving along the path", "follows the path", "along the drawn path", "moving",
)
STYLE_PHRASES: tuple[str, ...] = (
    "in the style of the reference", "", "in the colours of the reference", "like the reference", "in the same style",
)
# fmt: on


def vocabulary_of_shots() -> list[str]:
    """Every word with a token, in a fixed order."""
    words = set(vocabulary())
    for phrases in (*CAMERA_PHRASES.values(), PATH_PHRASES, STYLE_PHRASES):
        for phrase in phrases:
            words.update(phrase.split())
    return sorted(words | {"next", "beside", "left", "right", "below"})


def _ground(rng: np.random.Generator, shot: Shot) -> str:
    return mostly_first(rng, GROUNDS).format(mostly_first(rng, BACKGROUND_WORDS[shot.scene.background]))


def _said(rng: np.random.Generator, shot: Shot, actor: Actor) -> str:
    """One actor, as far as the kind of shot leaves it to the sentence."""
    if shot.task == "path":
        return f"{subject(rng, actor)} {mostly_first(rng, PATH_PHRASES)}"
    if shot.task == "camera":
        return subject(rng, actor) + (" " + motion_phrase(rng, actor) if rng.random() < 0.2 else "")
    if shot.task == "style":
        return f"a {mostly_first(rng, SHAPE_WORDS[actor.shape])} {motion_phrase(rng, actor)}"
    if shot.task == "structure" and rng.random() < 0.5:
        return subject(rng, actor)
    return f"{subject(rng, actor)} {motion_phrase(rng, actor)}"


def sentence(rng: np.random.Generator, shot: Shot, *, noise: float = 0.1) -> str:
    """One sentence. Two shapes are named in their order: left to right, or top to bottom; of a masked shot it may name
    only what the mask asks for. With probability `noise`, words without meaning are thrown in."""
    named = shot.scene.actors
    if shot.edited is not None and rng.random() < 0.3:
        named = (named[shot.edited],)
    words = " and ".join(_said(rng, shot, actor) for actor in named).split()
    if shot.task == "style":
        words += mostly_first(rng, STYLE_PHRASES).split()
    elif rng.random() < 0.8:
        words += _ground(rng, shot).split()
    if shot.camera:
        phrase = mostly_first(rng, CAMERA_PHRASES[shot.camera]).split()
        words = [*phrase, *words] if rng.random() < 0.15 else [*words, *phrase]
    if rng.random() < 0.15:
        words = [*pick(rng, OPENINGS).split(), *words]
    if rng.random() < 0.1:
        words += pick(rng, ENDINGS).split()
    if rng.random() < noise:
        for _ in range(int(rng.integers(1, 3))):
            extra = "qwx" if rng.random() < 0.4 else pick(rng, FILLERS)  # "qwx" is no known word: it becomes <unk>
            words.insert(int(rng.integers(len(words) + 1)), extra)
    return " ".join(words)


def plain_sentence(actors: list[tuple[str, str, str]], background: str | None = None, camera: str = "") -> str:
    """The most ordinary sentence for (colour, shape, motion) of one or two actors; no motion where it is empty."""
    parts = [plain_caption(c, s, m) if m else f"a {c} {s}" for c, s, m in actors]
    ground = f" on a {background} background" if background else ""
    return " and ".join(parts) + ground + (f", {CAMERA_PHRASES[camera][0]}" if camera else "")

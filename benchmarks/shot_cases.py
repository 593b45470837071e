"""The shots that `directed_quality.py` asks for, and how each is judged: all of them things that training never saw.

Control videos are made here with Pillow and from pixels, not with the code that draws them for training.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks import shot_measure
from evaluation.clip_measure import HUES_DEG, judge
from training.directed import drawing
from training.directed.director import Order
from training.directed.scenes import CAMERAS, CANVASES, FRAMES, act, fields, withheld
from training.directed.sentences import plain_sentence
from training.drawing import BACKGROUNDS, COLOURS, Scene, combinations, contrasts

Frames = NDArray[np.uint8]
Judge = Callable[[Frames], dict[str, float]]
"""Figures of one clip: shares as 0 or 1, errors and decibels as they are."""

Words = tuple[str, str, str]
_GRAY = 128  # what VACE is shown of what it is to make


@dataclass(frozen=True)
class Case:
    """One clip to ask for; `wanted` is shown beside it on the sheet."""

    order: Order
    judge: Judge
    wanted: Frames | None = None


def drawn(scene: Scene) -> Frames:
    """A scene as a file's frames."""
    clip = ((drawing.draw([scene])[0] + 1) * 127.5).round().byte()
    return np.asarray(clip.permute(1, 2, 3, 0).numpy())


def _ground(rng: np.random.Generator, *colours: str) -> str:
    return str(rng.choice([name for name in BACKGROUNDS if all(contrasts(c, name) for c in colours)]))


def _held(rng: np.random.Generator, count: int, *, motions: tuple[str, ...] | None = None) -> list[Words]:
    words = [w for w in combinations(held=True) if motions is None or w[2] in motions]
    return [words[int(i)] for i in np.resize(rng.permutation(len(words)), count)]


def _canvas(index: int) -> tuple[int, int]:
    """Three in five are square."""
    return CANVASES[(0, 0, 0, 1, 2)[index % 5]]


def _obeys(words: list[Words], clip: Frames) -> list[tuple[bool, bool, bool]]:
    """Colour, shape and motion of each shape asked for; a motion that is empty is not asked for."""
    seen = shot_measure.measure_all(clip)
    if len(seen) != len(words):
        return [(False, False, False)] * len(words)
    verdicts = [judge(m, *w) for m, w in zip(seen, words, strict=True)]
    return [(v.colour, v.shape, v.motion or not w[2]) for v, w in zip(verdicts, words, strict=True)]


def text(rng: np.random.Generator, count: int) -> list[Case]:
    """One shape, every held-out combination in turn."""
    cases = []
    for index, words in enumerate(_held(rng, count)):
        width, height = _canvas(index)
        prompt = plain_sentence([words], _ground(rng, words[0]))

        def verdict(clip: Frames, words: Words = words) -> dict[str, float]:
            colour, shape, motion = _obeys([words], clip)[0]
            return {"colour": colour, "shape": shape, "motion": motion, "all": colour and shape and motion}

        cases.append(Case(Order(prompt, width, height, FRAMES, index), verdict))
    return cases


def two(rng: np.random.Generator, count: int) -> list[Case]:
    """Two shapes, both held out."""
    first, second = _held(rng, count), _held(rng, count)
    cases = []
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        while other[0] == one[0]:
            other = _held(rng, 1)[0]
        width, height = _canvas(index)
        pair = [one, other]
        prompt = plain_sentence(pair, _ground(rng, one[0], other[0]))

        def verdict(clip: Frames, pair: list[Words] = pair) -> dict[str, float]:
            return {"two shapes": all(all(v) for v in _obeys(pair, clip))}

        cases.append(Case(Order(prompt, width, height, FRAMES, index), verdict))
    return cases


def _ways(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """A wave, an arc or a corner, none of them a Bézier curve, in the middle three fifths of the canvas."""
    t = np.linspace(0, 1, FRAMES)
    kind = int(rng.integers(3))
    if kind == 0:
        x, y = 2 * t - 1, 0.6 * np.sin(2 * np.pi * t * float(rng.uniform(0.5, 1)))
    elif kind == 1:
        angle = float(rng.uniform(0, 2 * np.pi)) + t * float(rng.uniform(2, 5)) * float(rng.choice((-1, 1)))
        x, y = 0.8 * np.cos(angle), 0.8 * np.sin(angle)
    else:
        x, y = np.interp(t, (0, 0.5, 1), (-0.8, 0.8, 0.8)), np.interp(t, (0, 0.5, 1), (-0.6, -0.6, 0.8))
    if rng.random() < 0.5:
        x, y = y, x
    return np.stack([width * (0.5 + 0.28 * x), height * (0.5 + 0.28 * y)], axis=1)


def _dots(way: NDArray[np.float64], width: int, height: int) -> Frames:
    frames = []
    r = 0.055 * min(width, height)
    for x, y in way:
        image = Image.new("RGB", (4 * width, 4 * height))
        ImageDraw.Draw(image).ellipse([4 * (x - r), 4 * (y - r), 4 * (x + r), 4 * (y + r)], fill=(255, 255, 255))
        frames.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
    return np.stack(frames)


def path(rng: np.random.Generator, count: int) -> list[Case]:
    """A drawn way to follow."""
    cases = []
    for index, (colour, shape, _) in enumerate(_held(rng, count)):
        width, height = _canvas(index)
        way = _ways(rng, width, height)
        prompt = f"a {colour} {shape} following the path on a {_ground(rng, colour)} background"
        video = _dots(way, width, height)

        def verdict(
            clip: Frames, way: NDArray[np.float64] = way, words: Words = (colour, shape, "")
        ) -> dict[str, float]:
            colour_right, shape_right, _ = _obeys([words], clip)[0]
            return {"path error": shot_measure.path_error(clip, way), "path, shape": colour_right and shape_right}

        cases.append(Case(Order(prompt, width, height, FRAMES, index, video=video), verdict, video))
    return cases


def camera(rng: np.random.Generator, count: int) -> list[Case]:
    """Every move of the camera in turn."""
    cases = []
    for index, (colour, shape, _) in enumerate(_held(rng, count)):
        width, height = _canvas(index)
        move = list(CAMERAS)[index % len(CAMERAS)]
        prompt = plain_sentence([(colour, shape, "")], _ground(rng, colour), move)
        dx, dy, growth = CAMERAS[move]

        def verdict(clip: Frames, dx: float = dx, dy: float = dy, growth: float = growth) -> dict[str, float]:
            return {"camera error": shot_measure.camera_error(clip, (dx, dy), growth)}

        cases.append(Case(Order(prompt, width, height, FRAMES, index), verdict))
    return cases


def _scene(rng: np.random.Generator, words: list[Words], ground: str, width: int, height: int) -> Scene:
    actors = tuple(
        act(rng, shape, colour, motion, field, spread=0.1)
        for (colour, shape, motion), field in zip(words, fields(width, height, len(words)), strict=True)
    )
    return Scene(actors, ground, width, height, FRAMES)


def mask(rng: np.random.Generator, count: int) -> list[Case]:
    """One of two shapes is to become another, in its half of the frame."""
    cases = []
    for index, (kept, new) in enumerate(zip(_held(rng, count), _held(rng, count), strict=True)):
        width, height = _canvas(index)
        while new[0] == kept[0]:
            new = _held(rng, 1)[0]
        ground = _ground(rng, kept[0], new[0])
        others = [c for c in COLOURS if c not in (kept[0], new[0]) and contrasts(c, ground)]
        old = (str(rng.choice(others)), "circle" if new[1] != "circle" else "square", new[2])
        source = drawn(_scene(rng, [kept, old], ground, width, height))
        region = np.zeros(source.shape[:3], bool)
        if width >= height:
            region[:, :, width // 2 :] = True
        else:
            region[:, height // 2 :] = True
        prompt = plain_sentence([kept, new], ground)

        pair = [kept, new]

        def verdict(
            clip: Frames, source: Frames = source, region: NDArray[np.bool_] = region, pair: list[Words] = pair
        ) -> dict[str, float]:
            return {
                "mask, outside": shot_measure.outside_change(clip, source, region),
                "mask, inside": all(_obeys(pair, clip)[1]),
            }

        told = np.where(region, 255, 0).astype(np.uint8)
        shown = np.where(region[..., None], _GRAY, source).astype(np.uint8)  # as `models/guide.py` blanks it out
        order = Order(prompt, width, height, FRAMES, index, shown, told, spared=source)
        cases.append(Case(order, verdict, source))
    return cases


def frame(rng: np.random.Generator, count: int) -> list[Case]:
    """The first frame, the last one, or both are given."""
    cases = []
    for index, words in enumerate(_held(rng, count)):
        width, height = _canvas(index)
        ground = _ground(rng, words[0])
        clip = drawn(_scene(rng, [words], ground, width, height))
        given = ((0,), (-1,), (0, -1))[index % 3]
        video, told = np.full_like(clip, _GRAY), np.full(clip.shape[:3], 255, np.uint8)
        for at in given:
            video[at], told[at] = clip[at], 0

        def verdict(made: Frames, clip: Frames = clip, given: tuple[int, ...] = given) -> dict[str, float]:
            names = {0: "first frame, dB", -1: "last frame, dB"}
            return {names[at]: shot_measure.psnr(made[at], clip[at]) for at in given}

        order = Order(plain_sentence([words], ground), width, height, FRAMES, index, video, told)
        cases.append(Case(order, verdict, video))
    return cases


def edges(clip: Frames) -> Frames:
    """White where neighbouring pixels differ, on black."""
    values = clip.astype(int)
    there = np.zeros(clip.shape[:3], bool)
    there[:, 1:] |= np.abs(np.diff(values, axis=1)).sum(-1) > 90
    there[:, :, 1:] |= np.abs(np.diff(values, axis=2)).sum(-1) > 90
    return np.repeat(np.where(there, 255, 0).astype(np.uint8)[..., None], 3, axis=-1)


def structure(rng: np.random.Generator, count: int) -> list[Case]:
    """The edges of another clip, to be filled with other colours."""
    cases = []
    for index, words in enumerate(_held(rng, count)):
        width, height = _canvas(index)
        colour = str(rng.choice([c for c in COLOURS if c != words[0]]))
        wanted = drawn(_scene(rng, [words], _ground(rng, words[0]), width, height))
        prompt = plain_sentence([(colour, words[1], "")], _ground(rng, colour))
        video = edges(wanted)

        def verdict(clip: Frames, wanted: Frames = wanted, colour: str = colour) -> dict[str, float]:
            seen = shot_measure.measure_all(clip)
            right = len(seen) == 1 and seen[0].colour == colour
            return {"structure": shot_measure.stands_as(clip, wanted), "structure, colour": right}

        cases.append(Case(Order(prompt, width, height, FRAMES, index, video=video), verdict, video))
    return cases


def style(rng: np.random.Generator, count: int) -> list[Case]:
    """The colours of a picture; pairs of colours that no reference of training had."""
    pairs = [(c, g) for c in HUES_DEG if c in COLOURS for g in BACKGROUNDS if contrasts(c, g) and withheld(c, g)]
    cases = []
    for index, (_, shape, motion) in enumerate(_held(rng, count)):
        width, height = _canvas(index)
        colour, ground = pairs[index % len(pairs)]
        image = Image.new("RGB", (4 * width, 4 * height), BACKGROUNDS[ground])
        r = 0.25 * min(image.size)
        x, y = image.size[0] / 2, image.size[1] / 2
        pen = ImageDraw.Draw(image)
        draw = pen.ellipse if index % 2 else pen.rectangle
        draw([x - r, y - r, x + r, y + r], fill=COLOURS[colour])
        shown = np.asarray(image.resize((width, height), Image.Resampling.BOX))
        prompt = plain_sentence([("", shape, motion)]).replace("  ", " ") + " in the style of the reference"

        def verdict(clip: Frames, shown: Frames = shown) -> dict[str, float]:
            return {"style": shot_measure.coloured_as(clip, shown)}

        order = Order(prompt, width, height, FRAMES, index, reference=shown)
        cases.append(Case(order, verdict, np.repeat(shown[None], FRAMES, axis=0)))
    return cases


KINDS: dict[str, Callable[[np.random.Generator, int], list[Case]]] = {
    "text": text,
    "two": two,
    "path": path,
    "camera": camera,
    "mask": mask,
    "frame": frame,
    "structure": structure,
    "style": style,
}

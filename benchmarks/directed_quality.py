"""Does the directed model obey? `python -m benchmarks.directed_quality [FOLDER] [--steps 16 --guidance 3]`.

Every kind of shot, on combinations that training never saw (`shot_cases.py`), measured from pixels by code that shares
nothing with the drawing (`shot_measure.py`), against the goals. Also the VAE by itself, on drawn clips: PSNR and grid.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import shot_measure
from benchmarks.shot_cases import KINDS, Case, drawn
from evaluation.statistics import share_of
from models.weights import EMBEDDED
from training.directed.director import Director
from training.directed.scenes import kind, sample

Frames = NDArray[np.uint8]
SHIPPED = EMBEDDED / "directed"

GOALS: dict[str, tuple[str, float]] = {
    "colour": (">=", 0.99),
    "shape": (">=", 0.97),
    "motion": (">=", 0.97),
    "all": (">=", 0.95),
    "two shapes": (">=", 0.85),
    "path error": ("<=", 0.04),
    "camera error": ("<=", 0.06),
    "mask, outside": ("<=", 1.0),
    "mask, inside": (">=", 0.90),
    "first frame, dB": (">=", 32.0),
    "last frame, dB": (">=", 32.0),
    "structure": (">=", 0.90),
    "style": (">=", 0.90),
    "VAE, dB": (">=", 32.0),
    "VAE, grid": ("<=", 1.2),
    "seconds a clip": ("<=", 1.0),
}


@dataclass(frozen=True)
class Figure:
    """A mean over clips; `low` and `high` are a share's Wilson 95 % interval, or of other figures the middle 80 %."""

    name: str
    value: float
    low: float
    high: float
    clips: int

    @property
    def reached(self) -> bool | None:
        """Whether the goal is, if there is one."""
        if self.name not in GOALS:
            return None
        sign, goal = GOALS[self.name]
        return self.value >= goal if sign == ">=" else self.value <= goal


def summed(values: dict[str, list[float]]) -> list[Figure]:
    """One figure a name: shares where all values are yes or no."""
    figures = []
    for name, seen in values.items():
        if all(isinstance(v, bool | np.bool_) for v in seen):
            share = share_of([bool(v) for v in seen])
            figures.append(Figure(name, share.share, share.low, share.high, share.asked))
        else:
            low, high = (float(np.percentile(seen, q)) for q in (10, 90))
            figures.append(Figure(name, float(np.mean(seen)), low, high, len(seen)))
    return figures


def codec_figures(director: Director, clips: int) -> list[Figure]:
    """The VAE alone: drawn clips of all kinds of shots, encoded and decoded."""
    rng = np.random.default_rng(99)
    true = [drawn(sample(rng, kind(rng)).scene) for _ in range(clips)]
    made = [director.through_vae(clip) for clip in true]
    quality = [shot_measure.psnr(one, other) for one, other in zip(made, true, strict=True)]
    # What the drawn clips have of a grid by chance is not the VAE's.
    seen, chance = (shot_measure.grid(some, director.cell_px) for some in (made, true))
    return [*summed({"VAE, dB": quality}), Figure("VAE, grid", seen / max(1.0, chance), seen, chance, clips)]


def row(case: Case, clip: Frames, right: bool | None) -> Frames:
    """Five frames of what was shown to the model, where something was, over five of what it made, and a bar before."""
    at = np.linspace(0, len(clip) - 1, 5).astype(int)
    strips = [np.concatenate([frames[i] for i in at], axis=1) for frames in (case.wanted, clip) if frames is not None]
    picture = np.concatenate(strips, axis=0)
    colour = {True: (40, 180, 70), False: (220, 40, 40), None: (128, 128, 128)}[right]
    return np.concatenate([np.full((len(picture), 6, 3), colour, np.uint8), picture], axis=1)


def sheet(rows: Sequence[Frames]) -> Image.Image:
    """Rows below one another, in as many columns as make it about square; portraits leave no gaps."""
    columns = max(1, round((sum(len(r) for r in rows) / max(r.shape[1] for r in rows)) ** 0.5))
    stacks: list[list[Frames]] = [[] for _ in range(columns)]
    for one in sorted(rows, key=len, reverse=True):  # each onto the shortest stack
        min(stacks, key=lambda stack: sum(len(r) for r in stack)).append(one)
    width = max(r.shape[1] for r in rows)
    height = max(sum(len(r) for r in stack) for stack in stacks)
    page = np.full((height, columns * width, 3), 255, np.uint8)
    for index, stack in enumerate(stacks):
        top = 0
        for one in stack:
            page[top : top + len(one), index * width : index * width + one.shape[1]] = one
            top += len(one)
    return Image.fromarray(page)


def assess(director: Director, each: int, kinds: Sequence[str], rows: list[Frames] | None = None) -> list[Figure]:
    """`each` clips of every kind, rendered and judged."""
    values: dict[str, list[float]] = {}
    spent = []
    for name in kinds:
        for index, case in enumerate(KINDS[name](np.random.default_rng([55, list(KINDS).index(name)]), each)):
            started = time.perf_counter()
            clip = director.render(case.order)
            spent.append(time.perf_counter() - started)
            figures = case.judge(clip)
            for key, value in figures.items():
                values.setdefault(key, []).append(value)
            if rows is not None and index < 4:
                goals = [Figure(k, float(v), 0, 0, 1).reached for k, v in figures.items() if k in GOALS]
                rows.append(row(case, clip, all(goals)))
    values["seconds a clip"] = spent
    return summed(values)


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text, beside their goals."""
    lines = [f"{'':20}{'measured':>10}{'from':>9}{'to':>9}{'clips':>7}{'goal':>10}"]
    for f in figures:
        goal = "{} {:g}".format(*GOALS[f.name]) if f.name in GOALS else ""
        mark = {True: " yes", False: " NO", None: ""}[f.reached]
        lines.append(f"{f.name:20}{f.value:>10.3f}{f.low:>9.3f}{f.high:>9.3f}{f.clips:>7}{goal:>10}{mark}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.directed_quality", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=SHIPPED, help="a WanVACEPipeline; else the one that ships"
    )
    parser.add_argument("--steps", type=int, default=3, help="of the turbo model; its teacher takes 16")
    parser.add_argument("--guidance", type=float, default=1.0, help="of the turbo model; its teacher takes 3")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--each", type=int, default=52, help="clips of every kind")
    parser.add_argument("--kind", action="append", choices=tuple(KINDS), help="only this one (may be repeated)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here, as PNG")
    given = parser.parse_args(arguments)
    director = Director(given.folder, given.steps, given.guidance, given.device)
    rows: list[Frames] = []
    figures = assess(director, given.each, given.kind or tuple(KINDS), rows) + codec_figures(director, given.each)
    print(table(figures))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(f) | {"reached": f.reached} for f in figures], indent=1))
    if given.sheet is not None:
        sheet(rows).save(given.sheet)


if __name__ == "__main__":
    main()

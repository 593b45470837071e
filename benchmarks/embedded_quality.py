"""Does the embedded model do what it is told? `python -m benchmarks.embedded_quality [--quick] [--json OUT]`.

Prompts are combinations of colour, shape and motion that training never saw. Each clip is measured from its
pixels by `evaluation.clip_measure`; shares come with Wilson 95 % intervals. Also: seconds a clip, distance to
freshly drawn clips, flow-warped error, and a contact sheet to look at.
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

from evaluation.clip_measure import Measured, Verdict, judge, measure
from evaluation.statistics import Share, share_of
from models.embedded_variants import EmbeddedVariant, Sampler, variants
from training.captions import plain_caption
from training.drawing import BACKGROUNDS, CANVASES, Scene, combinations, contrasts, draw, move
from training.features import TorchScriptFeatures
from training.metrics import Clips, Features, GradientHistograms, compare, warp_error

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One clip to ask for."""

    colour: str
    shape: str
    motion: str
    background: str
    width: int
    height: int
    seed: int

    @property
    def prompt(self) -> str:
        """The plain sentence."""
        return plain_caption(self.colour, self.shape, self.motion, self.background)


@dataclass(frozen=True)
class Report:
    """What one variant did."""

    variant: str
    steps: int
    guidance: float
    colour: Share
    shape: Share
    motion: Share
    everything: Share
    direction: Share
    """Motion, over the eight straight directions only."""
    seconds_a_clip: float
    load_s: float
    features: str
    frechet: float
    kernel: float
    warp_error: float
    warp_error_of_drawn: float
    wrong: tuple[str, ...]


def cases(seeds: int, limit: int | None = None) -> list[Case]:
    """Every held-out combination with each seed, on backgrounds with contrast; four of five clips are square."""
    rng = np.random.default_rng(77)
    held = combinations(held=True)
    rng.shuffle(held)
    made = []
    for seed in range(seeds):
        for index, (colour, shape, motion) in enumerate(held if limit is None else held[:limit]):
            ground = str(rng.choice([name for name in BACKGROUNDS if contrasts(colour, name)]))
            width, height = CANVASES[0] if index % 5 else CANVASES[1 + (index // 5 + seed) % 2]
            made.append(Case(str(colour), str(shape), str(motion), ground, width, height, 1000 * seed + index))
    return made


def drawn_like(wanted: Sequence[Case]) -> list[Frames]:
    """Freshly drawn clips of the same combinations and canvases."""
    rng = np.random.default_rng(78)
    return [
        draw(
            Scene(
                (move(rng, c.shape, c.colour, c.motion, width=c.width, height=c.height),),
                c.background,
                c.width,
                c.height,
                17,
            )
        )
        for c in wanted
    ]


def render(sampler: Sampler, wanted: Sequence[Case], batch: int) -> tuple[list[Frames], float]:
    """The clips, in order, and the seconds a clip took. Clips of one canvas are rendered `batch` at a time."""
    clips: dict[int, Frames] = {}
    started = time.perf_counter()
    for canvas in CANVASES:
        indices = [i for i, c in enumerate(wanted) if (c.width, c.height) == canvas]
        for at in range(0, len(indices), batch):
            group = indices[at : at + batch]
            made = sampler.render([wanted[i].prompt for i in group], canvas, [wanted[i].seed for i in group])
            clips.update(zip(group, made, strict=True))
    return [clips[i] for i in range(len(wanted))], (time.perf_counter() - started) / max(1, len(wanted))


def contact_sheet(clips: Sequence[Frames], verdicts: Sequence[Verdict], columns: int = 4) -> Image.Image:
    """Five frames of each square clip, a green or red bar before it."""
    strips = []
    for clip, verdict in zip(clips, verdicts, strict=True):
        if clip.shape[1:3] != (64, 64):
            continue
        frames = np.concatenate([clip[i] for i in np.linspace(0, len(clip) - 1, 5).astype(int)], axis=1)
        bar = np.full((64, 6, 3), (40, 180, 70) if verdict.everything else (220, 40, 40), np.uint8)
        strips.append(np.concatenate([bar, frames], axis=1))
    while len(strips) % columns:
        strips.append(np.zeros_like(strips[0]))
    rows = [np.concatenate(strips[i : i + columns], axis=1) for i in range(0, len(strips), columns)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def assess(
    variant: EmbeddedVariant,
    wanted: Sequence[Case],
    drawn: Clips,
    features: Features,
    batch: int,
    sheet: Path | None,
) -> Report:
    """Render, time, measure and compare one variant."""
    loading = time.perf_counter()
    sampler = Sampler(variant)
    load_s = time.perf_counter() - loading
    sampler.render([wanted[0].prompt], CANVASES[0], [0])  # The first call pays for kernels that later ones reuse.
    timed = [c for c in wanted if (c.width, c.height) == CANVASES[0]][:6]
    _, seconds = render(sampler, timed, 1)
    clips, _ = render(sampler, wanted, batch)
    seen = [measure(clip) for clip in clips]
    verdicts = [judge(m, c.colour, c.shape, c.motion) for m, c in zip(seen, wanted, strict=True)]
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(clips, verdicts).save(sheet)
    distance = compare(clips, drawn, features)
    some = range(0, len(clips), max(1, len(clips) // 12))
    straight = [i for i, c in enumerate(wanted) if c.motion.split("-")[0] in ("left", "right", "up", "down")]
    return Report(
        variant=variant.name,
        steps=variant.steps,
        guidance=variant.guidance,
        colour=share_of([v.colour for v in verdicts]),
        shape=share_of([v.shape for v in verdicts]),
        motion=share_of([v.motion for v in verdicts]),
        everything=share_of([v.everything for v in verdicts]),
        direction=share_of([verdicts[i].motion for i in straight]),
        seconds_a_clip=seconds,
        load_s=load_s,
        features=distance.features,
        frechet=distance.frechet,
        kernel=distance.kernel,
        warp_error=float(np.mean([warp_error(clips[i]) for i in some])),
        warp_error_of_drawn=float(np.mean([warp_error(drawn[i]) for i in some])),
        wrong=tuple(_mistake(c, m) for c, m, v in zip(wanted, seen, verdicts, strict=True) if not v.everything),
    )


def _mistake(case: Case, seen: Measured) -> str:
    asked = (
        f"{case.colour} {case.shape} {case.motion} on {case.background} ({case.width}x{case.height}, seed {case.seed})"
    )
    return f"{asked}: saw {seen.colour} {seen.shape} {seen.motion}"


def table(reports: Sequence[Report]) -> str:
    """The reports as aligned text."""
    lines = [f"{'':24}" + "".join(f"{r.variant:>26}" for r in reports)]
    for name in ("colour", "shape", "motion", "direction", "everything"):
        row = [getattr(r, name) for r in reports]
        lines.append(
            f"{name:24}"
            + "".join(f"{f'{s.share:.1%} ({s.obeyed}/{s.asked}) [{s.low:.0%}-{s.high:.0%}]':>26}" for s in row)
        )
    for name in (
        "steps",
        "guidance",
        "seconds_a_clip",
        "load_s",
        "frechet",
        "kernel",
        "warp_error",
        "warp_error_of_drawn",
    ):
        lines.append(f"{name:24}" + "".join(f"{getattr(r, name):>26.4g}" for r in reports))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedded_quality", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="16 combinations, one seed: a minute")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--variant", action="append", help="only this one (may be repeated)")
    parser.add_argument("--features", type=Path, help="a TorchScript video network (I3D) for the Fréchet distance")
    parser.add_argument("--json", type=Path, help="write the reports here")
    parser.add_argument("--sheet", type=Path, help="folder for contact sheets, one PNG a variant")
    given = parser.parse_args(arguments)
    wanted = cases(1, 16) if given.quick else cases(given.seeds)
    drawn = drawn_like(wanted)
    features: Features = GradientHistograms() if given.features is None else TorchScriptFeatures(given.features)
    reports = []
    for variant in variants():
        if given.variant is None or variant.name in given.variant:
            sheet = None if given.sheet is None else given.sheet / f"{variant.name}.png"
            reports.append(assess(variant, wanted, drawn, features, given.batch, sheet))
    print(table(reports))
    for report in reports:
        print(f"\n{report.variant} was wrong {len(report.wrong)} times:", *report.wrong[:20], sep="\n  ")
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([asdict(r) for r in reports], indent=1))


if __name__ == "__main__":
    main()

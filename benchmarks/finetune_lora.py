"""Does fine-tuning teach something new? `python -m benchmarks.finetune_lora [--quick] [--json OUT]`.

A LoRA learns a colour that pretraining never drew and whose word it never read (lime), from a few dozen captioned
clips. As many clips of the old colours lie among them: trained on lime alone, it paints everything lime. Before and
after, the same prompts are rendered and measured by `evaluation.clip_measure`: is the shape lime, and do the old
colours still come out as asked? The adapter is loaded with plain `load_lora_weights`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.embedded_quality import Case, contact_sheet, render
from evaluation.clip_measure import judge, measure
from evaluation.statistics import Share, share_of
from models.embedded_variants import FPS, EmbeddedVariant, Sampler, variants
from training.captions import plain_caption
from training.drawing import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Scene, contrasts, draw, move
from training.finetune.config import FinetuneConfig
from training.finetune.train import finetune

NEW_COLOUR = "lime"


@dataclass(frozen=True)
class Outcome:
    """Before or after: how often the new colour was seen where asked for, and how often the old ones were."""

    new_colour: Share
    old_colours: Share


def write_clip(frames: NDArray[np.uint8], path: Path) -> None:
    """A near-lossless H.264 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def make_data(folder: Path, clips: int, seed: int = 5) -> None:
    """Captioned clips, half of them in the new colour, as a user would bring them: videos with a `.txt` beside each."""
    rng = np.random.default_rng(seed)
    motions = [*DIRECTIONS, "still", "growing"]
    old = list(COLOURS)
    for index in range(clips):
        colour = old[index // 2 % len(old)] if index % 2 else NEW_COLOUR
        ground = str(rng.choice([name for name in BACKGROUNDS if contrasts(colour, name)]))
        shape, motion = SHAPES[(index // 2 + index // 16) % len(SHAPES)], str(rng.choice(motions))
        actor = move(rng, shape, colour, motion, width=64, height=64)
        write_clip(draw(Scene((actor,), ground, 64, 64, 17)), folder / f"{index:03d}.mp4")
        (folder / f"{index:03d}.txt").write_text(plain_caption(colour, shape, motion, ground))


def cases(colours: Sequence[str], count: int, seed: int) -> list[Case]:
    """Prompts that ask for one of `colours`, shapes taken in turn."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        colour = colours[index % len(colours)]
        ground = str(rng.choice([name for name in BACKGROUNDS if contrasts(colour, name)]))
        motion = str(rng.choice(["left", "right", "up", "down", "still"]))
        made.append(Case(colour, SHAPES[index % len(SHAPES)], motion, ground, 64, 64, 5000 + index))
    return made


def outcome(variant: EmbeddedVariant, count: int, sheet: Path | None) -> Outcome:
    """Render and measure prompts for the new colour and for the old ones."""
    sampler = Sampler(variant)
    new, old = cases([NEW_COLOUR], count, 21), cases(list(COLOURS), count, 22)
    new_clips, _ = render(sampler, new, 8)
    old_clips, _ = render(sampler, old, 8)
    verdicts = [judge(measure(clip), c.colour, c.shape, c.motion) for clip, c in zip(new_clips, new, strict=True)]
    kept = [judge(measure(clip), c.colour, c.shape, c.motion).colour for clip, c in zip(old_clips, old, strict=True)]
    if sheet is not None:
        image: Image.Image = contact_sheet(new_clips, verdicts)
        sheet.parent.mkdir(parents=True, exist_ok=True)
        image.save(sheet)
    return Outcome(share_of([v.colour for v in verdicts]), share_of(kept))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_lora", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps and prompts: some minutes")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--out", type=Path, help="keep the adapter, log and curve here")
    parser.add_argument("--sheet", type=Path, help="folder for contact sheets")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    steps, count = given.steps or (150 if given.quick else 500), 16 if given.quick else 48
    base = variants()[0]
    with TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "clips", given.out or Path(scratch) / "lora"
        data.mkdir()
        make_data(data, 96)
        before = outcome(base, count, given.sheet and given.sheet / "before.png")
        config = FinetuneConfig(
            weights=str(base.folder),
            pipeline="LTXPipeline",
            data=data,
            out=out,
            lora_rank=given.rank,
            steps=steps,
            batch=8,
            shift=2.0,
        )
        result = finetune(
            config, lambda step, loss: print(f"step {step}/{steps} loss {loss:.3f}", end="\r", flush=True)
        )
        after = outcome(replace(base, name="tuned", loras=(out,)), count, given.sheet and given.sheet / "after.png")
    print(f"\ntrained {steps} steps in {result.seconds:.0f} s, loss {result.first_loss:.3f} -> {result.last_loss:.3f}")
    for name in ("new_colour", "old_colours"):
        a, b = getattr(before, name), getattr(after, name)
        print(f"{name:24} before {a.obeyed}/{a.asked} = {a.share:.0%}   after {b.obeyed}/{b.asked} = {b.share:.0%}")
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "before": asdict(before),
            "after": asdict(after),
            "steps": steps,
            "rank": given.rank,
            "seconds": result.seconds,
        }
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

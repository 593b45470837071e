"""What the watermark survives: detection after what happens to clips, beside false alarms without a mark.

    python -m benchmarks.watermark_robustness [--quick] [--json FILE]

Clips are marked, encoded as they are published, then changed and looked at; the very same clips without a mark are
changed and looked at alike. Clips are textures whose power falls with frequency as in nature, still and drifting, and
drawn scenes with flat areas, at 512×320 and 256×256. `found` and `read`: the share in which the mark is detected at a
false-alarm probability of 10⁻⁶, and in which its 64 bits come out right.
"""

import argparse
import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from actors.decoder import read_frames
from actors.encoder import EncoderSettings, encode
from benchmarks.report import write_report
from models.model import Frames
from schemas.clip import ClipFormat
from trust.watermark import FALSE_ALARMS, detect, embed

GOAL_PSNR_DB = 42.0
GOAL_FRAME_MS = 5.0
_SIZES = ((512, 320), (256, 256))
_PAYLOAD = bytes.fromhex("0123456789abcdef")

Change = Callable[[Frames], Frames]


def texture(seed: int, frames: int, width: int, height: int, pan: int, least_fall: float = 0.7) -> Frames:
    """Clouds, as nature has them: power falls with frequency, by no smaller a power than `least_fall`. They drift by
    `pan` pixels a frame."""
    rng = np.random.default_rng(seed)
    wide = width + pan * frames
    across, down = np.fft.fftfreq(wide)[None], np.fft.fftfreq(height)[:, None]
    fall = np.maximum(np.hypot(across, down), 1 / wide) ** rng.uniform(least_fall, 1.6)
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, wide))) / fall).real
    grey = np.clip(125 + 40 * (field - field.mean()) / field.std(), 0, 255)
    picture = (grey[..., None] * rng.uniform(0.7, 1.0, 3)).astype(np.uint8)
    return np.stack([picture[:, pan * k : pan * k + width] for k in range(frames)])


def drawn(seed: int, frames: int, width: int, height: int) -> Frames:
    """A disc that crosses a flat or shaded ground."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width]
    shade = rng.uniform(0, 120) * across / width
    ground = rng.uniform(40, 130, 3) + shade[..., None]
    colour, clips = rng.uniform(0, 255, 3), []
    for k in range(frames):
        centre = width * (0.2 + 0.6 * k / frames)
        disc = (down - height / 2) ** 2 + (across - centre) ** 2 < (height / 6) ** 2
        clips.append(np.where(disc[..., None], colour, ground).astype(np.uint8))
    return np.stack(clips)


def coded(frames: Frames, crf: int) -> Frames:
    """Through H.264 and back."""
    with tempfile.TemporaryDirectory(prefix="rushes-watermark-") as folder:
        path = Path(folder, "clip.mp4")
        encode(frames, 16, ClipFormat.MP4, path, {}, EncoderSettings(crf=crf))
        return np.stack([np.asarray(image) for image in read_frames(path.read_bytes(), ClipFormat.MP4)])


def clip_bytes(frames: Frames) -> int:
    """As it is published."""
    with tempfile.TemporaryDirectory(prefix="rushes-watermark-") as folder:
        path = Path(folder, "clip.mp4")
        encode(frames, 16, ClipFormat.MP4, path)
        return path.stat().st_size


def scaled(frames: Frames, factor: float) -> Frames:
    width, height = (2 * round(factor * side / 2) for side in (frames.shape[2], frames.shape[1]))
    each = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(image) for image in each])


def cropped(frames: Frames, left: float, right: float, above: float, below: float) -> Frames:
    height, width = frames.shape[1:3]
    rows = slice(round(above * height), height - round(below * height))
    return frames[:, rows, round(left * width) : width - round(right * width)]


def as_gif(frames: Frames) -> Frames:
    first, *rest = (Image.fromarray(frame) for frame in frames[:4])
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=rest)
    return np.stack([np.asarray(image) for image in read_frames(out.getvalue(), ClipFormat.GIF)])


def jpeg(frames: Frames, quality: int) -> Frames:
    out = io.BytesIO()
    Image.fromarray(frames[0]).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))[None]


def turned(frames: Frames, degrees: float) -> Frames:
    each = (Image.fromarray(frame).rotate(degrees, Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(image) for image in each])


def contrasted(frames: Frames, factor: float) -> Frames:
    return np.clip(128 + factor * (frames.astype(np.float32) - 128), 0, 255).astype(np.uint8)


PROMISED: dict[str, Change] = {
    "as published (CRF 20)": lambda f: f,
    "re-encoded at CRF 28": lambda f: coded(f, 28),
    "scaled to 50 %, CRF 28": lambda f: coded(scaled(f, 0.5), 28),
    "10 % cut, 5 % each side, CRF 28": lambda f: coded(cropped(f, 0.05, 0.05, 0.05, 0.05), 28),
    "10 % cut, above and left, CRF 28": lambda f: coded(cropped(f, 0.1, 0.0, 0.1, 0.0), 28),
    "half the frame rate, CRF 28": lambda f: coded(f[::2], 28),
    "GIF": as_gif,
}
NOT_PROMISED: dict[str, Change] = {
    "10 % cut, scaled to 50 %, CRF 28": lambda f: coded(scaled(cropped(f, 0.05, 0.05, 0.05, 0.05), 0.5), 28),
    "re-encoded at CRF 35": lambda f: coded(f, 35),
    "one frame as JPEG 75": lambda f: jpeg(f, 75),
    "brighter by 12": lambda f: np.clip(f.astype(np.int16) + 12, 0, 255).astype(np.uint8),
    "contrast 90 %": lambda f: contrasted(f, 0.9),
    "20 % cut": lambda f: cropped(f, 0.1, 0.1, 0.1, 0.1),
    "turned by 2°": lambda f: turned(f, 2.0),
    "mirrored": lambda f: f[:, :, ::-1],
}


def main() -> None:
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three clips of one size")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    count, frames, sizes = (1, 6, _SIZES[:1]) if arguments.quick else (2, 10, _SIZES)
    rows: list[dict[str, Any]] = []
    psnr_db, frame_ms, growth = [], [], []
    table = Table("size", "after", "found", "read", "false", "least score / threshold")
    for width, height in sizes:
        originals = [texture(10 * k + pan, frames, width, height, pan) for k in range(count) for pan in (0, 2)]
        originals += [drawn(k, frames, width, height) for k in range(count)]
        marked = []
        for clip in originals:
            started = time.perf_counter()
            marked.append(embed(clip, _PAYLOAD))
            frame_ms.append(1000 * (time.perf_counter() - started) / len(clip))
            psnr_db.append(10 * math.log10(255**2 / np.mean((marked[-1].astype(np.float32) - clip) ** 2)))
            growth.append(clip_bytes(marked[-1]) / clip_bytes(clip))
        published = [coded(clip, 20) for clip in marked]
        without = [coded(clip, 20) for clip in originals]
        for name, change in (PROMISED | NOT_PROMISED).items():
            found = [detect(change(clip)) for clip in published]
            false = [detect(change(clip)) for clip in without]
            there = [mark for mark in found if mark is not None]
            read, alarms = sum(mark.payload == _PAYLOAD for mark in there), sum(mark is not None for mark in false)
            margin = min((mark.score / mark.threshold for mark in there), default=None)
            shares = {"clips": len(found), "found": len(there), "read": read, "false_alarms": alarms}
            size, promised = f"{width}×{height}", name in PROMISED
            rows.append({"size": size, "after": name, "promised": promised, **shares, "least_margin": margin})
            counted = [f"{number}/{len(found)}" for number in (len(there), read, alarms)]
            table.add_row(size, name if promised else f"({name})", *counted, f"{margin:.2f}" if margin else "–")
    Console(width=110).print(table)
    least_db, median_ms = min(psnr_db), statistics.median(frame_ms)
    print("in brackets: not promised. A score is e^(score − threshold) times less likely without a mark than 5·10⁻⁷.")
    met = "met" if least_db >= GOAL_PSNR_DB else "missed"
    middle_db = statistics.median(psnr_db)
    print(f"goal PSNR ≥ {GOAL_PSNR_DB:.0f} dB: {met} (least {least_db:.2f} dB, median {middle_db:.2f} dB)")
    met = "met" if median_ms <= GOAL_FRAME_MS else "missed"
    print(f"goal ≤ {GOAL_FRAME_MS:.0f} ms a frame: {met} ({median_ms:.1f} ms)")
    print(f"marked clips are {statistics.median(growth):.2f} times as large (median)")
    figures = {
        "rows": rows,
        "false_alarm_probability": FALSE_ALARMS,
        "psnr_db": {"least": least_db, "median": middle_db},
        "frame_ms": median_ms,
        "size_ratio": statistics.median(growth),
        "goals": {"psnr_db": GOAL_PSNR_DB, "frame_ms": GOAL_FRAME_MS},
    }
    print(f"figures: {write_report('watermark_robustness', figures, arguments.json)}")


if __name__ == "__main__":
    main()

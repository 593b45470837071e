"""What a VAE takes on a CPU: `python -m benchmarks.vae_cpu [--quick] [--threads 1 2] [--json OUT]`.

By turns with what the libraries do by themselves, in the same process:

- **kernels**: convolutions over time and plane at the shapes that a VAE gives them when it goes through a video in
  chunks: torch's choice, the same with channels innermost, a sum of convolutions over the plane, one convolution over
  the plane of frames that were joined by channel, and oneDNN called at once;
- **VAEs** of several families, of random weights and few channels, and the two that ship (`training/narrow_vaes.py`):
  encoding and decoding as `models/cpu_convolution.py` has them, and how far results are from the libraries' own;
- **clips** of the variants that ship: with both that and `models/encodings.py`, and with neither. The first clip of a
  kind encodes; the others are of other prompts, and of other pictures where they have any.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmarks.report import write_report
from models import cpu_convolution
from models.cpu_convolution import quicken
from models.encodings import Encodings
from models.loaded import LoadedModel
from models.loader import load
from models.model import TaskMedia, ignore_step, nobody_cancelled
from schemas.catalog import Variant, shipped_catalog
from schemas.conditions import Condition
from schemas.inputs import Role
from schemas.request import Mode
from schemas.task import Group, RenderBatch, Task
from training.narrow_vaes import narrow_vaes

# Inputs (channels, frames, height, width), channels out and kernels: of the VAE of `directed`, then of larger ones.
SHAPES = (
    ((8, 6, 130, 130), 8, (3, 3, 3)),
    ((8, 6, 130, 130), 3, (3, 3, 3)),
    ((16, 6, 66, 66), 16, (3, 3, 3)),
    ((8, 6, 66, 66), 16, (3, 3, 3)),
    ((32, 4, 34, 34), 32, (3, 3, 3)),
    ((32, 3, 18, 18), 32, (3, 3, 3)),
    ((32, 3, 16, 16), 64, (3, 1, 1)),
    ((96, 3, 62, 82), 96, (3, 3, 3)),
    ((96, 6, 122, 162), 96, (3, 3, 3)),
    ((384, 3, 32, 42), 384, (3, 3, 3)),
    ((192, 4, 60, 80), 96, (1, 1, 1)),
    ((320, 16, 8, 8), 320, (3, 1, 1)),
)

Convolve = Callable[[Tensor, Tensor, Tensor], Tensor]


def innermost(video: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    layout = torch.channels_last_3d
    return F.conv3d(video.contiguous(memory_format=layout), weight.contiguous(memory_format=layout), bias)


def sum_over_time(video: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One convolution over the plane for each frame of the kernel."""
    made = video.shape[2] - weight.shape[2] + 1
    frames = video[0].transpose(0, 1)
    total = F.conv2d(frames[:made], weight[:, :, 0], bias)
    for at in range(1, weight.shape[2]):
        total += F.conv2d(frames[at : at + made], weight[:, :, at])
    return total.transpose(0, 1)[None]


def joined_frames(video: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One convolution over the plane, of as many channels as the kernel sees in all its frames."""
    made = video.shape[2] - weight.shape[2] + 1
    frames = video[0].transpose(0, 1)
    joined = torch.cat([frames[at : at + made] for at in range(weight.shape[2])], 1)
    return F.conv2d(joined, weight.transpose(1, 2).flatten(1, 2), bias).transpose(0, 1)[None]


def direct(video: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.mkldnn_convolution(video, weight, bias, (0, 0, 0), (1, 1, 1), (1, 1, 1), 1)


KERNELS: dict[str, Convolve] = {
    "torch": lambda video, weight, bias: F.conv3d(video, weight, bias),
    "innermost": innermost,
    "sum_over_time": sum_over_time,
    "joined_frames": joined_frames,
    "onednn": direct,
}


def by_turns(calls: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Milliseconds of each, the least of the turns: others on the machine only ever add."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(turns):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            taken[name].append(1000 * (time.perf_counter() - started))
    return {name: min(one) for name, one in taken.items()}


def kernels(turns: int) -> list[dict[str, Any]]:
    """Of each shape, each way, and whether it is one that `quicken` gives to oneDNN."""
    rows = []
    for (channels, *size), out, kernel in SHAPES:
        conv = nn.Conv3d(channels, out, kernel)
        assert conv.bias is not None
        video, weight, bias = torch.randn(1, channels, *size), conv.weight, conv.bias
        calls = {name: partial(way, video, weight, bias) for name, way in KERNELS.items()}
        row = {"input": [channels, *size], "channels_out": out, "kernel": list(kernel)}
        taken = by_turns(calls, turns)
        rows.append({**row, "ms": taken, "goes_to_onednn": cpu_convolution._pays(conv, video, weight)})
    return rows


def vaes(turns: int, quick: bool) -> list[dict[str, Any]]:
    rows = []
    for name, (stock, frames, side) in narrow_vaes().items():
        if quick and name not in ("directed", "shapes", "CogVideoX"):
            continue
        stock.eval()
        fast = copy.deepcopy(stock)
        quicken(fast)
        video = torch.rand(1, 3, frames, side, side) * 2 - 1
        latents = stock.encode(video).latent_dist.mode()

        def encode(vae: Any, video: Tensor = video) -> Tensor:
            return vae.encode(video).latent_dist.mode()

        def decode(vae: Any, latents: Tensor = latents) -> Tensor:
            return vae.decode(latents).sample

        row: dict[str, Any] = {"vae": name, "video": [frames, side, side]}
        for what, call in (("encode", encode), ("decode", decode)):
            plain = call(stock)
            taken = by_turns({"stock": partial(call, stock), "quick": partial(call, fast)}, turns)
            row[what] = {
                "ms": taken,
                "ratio": taken["quick"] / taken["stock"],
                "largest_difference": float((call(fast) - plain).abs().max()),
                "largest_value": float(plain.abs().max()),
            }
        rows.append(row)
    return rows


def picture(seed: int, variant: Variant) -> Image.Image:
    shape = variant.shape.default()
    pixels = np.random.default_rng(seed).integers(0, 256, (shape.height, shape.width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def kinds_of(variant: Variant) -> dict[str, tuple[Mode, tuple[Condition, ...], Callable[[int], TaskMedia]]]:
    """Clips of text, with a first frame, and of a source with a mask where the variant takes one; media by number."""
    shape = variant.shape.default()

    def masked(number: int) -> TaskMedia:
        mask = np.zeros((shape.height, shape.width), dtype=np.uint8)
        mask[20 + number : 80, 30:90] = 255
        source = tuple(picture(100 * number + frame, variant) for frame in range(shape.frames))
        return TaskMedia((source, Image.fromarray(mask)))

    first = (Condition(role=Role.FIRST_FRAME, medium="image", frame=0),)
    kinds: dict[str, tuple[Mode, tuple[Condition, ...], Callable[[int], TaskMedia]]] = {
        "text": (Mode.TEXT_TO_VIDEO, (), lambda _: TaskMedia()),
        "first frame": (Mode.IMAGE_TO_VIDEO, first, lambda number: TaskMedia((picture(number, variant),))),
    }
    if variant.name == "directed":
        conditions = (Condition(role=Role.SOURCE, medium="video"), Condition(role=Role.MASK, medium="image"))
        kinds["source and mask"] = (Mode.VIDEO_TO_VIDEO, conditions, masked)
    return kinds


def seconds(model: LoadedModel, group: Group, number: int, media: TaskMedia) -> tuple[float, Any]:
    prompt = f"a red circle moving left, take {number}"
    batch = RenderBatch(group, (Task(group.fingerprint(prompt, "", number), prompt, "", number),))
    started = time.perf_counter()
    (clip,) = model.render(batch, (media,), ignore_step, nobody_cancelled)
    taken = time.perf_counter() - started
    if not isinstance(clip, np.ndarray):
        raise SystemExit(f"{model.variant.name} made no clip: {clip}")
    return taken, clip


@contextmanager
def as_the_libraries_do() -> Iterator[None]:
    """Inside, models are loaded with stock VAEs."""
    found = cpu_convolution._has_fast_kernels
    cpu_convolution._has_fast_kernels = lambda: False
    try:
        yield
    finally:
        cpu_convolution._has_fast_kernels = found


def clips(name: str, count: int) -> list[dict[str, Any]]:
    variant = shipped_catalog()[name]
    shape = variant.shape.default()
    with as_the_libraries_do():
        stock = replace(load(variant, device="cpu"), encodings=Encodings(0))
    quick = load(variant, device="cpu")
    rows = []
    for kind, (mode, conditions, media) in kinds_of(variant).items():
        fresh = replace(quick, encodings=Encodings())
        group = Group(
            variant=variant.name,
            variant_digest=variant.digest,
            mode=mode,
            width=shape.width,
            height=shape.height,
            frames=shape.frames,
            fps=variant.fps,
            steps=variant.steps,
            guidance=variant.guidance,
            conditions=conditions,
        )
        taken: dict[str, list[float]] = {"stock": [], "quick": []}
        seconds(stock, group, 0, media(0))  # the first call pays for what later ones reuse
        first, _ = seconds(fresh, group, 0, media(0))
        farthest = 0
        for number in range(1, count + 1):
            made = []
            for key, model in (("stock", stock), ("quick", fresh)):
                one, clip = seconds(model, group, number, media(number))
                taken[key].append(one)
                made.append(clip.astype(int))
            farthest = max(farthest, int(np.abs(made[1] - made[0]).max()))
        middle = {key: statistics.median(each) for key, each in taken.items()}
        rows.append(
            {
                "variant": name,
                "kind": kind,
                "seconds_stock": middle["stock"],
                "seconds_quick": middle["quick"],
                "seconds_first": first,
                "ratio": middle["quick"] / middle["stock"],
                "farthest_of_255": farthest,
                "encodings": vars(fresh.encodings.counts),
            }
        )
    return rows


@torch.no_grad()
def measure(threads: int, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    turns = 3 if quick else 7
    return {
        "threads": threads,
        "kernels": kernels(3 * turns),
        "vaes": vaes(turns, quick),
        "clips": [row for name in ("directed", "shapes", "shapes-turbo") for row in clips(name, turns)],
    }


def show(figures: dict[str, Any]) -> None:
    print(
        f"\n{figures['threads']} thread(s)\n{'input':22} {'out':>4} kernel   " + " ".join(f"{k:>13}" for k in KERNELS)
    )
    for row in figures["kernels"]:
        size, kernel = "×".join(map(str, row["input"])), "×".join(map(str, row["kernel"]))
        taken = " ".join(f"{row['ms'][name]:10.2f} ms" for name in KERNELS)
        print(f"{size:22} {row['channels_out']:4} {kernel:8} {taken}{' *' if row['goes_to_onednn'] else ''}")
    print("* goes to onednn")
    for row in figures["vaes"]:
        told = [
            f"{what} {row[what]['ms']['stock']:.0f} → {row[what]['ms']['quick']:.0f} ms, "
            f"ratio {row[what]['ratio']:.2f}, {row[what]['largest_difference']:.0e} off"
            for what in ("encode", "decode")
        ]
        print(f"{row['vae']:18} {'; '.join(told)}")
    for row in figures["clips"]:
        taken = f"{row['seconds_stock']:.3f} → {row['seconds_quick']:.3f} s a clip, ratio {row['ratio']:.2f}"
        rest = f"the first {row['seconds_first']:.3f} s; at most {row['farthest_of_255']} of 255 off"
        print(f"{row['variant']:13} {row['kind']:16} {taken}, {rest}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vae_cpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer VAEs and turns, one thread")
    parser.add_argument("--threads", type=int, nargs="+", help="how many; one after the other (1 and 2, or 1 if quick)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(arguments)
    runs = []
    for threads in given.threads or ((1,) if given.quick else (1, 2)):
        runs.append(measure(threads, given.quick))
        show(runs[-1])
    print(write_report("vae_cpu", {"runs": runs, "quick": given.quick}, given.json))


if __name__ == "__main__":
    main()

"""What it saves to encode each text once: `python -m benchmarks.prompt_cache [--quick] [--json OUT]`.

The same batches are rendered with the cache and without, by turns, by one loaded model: prompts with several seeds
each, as studies have them, guided, so that every batch has negative prompts too. Two models:

- `heavy`: a text encoder of random weights (UMT5's form) beside a tiny denoiser, so that encoding is nearly all there
  is: the most that the cache can save where an encoder is large;
- `embedded`: the model that ships, whose encoder is small: looking texts up is to cost nothing where there is little to
  save.

Clips have to be equal byte for byte. Also: seconds a text, encoded, from memory, and from a store in a folder.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.embeddings import StoredEmbeddings
from benchmarks.report import write_report
from models.loaded import LoadedModel
from models.loader import load
from models.model import PromptCounts, TaskMedia, ignore_step, nobody_cancelled
from models.prompt_cache import PromptCache
from schemas.catalog import Variant, shipped_catalog
from schemas.task import Group, RenderBatch, Task
from storage.store import open_store
from training.tiny import save
from training.tiny_dit import wan

FRAMES, SIDE = 5, 32


@dataclass(frozen=True)
class Compared:
    """Seconds of all batches, the middle of several turns."""

    model: str
    encoder_parameters: int
    clips: int
    texts: int
    distinct: int
    seconds_with: float
    seconds_without: float
    equal: bool

    @property
    def ratio(self) -> float:
        """Below 1: the cache is faster."""
        return self.seconds_with / self.seconds_without


def batches(variant: Variant, prompts: int, seeds: int, size: int) -> list[RenderBatch]:
    """Every prompt with every seed, `size` tasks a call, the seeds of a prompt beside each other."""
    shape = variant.shape.default()
    group = Group(
        variant=variant.name,
        variant_digest=variant.digest,
        mode=variant.modes[0],
        width=shape.width,
        height=shape.height,
        frames=shape.frames,
        fps=variant.fps,
        steps=min(variant.steps, 2),
        guidance=max(variant.guidance, 2.0),
    )
    tasks = []
    for number in range(prompts):
        prompt = f"a red circle moving left, take {number}"
        tasks += [Task(group.fingerprint(prompt, "", seed), prompt, "", seed) for seed in range(seeds)]
    return [RenderBatch(group, tuple(tasks[at : at + size])) for at in range(0, len(tasks), size)]


def rendered(model: LoadedModel, work: Sequence[RenderBatch]) -> tuple[float, list[Any]]:
    """Seconds, and the clips."""
    started = time.perf_counter()
    clips: list[Any] = []
    for batch in work:
        clips += model.render(batch, (TaskMedia(),) * len(batch.tasks), ignore_step, nobody_cancelled)
    return time.perf_counter() - started, clips


def with_memory(model: LoadedModel, memory_bytes: int, **more: Any) -> LoadedModel:
    """The model with an empty cache."""
    return replace(model, prompts=PromptCache(model.prompts.identity, memory_bytes, **more))


def compare(name: str, model: LoadedModel, prompts: int, seeds: int, size: int, turns: int) -> Compared:
    """By turns, each with an empty cache."""
    work = batches(model.variant, prompts, seeds, size)
    rendered(with_memory(model, 0), work[:1])  # the first call pays for what later ones reuse
    taken: dict[bool, list[float]] = {True: [], False: []}
    clips: dict[bool, list[Any]] = {}
    counts = PromptCounts()
    for turn in range(2 * turns):
        is_kept = turn % 2 == 0
        one = with_memory(model, 1 << 30 if is_kept else 0)
        seconds, clips[is_kept] = rendered(one, work)
        taken[is_kept].append(seconds)
        counts = one.prompt_counts if is_kept else counts
    equal = all(np.array_equal(a, b) for a, b in zip(clips[True], clips[False], strict=True))
    return Compared(
        model=name,
        encoder_parameters=parameters(model),
        clips=len(clips[True]),
        texts=counts.encoded + counts.reused,
        distinct=counts.encoded,
        seconds_with=statistics.median(taken[True]),
        seconds_without=statistics.median(taken[False]),
        equal=equal,
    )


def parameters(model: LoadedModel) -> int:
    pipe = next(iter(model.pipes.values()))
    return sum(p.numel() for p in pipe.text_encoder.parameters())


def seconds_a_text(model: LoadedModel, texts: int, folder: Path) -> dict[str, float]:
    """Encoded, from memory, and from a folder that another process filled."""
    mode = model.variant.modes[0]
    pipe = model.pipes[mode]
    prompts = [f"text number {number}" for number in range(texts)]
    store = StoredEmbeddings(open_store(str(folder), fsync=False))
    first, other = (with_memory(model, 1 << 30, store=store, large_parameters=0) for _ in range(2))

    def timed(one: LoadedModel) -> float:
        started = time.perf_counter()
        with torch.no_grad(), one.prompts.attached(pipe):
            for prompt in prompts:
                pipe._get_t5_prompt_embeds(prompt=[prompt])
        return (time.perf_counter() - started) / texts

    return {
        "encoded": timed(with_memory(model, 0)),
        "encoded_and_stored": timed(first),
        "from_memory": timed(first),
        "from_store": timed(other),
    }


def heavy(folder: Path, width: int, layers: int) -> LoadedModel:
    """A tiny Wan with a large text encoder."""
    save(wan(text_width=width, text_layers=layers), folder)
    entry: dict[str, Any] = {
        "name": "heavy",
        "weights": str(folder),
        "pipeline": "WanPipeline",
        "modes": ("text_to_video",),
        "dtype": "float32",
        "steps": 2,
        "guidance": 3.0,
        "fps": 8,
        "shape": {"divisor": 16, "max_frames": 81, "max_pixels": 65536, "native": [(SIDE, SIDE, FRAMES)]},
        "latent": {"channels": 16, "spatial": 8, "temporal": 4},
    }
    return load(Variant.model_validate(entry), device="cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_cache", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, a smaller encoder")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # tiny matrices are slower on several, and a shared machine has not got them
    prompts, seeds, size, turns = (3, 4, 4, 2) if given.quick else (8, 8, 8, 3)
    width, layers = (512, 4) if given.quick else (1024, 8)
    with tempfile.TemporaryDirectory(prefix="rushes-prompt-cache-") as folder:
        large = heavy(Path(folder, "heavy"), width, layers)
        compared = [compare("heavy", large, prompts, seeds, size, turns)]
        each = seconds_a_text(large, 2 * prompts, Path(folder, "store"))
        embedded = load(shipped_catalog()["shapes-turbo"], device="cpu")
        compared.append(compare("embedded", embedded, prompts, seeds, size, turns))
    for one in compared:
        print(
            f"{one.model:9} encoder of {one.encoder_parameters / 1e6:.1f} M, {one.clips} clips: "
            f"{one.seconds_with:.2f} s with, {one.seconds_without:.2f} s without, ratio {one.ratio:.2f}; "
            f"{one.distinct} of {one.texts} texts encoded; clips {'equal' if one.equal else 'DIFFER'}"
        )
    print("a text of `heavy`: " + ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in each.items()))
    figures = {
        "compared": [{**vars(one), "ratio": one.ratio} for one in compared],
        "seconds_a_text": each,
        "quick": given.quick,
    }
    print(write_report("prompt_cache", figures, given.json))
    if not all(one.equal for one in compared):
        raise SystemExit("clips differ with and without the cache")


if __name__ == "__main__":
    main()

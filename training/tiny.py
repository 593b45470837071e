"""Tiny, randomly initialised diffusers pipelines: real classes, real files, no meaning in the pictures.

`build("wan", folder)` makes one from a fixed seed and saves it with `save_pretrained`; it then loads with a plain
`from_pretrained(folder)`, like any checkpoint from the hub. Tests render with them, and `tiny-random` in the catalog
is one. Most are under 3 MB (SVD 7, HunyuanVideo 1.5 19). The sizes follow the ones that diffusers' own tests use.

    python -m training.tiny wan OUT
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from training import tiny_dit, tiny_unet

T = TypeVar("T")

SEED = 20

BUILDERS: Mapping[str, Callable[[], Any]] = {
    "wan": tiny_dit.wan,
    "wan-vace": tiny_dit.wan_vace,
    "ltx": tiny_dit.ltx,
    "cogvideox": tiny_dit.cogvideox,
    "cogvideox-image": tiny_dit.cogvideox_image,
    "cogvideox-control": tiny_dit.cogvideox_control,
    "easyanimate-control": tiny_dit.easyanimate_control,
    "easyanimate-camera": tiny_dit.easyanimate_camera,
    "easyanimate-inpaint": tiny_dit.easyanimate_inpaint,
    "animatediff": tiny_unet.animatediff,
    "svd": tiny_unet.svd,
    "mochi": tiny_dit.mochi,
    "hunyuanvideo": tiny_dit.hunyuanvideo,
    "hunyuanvideo15": tiny_dit.hunyuanvideo15,
}


def build(family: str, folder: Path, dtype: str = "float32") -> Path:
    """Make the tiny pipeline of `family` from a fixed seed and save it into `folder`, which is returned.

    Raises KeyError for a family that BUILDERS does not have.
    """
    import torch

    pipeline = seeded(BUILDERS[family], SEED)
    if dtype != "float32":
        pipeline.to(dtype=getattr(torch, dtype))
    return save(pipeline, folder)


def seeded(make: Callable[[], T], seed: int) -> T:
    """What `make` draws from this seed; torch's own generators go on as if nothing had been drawn."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def save(pipeline: Any, folder: Path) -> Path:
    """Into a folder that loads with a plain `from_pretrained`, whichever transformers wrote it."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # written readable by their owner alone, and this may be committed
    # transformers 5 calls the class TokenizersBackend; the older name loads in 4 and in 5.
    for path in (folder / "model_index.json", *folder.glob("tokenizer*/tokenizer_config.json")):
        path.write_text(path.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.tiny", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("family", choices=sorted(BUILDERS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    options = parser.parse_args(arguments)
    build(options.family, options.folder, options.dtype)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: a tiny random {options.family}, {size / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

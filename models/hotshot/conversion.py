"""A checkpoint in Hotshot-XL's own layout becomes a folder that `AnimateDiffSDXLPipeline.from_pretrained` takes.

The layout: a diffusers folder whose `unet/` is a `UNet3DConditionModel` of the package `hotshot_xl`, an SDXL UNet with
`temporal_attentions` beside the `resnets` of its down and up blocks. Tensors keep their values and types, only their
names change; all else is copied as it stands. Nothing of the checkpoint's is run.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import __version__ as diffusers_version
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from models.components import CHECKPOINT_FILES, read_json
from models.hotshot.checkpoint import (
    TEMPORAL,
    UNetFiles,
    motion_config,
    original_name,
    position_tables,
    renamed,
)
from models.hotshot.unet import HotshotUNet
from models.weights import Weights, check_safe, folder_revision
from schemas.errors import ConfigError, VariantLoadError, first_line

PIPELINE = "AnimateDiffSDXLPipeline"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_COPIED = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae")
# Part of a cached conversion's name: another way to convert makes another folder.
_WAY = "1"


@dataclass(frozen=True)
class Converted:
    """What a conversion made: the folder, its temporal layers, and the longest clip that it renders, in frames."""

    folder: Path
    temporal_layers: int
    max_frames: int


def convert(source: Path, out: Path, *, base: Path | None = None, overwrite: bool = False) -> Converted:
    """Write the checkpoint in `source` as a diffusers folder to `out`, which appears whole or not at all.

    `base` is a personalised SDXL model whose layers take the place of the checkpoint's spatial ones: a diffusers
    folder, which gives the text encoders and the VAE too, or only the folder of its UNet. The scheduler stays the
    checkpoint's, as the temporal layers learned its noise.

    Raises ConfigError where a folder is not what it should be (or `out` is not empty, without `overwrite`), and
    VariantLoadError naming file and tensor where weights are not as their configuration says.
    """
    _check_places(source, out, base, overwrite)
    own = UNetFiles.of(source)
    table_frames = position_tables(own)
    config = motion_config(own, table_frames)
    if base is None:
        names = {renamed(name): (own, name) for name in own.names}
    else:
        other = UNetFiles.of_base(base)
        config = _with_base(config, motion_config(other, table_frames), own, other)
        names = {name: (other, name) for name in other.names}
        names |= {renamed(name): (own, name) for name in own.names if TEMPORAL in name}
    names.pop("", None)  # the second of two equal position tables
    _check_tensors(config, names, own)
    index, folders = _index(source, base)
    with _appearing(out) as part:
        unet = part / "unet"
        unet.mkdir()
        _write_json(unet / "config.json", config)
        save_file(
            {name: files.read(old) for name, (files, old) in names.items()}, unet / _WEIGHTS, metadata={"format": "pt"}
        )
        for name, folder in folders.items():
            (part / name).mkdir()
            for path in sorted(path for pattern in CHECKPOINT_FILES for path in folder.glob(pattern)):
                shutil.copy2(path, part / name / path.name)
        for path in part.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # checkpoints are often read-only, this is not one's cache
        _write_json(part / "model_index.json", index)
    layers = sum(name.endswith(".proj_in.weight") for name in names if ".motion_modules." in name)
    return Converted(out, layers, table_frames)


def converted(weights: Weights, cache: Path, base: Weights | None = None) -> Weights:
    """The checkpoint in `weights` (on `base`, where there is one) converted: once, and kept in `cache` under a name
    that follows the content of both. The revision stays that of the checkpoint."""
    revisions = [folder_revision(one.folder) for one in (weights, base) if one is not None]
    told = " ".join((_WAY, diffusers_version, *revisions))
    folder = cache / "weights" / f"hotshot-{hashlib.sha256(told.encode()).hexdigest()[:24]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            convert(weights.folder, folder, base=None if base is None else base.folder)
    return Weights(folder, weights.revision)


def _check_places(source: Path, out: Path, base: Path | None, overwrite: bool) -> None:
    for name, folder in (("FOLDER", source), ("--base", base)):
        if folder is None:
            continue
        if not folder.is_dir():
            raise ConfigError(f"{name}: {folder} is no folder; a checkpoint of the hub is one once it is downloaded")
        if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
            raise ConfigError(f"--out: {out} is in {folder}, which is only read; available: a folder beside it")
        check_safe(folder)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out} is a file; available: a folder that is not there yet")
    if out.is_dir() and not overwrite and (there := next(iter(sorted(out.iterdir())), None)) is not None:
        raise ConfigError(f"--out: {out} is not empty ({there.name}); available: --overwrite, another folder")


def _with_base(config: dict[str, Any], base: dict[str, Any], own: UNetFiles, other: UNetFiles) -> dict[str, Any]:
    """The configuration of the base's spatial layers with the checkpoint's temporal ones, which must fit them."""
    # What an image was trained at may differ; which layers there are may not.
    for field in sorted(config.keys() | base.keys()):
        if field != "sample_size" and config.get(field) != base.get(field):
            raise ConfigError(
                f"--base: {other.folder} has {field} = {base.get(field)!r} and {own.folder} {config.get(field)!r}: "
                "its layers are not those that the temporal layers were made for; available: models of SDXL's size"
            )
    return {**config, "sample_size": base.get("sample_size")}


def _check_tensors(config: Mapping[str, Any], names: Mapping[str, tuple[UNetFiles, str]], own: UNetFiles) -> None:
    """Hold what the files have against what the UNet has. Raises VariantLoadError naming the first that is wrong."""
    with torch.device("meta"):
        expected = {
            name: tuple(value.shape) for name, value in HotshotUNet.from_config(dict(config)).state_dict().items()
        }
    for name, shape in expected.items():
        if name not in names:
            raise VariantLoadError(f"{own.folder}: the tensor {original_name(name)} is missing")
        files, old = names[name]
        if files.shape(old) != shape:
            raise VariantLoadError(
                f"{files.names[old]}: {old} is {list(files.shape(old))}; by {files.folder / 'config.json'} it is "
                f"{list(shape)}"
            )
    unknown = next((name for name in names if name not in expected), None)
    if unknown is not None:
        files, old = names[unknown]
        raise VariantLoadError(
            f"{files.names[old]}: {old} is a tensor of no layer that {files.folder / 'config.json'} has"
        )


def _index(source: Path, base: Path | None) -> tuple[dict[str, Any], dict[str, Path]]:
    """The content of `model_index.json`, and where each folder that is copied comes from."""
    said = {folder: read_json(folder / "model_index.json") or {} for folder in (source, base) if folder is not None}
    whole_base = base is not None and bool(said[base])
    index: dict[str, Any] = {"_class_name": PIPELINE, "_diffusers_version": diffusers_version}
    folders: dict[str, Path] = {}
    for name in _COPIED:
        order = (source, base) if name == "scheduler" or not whole_base else (base, source)
        found = next((folder for folder in order if folder is not None and _has(said[folder], folder, name)), None)
        if found is None:
            raise ConfigError(
                f"{source}: {name}/ is missing, or not named in model_index.json; "
                "available: the whole checkpoint, or --base with a whole SDXL folder"
            )
        index[name], folders[name] = said[found][name], found / name
    index["force_zeros_for_empty_prompt"] = said[folders["text_encoder"].parent].get(
        "force_zeros_for_empty_prompt", True
    )
    # The temporal layers are in the UNet; images beside the prompt need what neither folder has.
    index |= {name: [None, None] for name in ("feature_extractor", "image_encoder", "motion_adapter")}
    return {**index, "unet": [HotshotUNet.__module__, HotshotUNet.__name__]}, folders


def _has(index: Mapping[str, Any], folder: Path, name: str) -> bool:
    entry = index.get(name)
    return isinstance(entry, list) and entry[0] is not None and (folder / name).is_dir()


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that becomes `out` when the block ends well, and is removed when it does not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        part.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be made: {first_line(error)}") from error
    try:
        yield part
        if out.is_dir() and any(out.iterdir()):
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
            out.rename(old)
            part.rename(out)
            shutil.rmtree(old)
        else:
            part.rename(out)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"--out: {out} cannot be written: {first_line(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")

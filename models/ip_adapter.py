"""IP-Adapters: networks that show a UNet pictures beside its prompt, for how the clip is to look."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from models.model import Pictures, TaskMedia
from models.weights import explain
from schemas.catalog import Variant
from schemas.conditions import Condition
from schemas.errors import VariantLoadError
from schemas.inputs import Role
from schemas.parts import IpAdapter
from schemas.task import Group

_FAMILIES = ("image_proj.", "ip_adapter.")


def files_of(part: IpAdapter) -> tuple[str, ...]:
    """What is read of its source, as patterns."""
    encoder = _encoder(part)
    return (str(PurePosixPath(part.weight_file)), f"{encoder}/*.safetensors", f"{encoder}/*.json")


def add_ip_adapter(variant: Variant, pipe: Any, part: IpAdapter, folder: Path) -> None:
    """Load it into the pipeline's UNet, and the encoder of its pictures where the pipeline has none.

    Raises VariantLoadError where it is not there, is no IP-Adapter, or was made for another UNet.
    """
    name = f"variant {variant.name!r}: ip_adapter {part.source}"
    path = PurePosixPath(part.weight_file)
    _check(folder / path, name)
    has_encoder = getattr(pipe, "image_encoder", None) is not None
    if not has_encoder and not (folder / _encoder(part) / "config.json").is_file():
        raise VariantLoadError(f"{name}: no image encoder in {_encoder(part)}, and none in the weights")
    try:
        pipe.load_ip_adapter(
            str(folder),
            subfolder="" if path.parent == PurePosixPath() else str(path.parent),
            weight_name=path.name,
            # A path of one name is taken as beside the weights, any other from the folder.
            image_encoder_folder=None if has_encoder else f"./{_encoder(part)}",
            local_files_only=True,
        )
    except (KeyError, RuntimeError, ValueError) as error:
        raise VariantLoadError(f"{name}: it was not made for this UNet: {explain(error)}") from error


def style_scale(group: Group) -> float:
    """How strongly it acts in a call: 0 where there is no style, which leaves every bit of the clip as without it."""
    styles = [one for one in group.conditions if one.role is Role.STYLE]
    strengths = [one.strength for one in styles if one.strength is not None]
    return strengths[0] if strengths else float(bool(styles))


def style_arguments(group: Group, given: Sequence[tuple[Condition, Pictures]]) -> dict[str, Any]:
    """The argument of a call for one task: all pictures of its style. The UNet wants one in any case."""
    shown = [media for one, media in given if one.role is Role.STYLE]
    return {"ip_adapter_image": [shown or [Image.new("RGB", (group.width, group.height))]]}


def without_styles(group: Group, media: Sequence[TaskMedia]) -> tuple[Group, tuple[TaskMedia, ...]]:
    """What is left for the class's other arguments."""
    kept = [place for place, one in enumerate(group.conditions) if one.role is not Role.STYLE]
    conditions = tuple(group.conditions[place] for place in kept)
    others = tuple(replace(one, inputs=tuple(one.inputs[place] for place in kept)) for one in media)
    return group.model_copy(update={"conditions": conditions}), others


def _encoder(part: IpAdapter) -> str:
    beside = PurePosixPath(part.weight_file).parent / "image_encoder"
    return str(PurePosixPath(part.image_encoder or beside))


def _check(file: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors":
        raise VariantLoadError(f"{name}: {file.name}: only .safetensors are read")
    try:
        with safe_open(file, framework="pt") as opened:
            keys = tuple(opened.keys())
    except FileNotFoundError as error:
        there = ", ".join(sorted(one.name for one in file.parent.glob("*.safetensors"))) or "none"
        raise VariantLoadError(f"{name}: no {file.name} in it; available: {there}") from error
    except (OSError, SafetensorError) as error:
        raise VariantLoadError(f"{name}: {file.name} cannot be read: {explain(error)}") from error
    if not all(any(key.startswith(family) for key in keys) for family in _FAMILIES):
        raise VariantLoadError(f"{name}: {file.name} is no IP-Adapter: it has no {' and '.join(_FAMILIES)}… tensors")

"""ControlNets: from a folder to the network that a pipeline is built with, and whether it fits that pipeline."""

from pathlib import Path
from typing import Any

from models.components import read_json
from models.weights import check_safe
from schemas.errors import VariantLoadError

CLASSES = ("ControlNetModel", "SparseControlNetModel")
# What a ControlNet has in common with the UNet that it was made for.
_SHARED = ("block_out_channels", "cross_attention_dim", "layers_per_block", "projection_class_embeddings_input_dim")


def load_controlnet(folder: Path, dtype: Any, wanted: str = CLASSES[0]) -> Any:
    """The network in `folder` (safetensors, in diffusers' format), of the class `wanted`.

    Raises VariantLoadError where there is none, or one of another class.
    """
    import diffusers

    config = read_json(folder / "config.json")
    if config is None:
        raise VariantLoadError(f"controlnet {folder}: no config.json in it, which a ControlNet of diffusers has")
    check_safe(folder)
    # Converted ones of other tools do not always say.
    found = config.get("_class_name", wanted)
    if found != wanted:
        raise VariantLoadError(f"controlnet {folder}: it is a {found}, and the pipeline takes a {wanted}")
    return getattr(diffusers, wanted).from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, local_files_only=True
    )


def class_for(pipeline: str) -> str:
    """Which of the classes a pipeline class takes."""
    return CLASSES["Sparse" in pipeline]


def check_fits(controlnet: Any, unet: Any, name: str) -> None:
    """Raises VariantLoadError where `controlnet`, called `name`, was made for a UNet of other sizes."""
    for field in _SHARED:
        theirs, ours = _plain(controlnet.config.get(field)), _plain(unet.config.get(field))
        if theirs != ours:
            raise VariantLoadError(f"controlnet {name}: {field} is {theirs}, and that of the UNet is {ours}")


def _plain(value: Any) -> Any:
    # Configurations have lists from JSON and tuples from calls; one number may stand for all blocks.
    if isinstance(value, list | tuple):
        return value[0] if len(set(value)) == 1 else tuple(value)
    return value

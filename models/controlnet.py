"""ControlNets: from a folder to the network that a pipeline is built with, and whether it fits that pipeline."""

from pathlib import Path
from typing import Any

from models.components import read_json
from models.weights import check_safe
from schemas.errors import VariantLoadError

CLASSES = ("ControlNetModel", "SparseControlNetModel", "CosmosControlNetModel")
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
    return CLASSES[2 if pipeline.startswith("Cosmos") else "Sparse" in pipeline]


def check_fits(controlnet: Any, denoiser: Any, name: str) -> None:
    """Raises VariantLoadError where `controlnet`, called `name`, was made for a denoiser of other sizes."""
    if type(controlnet).__name__ == "CosmosControlNetModel":
        _check_fits_transformer(controlnet.config, denoiser.config, name)
        return
    for field in _SHARED:
        theirs, ours = _plain(controlnet.config.get(field)), _plain(denoiser.config.get(field))
        if theirs != ours:
            raise VariantLoadError(f"controlnet {name}: {field} is {theirs}, and that of the UNet is {ours}")


def _check_fits_transformer(net: Any, transformer: Any, name: str) -> None:
    every = transformer.controlnet_block_every_n
    if every is None:
        raise VariantLoadError(f"controlnet {name}: the transformer takes none: controlnet_block_every_n is not set")
    sizes = {
        "patch_size": (_plain(net.patch_size), _plain(transformer.patch_size)),
        "num_attention_heads": (net.num_attention_heads, transformer.num_attention_heads),
        "attention_head_dim": (net.attention_head_dim, transformer.attention_head_dim),
        "model_channels": (net.model_channels, transformer.num_attention_heads * transformer.attention_head_dim),
        # Beside those of the transformer one that says where the picture ends.
        "latent_channels": (net.latent_channels, transformer.in_channels + 1),
        "n_controlnet_blocks": (net.n_controlnet_blocks, -(-transformer.num_layers // every)),
    }
    for field, (theirs, ours) in sizes.items():
        if theirs != ours:
            raise VariantLoadError(f"controlnet {name}: {field} is {theirs}, and the transformer takes {ours}")


def _plain(value: Any) -> Any:
    # Configurations have lists from JSON and tuples from calls; one number may stand for all blocks.
    if isinstance(value, list | tuple):
        return value[0] if len(set(value)) == 1 else tuple(value)
    return value

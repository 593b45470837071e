"""What a checkpoint in Hotshot-XL's layout, or an SDXL base for it, holds: configuration and tensors of its UNet."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.components import read_json
from models.hotshot.unet import TEMPORAL_HEADS, TEMPORAL_NORM_GROUPS, HotshotUNet
from schemas.errors import ConfigError, VariantLoadError, first_line

TEMPORAL = ".temporal_attentions."
_MOTION = ".motion_modules."
_TABLE = ".pos_encoder.positional_encoding"
# Names within a temporal layer, Hotshot-XL's and diffusers'. diffusers has one position table for both attentions.
_NAMES = (
    (TEMPORAL, _MOTION),
    (f".attention_blocks.0{_TABLE}", ".pos_embed.pe"),
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)
_SECOND_TABLE = f".attention_blocks.1{_TABLE}"

_CARRIED = (
    "act_fn", "addition_embed_type", "addition_time_embed_dim", "block_out_channels", "cross_attention_dim",
    "downsample_padding", "in_channels", "layers_per_block", "mid_block_scale_factor", "norm_eps", "norm_num_groups",
    "out_channels", "projection_class_embeddings_input_dim", "sample_size", "time_cond_proj_dim",
    "transformer_layers_per_block", "use_linear_projection",
)  # fmt: skip
# What `UNetMotionModel` does in one way only; a checkpoint that says another would be converted wrongly.
_ONLY: Mapping[str, tuple[object, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": ("text_time",),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_type": ("UNetMidBlock3DCrossAttn", "UNetMidBlock2DCrossAttn"),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "upcast_attention": (False, None),
}
_BLOCKS = {
    f"{kind}Block{size}": f"{kind}BlockMotion"
    for kind in ("Down", "CrossAttnDown", "Up", "CrossAttnUp")
    for size in ("2D", "3D")
}


def renamed(name: str) -> str:
    """diffusers' name of a tensor of the checkpoint; empty for the second of two equal position tables."""
    if TEMPORAL not in name:
        return name
    if name.endswith(_SECOND_TABLE):
        return ""
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name


def original_name(name: str) -> str:
    """The checkpoint's name of a tensor of `HotshotUNet`."""
    if _MOTION in name:
        for theirs, ours in _NAMES:
            name = name.replace(ours, theirs)
    return name


@dataclass(frozen=True)
class UNetFiles:
    """A UNet's folder: its configuration, and its tensors, which are read one by one."""

    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Path) -> Self:
        """Hotshot-XL's. Raises ConfigError for a folder that is not Hotshot-XL, or is converted already."""
        files = cls(checkpoint / "unet", read_json(checkpoint / "unet" / "config.json") or {})
        kind = files.config.get("_class_name")
        if kind == HotshotUNet.__name__:
            raise ConfigError(f"{checkpoint} is converted already: a catalog's weights may name it as it stands")
        if kind is None:
            raise _no_hotshot(checkpoint, "it has no unet/config.json that names a class")
        if kind != "UNet3DConditionModel":
            raise _no_hotshot(checkpoint, f"its unet/ is a {kind}, not a UNet3DConditionModel")
        if not any(TEMPORAL in name for name in files.names):
            raise _no_hotshot(checkpoint, "its unet/ has no temporal_attentions")
        return files

    @classmethod
    def of_base(cls, base: Path) -> Self:
        """An SDXL model's, `base/unet` or `base` itself. Raises ConfigError where there is none."""
        folder = base / "unet" if (base / "unet").is_dir() else base
        files = cls(folder, read_json(folder / "config.json") or {})
        kind = files.config.get("_class_name")
        if kind != "UNet2DConditionModel":
            raise ConfigError(
                f"--base: {folder} is {f'a {kind}' if kind else 'no model'}; available: SDXL's UNet2DConditionModel, "
                "or the folder that has it as unet/"
            )
        return files

    @cached_property
    def names(self) -> Mapping[str, Path]:
        """The file of each tensor, by its name. Raises VariantLoadError naming the file that cannot be read."""
        return {name: path for path, tensors in self._opened.items() for name in tensors.keys()}  # noqa: SIM118  # it is no dict

    @cached_property
    def _opened(self) -> Mapping[Path, Any]:
        # Mapped into memory, and opened once: the list of tensors at a file's head is long.
        opened: dict[Path, Any] = {}
        for path in self._files():
            try:
                opened[path] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise VariantLoadError(f"{path}: no safetensors file, or not whole: {first_line(error)}") from error
        return opened

    def _files(self) -> list[Path]:
        listed = read_json(self.folder / "diffusion_pytorch_model.safetensors.index.json")
        if listed is not None:
            wanted = [self.folder / name for name in sorted(set(listed.get("weight_map", {}).values()))]
        else:
            wanted = [self.folder / "diffusion_pytorch_model.safetensors"]
            there = sorted(self.folder.glob("*.safetensors"))
            if not wanted[0].is_file() and len(there) == 1:
                wanted = there
        absent = next((path for path in wanted if not path.is_file()), None)
        if absent is not None:
            others = ", ".join(sorted(path.name for path in self.folder.iterdir())) or "nothing"
            raise VariantLoadError(f"{absent}: not there; the folder has: {others}")
        return wanted

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the tensor called `name`, which is not read for that."""
        return tuple(self._opened[self.names[name]].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """The tensor called `name`."""
        return self._opened[self.names[name]].get_tensor(name)


def _no_hotshot(checkpoint: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{checkpoint} is not Hotshot-XL: {why}; available: a download of hotshotco/Hotshot-XL, or what was trained "
        "from it"
    )


def position_tables(files: UNetFiles) -> int:
    """The length, in frames, of the checkpoint's position tables.

    Raises VariantLoadError where the two of a temporal layer, which diffusers keeps in one, or two lengths differ.
    """
    lengths: dict[int, str] = {}
    for name in files.names:
        if TEMPORAL not in name or not name.endswith(f".attention_blocks.0{_TABLE}"):
            continue
        second = name.removesuffix(f".attention_blocks.0{_TABLE}") + _SECOND_TABLE
        table = files.read(name)
        if second in files.names and not torch.equal(table, files.read(second)):
            raise VariantLoadError(f"{files.names[second]}: {second} is another table than {name}; diffusers has one")
        lengths.setdefault(table.shape[1], name)
    if len(lengths) != 1:
        said = ", ".join(f"{name} of {frames} frames" for frames, name in sorted(lengths.items())) or "none is there"
        raise VariantLoadError(f"{files.folder}: position tables (…{_TABLE}) of one length are wanted: {said}")
    return next(iter(lengths))


def motion_config(files: UNetFiles, table_frames: int) -> dict[str, Any]:
    """`HotshotUNet`'s configuration for the UNet in `files`. Raises VariantLoadError naming the field that it cannot
    have."""
    said, where = files.config, files.folder / "config.json"
    for field, values in _ONLY.items():
        if said.get(field, values[0]) not in values:
            raise VariantLoadError(
                f"{where}: {field} = {said[field]!r} cannot be converted; available: {', '.join(map(repr, values))}"
            )
    out: dict[str, Any] = {name: said[name] for name in _CARRIED if name in said}
    for field in ("down_block_types", "up_block_types"):
        unknown = next((name for name in said.get(field, ()) if name not in _BLOCKS), None)
        if unknown is not None or field not in said:
            raise VariantLoadError(f"{where}: {field} has {unknown!r}; available: {', '.join(_BLOCKS)}")
        out[field] = [_BLOCKS[name] for name in said[field]]
    for channels in said.get("block_out_channels", ()):
        if channels % TEMPORAL_HEADS or channels % TEMPORAL_NORM_GROUPS:
            raise VariantLoadError(
                f"{where}: block_out_channels has {channels}, which temporal layers with {TEMPORAL_HEADS} heads and "
                f"norms of {TEMPORAL_NORM_GROUPS} groups cannot divide"
            )
    return out | {
        "_class_name": HotshotUNet.__name__,
        # Of an SDXL UNet, `attention_head_dim` is the number of heads: an old name that stayed.
        "num_attention_heads": said.get("num_attention_heads") or said.get("attention_head_dim"),
        "motion_num_attention_heads": TEMPORAL_HEADS,
        "motion_max_seq_length": table_frames,
        "use_motion_mid_block": False,
    }

"""AnimateDiff's motion LoRAs: of the layers between frames, each for one way of the camera. They are in memory from the
beginning and act in the calls whose camera goes their way; in others they change no bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.weights import explain
from schemas.catalog import Variant
from schemas.directions import Direction, direction_of
from schemas.errors import RenderError, VariantLoadError
from schemas.parts import MotionLora
from schemas.task import Group

_LAYERS = "motion_modules."


def add_motion_loras(variant: Variant, pipe: Any, find: Callable[[MotionLora], tuple[Path, str]]) -> None:
    """Load all of the variant's entry into the pipeline's UNet. `find` says where the file of one is: (folder, file).

    Raises VariantLoadError where one is not there, is for other layers, or was made for another UNet. Which of a
    pipeline's adapters act is not settled afterwards.
    """
    assert variant.motion_loras is not None
    for way, lora in variant.motion_loras.by_direction.items():
        name = f"variant {variant.name!r}: motion_loras.{way} {lora.source}"
        folder, file = find(lora)
        _check(folder / file, name)
        try:
            pipe.load_lora_weights(str(folder), weight_name=file, adapter_name=_adapter(way), use_safetensors=True)
        except ImportError as error:
            text = f"{name}: LoRAs need peft: {explain(error)}; available: pip install 'rushes[finetune]'"
            raise VariantLoadError(text) from error
        except (KeyError, RuntimeError, ValueError) as error:
            raise VariantLoadError(f"{name}: it was not made for this UNet: {explain(error)}") from error
        if _adapter(way) not in pipe.get_list_adapters().get("unet", ()):
            raise VariantLoadError(f"{name}: it was not made for this UNet: none of its layers is there")


def moving(variant: Variant, group: Group) -> dict[str, float]:
    """The adapter that acts in a group's calls, by name with its weight; none where the camera is not spoken of.

    Raises RenderError for a camera that has no direction, or one that the variant lacks.
    """
    ways = variant.directions(group.mode)
    if not ways or not group.camera:
        return {}
    way = direction_of(group.camera)
    if way not in ways or variant.motion_loras is None:
        raise RenderError(f"camera: no way that {variant.name} knows; available: {', '.join(ways)}")
    return {_adapter(way): variant.motion_loras.by_direction[way].weight}


def _adapter(way: Direction) -> str:
    return f"motion_{way}"


def _check(file: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            keys = tuple(opened.keys())
    except (OSError, SafetensorError) as error:
        raise VariantLoadError(f"{name}: {file.name} cannot be read: {explain(error)}") from error
    others = [key for key in keys if _LAYERS not in key]
    if others or not keys:
        what = f"has {others[0]}" if others else "is empty"
        raise VariantLoadError(f"{name}: {file.name} is no motion LoRA, whose layers are in {_LAYERS[:-1]}: it {what}")

"""What a folder of weights says of its components, and what has to be done before a pipeline class may load it."""

import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from models.weights import Weights
from schemas.errors import ConfigError, first_line

# Modules of ours whose classes a `model_index.json` may name. diffusers takes only what is imported already.
_OWN = ("models.hotshot.unet",)

OWN_PIPELINES = {
    "HotshotControlNetPipeline": "models.hotshot.control",
    "EasyAnimateControlPipeline": "models.easyanimate",
    "EasyAnimateInpaintPipeline": "models.easyanimate",
}
"""Pipeline classes of ours that a catalog may name, and their modules. Some stand for diffusers' of the same name."""

CHECKPOINT_FILES = ("*.json", "*.txt", "*.safetensors")
"""What is read of a checkpoint that is converted."""


def ready(weights: Weights, cache: Path, motion: Weights | None = None) -> Weights:
    """`weights` as `from_pretrained` takes them.

    A Hotshot-XL in its own layout is converted, once, into `cache`; so is an SDXL model whose `motion` (the catalog's
    `motion_adapter`) is a Hotshot-XL. The revision stays that of `weights`. Modules of ours that the folder names are
    imported. Raises ConfigError and VariantLoadError as the conversion does.
    """
    if motion is not None and is_hotshot(index_of(motion.folder)):
        from models.hotshot.conversion import converted

        weights = Weights(converted(motion, cache, base=weights).folder, weights.revision)
    elif is_hotshot(index_of(weights.folder)):
        from models.hotshot.conversion import converted

        weights = converted(weights, cache)
    for entry in index_of(weights.folder).values():
        if isinstance(entry, list) and entry and entry[0] in _OWN:
            importlib.import_module(entry[0])
    return weights


def left_out(pipeline: Any, folder: Path) -> dict[str, None]:
    """Components that the class `pipeline` asks for and `folder` says that it has not, as arguments of
    `from_pretrained`: an AnimateDiff pipeline whose motion modules are in its UNet has no adapter."""
    expected, _ = pipeline._get_signature_keys(pipeline)
    index = index_of(folder)
    wanted = sorted(set(expected) - set(pipeline._optional_components))
    return {name: None for name in wanted if index.get(name) == [None, None]}


def component_class(pipeline: Any, name: str) -> Any:
    """The class that a pipeline class says its component `name` is of; None where it has none or does not say."""
    parameter = inspect.signature(pipeline.__init__).parameters.get(name)
    if parameter is None:
        return None
    known = [one for one in get_args(parameter.annotation) or (parameter.annotation,) if inspect.isclass(one)]
    return next((one for one in known if hasattr(one, "from_pretrained")), None)


def is_hotshot(index: Mapping[str, Any]) -> bool:
    """Whether a `model_index.json` with this content is of a checkpoint in Hotshot-XL's own layout."""
    unet = index.get("unet")
    return isinstance(unet, list) and bool(unet) and str(unet[0]).startswith("hotshot_xl")


def index_of(folder: Path) -> dict[str, Any]:
    """The content of a folder's `model_index.json`; empty where there is none."""
    return read_json(folder / "model_index.json") or {}


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file. Raises ConfigError naming a file that holds no object."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: an object is wanted, not {type(found).__name__}")
    return found

"""What can be told of a catalog's entry without loading it: whether its classes exist and its folders hold what they
should."""

import difflib
from pathlib import Path

from models.components import OWN_PIPELINES, component_class
from models.latent_upsampler import upsampler_problem
from models.weights import EMBEDDED, check_safe, is_local, local_path, missing
from schemas.catalog import Adapter, Variant
from schemas.errors import VariantLoadError
from schemas.extract import Extractor
from schemas.finish import Finisher
from schemas.parts import MotionLora

_CLOSE = 3


def problems(variant: Variant) -> tuple[str, ...]:
    """What is wrong, each beginning with its field. Repositories of the hub and buckets are not asked.

    Imports diffusers, whose names are there at once and whose classes are not.
    """
    found = [_class("pipeline", variant.pipeline, "Pipeline")]
    found += [_class(f"pipelines.{mode.value}", name, "Pipeline") for mode, name in variant.pipelines.items()]
    if variant.scheduler is not None:
        found.append(_class("scheduler", variant.scheduler, "Scheduler"))
    found.append(missing(variant))
    found.append(_weights(variant))
    found.append(_gguf(variant))
    found += [_lora(f"loras[{index}]", lora) for index, lora in enumerate(variant.loras)]
    if variant.motion_loras is not None:
        ways = variant.motion_loras.by_direction.items()
        found += [_lora(f"motion_loras.{way}", lora) for way, lora in ways]
    return tuple(text for text in found if text is not None)


def finisher_problems(finisher: Finisher) -> tuple[str, ...]:
    """What is wrong with who finishes clips. Whether its library is there is not asked: this need not be the machine
    that does it."""
    if finisher.weights is None:
        return ()
    if finisher.method == "latent":
        return _upsampler(finisher.weights, finisher.steps)
    path = Path(finisher.weights).expanduser()
    if path.suffix != ".safetensors":
        return (f"weights: {finisher.weights}: only .safetensors are read",)
    return () if path.is_file() else (f"weights: {finisher.weights}: not there",)


def _upsampler(source: str, steps: int | None) -> tuple[str, ...]:
    if not is_local(source):
        return ()
    folder = local_path(source)
    if not folder.is_dir():
        return (f"weights: {source}: not there",)
    wrong = upsampler_problem(folder, steps)
    if wrong is not None:
        return (f"weights: {source}: {wrong}",)
    try:
        check_safe(folder)
    except VariantLoadError as error:
        return (f"weights: {error}",)
    return ()


def extractor_problems(extractor: Extractor) -> tuple[str, ...]:
    """What is wrong with who finds structures; as for finishers."""
    source = extractor.weights
    if source is None or not is_local(source):
        return ()
    folder = local_path(source)
    if not (folder / "config.json").is_file():
        return (f"weights: {source}: no config.json in it, which a model of transformers has",)
    try:
        check_safe(folder)
    except VariantLoadError as error:
        return (f"weights: {error}",)
    return ()


def _class(field: str, name: str, kind: str) -> str | None:
    import diffusers

    names = [known for known in (*dir(diffusers), *OWN_PIPELINES) if known.endswith(kind)]
    if name in names:
        return None
    close = difflib.get_close_matches(name, names, _CLOSE)
    return f"{field}: diffusers has no {kind.lower()} {name!r}" + (f"; available: {', '.join(close)}" if close else "")


def _weights(variant: Variant) -> str | None:
    source = variant.weights
    if source.startswith("embedded:"):
        folder = EMBEDDED / source.removeprefix("embedded:")
    elif is_local(source):
        folder = local_path(source)
    else:
        return None
    if not folder.exists():
        return None  # said already
    if not (folder / "model_index.json").is_file():
        return f"weights: {source}: no model_index.json in it, which a diffusers pipeline has"
    try:
        check_safe(folder)
    except VariantLoadError as error:
        return f"weights: {error}"
    return None


def _gguf(variant: Variant) -> str | None:
    """Of a class whose denoiser diffusers does not read from one file."""
    import diffusers

    from models.quantization import import_quietly, reads_gguf

    if variant.speed.gguf is None or not hasattr(diffusers, variant.pipeline):
        return None
    import_quietly()
    if reads_gguf(component_class(getattr(diffusers, variant.pipeline), "transformer")):
        return None
    return (
        f"speed.quantization: 'gguf': {variant.pipeline}'s denoiser cannot be read from one file; available: int8, fp8"
    )


def _lora(field: str, lora: Adapter | MotionLora) -> str | None:
    path = local_path(lora.source)
    if not is_local(lora.source) or not path.is_dir():
        return None
    files = sorted(file.name for file in path.glob("*.safetensors"))
    if lora.weight_file in files or (lora.weight_file is None and len(files) == 1):
        return None
    wanted = "one .safetensors file" if lora.weight_file is None else repr(lora.weight_file)
    return f"{field}: {lora.source} has not {wanted}; weight_file names one of: {', '.join(files) or 'none'}"

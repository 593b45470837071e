"""Denoisers in fewer bits: linear weights as int8 or fp8 by torchao, or a GGUF file in place of the weights' own.

Only weights are stored so; sums are made in the variant's dtype. Networks that run once a call (text encoders, the VAE)
stay as they are, and so do the modules that diffusers keeps in float32. `rushes calibrate` measures what it costs.
"""

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.components import index_of
from schemas.catalog import Variant
from schemas.errors import VariantLoadError

DENOISERS = ("transformer", "transformer_2", "unet")
"""Components that run once a step (Wan 2.2 A14B has two)."""

_EXTRA = "pip install 'rushes[quantize]'"


def denoisers(pipe: Any) -> Iterator[tuple[str, Any]]:
    """Those of `DENOISERS` that a pipeline has, by name."""
    for name in DENOISERS:
        part = getattr(pipe, name, None)
        if part is not None:
            yield name, part


def quantize(variant: Variant, pipe: Any) -> None:
    """Turn the linear weights of `pipe`'s denoisers into what `speed.quantization` says, where that is torchao's.

    LoRAs that are loaded already stay as they are. Raises VariantLoadError without torchao, and for a denoiser that has
    no such weights.
    """
    wanted = variant.speed.quantization
    if wanted not in ("int8", "fp8"):
        return
    import torch

    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise VariantLoadError(f"variant {variant.name!r}: quantization {wanted!r} needs torchao: {_EXTRA}") from error
    # Not inductor's settings: they are the whole process's.
    kind = Int8WeightOnlyConfig if wanted == "int8" else Float8WeightOnlyConfig
    how = kind(set_inductor_config=False)
    for _, part in denoisers(pipe):
        kept = tuple(getattr(part, "_keep_in_fp32_modules", None) or ())

        def chosen(module: Any, path: str, kept: tuple[str, ...] = kept) -> bool:
            names = path.split(".")
            plain = isinstance(module, torch.nn.Linear) and not any(one.startswith("lora_") for one in names)
            return plain and not set(kept) & set(names)

        if not any(chosen(module, path) for path, module in part.named_modules()):
            raise VariantLoadError(
                f"variant {variant.name!r}: quantization {wanted!r}: {type(part).__name__} has no linear weights"
            )
        quantize_(part, how, filter_fn=chosen)


def denoiser_from(variant: Variant, folder: Path, file: Path, dtype: Any) -> dict[str, Any]:
    """The denoiser of a GGUF `file`, as an argument of `from_pretrained(folder)`; its configuration is the folder's.

    Raises VariantLoadError without gguf, for a class that reads no such files, and for a file that does not fit.
    """
    import diffusers

    index = index_of(folder)
    there = {name: index[name][1] for name in DENOISERS if index.get(name, [None])[0] is not None}
    network: Any = getattr(diffusers, there.get("transformer", ""), None)
    if tuple(there) != ("transformer",) or not reads_gguf(network):
        raise VariantLoadError(
            f"variant {variant.name!r}: quantization 'gguf': "
            f"{' and '.join(there.values()) or 'its denoiser'} cannot be read from one file; available: int8, fp8"
        )
    if importlib.util.find_spec("gguf") is None:
        raise VariantLoadError(f"variant {variant.name!r}: quantization 'gguf' needs gguf: {_EXTRA}")
    try:
        made = network.from_single_file(
            str(file),
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
            config=str(folder),
            subfolder="transformer",
            dtype=dtype,
            local_files_only=True,
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise VariantLoadError(f"variant {variant.name!r}: {file.name}: no such denoiser: {text[0]}") from error
    return {"transformer": made}


def reads_gguf(network: Any) -> bool:
    """Whether a denoiser's class can be read from one GGUF file."""
    return hasattr(network, "from_single_file")


def denoiser_bytes(pipe: Any) -> int:
    """What the weights of the denoisers take in memory."""
    return sum(_stored(tensor) for _, part in denoisers(pipe) for tensor in _tensors(part))


def import_quietly() -> None:
    """Import torchao where it is there, before diffusers does: it and torch warn of what its kernels for GPUs miss on a
    machine that has none, in every process."""
    if importlib.util.find_spec("torchao") is None:
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import diffusers.quantizers  # noqa: F401
    finally:
        logging.disable(before)


def _tensors(part: Any) -> Iterator[Any]:
    yield from part.parameters()
    yield from part.buffers()


def _stored(tensor: Any) -> int:
    """Bytes of a tensor, which of torchao's are those of the tensors that one is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_stored(inner) for name in names if (inner := getattr(tensor, name, None)) is not None)
    return int(tensor.numel() * tensor.element_size())


def unquantized(variant: Variant) -> Variant:
    """The same variant with its weights as they are."""
    speed = variant.speed.model_copy(update={"quantization": None, "gguf": None})
    return variant.model_copy(update={"speed": speed})

"""The catalog's speed settings, applied to a loaded pipeline."""

import dataclasses
from typing import Any

from models.quantization import denoisers, quantize
from schemas.catalog import Variant
from schemas.errors import VariantLoadError

_CACHES = {
    "first_block": "FirstBlockCacheConfig",
    "mag": "MagCacheConfig",
    "pab": "PyramidAttentionBroadcastConfig",
    "taylorseer": "TaylorSeerCacheConfig",
}

# The library's defaults do nothing (PAB skips no layer; TaylorSeer's patterns match none), so these stand in.
_CACHE_DEFAULTS: dict[str, dict[str, object]] = {
    "pab": {"spatial_attention_block_skip_range": 2},
    "taylorseer": {"use_lite_mode": True},
}


def apply_speed(variant: Variant, pipe: Any, device: str) -> list[str]:
    """Apply `variant.speed` and move `pipe` to `device`. Returns notes on what the machine cannot do.

    Raises VariantLoadError when the class does not support a setting.
    """
    speed = variant.speed
    notes: list[str] = []
    quantize(variant, pipe)
    if speed.quantization is not None and device == "cpu":
        notes.append(f"{speed.quantization} saves memory on a CPU, not time")
    for wanted, method, setting in (
        (speed.vae_tiling, "enable_tiling", "vae_tiling"),
        (speed.vae_slicing, "enable_slicing", "vae_slicing"),
    ):
        if wanted:
            if not hasattr(pipe.vae, method):
                raise _unsupported(variant, setting, type(pipe.vae).__name__)
            getattr(pipe.vae, method)()
    if speed.attention_backend is not None:
        _set_attention(variant, pipe, speed.attention_backend)
    if speed.cache is not None:
        _enable_cache(variant, pipe)
    notes.extend(_place(variant, pipe, device))
    if device == "cpu" and getattr(pipe, "vae", None) is not None:
        from models.cpu_convolution import quicken

        quicken(pipe.vae)
    if speed.channels_last:
        _channels_last(pipe)
    if speed.compile:
        _compile(variant, pipe)
    return notes


def _set_attention(variant: Variant, pipe: Any, backend: str) -> None:
    for _, part in denoisers(pipe):
        if not hasattr(part, "set_attention_backend"):
            raise _unsupported(variant, "attention_backend", type(part).__name__)
        try:
            part.set_attention_backend(backend)
        except (ValueError, RuntimeError, ImportError) as error:
            raise VariantLoadError(f"variant {variant.name!r}: attention_backend {backend!r}: {error}") from error


def _enable_cache(variant: Variant, pipe: Any) -> None:
    import diffusers

    name = variant.speed.cache
    assert name is not None
    config_class = getattr(diffusers, _CACHES[name])
    known = {field.name for field in dataclasses.fields(config_class)}
    options: dict[str, Any] = {**_CACHE_DEFAULTS.get(name, {}), **variant.speed.cache_options}
    unknown = sorted(set(options) - known)
    if unknown:
        raise VariantLoadError(
            f"variant {variant.name!r}: cache {name!r} has no option {unknown[0]!r}; available: "
            + ", ".join(sorted(known))
        )
    if name == "mag":
        # TOML's options are scalars: the ratios come as "1.0, 0.99, …".
        if isinstance(options.get("mag_ratios"), str):
            options["mag_ratios"] = [float(ratio) for ratio in options["mag_ratios"].split(",")]
        options.setdefault("num_inference_steps", variant.steps)
    if name == "pab":
        options["current_timestep_callback"] = lambda: pipe.current_timestep
    for _, part in denoisers(pipe):
        if not hasattr(part, "enable_cache"):
            raise _unsupported(variant, f"cache {name!r}", type(part).__name__)
        try:
            part.enable_cache(config_class(**options))
        except (ValueError, TypeError, AttributeError) as error:
            raise VariantLoadError(
                f"variant {variant.name!r}: cache {name!r} on {type(part).__name__}: {error}"
            ) from error


def _place(variant: Variant, pipe: Any, device: str) -> list[str]:
    offload = variant.speed.offload
    if offload != "none" and device == "cpu":
        pipe.to(device)
        return [f"offload {offload!r} does nothing on a CPU"]
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "group":
        import torch

        pipe.enable_group_offload(
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=True,
        )
    else:
        pipe.to(device)
    return []


def _channels_last(pipe: Any) -> None:
    from models.cpu_convolution import lay_channels_innermost

    for part in (pipe.vae, *(part for _, part in denoisers(pipe))):
        lay_channels_innermost(part)


def _compile(variant: Variant, pipe: Any) -> None:
    for _, part in denoisers(pipe):
        # Blocks repeat, so one compiled block serves all: minutes of compilation become seconds.
        if not getattr(part, "_repeated_blocks", None):
            raise _unsupported(variant, "compile", type(part).__name__)
        part.compile_repeated_blocks()


def _unsupported(variant: Variant, setting: str, what: str) -> VariantLoadError:
    return VariantLoadError(f"variant {variant.name!r}: {what} does not support {setting}")

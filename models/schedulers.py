"""Swapping a pipeline's scheduler by class name."""

from collections.abc import Mapping
from typing import Any

from schemas.catalog import Variant
from schemas.errors import VariantLoadError

# Flow-matching models (Wan, LTX, Hunyuan, Mochi) ship with one of these and run with any. diffusers does not list
# them as compatible with one another, because the same classes also run other kinds of models.
_FLOW = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
)
_FLOW_OPTIONS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def choices(scheduler: Any) -> tuple[str, ...]:
    """Class names that may replace `scheduler`, its own first."""
    own = type(scheduler).__name__
    named = _FLOW if is_flow(scheduler) else tuple(sorted(cls.__name__ for cls in scheduler.compatibles))
    return tuple(dict.fromkeys((own, *named)))


def is_flow(scheduler: Any) -> bool:
    """True when the scheduler integrates a flow rather than a diffusion."""
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas", False))


def swapped(
    variant: Variant, scheduler: Any, name: str | None, options: Mapping[str, float | int | str | bool] | None = None
) -> Any:
    """A fresh scheduler called `name` (None: the same class) with the configuration of `scheduler` and `options`.

    Raises VariantLoadError with the choices when the class does not fit or an option does not exist.
    """
    import diffusers

    wanted = name or type(scheduler).__name__
    available = choices(scheduler)
    if wanted not in available:
        raise VariantLoadError(
            f"variant {variant.name!r}: scheduler {wanted!r} does not fit {type(scheduler).__name__}; "
            f"available: {', '.join(available)}"
        )
    cls = getattr(diffusers, wanted)
    known = set(cls._get_init_keys(cls))
    unknown = sorted(set(options or {}) - known)
    if unknown:
        raise VariantLoadError(
            f"variant {variant.name!r}: {wanted} has no option {unknown[0]!r}; available: {', '.join(sorted(known))}"
        )
    return cls.from_config(scheduler.config, **{**_carried(scheduler, known), **(options or {})})


def _carried(scheduler: Any, known: set[str]) -> Mapping[str, object]:
    """What flow schedulers call differently from one another, and `from_config` would therefore lose."""
    if not is_flow(scheduler):
        return {}
    shift = scheduler.config.get("shift", scheduler.config.get("flow_shift"))
    carried: dict[str, object] = {k: v for k, v in _FLOW_OPTIONS.items() if k in known}
    if shift is not None:
        carried |= {key: shift for key in ("shift", "flow_shift") if key in known}
    return carried


def draws_unseeded(scheduler: Any) -> bool:
    """True when a step draws noise from torch's global generator, so that tasks must go one at a time."""
    # FlowMatchEuler ignores the generators it is given when it samples stochastically.
    return bool(scheduler.config.get("stochastic_sampling", False))

"""Accelerators: what the cost model knows of hardware that nothing has been measured on yet."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator type, under the name that Ray gives it.

    `sustained_tflops` is what diffusion transformers and UNets reach in 16 bits, about 40 % of the data sheet's
    dense figure (memory-bound cards less). Only ratios of it decide anything once a variant has been measured.
    """

    name: str
    sustained_tflops: float
    vram_gib: float

    def speed_against(self, reference: "Accelerator") -> float:
        """How many times as fast as `reference`."""
        return self.sustained_tflops / reference.sustained_tflops


CPU = Accelerator("cpu", 0.15, 0.0)

_KNOWN = {
    accelerator.name.lower(): accelerator
    for accelerator in (
        CPU,
        Accelerator("T4", 20, 16),
        Accelerator("V100", 45, 32),
        Accelerator("A10G", 30, 24),
        Accelerator("L4", 35, 24),
        Accelerator("RTX3090", 30, 24),
        Accelerator("RTX4090", 70, 24),
        Accelerator("A6000", 60, 48),
        Accelerator("L40S", 130, 48),
        Accelerator("A100-40G", 140, 40),
        Accelerator("A100-80G", 145, 80),
        Accelerator("A100", 145, 80),
        Accelerator("H20", 95, 96),
        Accelerator("H100", 400, 80),
        Accelerator("H200", 420, 141),
        Accelerator("B200", 900, 180),
        Accelerator("MI300X", 420, 192),
    )
}


def accelerator_named(name: str | None) -> Accelerator | None:
    """The accelerator of that name, in any case and with or without the maker's prefix; None when unknown."""
    if not name:
        return None
    key = name.lower().replace("_", "-")
    for prefix in ("nvidia-tesla-", "nvidia-", "tesla-", "amd-instinct-", "amd-"):
        key = key.removeprefix(prefix)
    return _KNOWN.get(key) or _KNOWN.get(key.removesuffix("-oam"))


def accelerator_names() -> tuple[str, ...]:
    """The names that are known, CPU first."""
    return tuple(accelerator.name for accelerator in _KNOWN.values())

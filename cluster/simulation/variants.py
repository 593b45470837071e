"""The variants of a simulation: those that the trace asks for, then those that are only fallbacks.

The trace's keep their numbers, so a column of its codes means the same everywhere. A variant is known by what the
fleet says of it; one that the fleet does not mention has the defaults of `FleetVariant`.
"""

from dataclasses import dataclass

from cluster.simulation.fleet import Fleet, FleetVariant
from schemas.errors import ConfigError


@dataclass(frozen=True)
class VariantTable:
    """What is known of each variant, by its number."""

    names: tuple[str, ...]
    chains: tuple[tuple[int, ...], ...]  # itself, then its fallbacks in their order
    time_factor: tuple[float, ...]
    quality: tuple[float, ...]
    vram_gib: tuple[float, ...]  # of its weights: the most that any variant with these weights needs
    weights: tuple[int, ...]  # variants with one number share what a load brings


def variant_table(asked_for: tuple[str, ...], fleet: Fleet) -> VariantTable:
    """`asked_for` are the trace's variants. Raises ConfigError for a fallback that neither it nor the fleet knows."""
    said = {name: fleet.variants.get(name, FleetVariant()) for name in asked_for}
    for name in asked_for:
        for fallback in said[name].fallbacks:
            if fallback not in said and fallback not in fleet.variants:
                choices = ", ".join(sorted({*asked_for, *fleet.variants}))
                raise ConfigError(f"variants.{name}.fallbacks: unknown variant {fallback!r}; available: {choices}")
    for name in asked_for:
        said.update({f: fleet.variants[f] for f in said[name].fallbacks if f not in said})
    number = {name: place for place, name in enumerate(said)}
    weights: dict[str, int] = {}
    of_weights = tuple(weights.setdefault(one.weights or name, len(weights)) for name, one in said.items())
    vram_gib = [0.0] * len(weights)
    for place, one in zip(of_weights, said.values(), strict=True):
        vram_gib[place] = max(vram_gib[place], one.vram_gib)
    return VariantTable(
        names=tuple(said),
        # A fallback's own fallbacks do not count: nobody asks for it.
        chains=tuple(
            tuple(dict.fromkeys((number[name], *(number[f] for f in one.fallbacks if f in number))))
            for name, one in said.items()
        ),
        time_factor=tuple(one.time_factor for one in said.values()),
        quality=tuple(one.quality for one in said.values()),
        vram_gib=tuple(vram_gib[place] for place in of_weights),
        weights=of_weights,
    )

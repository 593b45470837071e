"""What the cluster has, as frozen values: the planner and the router see this and never ask Ray."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.cost.accelerator import accelerator_named, accelerator_names
from schemas.catalog import Variant
from schemas.errors import ConfigError

_ACCELERATOR_PREFIX = "accelerator_type:"


@dataclass(frozen=True)
class Topology:
    """Totals over the live nodes. `accelerators` counts GPUs by type where nodes say it."""

    cpus: float
    gpus: float
    nodes: int
    accelerators: Mapping[str, float]

    @property
    def accelerator(self) -> str:
        """The one to quote for: the most common GPU type, 'gpu' when untold, 'cpu' without GPUs."""
        if not self.gpus:
            return "cpu"
        return max(self.accelerators, key=lambda name: self.accelerators[name], default="gpu")

    def why_not(self, variant: Variant, device: str = "auto") -> str | None:
        """Why not a single actor of `variant` can be placed; None when one can."""
        needs = variant.needs
        gpus = 0.0 if device == "cpu" else needs.gpus
        if gpus > self.gpus:
            return (
                f"variant {variant.name!r} needs {counted(gpus, 'GPU')}, the cluster has {self.gpus:g}; "
                f"choose a variant that runs on CPU, join a cluster with --address, or try --device cpu"
            )
        if gpus and needs.accelerator_type and self.accelerators and needs.accelerator_type not in self.accelerators:
            have = ", ".join(sorted(self.accelerators))
            return f"variant {variant.name!r} needs accelerator {needs.accelerator_type!r}; the cluster has: {have}"
        if needs.cpus > self.cpus:
            return f"variant {variant.name!r} needs {counted(needs.cpus, 'CPU')}, the cluster has {self.cpus:g}"
        return None

    def most_actors(self, variant: Variant, device: str = "auto") -> int:
        """How many actors of `variant` fit when it has the cluster to itself."""
        needs = variant.needs
        by_cpu = int(self.cpus // needs.cpus)
        gpus = 0.0 if device == "cpu" else needs.gpus
        if not gpus:
            return max(1, by_cpu)
        have = self.accelerators.get(needs.accelerator_type, 0.0) if needs.accelerator_type else self.gpus
        return max(1, min(by_cpu, int((have or self.gpus) // gpus)))


def counted(count: float, noun: str) -> str:
    """'1 GPU', '8 GPUs'."""
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def imagined_topology(accelerator: str, gpus: int) -> Topology:
    """A cluster to quote for: one GPU type, with CPUs enough to keep it busy. ConfigError for an unknown type."""
    if accelerator_named(accelerator) is None:
        raise ConfigError(f"--accelerator: unknown {accelerator!r}; available: {', '.join(accelerator_names())}")
    return Topology(cpus=16.0 * gpus, gpus=float(gpus), nodes=1, accelerators={accelerator: float(gpus)})


def topology_of(nodes: Iterable[Mapping[str, Any]]) -> Topology:
    """Read `ray.nodes()`: dead nodes and the per-node marker resources are left out."""
    cpus = gpus = 0.0
    alive = 0
    accelerators: dict[str, float] = {}
    for node in nodes:
        if not node.get("Alive"):
            continue
        resources = node.get("Resources", {})
        alive += 1
        cpus += resources.get("CPU", 0.0)
        gpus += resources.get("GPU", 0.0)
        for name in resources:
            if name.startswith(_ACCELERATOR_PREFIX):
                kind = name.removeprefix(_ACCELERATOR_PREFIX)
                accelerators[kind] = accelerators.get(kind, 0.0) + resources.get("GPU", 0.0)
    return Topology(cpus, gpus, alive, accelerators)

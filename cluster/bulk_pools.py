"""How many actors each variant of a bulk run gets."""

import heapq
from collections.abc import Mapping

from cluster.topology import Topology
from schemas.catalog import Variant


def bulk_pool_sizes(
    work_s: Mapping[str, float],
    most_batches: Mapping[str, int],
    variants: Mapping[str, Variant],
    topology: Topology,
    device: str = "auto",
) -> dict[str, int]:
    """Actors by variant: one each, then one more to whichever pool would finish last, while accelerators last.

    `work_s` is the predicted seconds of one actor that renders it all. Greedy is optimal here: adding an actor to the
    pool with the most seconds an actor is the only move that shortens the run. More variants than accelerators still
    get one actor each: those that do not fit wait until another pool has drained.
    """
    sizes = dict.fromkeys(work_s, 1)
    gpus = 0.0 if device == "cpu" else topology.gpus
    cpus = topology.cpus
    for name in sizes:
        gpus -= _gpus(variants[name], device)
        cpus -= variants[name].needs.cpus
    queue = [(-seconds, name) for name, seconds in work_s.items()]
    heapq.heapify(queue)
    while queue:
        _, name = heapq.heappop(queue)
        needs = variants[name].needs
        most = min(most_batches[name], topology.most_actors(variants[name], device))
        if sizes[name] >= most or _gpus(variants[name], device) > gpus or needs.cpus > cpus:
            continue
        sizes[name] += 1
        gpus -= _gpus(variants[name], device)
        cpus -= needs.cpus
        heapq.heappush(queue, (-work_s[name] / sizes[name], name))
    return sizes


def bulk_wall_s(
    work_s: Mapping[str, float],
    load_s: Mapping[str, float],
    sizes: Mapping[str, int],
    variants: Mapping[str, Variant],
    topology: Topology,
    device: str = "auto",
) -> float:
    """Seconds until the last clip: the longest pool, or all the work over all the accelerators when pools must take
    turns."""
    if not work_s:
        return 0.0
    longest = max(load_s[name] + work_s[name] / sizes[name] for name in work_s)
    gpu_s = sum((load_s[n] * sizes[n] + work_s[n]) * _gpus(variants[n], device) for n in work_s)
    cpu_s = sum((load_s[n] * sizes[n] + work_s[n]) * variants[n].needs.cpus for n in work_s)
    by_gpu = gpu_s / topology.gpus if gpu_s and topology.gpus else 0.0
    return max(longest, by_gpu, cpu_s / topology.cpus if topology.cpus else 0.0)


def _gpus(variant: Variant, device: str) -> float:
    return 0.0 if device == "cpu" else variant.needs.gpus

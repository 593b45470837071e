"""What a manifest would take, without rendering or writing anything.

A small manifest on this machine is planned in this process: starting Ray would take longer than all the rest.
"""

import os
import sys
from pathlib import Path

from cluster.topology import Topology
from pipelines.calibration import learnt
from pipelines.catalogs import open_catalog
from pipelines.planner import fits_here, plan_run
from pipelines.read import find_chunks
from pipelines.run_plan import RunPlan
from pipelines.watcher import NOBODY, Watcher
from schemas.config import read_config
from schemas.run import RunOptions

# Where the driver lists its GPUs: with one, Ray tells what it is.
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def estimate(options: RunOptions, watcher: Watcher = NOBODY, topology: Topology | None = None) -> RunPlan:
    """Plan and quote a manifest for `topology`, or for the cluster that `options` lead to.

    With `options.out`, what is done there counts as done. Raises ConfigError as `plan_run` does.
    """
    config = read_config()
    catalog = open_catalog(options.catalog, config)
    costs = learnt(catalog, config.cache_dir)
    chunks = find_chunks(options.manifest, options.limit, encoding=options.encoding, out=options.out or None)
    small = fits_here(chunks)
    done_in = options.out or None

    def planned(where: Topology, in_process: bool) -> RunPlan:
        return plan_run(
            options,
            costs,
            where,
            out=None,
            done_in=done_in,
            auto_by=catalog,
            config=config,
            on_progress=watcher.planning,
            in_process=in_process,
            chunks=chunks,
        )

    if small and (where := topology or this_machine(options)) is not None:
        return planned(where, in_process=True)
    from cluster.connect import connected

    with connected(options.address, say=watcher.said) as there:
        return planned(topology or there, in_process=not there.cpus)


def this_machine(options: RunOptions) -> Topology | None:
    """This machine as Ray would see it, where that takes no asking: without GPUs, and no cluster meant."""
    if (
        options.address not in (None, "local")
        or os.environ.get("RAY_ADDRESS")
        or (_NVIDIA.is_dir() and any(_NVIDIA.iterdir()))
    ):
        return None
    if (ray := sys.modules.get("ray")) is not None and ray.is_initialized():
        return None
    return Topology(cpus=float(len(os.sched_getaffinity(0))), gpus=0.0, nodes=1, accelerators={})

"""Joining a Ray cluster, or starting one here."""

import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster.topology import Topology, topology_of
from schemas.errors import ConfigError

# What the actors import, and nothing else, travels to a remote cluster.
_TOLD = ("RUSHES_", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_S3_ADDRESSING_STYLE")
_ROOMS = ("schemas", "storage", "models", "cluster", "actors", "pipelines", "serve", "rushes")


@contextmanager
def connected(address: str | None, *, num_cpus: int | None = None, num_gpus: int | None = None) -> Iterator[Topology]:
    """A connection to the Ray cluster at `address`, or to one started here and stopped at the end.

    A connection that this process already has is used and left open. On a remote cluster the code of this
    installation travels with the job. Raises ConfigError when there is no cluster at `address`.
    """
    if ray.is_initialized():
        yield topology_of(ray.nodes())
        return
    quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    # Ray's own lines would break the progress view; its log files keep them. Our actors tell us what happens.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    try:
        if address is None:
            # One thread an actor unless the catalog gives it more CPUs: Ray sets OMP_NUM_THREADS from num_cpus.
            with _stderr_closed():
                ray.init(num_cpus=num_cpus, num_gpus=num_gpus, runtime_env=_local_env(), **quiet)
        else:
            with _stderr_closed():
                ray.init(address=address, runtime_env=_remote_env(), **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or "this machine"
        raise ConfigError(f"--address: no Ray cluster at {where}: {error}") from error
    if threading.current_thread() is threading.main_thread():
        # Schedulers ask with SIGTERM what people ask with Ctrl-C; Ray has just put an exit of its own there.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield topology_of(ray.nodes())
    finally:
        ray.shutdown()


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Nothing reaches the terminal from below Python: Ray's core announces its own log level there."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _local_env() -> dict[str, object]:
    # The workers of a local cluster see this checkout, whichever folder the command was started in.
    path = os.pathsep.join(filter(None, (str(_root()), os.environ.get("PYTHONPATH"))))
    return {"env_vars": {"PYTHONPATH": path}}


def _remote_env() -> dict[str, object]:
    """The rooms as a working folder of their own: neither the caller's data nor its outputs are uploaded."""
    staged = Path(tempfile.mkdtemp(prefix="rushes-code-"))
    for room in _ROOMS:
        (staged / room).symlink_to(_root() / room)
    # Addresses travel; credentials do not, since Ray shows a job's environment to whoever can see the cluster.
    told = {name: value for name, value in os.environ.items() if name.startswith(_TOLD)}
    return {"working_dir": str(staged), "excludes": ["**/__pycache__"], "env_vars": told}

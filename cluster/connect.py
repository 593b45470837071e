"""Joining a Ray cluster, or starting one here."""

import atexit
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from cluster.addresses import LOCAL, Meant, meant
from cluster.guard import Guard, ended_text, handled
from cluster.processes import OwnCluster, marked, started
from cluster.topology import Topology, topology_of
from schemas.errors import ConfigError, RushesError, one_line

# What the actors import, and nothing else, travels to a remote cluster.
_TOLD = ("RUSHES_", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_S3_ADDRESSING_STYLE")
_ROOMS = ("schemas", "storage", "models", "cluster", "trust", "prompts", "actors", "pipelines", "serve", "rushes")
_CLOSE_S = 2.0
_LOOK_S = 0.25
_STARTS = 3  # of a Ray of our own

# Looks after the Ray that this process is connected to by `connected`.
_guard: Guard | None = None


@contextmanager
def connected(
    address: str | Meant | None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Topology]:
    """A connection to the Ray cluster at `address`, or to one started here and stopped at the end.

    A connection that this process already has is used and left open. Without an address, RAY_ADDRESS counts, which is
    told by `say`; without either a cluster of our own is started, whatever lies about. On a remote cluster the code of
    this installation travels with the job. Raises ConfigError when there is no cluster at `address`; whoever asked
    `meant` before gives its answer, and nobody is asked twice.

    At the end nothing is left of a cluster that was started here, even one that was killed meanwhile.
    """
    global _guard
    if ray.is_initialized():
        yield topology_of(ray.nodes())
        return
    cluster = address if isinstance(address, Meant) else meant(address)
    if cluster.said is not None:
        say(cluster.said)
    # Ray's own lines would break the progress view; its log files keep them. Our actors tell us what happens.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    own = marked() if cluster.address is None else None
    try:
        _start(cluster, num_cpus, num_gpus)
        own = started(own) if own is not None else None
        _guard = Guard(own)
        with _guard.watching():  # Ray has put handlers of signals there, which exit
            yield topology_of(ray.nodes())
    except KeyboardInterrupt:
        if (name := lost_process()) is not None:
            raise RayEndedError(name) from None
        raise
    finally:
        _guard = None
        # A second Ctrl-C does not keep this process from cleaning up, which takes seconds.
        with handled(signal.SIG_IGN):
            _leave(own)


class RayEndedError(RushesError):
    """The Ray that was started for this command has ended by itself."""

    def __init__(self, process: str) -> None:
        super().__init__(ended_text(process))


def lost_process() -> str | None:
    """Which process of the Ray that this one started has ended by itself; None while all is well. The main thread is
    interrupted then."""
    return None if _guard is None else _guard.lost()


def answers() -> bool:
    """Whether Ray can be asked: not once that which this process started is told to end, or has ended."""
    return ray.is_initialized() and not (_guard is not None and _guard.dying())


def is_own() -> bool:
    """Whether the Ray that this process is connected to was started by it."""
    return _guard is not None and _guard.own is not None


def while_it_lives(work: Callable[[], object]) -> bool:
    """Do `work`, which asks Ray; raises what it raises. False as soon as the Ray that this process started has ended,
    which answers nobody."""
    done: Future[None] = Future()

    def do() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=do, name="rushes-asking-ray", daemon=True).start()
    while not wait((done,), _LOOK_S).done:
        if not answers():
            return False
    done.result()
    return True


def _start(cluster: Meant, num_cpus: int | None, num_gpus: int | None) -> None:
    quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with silenced():
            if cluster.address is None:
                # One thread an actor unless the catalog gives it more CPUs: Ray sets OMP_NUM_THREADS from num_cpus.
                _start_here(num_cpus=num_cpus, num_gpus=num_gpus, runtime_env=_local_env(), **quiet)
            else:
                if cluster.here:
                    _use_token_of_this_machine()
                ray.init(cluster.address, runtime_env=_remote_env(), **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if _wants_token(error):
            raise ConfigError(
                f"{_where(cluster)}: it wants its token; copy ~/.ray/auth_token from its head to this machine (or set "
                "RAY_AUTH_TOKEN), and set RAY_AUTH_MODE=token"
            ) from error
        said = one_line(error) or type(error).__name__
        raise ConfigError(f"{_where(cluster)}: {said}") from error


def _start_here(**options: Any) -> None:
    """A Ray of our own. It gives its node 30 seconds to come up, however busy the machine is, and then raises a bare
    Exception: that is tried again. Raises RuntimeError when it has not come up after `_STARTS` tries."""
    for left in reversed(range(_STARTS)):
        try:
            ray.init(LOCAL, **options)
        except Exception as error:
            if type(error) is not Exception:
                raise
            ray.shutdown()
            if not left:
                raise RuntimeError(f"{one_line(error)} ({_STARTS} times)") from error
        else:
            return


def _use_token_of_this_machine() -> None:
    """As Ray does for 'auto', and not for an address: a cluster that was started here has a token, and wants it."""
    with suppress(ImportError):
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _wants_token(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ray.exceptions.AuthenticationError) or "AuthenticationError" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _where(cluster: Meant) -> str:
    if cluster.address is None:
        return "Ray cannot be started on this machine"
    return f"{cluster.source} {cluster.address}: the Ray cluster cannot be joined"


def _leave(own: OwnCluster | None) -> None:
    """Disconnect, and stop what was started here. A Ray that was killed is not waited for."""
    with silenced():
        if own is None or not own.dying():
            ray.shutdown()
        else:
            # Ray would ask those who no longer answer, for a minute, and end this process then.
            own.kill()
            closing = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
            closing.start()
            closing.join(_CLOSE_S)
            atexit.unregister(ray.shutdown)
        if own is not None:
            own.kill()


@contextmanager
def silenced() -> Iterator[None]:
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

"""`rushes serve`: the endpoint, here or on a cluster; and `status`, `drain`, `down` for one that runs."""

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rushes import console
from rushes.endpoint_notes import address_of_endpoint, noted
from rushes.exits import Exit, fail
from rushes.run_options import (
    ModerationFile,
    Signer,
    SigningCertificates,
    SigningKey,
    TimestampUrl,
    Watermark,
    moderation_settings,
    trust_options,
)
from schemas.errors import ConfigError, RushesError, one_line
from schemas.trust import CredentialsMode

if TYPE_CHECKING:
    from serve.config import ServeConfig

serve = typer.Typer(name="serve", invoke_without_command=True, add_completion=False)
_out = console.out()
_err = console.err()

Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RUSHES_ADDRESS", help="A Ray cluster, e.g. 'auto'; without it, one starts here."),
]
Running = Annotated[
    str | None, typer.Option("--address", envvar="RUSHES_ADDRESS", help="The Ray cluster that the endpoint runs on.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file, see docs/settings-reference.md.")]
_WAIT_S = 600.0
_POLL_S = 0.5
_LOOK_S = 3.0
_SAID_CHARS = 300


@serve.callback()
def start(
    context: typer.Context,
    config: ConfigFile = None,
    catalog: Annotated[str | None, typer.Option("--catalog", help="A catalog file (TOML).")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Where clips go: a folder or s3://bucket/prefix.")] = None,
    database: Annotated[
        str | None, typer.Option("--database", help="Where tasks are kept: sqlite:///FILE or postgresql://….")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="A variant to serve; may be repeated. The first stays loaded.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="127.0.0.1 unless set.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="8000 unless set.")] = None,
    public_origin: Annotated[
        str | None, typer.Option("--public-origin", help="https://… as clients reach it, for output URLs.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Take requests without a key. Only on a loopback address.")
    ] = False,
    credentials: Annotated[
        CredentialsMode | None, typer.Option("--credentials", help="Sign clips (C2PA): on, off, or auto unless set.")
    ] = None,
    signing_key: SigningKey = None,
    signing_certificates: SigningCertificates = None,
    signer: Signer = None,
    timestamp_url: TimestampUrl = None,
    watermark: Watermark = None,
    moderation: ModerationFile = None,
    address: Address = None,
) -> None:
    """Serve the embedded models on this machine, or what `--config` says on a cluster. Ctrl-C drains and stops it.

    Any client of Runway's API works with the printed URL and key; the page is at `/`, the API's documents at `/docs`.
    """
    if context.invoked_subcommand is not None:
        return
    from serve.app import open_serve_catalog
    from serve.config import read_serve_config

    try:
        settings = read_serve_config(
            config,
            catalog=catalog,
            out=out,
            database=database,
            pools={"variants": variant} if variant else None,
            host=host,
            port=port,
            public_origin=public_origin,
            auth=False if no_auth else None,
            trust=trust_options(
                credentials=credentials,
                signing_key=signing_key,
                signing_certificates=signing_certificates,
                signer=signer,
                timestamp_url=timestamp_url,
                watermark=watermark,
            ),
            moderation=None if moderation is None else moderation_settings(moderation),
        )
        entries = open_serve_catalog(settings)
        _serve(settings, entries, address)
    except RushesError as error:
        fail(error)


def _serve(settings: "ServeConfig", catalog: Any, address: str | None) -> None:
    from ray import get_runtime_context
    from ray import serve as ray_serve
    from ray.exceptions import RayError

    from actors.moderator import check_moderation
    from actors.provenance import check_signing
    from cluster.addresses import meant
    from cluster.connect import connected, is_own, lost_process
    from schemas.config import read_config
    from serve.app import application
    from serve.app import start as begin
    from serve.bulk_launchers import JobLauncher, ProcessLauncher

    cluster = meant(address)
    if cluster.address is None:
        _refuse_busy_port(settings.host, settings.port)
        _err.print(check_signing(settings.trust, read_config().state_dir), markup=False)
        if moderated := check_moderation(settings.moderation):
            _err.print(moderated, markup=False)
    _quieten()
    secret = _first_key(settings)
    # Replicas take a CPU each; two more let a bulk run, which shares this machine, plan and render beside them.
    with connected(cluster, num_cpus=(os.cpu_count() or 1) + 2, say=_err.print):
        try:
            _err.print(f"starting: {', '.join(settings.pools.variants)} …")
            ray_serve.start(http_options={"host": settings.host, "port": settings.port}, proxy_location="HeadOnly")
            runs = ProcessLauncher() if is_own() else JobLauncher()
            begin(application(settings, catalog, bulk=runs))
            print(f"serving on {settings.origin}", flush=True)
            if secret:
                _err.print("the first key, shown this once (`rushes keys create` makes more):")
                print(f"RUNWAYML_API_SECRET={secret}", flush=True)
            if not is_own():
                _err.print("it goes on when this command ends: `rushes serve status|drain|down --address …`")
                return
            with noted(read_config().state_dir, get_runtime_context().gcs_address, settings.origin):
                _watch()
        except KeyboardInterrupt:
            if lost_process() is not None:
                raise
            _err.print("\nstopping: what renders is finished, what waits is kept for the next start")
            _stop(settings.queue.drain_s if is_own() else None)
        except (RuntimeError, RayError) as error:
            raise RushesError(f"the endpoint did not start: {one_line(error)}") from error
    _err.print("stopped")


def _stop(drain_s: float | None) -> None:
    """End the endpoint: what renders is finished within `drain_s`. Asked a second time, or without Ray, at once."""
    from ray import serve as ray_serve
    from ray.exceptions import RayError

    from cluster.connect import silenced, while_it_lives

    with suppress(KeyboardInterrupt, RuntimeError, RayError):
        if drain_s is not None and while_it_lives(lambda: _drain(drain_s)):
            with silenced():  # Ray tells of each call that Serve's own processes had open to each other
                while_it_lives(ray_serve.shutdown)


def _refuse_busy_port(host: str, port: int) -> None:
    """Before anything starts: Serve would try for minutes."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"--port: {host}:{port}: {error.strerror}; choose another --port") from error


def _watch() -> None:
    """Until `rushes serve down`. What keeps a pool from work is told, once."""
    from serve.app import is_up

    told: set[str] = set()
    looked_s = time.monotonic()
    while is_up():
        time.sleep(_POLL_S)
        if time.monotonic() - looked_s >= _LOOK_S:
            looked_s = time.monotonic()
            with suppress(Exception):  # a dispatcher that is away has nothing to tell
                pools = _handle().report.remote().result(timeout_s=_LOOK_S)["pools"]
                for text in dict.fromkeys(pool["last_failure"] for pool in pools if pool["last_failure"]):
                    if text not in told:
                        told.add(text)
                        _err.print(f"trouble: {text}", markup=False, soft_wrap=True)


def _quieten() -> None:
    """Serve's own lines of this process: what matters of them is said here, in a sentence."""
    from ray import serve as _  # noqa: F401  (configures its logger)

    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def _first_key(settings: "ServeConfig") -> str | None:
    """Keys are wanted and there is none: make one, so that a newcomer can go on."""
    from serve import keys
    from serve.store.engine import open_store

    store = open_store(settings.database_url)
    try:
        keys.load_secret(store)
        if not settings.auth or store.keys.all():
            return None
        return keys.create(store, "first", time.time())[1]
    finally:
        store.close()


def _handle() -> Any:
    from serve.app import APP
    from serve.dispatch.replica import dispatcher_of

    return dispatcher_of(APP)


def _drain(most_s: float) -> bool:
    """Give out no more work and wait for what runs. True when nothing runs any more."""
    handle = _handle()
    handle.drain.remote().result(timeout_s=30)
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        if handle.running.remote().result(timeout_s=30) == 0:
            return True
        time.sleep(_POLL_S)
    return False


@serve.command()
def status(
    address: Running = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """Pools, queue and Serve's own view of the endpoint on a cluster."""
    with _joined(address):
        status, message = _endpoint_state()
        report = _handle().report.remote().result(timeout_s=30)
    if as_json:
        print(json.dumps({"status": status, "message": message, **report}))
        return
    first = message.strip().splitlines()[0][:_SAID_CHARS] if message.strip() else ""
    _out.print(f"{status}{' (draining)' if report['draining'] else ''} {first}".strip(), markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("pool", no_wrap=True)
    for name in ("replicas", "starting", "busy", "queued", "backlog", "healthy"):
        table.add_column(name, justify="right")
    table.add_column("last failure", overflow="fold")
    for pool in report["pools"]:
        cells = [str(pool[name]) for name in ("replicas", "starting", "busy", "queued")]
        healthy = "yes" if pool["healthy"] else "no"
        name = f"{pool['variant']}/{pool['accelerator']}"
        backlog_s = pool["backlog_s"]
        backlog = "–" if backlog_s is None or not math.isfinite(backlog_s) else f"{backlog_s:.0f} s"
        table.add_row(name, *cells, backlog, healthy, str(pool["last_failure"] or ""))
    _out.print(table)


@serve.command()
def drain(
    address: Running = "auto",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for what runs.")] = _WAIT_S,
) -> None:
    """Give out no more work and wait until nothing renders. What waits stays in the store."""
    with _joined(address):
        _endpoint_state()
        if not _drain(timeout_s):
            _err.print(f"still rendering after {timeout_s:g} s")
            raise typer.Exit(Exit.INCOMPLETE)
    _out.print("drained: nothing renders")


@serve.command()
def down(
    address: Running = "auto",
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for what renders: it is rendered again later.")
    ] = False,
) -> None:
    """Drain the endpoint on a cluster, then stop it. Accepted tasks stay in the store and go on at the next start."""
    with _joined(address):
        from ray import serve as ray_serve

        from cluster.connect import silenced

        _endpoint_state()
        if not now:
            _drain(_WAIT_S)
        with silenced():
            ray_serve.shutdown()
    _out.print("stopped")


def _endpoint_state() -> tuple[str, str]:
    """Serve's own view of the endpoint, and a message. RushesError where there is none."""
    from serve.app import state

    found = state()
    if found is None:
        raise RushesError("no endpoint runs on this cluster")
    return found


@contextmanager
def _joined(address: str | None) -> Iterator[None]:
    """A connection to the cluster whose endpoint is meant. What goes wrong ends the command with one line."""
    from ray.exceptions import RayError

    from cluster.connect import connected
    from schemas.config import read_config

    _quieten()
    try:
        if address is None or address == "local":
            raise ConfigError("--address: say which cluster, e.g. auto")
        if address == "auto" and not os.environ.get("RAY_ADDRESS"):
            address = address_of_endpoint(read_config().state_dir) or address
        with connected(address, say=_err.print):
            yield
    except RushesError as error:
        fail(error)
    except (RayError, RuntimeError, TimeoutError) as error:
        said = one_line(error) or type(error).__name__
        fail(RushesError(f"the endpoint does not answer: {said}"))

"""`rushes serve`: the endpoint, here or on a cluster; and `status`, `drain`, `down` for one that runs."""

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rushes.exits import Exit, fail
from schemas.errors import ConfigError, RushesError

if TYPE_CHECKING:
    from serve.config import ServeConfig

serve = typer.Typer(name="serve", help="The endpoint.", invoke_without_command=True)
_out = Console()
_err = Console(stderr=True)

Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RUSHES_ADDRESS", help="A Ray cluster, e.g. 'auto'; without it, one starts here."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file with the fields of `ServeConfig`.")]
_WAIT_S = 600.0
_POLL_S = 0.5


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
    address: Address = None,
) -> None:
    """Serve the embedded model on this machine, or what `--config` says on a cluster. Ctrl-C drains and stops it.

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
        )
        entries = open_serve_catalog(settings)
        _serve(settings, entries, address)
    except RushesError as error:
        fail(error)


def _serve(settings: "ServeConfig", catalog: Any, address: str | None) -> None:
    from ray import serve as ray_serve

    from cluster.connect import connected
    from rushes.bulk_runs import CommandRuns
    from serve.app import APP, application

    _quieten()
    secret = _first_key(settings)
    # Replicas take a CPU each; two more let a bulk run, which shares this machine, plan and render beside them.
    cpus = None if address is not None else (os.cpu_count() or 1) + 2
    with connected(address, num_cpus=cpus):
        _err.print(f"starting: {', '.join(settings.pools.variants)} …")
        ray_serve.start(http_options={"host": settings.host, "port": settings.port}, proxy_location="HeadOnly")
        runs = CommandRuns(settings.out, settings.catalog)
        ray_serve.run(
            application(settings, catalog, bulk=runs), name=APP, route_prefix="/", external_scaler_enabled=True
        )
        print(f"serving on {settings.origin}", flush=True)
        if secret:
            _err.print("the first key, shown this once (`rushes keys create` makes more):")
            print(f"RUNWAYML_API_SECRET={secret}", flush=True)
        if address is not None:
            _err.print("it goes on when this command ends: `rushes serve status|drain|down --address …`")
            return
        try:
            while True:
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            _err.print("\nstopping: what renders is finished, what waits is kept for the next start")
            _drain(settings.queue.drain_s)
        finally:
            ray_serve.shutdown()
    _err.print("stopped")


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
    from serve.replica import dispatcher_of

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
    address: Address = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """Pools, queue and Serve's own view of the endpoint on a cluster."""
    with _joined(address):
        from ray import serve as ray_serve

        from serve.app import APP

        found = ray_serve.status().applications.get(APP)
        if found is None:
            _err.print("no endpoint runs on this cluster")
            raise typer.Exit(Exit.BROKE)
        report = _handle().report.remote().result(timeout_s=30)
    if as_json:
        print(json.dumps({"status": str(found.status), "message": found.message, **report}))
        return
    _out.print(f"{found.status}{' (draining)' if report['draining'] else ''} {found.message}".strip())
    table = Table("pool", "replicas", "starting", "busy", "queued", "backlog", "healthy", "last failure")
    for pool in report["pools"]:
        cells = [str(pool[name]) for name in ("replicas", "starting", "busy", "queued")]
        healthy = "yes" if pool["healthy"] else "no"
        name = f"{pool['variant']}/{pool['accelerator']}"
        table.add_row(name, *cells, f"{pool['backlog_s']:.0f} s", healthy, pool["last_failure"])
    _out.print(table)


@serve.command()
def drain(
    address: Address = "auto",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for what runs.")] = _WAIT_S,
) -> None:
    """Give out no more work and wait until nothing renders. What waits stays in the store."""
    with _joined(address):
        if not _drain(timeout_s):
            _err.print(f"still rendering after {timeout_s:g} s")
            raise typer.Exit(Exit.INCOMPLETE)
    _out.print("drained: nothing renders")


@serve.command()
def down(
    address: Address = "auto",
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for what renders: it is rendered again later.")
    ] = False,
) -> None:
    """Drain the endpoint on a cluster, then stop it. Accepted tasks stay in the store and go on at the next start."""
    with _joined(address):
        from ray import serve as ray_serve

        if not now:
            _drain(_WAIT_S)
        ray_serve.shutdown()
    _out.print("stopped")


def _joined(address: str | None) -> Any:
    from cluster.connect import connected

    _quieten()
    if address is None:
        fail(ConfigError("--address: say which cluster, e.g. auto"))
    return connected(address)

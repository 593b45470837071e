"""`rushes simulate`: what a policy would do with a fleet."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.simulator import Failure
from rushes.exits import fail

_out = Console()


def simulate(
    trace: Annotated[Path, typer.Option("--trace", help="CSV or Parquet with arrival_s, variant, exec_s.")],
    fleet: Annotated[Path, typer.Option("--fleet", help="TOML with the pools.")],
    policy: Annotated[
        str, typer.Option("--policy", help="fifo, random, round_robin, jsq, p2c, least_work, ect or rushes.")
    ] = "rushes",
    speed: Annotated[float, typer.Option("--speed", help="How many times as fast the trace arrives.")] = 1.0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs with seeds 0 to N-1.")] = 1,
    fail_pool: Annotated[
        str | None,
        typer.Option("--fail", help="POOL@FROM or POOL@FROM-TO, in seconds: a pool that dies (and is back)."),
    ] = None,
    noise: Annotated[float, typer.Option("--noise", help="Sigma of lognormal noise on service times.")] = 0.0,
    search: Annotated[
        bool | None,
        typer.Option("--search/--no-search", help="Look for the highest speed with 90 % on time; small traces do."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the whole report here.")] = None,
) -> None:
    """Run a trace of arrivals through a fleet under a policy, in simulated time.

    The decisions are those of production: the same functions are imported.
    """
    from cluster.simulator import SimulationConfig
    from cluster.simulator import simulate as run
    from schemas.errors import RushesError

    try:
        report = run(
            SimulationConfig(
                trace=trace,
                fleet=fleet,
                policy=policy,
                speed=speed,
                seeds=seeds,
                service_noise=noise,
                failures=(_failure(fail_pool),) if fail_pool else (),
                search_lambda90=search,
            )
        )
    except RushesError as error:
        fail(error)
    plain = report.as_json()
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(plain, indent=1))
    first = plain.pop("measures")
    table = Table("measure", "value", title=f"{policy} at speed {speed:g}", title_justify="left")
    for name, value in plain.items():
        if not isinstance(value, list | dict):
            table.add_row(name, _shown(value))
    for name, value in (first[0] if isinstance(first, list) and first else {}).items():
        if not isinstance(value, list | dict):
            table.add_row(f"{name} (seed 0)", _shown(value))
    _out.print(table)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _failure(text: str) -> "Failure":
    pool, _, when = text.partition("@")
    start, _, end = when.partition("-")
    try:
        return Failure(pool=pool, at_s=float(start), back_s=float(end) if end else None)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not POOL@SECONDS or POOL@SECONDS-SECONDS", param_hint="--fail") from None

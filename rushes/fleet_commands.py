"""`rushes simulate` and `rushes calibrate`: what a policy would do with a fleet, what a variant takes here."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.fit import Measured
from cluster.simulator import Failure
from rushes.exits import fail
from schemas.errors import ConfigError, RushesError
from schemas.shape import Shape

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
        for inner, one in value.items() if isinstance(value, dict) else (("", value),):
            table.add_row(f"{f'{name} {inner}'.strip()} (seed 0)", _shown(one))
    _out.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _failure(text: str) -> "Failure":
    pool, _, when = text.partition("@")
    start, _, end = when.partition("-")
    try:
        return Failure(pool=pool, at_s=float(start), back_s=float(end) if end else None)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not POOL@SECONDS or POOL@SECONDS-SECONDS", param_hint="--fail") from None


def calibrate(
    variant: Annotated[str, typer.Option("--variant", help="The catalog's variant to measure on this machine.")],
    catalog: Annotated[str | None, typer.Option("--catalog", help="A catalog file (TOML).")] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="WxHxFRAMES, may be given many times; else the native ones.")
    ] = None,
    batches: Annotated[str, typer.Option("--batches", help="Batch sizes to try, e.g. 1,2,4.")] = "1,2,4,8",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed calls of each kind; the median counts.")] = 3,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the measurements here too.")] = None,
) -> None:
    """Measure what a variant's model calls take here, and use that for quotes and batch sizes from now on.

    The fit is kept in the cache folder (RUSHES_CACHE_DIR) and printed as lines for a catalog entry.
    """
    from pipelines.calibration import Calibration, keep
    from pipelines.run import open_catalog
    from schemas.config import read_config

    config = read_config()
    try:
        entries = open_catalog(catalog, config)
        found = entries.find(variant)
        if found is None:
            raise ConfigError(f"--variant: unknown variant {variant!r}; available: {', '.join(entries.names[1:])}")
        # Before torch is loaded: as many threads as Ray gives an actor.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(found.needs.cpus))))
        from actors.calibrate import measure
        from actors.weights import StoredWeights
        from cluster.fit import fit_profile
        from models.loader import load

        wanted = [_shape(text) for text in shapes or ()] or [_shape("x".join(map(str, n))) for n in found.shape.native]
        for shape in wanted:
            if issues := found.shape.issues(shape):
                raise ConfigError(f"--shape {shape}: {issues[0]}")
        sizes = sorted({min(int(size), found.max_batch) for size in batches.split(",")} | {1})
        place = None if device == "auto" else device
        model = load(found, device=place, cache=config.cache_dir, store=StoredWeights())
        table = Table("shape", "steps", "batch", "seconds", "a clip")

        def show(call: Measured) -> None:
            each_s = call.seconds / call.batch
            row = (str(call.shape), str(call.steps), str(call.batch), f"{call.seconds:.3f}", f"{each_s:.3f}")
            table.add_row(*row)

        calls, encode_s = measure(model, wanted, sizes, repeats, show)
        cost, curve = fit_profile(found, calls, model.accelerator, model.load_s, encode_s)
    except RushesError as error:
        fail(error)
    _out.print(table)
    kept = keep(config.cache_dir, found, Calibration(variant=found.name, cost=cost, batch_curve=curve))
    plain = cost.model_dump()
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in plain.items() if value)
    points = ", ".join(f"{{ tokens = {p.tokens}, batch = {p.batch}, speedup = {p.speedup:.3f} }}" for p in curve)
    print(f"cost = {{ {fields} }}\nbatch_curve = [{points}]\n# kept in {kept}")
    if json_path is not None:
        told = {"variant": found.name, "cost": plain, "curve": [p.model_dump() for p in curve]}
        told["calls"] = [{**asdict(call), "shape": str(call.shape)} for call in calls]
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(told, indent=1))


def _shape(text: str) -> Shape:
    try:
        width, height, frames = (int(part) for part in text.lower().split("x"))
        return Shape(width=width, height=height, frames=frames)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHTxFRAMES", param_hint="--shape") from None

"""`rushes simulate` and `rushes calibrate`: what a policy would do with a fleet, what a variant takes here."""

import gc
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.cost.fit import Measured
from cluster.simulation.outages import Failure
from cluster.simulation.policies import POLICIES
from cluster.simulation.report import Report
from rushes.exits import fail
from schemas.catalog import Variant
from schemas.config import read_config
from schemas.errors import ConfigError, RushesError
from schemas.shape import Shape

if TYPE_CHECKING:
    from actors.calibrate import Sample

_out = Console()
_MOST_TENANTS = 10


def simulate(
    trace: Annotated[Path, typer.Option("--trace", help="CSV or Parquet with arrival_s, variant, exec_s.")],
    fleet: Annotated[Path, typer.Option("--fleet", help="TOML with the pools.")],
    policy: Annotated[str, typer.Option("--policy", help=f"{', '.join(list(POLICIES)[:-1])} or rushes.")] = "rushes",
    speed: Annotated[float, typer.Option("--speed", help="How many times as fast the trace arrives.")] = 1.0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs with seeds 0 to N-1.")] = 1,
    fail_pools: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            help="POOL@FROM or POOL@FROM-TO, in seconds: a pool that dies (and is back). May be given many times.",
        ),
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
    from cluster.simulation.engine import SimulationConfig
    from cluster.simulation.engine import simulate as run

    try:
        report = run(
            SimulationConfig(
                trace=trace,
                fleet=fleet,
                policy=policy,
                speed=speed,
                seeds=seeds,
                service_noise=noise,
                failures=tuple(_failure(text) for text in fail_pools or ()),
                search_lambda90=search,
            )
        )
        if json_path is not None:
            _write(json_path, report.as_json())
    except RushesError as error:
        fail(error)
    _show(report)


def _show(report: Report) -> None:
    """All in eighty columns: what holds for all seeds, then the first seed, then its tenants."""
    plain = report.as_json()
    table = Table("measure", "value", title=f"{report.policy} at speed {report.speed:g}", title_justify="left")
    for name, value in plain.items():
        if not isinstance(value, list | dict):
            table.add_row(name, _shown(value))
    _out.print(table)
    first = report.measures[0]
    rows = asdict(first)
    del rows["shares"], rows["tenants"]  # the first table has them, and the last
    table = Table("seed 0", "value")
    for name, value in rows.items():
        for inner, one in value.items() if isinstance(value, dict) else (("", value),):
            table.add_row(f"{name} {inner}".strip(), _shown(one))
    _out.print(table)
    if len(first.tenants) > 1:
        table = Table("tenant", *("tasks", "on time", "as asked", "other", "quality", "refused", "late"))
        worst = sorted(first.tenants.items(), key=lambda entry: entry[1].on_time_share)[:_MOST_TENANTS]
        for tenant, one in worst:
            shares = (
                one.on_time_share,
                one.as_asked_share,
                one.downgraded_share,
                one.quality_goodput,
                one.refused_share,
                one.admitted_late_share,
            )
            table.add_row(Text(tenant, overflow="ellipsis"), str(one.tasks), *(f"{share:.1%}" for share in shares))
        _out.print(table)
        if len(first.tenants) > len(worst):
            _out.print(f"the {len(worst)} tenants with the least on time, of {len(first.tenants)}")


def _shown(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(path: Path, plain: Mapping[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain, indent=1))
    except OSError as error:
        raise ConfigError(f"--json: {path}: cannot be written: {error.strerror}") from error


def _failure(text: str) -> Failure:
    """A number may have a sign in its exponent, so the dash between two is looked for."""
    pool, _, when = text.rpartition("@")
    dashes = [place for place, letter in enumerate(when) if letter == "-" and place]
    for first, last in [(when, None), *((when[:place], when[place + 1 :]) for place in dashes)]:
        try:
            found = Failure(pool, float(first), None if last is None else float(last))
        except ValueError:
            continue
        if pool:
            return found
    raise typer.BadParameter(f"{text!r} is not POOL@SECONDS or POOL@SECONDS-SECONDS", param_hint="--fail")


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

    The fit is kept in the cache folder (RUSHES_CACHE_DIR) and printed as lines for a catalog entry. A quantized variant
    is compared with the same one unquantized: PSNR of a clip, memory of the denoiser, time.
    """
    from pipelines.calibration import Calibration, keep
    from pipelines.run import open_catalog

    config = read_config()
    wanted_batches = _batches(batches)
    try:
        entries = open_catalog(catalog, config)
        found = entries.find(variant)
        if found is None:
            raise ConfigError(f"--variant: unknown variant {variant!r}; available: {', '.join(entries.names[1:])}")
        if found.needs.gpus > 1 and device != "cpu":
            gpus = f"{found.needs.gpus:g}"
            raise ConfigError(f"--variant: {variant!r} is split among {gpus} GPUs: its runs are learnt from instead")
        # Before torch is loaded: as many threads as Ray gives an actor.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(found.needs.cpus))))
        from actors.calibrate import compared, measure, sample
        from actors.weights import StoredWeights
        from cluster.cost.fit import fit_profile
        from models.loader import load

        wanted = [_shape(text) for text in shapes or ()] or [_shape("x".join(map(str, n))) for n in found.shape.native]
        for shape in wanted:
            if issues := found.shape.issues(shape):
                raise ConfigError(f"--shape {shape}: {issues[0]}")
        sizes = sorted({min(size, found.max_batch) for size in wanted_batches} | {1})
        place = None if device == "auto" else device
        model = load(found, device=place, cache=config.cache_dir, store=StoredWeights())
        table = Table("shape", "steps", "batch", "seconds", "a clip")

        def show(call: Measured) -> None:
            each_s = call.seconds / call.batch
            row = (str(call.shape), str(call.steps), str(call.batch), f"{call.seconds:.3f}", f"{each_s:.3f}")
            table.add_row(*row)

        calls, encode_s = measure(model, wanted, sizes, repeats, show)
        cost, curve = fit_profile(found, calls, model.accelerator, model.load_s, encode_s)
        quantized = None
        if found.speed.quantization is not None:
            mine = sample(model, model.denoiser_bytes, wanted[0], repeats)
            # Before the other is loaded: a card may not hold both.
            del model
            gc.collect()
            quantized = compared(mine, _plain_sample(found, place, wanted[0], repeats))
    except RushesError as error:
        fail(error)
    _out.print(table)
    kept = keep(config.cache_dir, found, Calibration(variant=found.name, cost=cost, batch_curve=curve))
    plain = cost.model_dump()
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in plain.items() if value)
    points = ", ".join(f"{{ tokens = {p.tokens}, batch = {p.batch}, speedup = {p.speedup:.3f} }}" for p in curve)
    print(f"cost = {{ {fields} }}\nbatch_curve = [{points}]\n# kept in {kept}")
    if quantized is not None:
        print(
            f"# {found.speed.quantization}: {quantized.psnr_db:.1f} dB beside the same clip unquantized, "
            f"{quantized.memory_ratio:.2f} of its denoiser's memory, {quantized.time_ratio:.2f} of its time"
        )
    if json_path is not None:
        told: dict[str, object] = {"variant": found.name, "cost": plain, "curve": [p.model_dump() for p in curve]}
        told["calls"] = [{**asdict(call), "shape": str(call.shape)} for call in calls]
        told["quantized"] = None if quantized is None else asdict(quantized)
        try:
            _write(json_path, told)
        except ConfigError as error:
            fail(error)


def _plain_sample(found: Variant, device: str | None, shape: Shape, repeats: int) -> "Sample":
    """A clip of the same variant with its weights as they are."""
    from actors.calibrate import sample
    from actors.weights import StoredWeights
    from models.loader import load
    from models.quantization import unquantized

    plain = load(unquantized(found), device=device, cache=read_config().cache_dir, store=StoredWeights())
    return sample(plain, plain.denoiser_bytes, shape, repeats)


def _batches(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(f"{text!r} is not whole numbers from 1 on with commas", param_hint="--batches")
    return sizes


def _shape(text: str) -> Shape:
    try:
        width, height, frames = (int(part) for part in text.lower().split("x"))
        return Shape(width=width, height=height, frames=frames)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHTxFRAMES", param_hint="--shape") from None

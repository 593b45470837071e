"""`rushes catalog`: the variants and the finishers, for people and for machines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rushes import console
from rushes.exits import Exit, fail
from schemas.catalog import Catalog, Variant, load_catalog, shipped_catalog
from schemas.config import read_config
from schemas.errors import RushesError
from schemas.extract import Extractor
from schemas.finish import Finisher
from schemas.inputs import FRAMES, Kind, Role
from schemas.motion import Steer
from schemas.request import Mode


def catalog(
    path: Annotated[Path | None, typer.Argument(help="A catalog file; without it, the one that ships.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
    finishers: Annotated[
        bool, typer.Option("--finishers", help="Only who finishes clips; with --json, those instead of the variants.")
    ] = False,
    extractors: Annotated[
        bool, typer.Option("--extractors", help="The same of who finds structures in pictures.")
    ] = False,
) -> None:
    """List the variants: what each can render, what it needs and costs; who finishes clips; who finds structures. Of a
    FILE, checks the classes, folders, LoRAs and networks that it names too; exit code 2 when one is wrong."""
    named = path or read_config().catalog
    try:
        found = load_catalog(Path(named)) if named else shipped_catalog()
    except RushesError as error:
        fail(error)
    if as_json and extractors:
        print(json.dumps([_extractor(one) for one in found.extractors.values()], indent=1))
    elif as_json and finishers:
        print(json.dumps([_finisher(one) for one in found.finishers.values()], indent=1))
    elif as_json:
        print(json.dumps([_told(variant) for variant in found.variants.values()], indent=1))
    else:
        only = [_finishers(found)] * finishers + [_extractors(found)] * extractors
        for table in only or (_table(found), _finishers(found), _extractors(found)):
            console.out().print(table)
    if path is not None and (wrong := list(_wrong(path, found))):
        for text in wrong:
            console.err().print(f"error: {text}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(Exit.USAGE)


def _told(variant: Variant) -> dict[str, Any]:
    """The entry, and the inputs, the motion and the length that it comes to: what the class carries and the entry
    says."""
    roles = {mode.value: [role.value for role in variant.roles(mode)] for mode in variant.modes}
    motion = {mode.value: [steer.value for steer in variant.steers(mode)] for mode in variant.modes}
    prompts = {mode.value: "several" if variant.several_prompts(mode) else "one" for mode in variant.modes}
    longest_s = {mode.value: variant.longest_s(mode) for mode in variant.modes}
    return {
        **variant.model_dump(mode="json"),
        "inputs": roles,
        "needed_inputs": {mode.value: [role.value for role in variant.needed(mode)] for mode in variant.modes},
        "motion": motion,
        # Of a variant that has no amounts: how far its camera goes is its weights' to say, whatever a key says.
        "camera_directions": {mode.value: [way.value for way in variant.directions(mode)] for mode in variant.modes},
        "prompts": prompts,
        "longest_s": longest_s,
        "makes_sound": [mode.value for mode in variant.modes if variant.makes_sound(mode)],
    }


def _finisher(one: Finisher) -> dict[str, Any]:
    """The entry, and what it does."""
    return {**one.model_dump(mode="json"), "operations": [operation.value for operation in one.operations]}


def _extractor(one: Extractor) -> dict[str, Any]:
    """The entry, and what it finds."""
    return {**one.model_dump(mode="json"), "kind": one.kind.value}


def _wrong(path: Path, found: Catalog) -> Iterator[str]:
    from models.checking import extractor_problems, finisher_problems, problems

    for variant in found.variants.values():
        for text in problems(variant):
            yield f"{path}: variants.{variant.name}.{text}"
    for finisher in found.finishers.values():
        for text in finisher_problems(finisher):
            yield f"{path}: finishers.{finisher.name}.{text}"
    for extractor in found.extractors.values():
        for text in extractor_problems(extractor):
            yield f"{path}: extractors.{extractor.name}.{text}"


def _table(found: Catalog) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", no_wrap=True)
    table.add_column("from", overflow="fold", max_width=10)
    table.add_column("shape", no_wrap=True)
    for name in ("fps", "steps", "GPUs", "GiB", "USD/h"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant in found.variants.values():
        table.add_row(*_row(variant))
    return table


def _finishers(found: Catalog) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("finisher", no_wrap=True)
    table.add_column("does", overflow="fold", max_width=12)
    table.add_column("by", overflow="fold")
    for name in ("s/megapixel", "USD/h"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.finishers.values():
        numbers = (f"{number:g}" for number in (one.s_per_megapixel, one.price_usd_per_hour))
        table.add_row(one.name, " ".join(one.operations), one.title or one.method, *numbers)
    return table


def _extractors(found: Catalog) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("extractor", "finds", "by"):
        table.add_column(name, overflow="fold")
    for one in found.extractors.values():
        table.add_row(one.name, one.kind.value, one.title or one.method)
    return table


def _row(v: Variant) -> tuple[str, ...]:
    bits = (f"  {v.speed.quantization}",) if v.speed.quantization else ()
    names = "\n".join((v.name, *bits, *(f"  = {alias}" for alias in v.aliases)))
    text = ("text",) if Mode.TEXT_TO_VIDEO in v.modes else ()
    needed = {role for mode in v.modes for role in v.needed(mode)}
    roles = (
        ("with " if role in needed else "") + role.value.removesuffix("_frame") + _kinds(v, role)
        for role in v.all_roles
    )
    several = ("prompts",) if any(map(v.several_prompts, v.modes)) else ()
    sound = ("sound",) if any(map(v.makes_sound, v.modes)) else ()
    given = " ".join((*text, *several, *sound, *roles, *(_steer(v, steer) for steer in v.all_steers)))
    numbers = (v.fps, v.steps, v.needs.gpus, v.needs.vram_gib, v.price_usd_per_gpu_hour)
    return names, given, str(v.shape.default()), *(f"{number:g}" for number in numbers)


def _steer(v: Variant, steer: Steer) -> str:
    """What of the motion it follows; of a camera that it has only ways for, which those are."""
    ways = v.all_directions if steer is Steer.CAMERA else ()
    axes: dict[str, list[str]] = {}
    for way in ways:
        axes.setdefault(way.partition("_")[0], []).append(way)
    shown = (axis if len(both) > 1 else both[0].replace("_", " ") for axis, both in axes.items())
    return f"{steer.value} (only which way: {', '.join(shown)})" if ways else steer.value


def _kinds(v: Variant, role: Role) -> str:
    """The kinds of a structure, or of frames that are no pictures, where an entry names them."""
    kinds = v.kinds(role)
    goes_without_saying = set(kinds) == set(Kind) or (role in FRAMES and kinds == (Kind.RAW,))
    return "" if not kinds or goes_without_saying else f" ({' '.join(kinds)})"

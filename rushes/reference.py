"""Writes the reference pages of the documentation from the code that reads what they describe.

python -m rushes.reference     # docs/catalog-, command-, results- and settings-reference.md

So that a page cannot say other than the code: a test holds that the files are what this would write.
"""

import inspect
import json
import types
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from rushes.cli import COMMANDS, loaded
from schemas.audit import AuditSettings
from schemas.catalog import Adapter, BatchPoint, CostProfile, Latent, Needs, SpeedSettings, Variant
from schemas.config import Config
from schemas.examples import Example
from schemas.extract import Extractor
from schemas.finish import FLOOR, Finisher
from schemas.moderation import ModerationSettings, Thresholds
from schemas.parts import ControlNet, IpAdapter, MotionLora, MotionLoras
from schemas.run import GroupQuote, RunOptions, RunQuote, RunSummary
from schemas.shape import ShapeRule
from schemas.trust import TrustSettings
from serve.config import Limits, MediaLimits, Pools, Queue, Retention, ServeConfig, Webhooks
from storage.tables import RESULT_SCHEMA

DOCS = Path(__file__).resolve().parent.parent / "docs"

# A number's unit, by the end of its name; the first that fits counts.
UNITS = (
    ("price_usd_per_gpu_hour", "USD an hour"),
    ("gpu_s", "GPU-seconds"),
    ("usd", "USD"),
    ("_s_per_megapixel", "s a megapixel"),
    ("step_s_per_token_squared", "s a token²"),
    ("step_s_per_token", "s a token"),
    ("price_usd_per_hour", "USD an hour"),
    ("_s", "s"),
    ("_bytes", "bytes"),
    ("_gib", "GiB"),
    ("s_per_megapixel", "s a megapixel"),
    ("_pixels", "pixels"),
    ("_side", "pixels"),
    ("divisor", "pixels"),
    ("spatial", "pixels"),
    ("frames", "frames"),
    ("refused", "rows"),
    ("flagged", "rows"),
    ("frame_step", "frames"),
    ("frame_offset", "frames"),
    ("temporal", "frames"),
    ("fps", "frames a second"),
    ("rows", "rows"),
    ("tasks", "tasks"),
    ("batches", "calls"),
    ("batch_size", "tasks"),
    ("to_render", "tasks"),
    ("already_done", "rows"),
    ("duplicates", "rows"),
    ("succeeded", "rows"),
    ("failed", "rows"),
    ("rejected", "rows"),
    ("rendered", "clips"),
    ("texts_encoded", "texts"),
    ("texts_reused", "texts"),
    ("reused", "rows"),
    ("limit", "rows"),
    ("_clips", "clips"),
    ("actors_lost", "processes"),
    ("steps", "denoising steps"),
    ("parameters_b", "10⁹"),
    ("tokens", "tokens"),
    ("gpus", "GPUs"),
    ("cpus", "CPUs"),
    ("max_batch", "clips"),
    ("batch", "clips"),
    ("_credits", "credits"),
    ("_chars", "UTF-16 units"),
    ("max_concurrent", "tasks"),
    ("max_daily", "tasks"),
    ("max_batch_tasks", "tasks"),
    ("max_attempts", "attempts"),
    ("_replicas", "replicas"),
)
# Numbers that count nothing.
PLAIN = frozenset(
    {
        "weight",
        "guidance",
        "guidance_off_at",
        "strength",
        "quality",
        "speedup",
        "channels",
        "hidden",
        "layers",
        "port",
        "flag",
        "refuse",
        "low",
        "high",
    }
)

_CATALOG: dict[str, type[BaseModel]] = {
    "[variants.NAME]": Variant,
    "shape": ShapeRule,
    "latent": Latent,
    "needs": Needs,
    "speed": SpeedSettings,
    "cost": CostProfile,
    "batch_curve": BatchPoint,
    "loras": Adapter,
    "controlnet": ControlNet,
    "ip_adapter": IpAdapter,
    "motion_loras": MotionLoras,
    "motion_loras.DIRECTION": MotionLora,
    "examples": Example,
    "[finishers.NAME]": Finisher,
    "[extractors.NAME]": Extractor,
}
_ENDPOINT: dict[str, type[BaseModel]] = {
    "The endpoint": ServeConfig,
    "[limits]": Limits,
    "[media]": MediaLimits,
    "[queue]": Queue,
    "[pools]": Pools,
    "[webhooks]": Webhooks,
    "[retention]": Retention,
    "[trust]": TrustSettings,
    "[audit]": AuditSettings,
    "[moderation]": ModerationSettings,
    "[moderation.categories.NAME]": Thresholds,
}
_RUN: dict[str, type[BaseModel]] = {
    "RunOptions": RunOptions,
    "TrustSettings": TrustSettings,
    "AuditSettings": AuditSettings,
    "ModerationSettings": ModerationSettings,
    "Thresholds": Thresholds,
}
_RUN_SAYS: dict[str, type[BaseModel]] = {
    "RunQuote": RunQuote,
    "GroupQuote": GroupQuote,
    "RunSummary": RunSummary,
}
# What stands in a column of the results. Seconds and money of a task stand on the first of the rows that share it.
_COLUMNS = {
    "run_id": "of the run: the same for the same manifest and settings",
    "row": "from 0, over the whole manifest; of several samples each is one",
    "file": "of the manifest",
    "line": "of the file, from 1",
    "id": "as the row said, else its line",
    "status": "`SUCCEEDED`, `FAILED`, `REJECTED`; `PENDING` where the run was interrupted",
    "uri": "the clip",
    "poster_uri": "a picture of it",
    "sha256": "of the clip's bytes",
    "clip_bytes": "its size",
    "width": "pixels",
    "height": "pixels",
    "frames": "its length",
    "fps": "frames a second",
    "audio": "whether it has sound",
    "unsigned_sha256": "of the bytes before they were signed; null where they are not",
    "signed_by": "whose certificate signed the clip; null where none did",
    "variant": "that rendered it",
    "mode": "`text_to_video`, `image_to_video`, `video_to_video`",
    "revision": "of the weights",
    "seed": "given or derived",
    "sample": "which of the row's samples it is, from 0",
    "prompt": "as the row said; of several prompts, the first",
    "prompts": "JSON: several prompts as they were rendered, each with `from_s`",
    "inputs": "JSON: images and videos with role, frame, strength, kind and what stands for their content",
    "motion": "JSON: `camera` and `paths` with absolute keys, and `edit`; null where nothing",
    "loras": "JSON: LoRAs of the row's own, each with its weight; null where none",
    "finish": "JSON: what was done to the clip after it was rendered, in words; null where nothing",
    "attempts": "until it ended",
    "queue_s": "seconds between its batch's preparation and its model call",
    "load_s": "its share of loading the model",
    "render_s": "its share of the model call",
    "finish_s": "of what was done to it afterwards, on no accelerator of its own",
    "encode_s": "of encoding the video, on CPU",
    "store_s": "of storing it",
    "quoted_gpu_s": "GPU-seconds before",
    "quoted_usd": "their price",
    "quoted_finish_usd": "of that, what is done to the clip afterwards",
    "billed_gpu_s": "GPU-seconds after: for which accelerators were held",
    "billed_usd": "their price, and that of what was done to the clip afterwards",
    "billed_finish_usd": "of that, what was done to the clip afterwards",
    "error_class": "of the error tree in `schemas/errors.py`",
    "error": "why there is no clip",
    "failure_code": "of what moderation refused: `SAFETY.INPUT.TEXT` …; `INTERNAL` where it could not look",
    "moderation": "JSON: what moderation found, refused or flagged; null where nothing",
    "fingerprint": "32 hexadecimal digits over all inputs of the task: what the clip is stored by",
    "metadata": "JSON: the row's `metadata` and what it had beside the known columns",
}
_WORDS = {str: "string", int: "integer", float: "number", bool: "true or false", Path: "path", JsonValue: "value"}
# Read elsewhere than in `schemas.config`.
_MORE_ENVIRONMENT = (
    ("RUSHES_ADDRESS", "string", "–", "not set", "the Ray cluster, where no --address is given, e.g. 'auto'"),
    ("RAY_ADDRESS", "string", "–", "not set", "the same, where neither is given or it is 'auto'; it is told"),
    (
        "RUSHES_S3_PUBLIC_ENDPOINT",
        "string",
        "–",
        "not set",
        "the address that signed URLs name, where clients reach the store under another than AWS_ENDPOINT_URL",
    ),
)
_WRITTEN = "<!-- Written by `python -m rushes.reference` from the code. Do not edit: edit the descriptions there. -->"
_CATALOG_INTRO = """\
A catalog is a TOML file with one table `[variants.NAME]` for each variant, `[finishers.NAME]` for who finishes
clips, and `[extractors.NAME]` for who finds structures in pictures. Give it as `--catalog FILE` or in
`RUSHES_CATALOG`; `rushes catalog FILE` checks it. How to write one is in [Add your own model](add-a-model.md); the
one that ships is `rushes/catalog.toml`. A key that is not here is refused."""
_FLOOR_INTRO = """\
An entry of the same name replaces one. `rushes catalog` and `GET /v1/variants` list them with those of a file."""
_SETTINGS_INTRO = """\
What `rushes serve --config FILE` takes, as TOML, and what `serve deploy` takes as `args`. Options of the command win
over the file. What each is for is in [Operating an endpoint](operations.md). A key that is not here is refused."""
_RESULTS_INTRO = """\
What a run leaves: a table with a row for each row of the manifest, and `run.json`. That has `options` (RunOptions),
`quote` (RunQuote), `status` (`RUNNING`, `SUCCEEDED`, `INTERRUPTED` or `FAILED`) and at the end `summary` (RunSummary).
`rushes.render` returns a RunSummary, `rushes.estimate` a RunQuote; both take the other fields of RunOptions by keyword.
`--json` prints the same."""
_COLUMNS_INTRO = """\
`results/<run>/part-*.parquet`. Where rows share a task, its seconds and money stand on the first of them."""
_COMMANDS_INTRO = """\
What each command takes, as its `--help` says it. Exit codes: 0 done, 1 it broke, 2 usage, 3 some rows have no clip, 130
interrupted."""
_ENVIRONMENT_INTRO = """\
Read by every command. What begins with `RUSHES_` is handed on to the Ray cluster that a command joins. For S3 the usual
AWS variables count too: see [Stores](stores.md)."""


def pages() -> dict[str, str]:
    """The pages by file name."""
    return {
        "catalog-reference.md": catalog_page(),
        "settings-reference.md": settings_page(),
        "command-reference.md": command_page(),
        "results-reference.md": results_page(),
    }


def catalog_page() -> str:
    rows = (
        (
            f"`{one.name}`",
            ", ".join(f"`{operation}`" for operation in one.operations),
            f"`{_told(one.s_per_megapixel)}`",
            f"`{_told(one.price_usd_per_hour)}`",
            _cell(one.title),
        )
        for one in FLOOR.values()
    )
    head = ("finisher", "does", "`s_per_megapixel`", "`price_usd_per_hour`", "by")
    floor = ("## Finishers that are always there", _FLOOR_INTRO, _markdown(head, rows))
    return _page("Catalog reference", _CATALOG_INTRO, *_sections(_CATALOG), *floor)


def settings_page() -> str:
    rows = (*_environment(), *((f"`{name}`", *rest) for name, *rest in _MORE_ENVIRONMENT))
    environment = ("## Environment", _ENVIRONMENT_INTRO, _table("variable", rows))
    return _page("Settings reference", _SETTINGS_INTRO, *_sections(_ENDPOINT), *environment)


def command_page() -> str:
    parts: list[str] = []
    for name, place in COMMANDS.items():
        command = loaded(name, place)
        parts += _command(f"rushes {name}", command)
        for child, found in getattr(command, "commands", {}).items():
            parts += _command(f"rushes {name} {child}", found)
    return _page("Command reference", _COMMANDS_INTRO, *parts)


def results_page() -> str:
    if absent := set(RESULT_SCHEMA.names) ^ set(_COLUMNS):
        raise ValueError(f"columns of the results and their meanings differ: {sorted(absent)}")
    rows = ((f"`{field.name}`", str(field.type), _cell(_COLUMNS[field.name])) for field in RESULT_SCHEMA)
    columns = ("## Columns", _COLUMNS_INTRO, _markdown(("column", "type", "meaning"), rows))
    return _page(
        "Results reference", _RESULTS_INTRO, *columns, *_sections(_RUN), *_sections(_RUN_SAYS, with_default=False)
    )


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}"
    yield inspect.cleandoc(command.help or "")
    rows = [_parameter(parameter) for parameter in command.params]
    if rows:
        yield _markdown(("option", "value", "default", "meaning"), rows)


def _parameter(parameter: Any) -> tuple[str, str, str, str]:
    if not getattr(parameter, "help", None):
        raise ValueError(f"{parameter.name}: no help")
    is_argument = parameter.param_type_name == "argument"
    names = (parameter.name.upper(),) if is_argument else (*parameter.opts, *parameter.secondary_opts)
    flag = getattr(parameter, "is_flag", False)
    annotation = parameter.type_descriptor.annotation
    kind = _type(get_args(annotation)[0] if parameter.multiple else annotation, {})
    value = "–" if flag else f"{kind}{', many times' if parameter.multiple else ''}"
    return ", ".join(f"`{name}`" for name in names), value, _default_of(parameter, flag), _cell(parameter.help)


def _default_of(parameter: Any, flag: bool) -> str:
    default = getattr(parameter.default, "value", parameter.default)
    if parameter.required:
        return "required"
    environment = f"`{parameter.envvar}`" if parameter.envvar else ""
    shown = (
        "" if default in (None, "", (), []) or flag else f"`{_told(default) if _is_number(type(default)) else default}`"
    )
    return " else ".join(filter(None, (environment, shown))) or "–"


def _page(title: str, introduction: str, *parts: str) -> str:
    return "\n\n".join((f"# {title}", _WRITTEN, introduction, *parts)) + "\n"


def _sections(models: dict[str, type[BaseModel]], with_default: bool = True) -> Iterator[str]:
    """A section a model. Whoever only reads values has no use for defaults."""
    titles = {model: title for title, model in models.items()}
    for title, model in models.items():
        yield f"## {title}"
        yield inspect.cleandoc(model.__doc__ or "")
        rows = [_row(name, field, titles) for name, field in model.model_fields.items()]
        if with_default:
            yield _table("key", rows)
        else:
            yield _markdown(("key", "type", "unit", "meaning"), [(*row[:3], row[4]) for row in rows])


def _table(first: str, rows: Iterable[Sequence[str]]) -> str:
    return _markdown((first, "type", "unit", "default", "meaning"), rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _row(name: str, field: FieldInfo, titles: dict[type[BaseModel], str]) -> tuple[str, str, str, str, str]:
    if not field.description:
        raise ValueError(f"{name}: no description")
    limits = _limits(field)
    kind = _type(field.annotation, titles) + (f", {limits}" if limits else "")
    unit = unit_of(name, field.annotation)
    return f"`{name}`", kind, unit, _default(field, unit), _cell(field.description)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _environment() -> Iterator[tuple[str, ...]]:
    for name, field in Config.model_fields.items():
        _, kind, unit, default, meaning = _row(name, field, {})
        if name == "cache_dir":
            default = "`$XDG_CACHE_HOME/rushes`, else `~/.cache/rushes`"
        if name == "state_dir":
            default = "`$XDG_STATE_HOME/rushes`, else `~/.local/state/rushes`"
        if name == "media_schemes":
            kind = "names with commas"
        yield f"`RUSHES_{name.upper()}`", kind, unit, default, meaning


def unit_of(name: str, annotation: Any) -> str:
    """A number's unit, '–' for what is no number. ValueError for a number whose unit nobody knows."""
    if not _is_number(annotation) or name in PLAIN:
        return "–"
    for end, unit in UNITS:
        if name.endswith(end):
            return unit
    raise ValueError(f"{name}: say its unit in rushes.reference, or that it has none")


def _is_number(annotation: Any) -> bool:
    plain = [part for part in _parts(annotation) if part is not type(None)]
    return all(part in (int, float) for part in plain)


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _type(annotation: Any, titles: dict[type[BaseModel], str]) -> str:
    parts = [part for part in _parts(annotation) if part is not type(None)]
    if len(parts) > 1:
        return "value"
    (one,) = parts
    origin, arguments = get_origin(one), get_args(one)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is frozenset or (origin is tuple and arguments[-1] is Ellipsis):
        return f"list of {_plural(arguments[0], titles)}"
    if origin is tuple and len(set(arguments)) > 1:
        return f"pair of {' and '.join(_type(argument, titles) for argument in arguments)}"
    if origin is tuple:
        return f"list of {len(arguments)} {_plural(arguments[0], titles)}"
    if origin is dict:
        return f"table of {_plural(arguments[1], titles)}"
    if one in _WORDS:
        return _WORDS[one]
    if issubclass(one, Enum):
        return " or ".join(f"`{member.value}`" for member in one)
    title = titles.get(one)
    if title is None:
        return "table"
    return f"[table {title.strip('[]')}](#{_anchor(title)})"


def _plural(annotation: Any, titles: dict[type[BaseModel], str]) -> str:
    word = _type(annotation, titles)
    if word.isalpha():
        return f"{word}s"
    return (
        word.replace("[table", "[tables")
        .replace("list of", "lists of")
        .replace("pair of", "pairs of")
        .replace("` or `", "`, `")
    )


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _limits(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    said = [f"{sign} {_told(getattr(m, at))}" for m in field.metadata for at, sign in signs.items() if hasattr(m, at)]
    if any(getattr(m, "min_length", 0) for m in field.metadata):
        said.append("not empty")
    return ", ".join(said)


def _default(field: FieldInfo, unit: str) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "not set"
    if isinstance(value, BaseModel):
        return "its own"
    shown = f"`{_told(value)}`"
    if unit == "bytes" and isinstance(value, int):
        shown += f" ({value >> 20} MiB)" if value >= 1 << 20 else f" ({value >> 10} KiB)"
    return shown


def _told(value: Any) -> str:
    """As TOML has it."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Enum):
        return json.dumps(value.value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_told, value))}]"
    return json.dumps(value)


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text)
        print(f"docs/{name}")


if __name__ == "__main__":
    main()

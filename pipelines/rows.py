"""The rows of one chunk of a manifest, as columns, and how a column's name becomes a field's.

Names are taken as people write them: `Prompt`, `negative prompt` and the API's `negativePrompt` are all
`negative_prompt`. A column that is no field is kept as metadata, and counted, so that a misspelt one can be told of.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from schemas.errors import Issue
from schemas.finish import read_steps
from schemas.loras import Lora, read_loras
from schemas.motion import MOTION_FIELDS
from schemas.request import MAX_SAMPLES, Request

# A prompt by template: made before anything else looks at the row (`pipelines.row_templates`).
TEMPLATE_FIELDS = ("template", "slots")
FIELDS = frozenset(Request.model_fields) | frozenset(TEMPLATE_FIELDS)
# Without one of these columns a table is no manifest.
ASKED_BY = frozenset({"prompt", "prompts", "template", "image", "video", "inputs"})

# What the endpoint's clients call the same things (`serve.wire.creates`).
_ALIASES = {
    "prompt_text": "prompt",
    "prompt_image": "image",
    "image_uri": "image",
    "prompt_video": "video",
    "video_uri": "video",
    "model": "variant",
    "duration": "duration_s",
    "aspect_ratio": "ratio",
}
# Names of other tools, whose values need not mean what ours do: told of, never taken.
_HINTS = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "inference_steps": "num_inference_steps",
    "frames": "num_frames",
    "n_frames": "num_frames",
    "frame_count": "num_frames",
    "video_length": "num_frames",
    "length": "num_frames",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "negative": "negative_prompt",
    "text": "prompt",
    "caption": "prompt",
    "description": "prompt",
    "size": "ratio",
    "resolution": "ratio",
    "frame_rate": "fps",
    "framerate": "fps",
    "sampler": "scheduler",
    "image_path": "image",
    "init_image": "image",
    "first_frame": "image",
    "video_path": "video",
    "denoising_strength": "strength",
    "file_name": "id",
}
_INPUT_ALIASES = {"at_seconds": "at_s"}
_PROMPT_ALIASES = {"from_seconds": "from_s", "prompt": "text", "prompt_text": "text"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN_WORDS = re.compile(r"[\s\-.]+")
# Manifests may have a key of its own in every row; more names than this are not told apart.
_MOST_UNKNOWN = 200


@dataclass
class Rows:
    """Rows as columns: `columns[field][i]` is row i's value, None where the row does not give it.

    `broken` holds the rows that could not be read at all, by position: (position, field, reason). `unknown` counts,
    for each column that is no field, the rows that have it; `blank` are lines of nothing but separators.
    """

    uri: str
    lines: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    broken: list[tuple[int, str, str]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    blank: int = 0
    # Of rows of several samples, which of them each is; empty while they are as they were read.
    samples: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.lines)

    def cut(self, most: int) -> None:
        """Keep the first `most` rows."""
        self.lines = self.lines[:most]
        self.columns = {name: values[:most] for name, values in self.columns.items()}
        self.broken = [b for b in self.broken if b[0] < most]

    def spread(self) -> "Rows":
        """These rows with as many in the place of each as it has samples. What is no number of samples breaks its
        row."""
        given = self.columns.get("samples")
        if given is None or self.samples:
            return self
        broken = list(self.broken)
        counts: list[int] = []
        for position, value in enumerate(given):
            count = _samples(value)
            if count is None:
                told = f"must be a whole number from 1 to {MAX_SAMPLES} (got {repr(value)[:60]})"
                broken.append((position, "samples", told))
            counts.append(count or 1)
        for position, _, _ in self.broken:
            counts[position] = 1
        of = [position for position, count in enumerate(counts) for _ in range(count)]
        starts = [0, *accumulate(counts)]
        columns = {name: [values[at] for at in of] for name, values in self.columns.items() if name != "samples"}
        return Rows(
            self.uri,
            [self.lines[at] for at in of],
            columns,
            [(starts[position], path, reason) for position, path, reason in broken],
            self.unknown,
            self.blank,
            [sample for count in counts for sample in range(count)],
        )

    def fill(self, parsed: list[dict[str, Any]]) -> None:
        """Take the values of `parsed`, one dictionary a line of `lines`, by the names that the manifest gives them."""
        names = dict.fromkeys(chain.from_iterable(parsed))
        self.take({name: [row.get(name) for row in parsed] for name in names if field_of(name)})
        extra = {name for name in names if not field_of(name)}
        if not extra:
            return
        more: list[dict[str, Any] | None] = []
        for row in parsed:
            own = {name: row[name] for name in row if name in extra}
            more.append(own or None)
            self.unknown.update(name for name, value in own.items() if value is not None)
        self._merge_metadata(more)

    def take(self, columns: Mapping[str, list[Any]]) -> None:
        """Take columns that are fields under whatever name. A row that gives one field twice is broken."""
        sources: defaultdict[str, list[str]] = defaultdict(list)
        for name in columns:
            sources[field_of(name) or name].append(name)
        for own, given in sources.items():
            self.columns[own] = list(columns[given[0]])
            for name in given[1:]:
                self._join(own, given[0], name, columns[name])
        for name in ("image", "video"):
            if name in self.columns:
                self.columns[name] = [v if isinstance(v, str) and v else _media(v) for v in self.columns[name]]
        if "inputs" in self.columns:
            self.columns["inputs"] = [self._inputs(i, v) for i, v in enumerate(self.columns["inputs"])]
        for name in MOTION_FIELDS.keys() & self.columns.keys():
            self.columns[name] = [self._motion(i, name, v) for i, v in enumerate(self.columns[name])]
        if "prompts" in self.columns:
            self.columns["prompts"] = [self._prompts(i, v) for i, v in enumerate(self.columns["prompts"])]
        if "slots" in self.columns:
            self.columns["slots"] = [self._json("slots", i, v) for i, v in enumerate(self.columns["slots"])]
        for name in ("finish", "loras"):
            if name in self.columns:
                self.columns[name] = [self._listed(i, v, name) for i, v in enumerate(self.columns[name])]
        if "metadata" in self.columns:
            self.columns["metadata"] = [json_or_text(v) if isinstance(v, str) else v for v in self.columns["metadata"]]

    def take_unknown(self, columns: Mapping[str, list[Any]]) -> None:
        """Keep columns that are no fields as metadata."""
        if not columns:
            return
        for name, values in columns.items():
            self.unknown[name] += sum(value is not None for value in values)
        names = tuple(columns)
        self._merge_metadata([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])

    def _inputs(self, position: int, value: Any) -> Any:
        """A list of inputs, however it is written: as a list, as one, or as JSON in a cell."""
        value = self._json("inputs", position, value)
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            return value
        return [_input(one) if isinstance(one, dict) else one for one in value] or None

    def _prompts(self, position: int, value: Any) -> Any:
        """A list of prompts with our names, however it is written; None where there are none."""
        value = self._json("prompts", position, value)
        if isinstance(value, dict):
            value = [value]
        return None if value == [] else [_prompt(one) for one in value] if isinstance(value, list) else value

    def _motion(self, position: int, name: str, value: Any) -> str | None:
        """A camera, paths or an edit as JSON with our names: many rows have the same, and a text can be looked up."""
        value = self._json(name, position, value)
        try:
            return None if value is None or value == [] else to_json(_plain_keys(value)).decode()
        except (ValueError, RecursionError, UnicodeError) as error:
            self.broken.append((position, name, f"not JSON: {str(error)[:120]}"))
            return None

    def _json(self, field: str, position: int, value: Any) -> Any:
        """A value that a cell may hold as JSON."""
        if not isinstance(value, str):
            return value
        try:
            return from_json(value) if value.strip() else None
        except (ValueError, UnicodeError) as error:
            self.broken.append((position, field, f"not JSON: {str(error)[:120]}"))
            return None

    def _listed(self, position: int, value: Any, name: str) -> Any:
        """Steps or LoRAs, read here: rows with the same ones then share their settings."""
        value = self._json(name, position, value)
        if value is None or value == []:
            return None
        found: tuple[Any, ...]
        issues: tuple[Issue, ...]
        if name == "finish":
            found, issues = read_steps(value)
        else:
            loras, issues = read_loras(value)
            found = tuple(_beside(one, self.uri) for one in loras)
        for issue in issues:
            told = f"; available: {', '.join(issue.choices)}" if issue.choices else ""
            self.broken.append((position, issue.path, f"{issue.message}{told}"))
        return found or None

    def _join(self, own: str, first: str, name: str, values: list[Any]) -> None:
        column = self.columns[own]
        for position, value in enumerate(values):
            if value is None:
                continue
            if column[position] is None:
                column[position] = value
            elif column[position] != value:
                self.broken.append((position, own, f"given twice, as {first!r} and as {name!r}"))

    def _merge_metadata(self, more: list[dict[str, Any] | None]) -> None:
        mine = self.columns.get("metadata", [None] * len(more))
        self.columns["metadata"] = [
            own if added is None else added if own is None else {**added, **own} if isinstance(own, dict) else own
            for own, added in zip(mine, more, strict=True)
        ]


@lru_cache(maxsize=4096)
def field_of(name: str) -> str | None:
    """The field that a column's name means, however it is written; None when it means none."""
    plain = _plain(name)
    return plain if plain in FIELDS else _ALIASES.get(plain)


def nearest_field(name: str) -> str | None:
    """The field that an unknown column looks like; None when it looks like none."""
    plain = _plain(name)
    hint = _HINTS.get(plain)
    if hint is None:
        close = difflib.get_close_matches(plain, (*FIELDS, *_ALIASES), n=1, cutoff=0.75)
        hint = _ALIASES.get(close[0], close[0]) if close else None
    return hint


def unknown_columns(counts: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """What to tell of columns that are no fields: those that look like one, each with its nearest field."""
    return tuple(
        f"column {name!r} ({rows} row{'s' if rows != 1 else ''}) is no field and was kept as metadata; "
        f"did you mean {nearest_field(name)!r}?"
        for name, rows in counts
        if nearest_field(name)
    )


def most_unknown(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    """The names that are told of, those of most rows first."""
    return tuple(counts.most_common(_MOST_UNKNOWN))


def json_or_text(text: str) -> Any:
    """A cell of the column `metadata`: JSON where it is, else the text under the key `text`."""
    try:
        value = from_json(text)
    except (ValueError, UnicodeEncodeError):
        return {"text": text}
    return value if isinstance(value, dict) else {"text": text}


def _beside(lora: Lora, manifest: str) -> Lora:
    """A relative folder is taken from the manifest's own."""
    if not lora.source.startswith(("./", "../")) or "://" in manifest:
        return lora
    return lora.model_copy(update={"source": str(Path(manifest).parent.joinpath(lora.source).absolute())})


def _samples(value: Any) -> int | None:
    """1 where a row does not say; None for what is no number of samples."""
    if value is None or value == "":
        return 1
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() and len(value) < 9 else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # CSV and pandas turn a column with gaps into floats
    return value if type(value) is int and 1 <= value <= MAX_SAMPLES else None


def _input(value: dict[str, Any]) -> dict[str, Any]:
    """An input with its keys, and its media, as people and other tools write them."""
    named = {_INPUT_ALIASES.get(plain, plain): one for plain, one in ((_plain(str(k)), v) for k, v in value.items())}
    return {k: _media(v) if k in ("image", "video") and not isinstance(v, str) else v for k, v in named.items()}


def _prompt(value: Any) -> Any:
    """One of several prompts with its keys as we write them; the slots of its template are the client's own."""
    if not isinstance(value, dict):
        return value
    named = ((_plain(str(name)), one) for name, one in value.items() if one is not None)
    return {_PROMPT_ALIASES.get(name, name): one for name, one in named}


def _plain_keys(value: Any) -> Any:
    """Objects with their keys as we write them, without those that are null: tables write what a row lacks so."""
    if isinstance(value, dict):
        named = ((_plain(str(name)), one) for name, one in value.items() if one is not None)
        return {_INPUT_ALIASES.get(name, name): _plain_keys(one) for name, one in named}
    return [_plain_keys(one) for one in value] if isinstance(value, list) else value


def _media(value: Any) -> Any:
    """An address or bytes, where Hugging Face's `{bytes, path}` or the API's `[{uri, position}]` wrap one."""
    if isinstance(value, list) and len(value) < 2:
        return _media(value[0]) if value else None
    if isinstance(value, dict) and value.get("position", "first") == "first":
        inside = [value[name] for name in ("bytes", "path", "uri", "url") if value.get(name)]
        return inside[0] if inside else None
    return value or None


def _plain(name: str) -> str:
    return _BETWEEN_WORDS.sub("_", _CAMEL.sub("_", name.strip())).lower()

"""Plan one chunk of the manifest: validate, resolve, drop what is done, group, cut into render batches.

Runs on a worker. A row stays a position in some lists; only its settings become an object, and each distinct
combination of settings only once, since a manifest of a million rows has few of them. What crosses to the driver is
a `ChunkPlan`: counts per group, never rows.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pipelines.read import Rows
from schemas.catalog import Catalog
from schemas.clip import ClipFormat
from schemas.errors import InvalidRequestError, Issue
from schemas.request import CONTENT_FIELDS, MAX_PROMPT_CHARS, MAX_SEED, SETTINGS_FIELDS, Mode, Settings
from schemas.resolve import Rank, resolve
from schemas.task import Group, derived_seed

_WHOLE = re.compile(r"^\s*[+-]?\d+(\.0*)?\s*$")
_MEDIA = re.compile(r"^(https://|s3://|file://|data:|/|\.{0,2}/?[^:]+$)")


@dataclass(frozen=True)
class Reject:
    """A row that cannot be rendered, and where it stands."""

    position: int
    line: int
    id: str | None
    issues: tuple[Issue, ...]

    def said(self, uri: str) -> str:
        """`file:line: field: reason; available: …`, all issues of the row."""
        return f"{uri}:{self.line}: {'; '.join(map(str, self.issues))}"


@dataclass
class Planned:
    """The rows of a chunk after validation, as columns. Rejected rows have group -1 and fingerprint ''."""

    rows: Rows
    ids: list[str] = field(default_factory=list)
    group_of: list[int] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    images: list[str | None] = field(default_factory=list)
    videos: list[str | None] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        """A column of the manifest, None where a row does not give it."""
        return self.rows.columns.get(name) or [None] * len(self.rows)


@dataclass(frozen=True)
class PlanRules:
    """What every row is resolved against."""

    catalog: Catalog
    rank: Rank
    may_run: Callable[[Any], bool]
    variant: str | None = None
    snap: bool = False
    clip_format: ClipFormat = ClipFormat.MP4


def plan_rows(rows: Rows, rules: PlanRules) -> Planned:
    """Validate and resolve every row of a chunk. Never raises for a row: what is wrong with it becomes a reject."""
    planned = Planned(rows)
    count = len(rows)
    if count == 0:
        return planned
    none: list[Any] = [None] * count
    take = rows.columns.get
    settings_columns = [take(name) or none for name in SETTINGS_FIELDS]
    if rules.variant is not None:
        # --variant says what rows that name none are rendered with.
        at = SETTINGS_FIELDS.index("variant")
        settings_columns[at] = [value or rules.variant for value in settings_columns[at]]
    known: dict[Any, tuple[int, tuple[Issue, ...]]] = {}
    index_of: dict[str, int] = {}
    broken: dict[int, list[Issue]] = {}
    for position, path, reason in rows.broken:
        broken.setdefault(position, []).append(Issue(path, reason, "unreadable"))
    content = zip(
        *(take(name) or none for name in CONTENT_FIELDS),
        strict=True,
    )
    for position, (values, row) in enumerate(zip(zip(*settings_columns, strict=True), content, strict=True)):
        row_id, prompt, negative, seed, image, video, priority, _ = row
        line = rows.lines[position]
        shown_id = None if row_id is None else str(row_id)
        if position in broken:
            _reject(planned, position, line, shown_id, tuple(broken[position]))
            continue
        key = (*values, image is not None, video is not None)
        try:
            group_index, issues = known[key]
        except KeyError:
            group_index, issues = _resolve_once(values, image is not None, video is not None, rules, planned, index_of)
            known[key] = group_index, issues
        except TypeError:  # an unhashable value: a list or an object where a scalar belongs
            group_index, issues = -1, _wrong_settings(values)
        if not (
            type(prompt) is str
            and (negative is None or type(negative) is str)
            and (seed is None or (type(seed) is int and 0 <= seed <= MAX_SEED))
            and (row_id is None or (type(row_id) is str and row_id))
            and image is None
            and video is None
            and priority is None
            and len(prompt) <= MAX_PROMPT_CHARS
            and not prompt.isspace()
            and prompt
        ):
            # The slow path: media, odd types, or something wrong.
            row, wrong = _clean_content(row, rows.uri, planned.groups[group_index].mode if group_index >= 0 else None)
            row_id, prompt, negative, seed, image, video, priority, _ = row
            issues = (*issues, *wrong)
        if issues:
            _reject(planned, position, line, shown_id, issues)
            continue
        negative = negative or ""
        group = planned.groups[group_index]
        if seed is None:
            seed = derived_seed(row_id, prompt, negative, image, video)
        planned.ids.append(row_id if row_id is not None else f"{line:07d}")
        planned.group_of.append(group_index)
        planned.seeds.append(seed)
        planned.images.append(image)
        planned.videos.append(video)
        planned.priorities.append(priority or 0)
        planned.fingerprints.append(group.fingerprint(prompt, negative, seed, image, video))
    return planned


def cut_batches(count: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of each render batch over the `count` tasks of one group. Sizes differ by one at most, so that no
    straggler of one task pays the fixed cost of a call alone."""
    if not count:
        return []
    calls = -(-count // size)
    least, more = divmod(count, calls)
    cuts, start = [], 0
    for call in range(calls):
        stop = start + least + (call < more)
        cuts.append((start, stop))
        start = stop
    return cuts


def _resolve_once(
    values: tuple[Any, ...],
    has_image: bool,
    has_video: bool,
    rules: PlanRules,
    planned: Planned,
    index_of: dict[str, int],
) -> tuple[int, tuple[Issue, ...]]:
    given = {name: value for name, value in zip(SETTINGS_FIELDS, values, strict=True) if value is not None}
    try:
        group = resolve(
            Settings.model_validate(given),
            rules.catalog,
            has_image=has_image,
            has_video=has_video,
            rank=rules.rank,
            may_run=rules.may_run,
            snap=rules.snap,
            clip_format=rules.clip_format,
        )
    except ValidationError as error:
        return -1, tuple(_pydantic_issue(e) for e in error.errors())
    except InvalidRequestError as error:
        return -1, error.issues
    index = index_of.setdefault(group.key + group.variant, len(planned.groups))
    if index == len(planned.groups):
        planned.groups.append(group)
    return index, ()


def _wrong_settings(values: tuple[Any, ...]) -> tuple[Issue, ...]:
    return tuple(
        Issue(name, f"{json.dumps(value, default=str)[:80]} is no scalar", "type")
        for name, value in zip(SETTINGS_FIELDS, values, strict=True)
        if isinstance(value, list | dict)
    )


def _pydantic_issue(error: Any) -> Issue:
    path = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    choices = tuple(m.value for m in Mode) if path == "mode" else ()
    got = f" (got {error['input']!r:.80})" if path else ""
    return Issue(path, message + got if not choices else f"unknown mode {error['input']!r:.80}", error["type"], choices)


def _clean_content(row: tuple[Any, ...], manifest: str, mode: Mode | None) -> tuple[tuple[Any, ...], tuple[Issue, ...]]:
    """The row's content with its types made right, and what is wrong with it."""
    row_id, prompt, negative, seed, image, video, priority, metadata = row
    found: list[Issue] = []
    if isinstance(row_id, int) and not isinstance(row_id, bool):
        row_id = str(row_id)
    elif row_id is not None and (not isinstance(row_id, str) or not row_id or len(row_id) > 512):
        found.append(Issue("id", f"must be a text of 1 to 512 characters (got {row_id!r:.60})", "type"))
    texts = {}
    for name, text in (("prompt", prompt), ("negative_prompt", negative)):
        if text is not None and not isinstance(text, str):
            found.append(Issue(name, f"must be a text (got {text!r:.60})", "type"))
        elif text is not None and len(text) > MAX_PROMPT_CHARS:
            found.append(Issue(name, f"{len(text)} characters, at most {MAX_PROMPT_CHARS}", "too_long"))
        texts[name] = text if isinstance(text, str) else ""
    if (
        not texts["prompt"].strip()
        and mode in (None, Mode.TEXT_TO_VIDEO)
        and not any(i.path == "prompt" for i in found)
    ):
        found.append(Issue("prompt", "text_to_video needs a prompt", "missing"))
    seed = _whole(seed, "seed", 0, MAX_SEED, found)
    priority = _whole(priority, "priority", -100, 100, found)
    for name, media in (("image", image), ("video", video)):
        if media is not None and not (isinstance(media, str) and _MEDIA.match(media)):
            found.append(
                Issue(name, f"{media!r:.80} is no media address", "media", ("https://…", "s3://…", "data:…", "a path"))
            )
    image, video = _beside(image, manifest), _beside(video, manifest)
    return (row_id, texts["prompt"], texts["negative_prompt"], seed, image, video, priority, metadata), tuple(found)


def _beside(media: Any, manifest: str) -> Any:
    """A relative media path, taken from the manifest's own folder."""
    if not isinstance(media, str) or re.match(r"^([a-z0-9+.-]+:|/)", media):
        return media
    return f"{manifest.rsplit('/', 1)[0]}/{media.removeprefix('./')}"


def _whole(value: Any, name: str, least: int, most: int, found: list[Issue]) -> int | None:
    if value is None:
        return None
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)  # CSV and pandas turn a column with gaps into floats
    elif isinstance(value, str) and _WHOLE.match(value):
        number = int(float(value)) if "." in value else int(value)
    if number is None or not least <= number <= most:
        found.append(Issue(name, f"must be a whole number from {least} to {most} (got {value!r:.60})", "range"))
        return None
    return number


def _reject(planned: Planned, position: int, line: int, row_id: str | None, issues: tuple[Issue, ...]) -> None:
    planned.rejects.append(Reject(position, line, row_id, issues))
    planned.ids.append(row_id if row_id is not None else f"{line:07d}")
    planned.group_of.append(-1)
    planned.seeds.append(-1)
    planned.images.append(None)
    planned.videos.append(None)
    planned.priorities.append(0)
    planned.fingerprints.append("")

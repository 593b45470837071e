"""Plan one chunk of the manifest: validate, resolve, drop what is done, group, cut into render batches.

Runs on a worker. A row stays a position in some lists; only its settings become an object, and each distinct
combination of settings only once, since a manifest of a million rows has few of them. What crosses to the driver is
a `ChunkPlan`: counts per group, never rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pipelines.content import clean_content, metadata_json, row_inputs, shown
from pipelines.row_media import RowMedia
from pipelines.row_templates import fill_templates
from pipelines.rows import Rows
from pipelines.variant_content import extractor_content, finisher_content, lora_content, mixed
from prompts.templates import Templates
from schemas.catalog import Catalog
from schemas.clip import ClipFormat
from schemas.conditions import Condition
from schemas.errors import InvalidRequestError, Issue
from schemas.finish import FinishStage, FitMode, chained
from schemas.inputs import GivenInput, InputSpec
from schemas.moderation import ModeratedPart, Moderation
from schemas.motion import MOTION_FIELDS, motion_issue
from schemas.request import CONTENT_FIELDS, MAX_PROMPT_CHARS, MAX_SEED, SETTINGS_FIELDS, Mode, Settings
from schemas.resolve import Rank, resolve
from schemas.task import Group, derived_seed, sample_seed
from schemas.timed_prompts import Told, read_prompts

_LOST = "\ufffd"
_FAST_ID_CHARS = 512
_NOTHING = Moderation()
_ONE = Told(("",))  # prompt of a row that has no more than that


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
    bases: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    # Of rows with several prompts: what they say, and when. Empty where no row has any.
    told: list[Told] = field(default_factory=list)
    media: list[tuple[str, ...]] = field(default_factory=list)
    identities: list[tuple[str, ...]] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    metadata: list[str | None] = field(default_factory=list)
    moderation: list[Moderation] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def later(self, position: int) -> tuple[str, ...]:
        """The prompts of a row after its first."""
        return self.told[position].texts[1:] if self.told else ()

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
    fit_sizes: FitMode | None = None
    loras: tuple[str, ...] | None = None
    clip_format: ClipFormat = ClipFormat.MP4
    media: RowMedia = field(default_factory=RowMedia)
    content: Callable[[str], str] | None = None
    max_batch: int | None = None
    # Of prompts and their negative prompts: one entry each, in order. None: they are not moderated.
    moderate: Callable[[Sequence[str], Sequence[str]], list[Moderation]] | None = None
    templates: Templates = field(default_factory=Templates)


def plan_rows(rows: Rows, rules: PlanRules) -> Planned:
    """Validate and resolve every row of a chunk. Never raises for a row: what is wrong with it becomes a reject."""
    rows = rows.spread()
    planned = Planned(rows)
    count = len(rows)
    if count == 0:
        return planned
    none: list[Any] = [None] * count
    broken = fill_templates(rows, rules.templates)
    if "prompts" in rows.columns:
        planned.told = _told(rows, broken)
    take = rows.columns.get
    settings_columns = [take(name) or none for name in SETTINGS_FIELDS]
    if rules.variant is not None:
        # --variant says what rows that name none are rendered with.
        at = SETTINGS_FIELDS.index("variant")
        settings_columns[at] = [value or rules.variant for value in settings_columns[at]]
    known: dict[Any, tuple[int, tuple[Issue, ...]]] = {}
    index_of: dict[str, int] = {}
    for position, path, reason in rows.broken:
        broken.setdefault(position, []).append(Issue(path, reason, "unreadable"))
    rules.media.prefetch(_addresses(rows))
    strengths = settings_columns[SETTINGS_FIELDS.index("strength")]
    content = zip(
        *(take(name) or none for name in CONTENT_FIELDS),
        strict=True,
    )
    moderated = _moderated(take("prompt") or none, take("negative_prompt") or none, planned.told, rules)
    for position, (values, row) in enumerate(zip(zip(*settings_columns, strict=True), content, strict=True)):
        row_id, prompt, _, negative, seed, inputs, image, video, priority, metadata = row
        turns_s = planned.told[position].turns_s if planned.told else ()
        line = rows.lines[position]
        shown_id = row_id if row_id is None or isinstance(row_id, str) else shown(row_id)
        if position in broken:
            planned.moderation.append(_NOTHING)
            _reject(planned, position, line, shown_id, tuple(broken[position]))
            continue
        given: tuple[GivenInput, ...] = ()
        wrong_inputs: tuple[Issue, ...] = ()
        if inputs is not None or image is not None or video is not None:
            given, wrong_inputs = row_inputs(inputs, image, video, strengths[position])
        key = (*values, turns_s, *(one.spec for one in given))
        try:
            group_index, issues = known[key] if not wrong_inputs else (-1, wrong_inputs)
        except KeyError:
            specs = tuple(one.spec for one in given)
            group_index, issues = _resolve_once(values, specs, turns_s, rules, planned, index_of)
            known[key] = group_index, issues
        except TypeError:  # an unhashable value: a list or an object where a scalar belongs
            group_index, issues = -1, _wrong_settings(values)
        if not (
            type(prompt) is str
            and (negative is None or type(negative) is str)
            and (seed is None or (type(seed) is int and 0 <= seed <= MAX_SEED))
            and (row_id is None or (type(row_id) is str and row_id))
            and not given
            and priority is None
            and len(prompt) <= MAX_PROMPT_CHARS
            and not prompt.isspace()
            and prompt
            and _LOST not in prompt
            and (negative is None or (len(negative) <= MAX_PROMPT_CHARS and _LOST not in negative))
            and (row_id is None or len(row_id) <= _FAST_ID_CHARS)
        ):
            # The slow path: media, odd types, or something wrong.
            mode = planned.groups[group_index].mode if group_index >= 0 else None
            own, wrong = clean_content(row, given, rows.uri, mode, rules.media)
            row_id, prompt, negative, seed, priority = own.id, own.prompt, own.negative_prompt, own.seed, own.priority
            media, identities = own.media, own.identities
            issues = (*issues, *wrong)
        else:
            media = identities = ()
        if metadata is not None and not issues:
            try:
                metadata = metadata_json(metadata)
            except ValueError as error:
                issues = (Issue("metadata", str(error), "type"),)
        found = moderated[position] if moderated else _NOTHING
        if not issues and (refusal := found.refusal) is not None:
            field_name = "negative_prompt" if refusal.part is ModeratedPart.INPUT_NEGATIVE else "prompt"
            if turns_s and field_name == "prompt":
                field_name = "prompts"
            issues = (Issue(field_name, f"refused by moderation: {refusal}", found.code),)
        planned.moderation.append(found)
        if issues:
            _reject(planned, position, line, shown_id, issues)
            continue
        negative = negative or ""
        group = planned.groups[group_index]
        later = planned.later(position)
        if seed is None:
            seed = derived_seed(row_id, prompt, negative, (*identities, *later))
        if rows.samples:
            seed = sample_seed(seed, rows.samples[position])
        planned.ids.append(row_id if row_id is not None else f"{line:07d}")
        planned.group_of.append(group_index)
        planned.seeds.append(seed)
        planned.media.append(media)
        planned.identities.append(identities)
        planned.priorities.append(priority or 0)
        planned.metadata.append(metadata)
        base = group.base_fingerprint(prompt, negative, seed, identities, later)
        planned.bases.append(base if group.finish else "")
        planned.fingerprints.append(chained(base, group.finish))
    return planned


def _told(rows: Rows, broken: dict[int, list[Issue]]) -> list[Told]:
    """What rows say by `prompts`; the first text goes into the column `prompt`."""
    found = [_ONE] * len(rows)
    prompts = list(rows.columns.get("prompt") or [None] * len(rows))
    for position, value in enumerate(rows.columns["prompts"]):
        prompt = prompts[position]
        if value is None or not (prompt is None or isinstance(prompt, str)):
            continue
        told, issues = read_prompts(value, prompt or "")
        if issues:
            broken.setdefault(position, []).extend(issues)
        else:
            found[position], prompts[position] = told, told.texts[0]
    rows.columns["prompt"] = prompts
    return found


def _moderated(
    prompts: Sequence[Any], negatives: Sequence[Any], told: Sequence[Told], rules: PlanRules
) -> list[Moderation]:
    """Of each row's prompts; empty where nothing is moderated. What is no text, or too long, is rejected anyway."""
    if rules.moderate is None:
        return []
    later = [(position, text) for position, one in enumerate(told) for text in one.texts[1:]]
    if later:
        found = _moderated(prompts, negatives, (), rules)
        for (position, _), more in zip(
            later, rules.moderate([text for _, text in later], [""] * len(later)), strict=True
        ):
            found[position] += more
        return found
    read = [
        [p if isinstance(p, str) and len(p) <= MAX_PROMPT_CHARS else "" for p in some] for some in (prompts, negatives)
    ]
    return rules.moderate(*read)


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
    inputs: tuple[InputSpec, ...],
    turns_s: tuple[float, ...],
    rules: PlanRules,
    planned: Planned,
    index_of: dict[str, int],
) -> tuple[int, tuple[Issue, ...]]:
    given = {name: value for name, value in zip(SETTINGS_FIELDS, values, strict=True) if value is not None}
    try:
        group = resolve(
            Settings.model_validate(given),
            rules.catalog,
            inputs=inputs,
            turns_s=turns_s,
            rank=rules.rank,
            may_run=rules.may_run,
            snap=rules.snap,
            fit_sizes=rules.fit_sizes,
            loras=rules.loras,
            clip_format=rules.clip_format,
        )
    except ValidationError as error:
        return -1, tuple(_pydantic_issue(e) for e in error.errors())
    except InvalidRequestError as error:
        return -1, error.issues
    if rules.content is not None:
        digest = mixed(group.variant_digest, rules.content(group.variant))
        finish = tuple(_with_content(stage, rules) for stage in group.finish)
        loras = tuple(one.model_copy(update={"digest": rules.content(lora_content(one.source))}) for one in group.loras)
        conditions = tuple(_with_extractor(one, rules) for one in group.conditions)
        group = group.model_copy(
            update={"variant_digest": digest, "finish": finish, "loras": loras, "conditions": conditions}
        )
    index = index_of.setdefault(group.key + group.variant, len(planned.groups))
    if index == len(planned.groups):
        planned.groups.append(group)
    return index, ()


def _with_content(stage: FinishStage, rules: PlanRules) -> FinishStage:
    if rules.content is None or rules.catalog.finishers[stage.by].weights is None:
        return stage
    content = rules.content(finisher_content(stage.by))
    return stage.model_copy(update={"digest": mixed(stage.digest, content)})


def _with_extractor(condition: Condition, rules: PlanRules) -> Condition:
    how = condition.extract
    if rules.content is None or how is None or how.weights is None:
        return condition
    content = rules.content(extractor_content(how.weights, how.revision))
    return condition.model_copy(update={"extract": how.model_copy(update={"content": content})})


def _addresses(rows: Rows) -> Iterator[Any]:
    for name in ("image", "video"):
        yield from rows.columns.get(name) or ()
    for inputs in rows.columns.get("inputs") or ():
        for one in inputs if isinstance(inputs, list) else ():
            if isinstance(one, dict):
                yield from (one.get("image"), one.get("video"))


def _wrong_settings(values: tuple[Any, ...]) -> tuple[Issue, ...]:
    return tuple(
        Issue(name, f"{shown(value, 80)} is no scalar", "type")
        for name, value in zip(SETTINGS_FIELDS, values, strict=True)
        if isinstance(value, list | dict)
    )


def _pydantic_issue(error: Any) -> Issue:
    if error["loc"] and error["loc"][0] in MOTION_FIELDS:
        return motion_issue(error)
    path = ".".join(map(str, error["loc"]))
    message = _range(path) if error["type"].startswith(("greater_than", "less_than")) else error["msg"]
    message = message.removeprefix("Value error, ")
    choices = tuple(m.value for m in Mode) if path == "mode" else ()
    value = shown(error["input"], 80)
    got = f" (got {value})" if path else ""
    return Issue(path, message + got if not choices else f"unknown mode {value}", error["type"], choices)


def _range(name: str) -> str:
    """What a setting's numbers may be."""
    bounds = Settings.model_fields[name].metadata
    least = next((f"from {b.ge:g}" for b in bounds if hasattr(b, "ge")), "above 0")
    most = next((b.le for b in bounds if hasattr(b, "le")), None)
    return f"must be {least} to {most:,g}" if least.startswith("from") else f"must be {least}, at most {most:,g}"


def _reject(planned: Planned, position: int, line: int, row_id: str | None, issues: tuple[Issue, ...]) -> None:
    planned.rejects.append(Reject(position, line, row_id, issues))
    planned.ids.append(row_id if row_id is not None else f"{line:07d}")
    planned.group_of.append(-1)
    planned.seeds.append(-1)
    planned.media.append(())
    planned.identities.append(())
    planned.priorities.append(0)
    planned.metadata.append(_metadata_or_none(planned, position))
    planned.fingerprints.append("")
    planned.bases.append("")


def _metadata_or_none(planned: Planned, position: int) -> str | None:
    metadata = planned.column("metadata")[position]
    try:
        return None if metadata is None else metadata_json(metadata)
    except ValueError:
        return None

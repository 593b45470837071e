"""Rows that name a template get the prompts that it makes of their slots, before they are planned."""

from typing import Any

from pipelines.rows import Rows
from prompts.templates import Templates
from schemas.errors import InvalidRequestError, Issue


def fill_templates(rows: Rows, templates: Templates) -> dict[int, list[Issue]]:
    """Put the prompts of templates into the columns `prompt` and `negative_prompt`, where a row's own negative prompt
    wins; what was filled in is kept in `metadata`, as `template` and `slots`. Returns what is wrong, by row."""
    names, slots = (rows.columns.get(field) for field in ("template", "slots"))
    wrong: dict[int, list[Issue]] = {}
    if "prompts" in rows.columns:
        _fill_each(rows, templates, wrong)
    if names is None and slots is None:
        return wrong
    none: list[Any] = [None] * len(rows)
    names, slots = names or none, slots or none
    prompts, negatives, metadata = (
        list(rows.columns.get(f) or none) for f in ("prompt", "negative_prompt", "metadata")
    )
    for position, (name, given) in enumerate(zip(names, slots, strict=True)):
        if name in (None, "") and not given:
            continue
        if name in (None, ""):
            wrong[position] = [Issue("slots", "are of a template, and none is named", "missing", templates.names)]
        elif prompts[position] and given:
            wrong[position] = [Issue("prompt", "give prompt or template with slots, not both", "twice")]
        elif prompts[position]:
            # Beside a prompt it is somebody's note of where that came from.
            metadata[position] = _with_template(metadata[position], {"template": name})
        else:
            try:
                made = templates.filled(name, given)
            except InvalidRequestError as error:
                wrong[position] = list(error.issues)
                continue
            prompts[position] = made.prompt
            negatives[position] = negatives[position] or made.negative_prompt or None
            metadata[position] = _with_template(metadata[position], {"template": name, "slots": given or {}})
    rows.columns |= {"prompt": prompts, "negative_prompt": negatives, "metadata": metadata}
    return wrong


def _fill_each(rows: Rows, templates: Templates, wrong: dict[int, list[Issue]]) -> None:
    """The same of each of several prompts, where one names a template."""
    told = rows.columns["prompts"] = list(rows.columns["prompts"])
    negatives = list(rows.columns.get("negative_prompt") or [None] * len(rows))
    for position, prompts in enumerate(told):
        if not isinstance(prompts, list):
            continue
        filled, negative, issues = templates.filled_each(prompts)
        told[position] = filled
        negatives[position] = negatives[position] or negative or None
        if issues:
            wrong[position] = issues
    rows.columns["negative_prompt"] = negatives


def _with_template(own: Any, told: dict[str, Any]) -> Any:
    """A row's metadata and what is told of its template, where its own says nothing else."""
    return {**told, **(own or {})} if own is None or isinstance(own, dict) else own

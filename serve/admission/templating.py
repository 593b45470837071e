"""A body that names a prompt template: the prompts are made first, and all else reads them as if they had been sent."""

from typing import Any

from prompts.templates import Templates
from schemas.errors import InvalidRequestError
from serve.wire.base import WireError, issue, wire_issues


def with_prompts(given: object, templates: Templates) -> object:
    """`given` with `promptText` (and `negativePrompt`, where it has none) in place of `template` and `slots`, of the
    body or of its `input`, and the same of each of several prompts. Raises WireError with every issue, at the client's
    own fields."""
    if not isinstance(given, dict):
        return given
    if isinstance(given.get("input"), dict):
        return {**given, "input": _filled(given["input"], templates, ("input",))}
    return _filled(given, templates, ())


def _filled(given: dict[str, Any], templates: Templates, within: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(given.get("prompts"), list):
        given = _each_made(given, templates, within)
    return _made(given, templates, within) if _names_one(given) else given


def _each_made(given: dict[str, Any], templates: Templates, within: tuple[str, ...]) -> dict[str, Any]:
    """Each of several prompts."""
    prompts, negative, issues = templates.filled_each(given["prompts"], ".".join((*within, "prompts")))
    if issues:
        raise WireError(wire_issues(issues))
    made = {**given, "prompts": prompts}
    return {**made, "negativePrompt": negative} if negative and not given.get("negativePrompt") else made


def _names_one(given: dict[str, Any]) -> bool:
    return given.get("template") is not None or given.get("slots") is not None


def _made(given: dict[str, Any], templates: Templates, within: tuple[str, ...]) -> dict[str, Any]:
    rest = {name: value for name, value in given.items() if name not in ("template", "slots")}
    if given.get("template") is None:
        said = "are of a template, and none is named"
        raise WireError([issue("required", (*within, "template"), said, templates.names)])
    if given.get("promptText") is not None:
        raise WireError([issue("invalid", (*within, "promptText"), "give promptText or template, not both")])
    try:
        made = templates.filled(given["template"], given.get("slots"))
    except InvalidRequestError as error:
        found = wire_issues(error.issues)
        raise WireError([one.model_copy(update={"path": (*within, *one.path)}) for one in found]) from None
    rest["promptText"] = made.prompt
    if made.negative_prompt and not given.get("negativePrompt"):
        rest["negativePrompt"] = made.negative_prompt
    return rest

"""Several prompts of one clip, each from its own instant on.

`from_s` is in seconds from the clip's beginning; the first is at 0. What stands in the request's own `prompt` holds
throughout: it goes before each text. One text alone is the same as a prompt.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import Issue
from schemas.issues import issues_of

MAX_PROMPTS = 64
MAX_TEXT_CHARS = 4000
_LOST = "\ufffd"


class TimedPrompt(BaseModel):
    """What is to be seen from an instant on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    from_s: float = Field(ge=0, le=3600, description="seconds from the clip's beginning; of the first, 0")
    text: str = Field(min_length=1, max_length=MAX_TEXT_CHARS, description="the prompt from then on")


class Told(NamedTuple):
    """What a clip is told: `texts` as they are rendered, and the instants of those after the first."""

    texts: tuple[str, ...]
    turns_s: tuple[float, ...] = ()


def told(prompt: str, prompts: Sequence[TimedPrompt]) -> Told:
    """`prompt` alone where there are no prompts; else before each of them."""
    if not prompts:
        return Told((prompt,))
    before = f"{prompt.strip()} " if prompt.strip() else ""
    return Told(tuple(f"{before}{one.text}" for one in prompts), tuple(one.from_s for one in prompts[1:]))


def order_issues(prompts: Sequence[TimedPrompt], path: str = "prompts") -> tuple[Issue, ...]:
    """What is wrong with their instants, whatever renders them."""
    found: list[Issue] = []
    if len(prompts) > MAX_PROMPTS:
        found.append(Issue(path, f"{len(prompts)} of them, at most {MAX_PROMPTS}", "too_many"))
    if prompts and prompts[0].from_s != 0:
        found.append(Issue(f"{path}.0.from_s", f"the first begins with the clip, not at {prompts[0].from_s:g} s",
                           "range", ("0",)))  # fmt: skip
    for number, (before, one) in enumerate(pairwise(prompts), start=1):
        if one.from_s <= before.from_s:
            text = f"{one.from_s:g} s is not after the {before.from_s:g} s of the one before"
            found.append(Issue(f"{path}.{number}.from_s", text, "order"))
    return tuple(found)


def read_prompts(value: Any, prompt: str = "", path: str = "prompts") -> tuple[Told, tuple[Issue, ...]]:
    """What a clip is told by `prompts` as JSON beside its `prompt`, or what is wrong with it, with the choices."""
    nothing = Told((prompt,))
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        text = f"must be a list of prompts with from_s and text (got {repr(value)[:60]})"
        return nothing, (Issue(path, text, "type"),)
    if len(value) > MAX_PROMPTS:
        return nothing, (Issue(path, f"{len(value)} of them, at most {MAX_PROMPTS}", "too_many"),)
    found: list[TimedPrompt] = []
    issues: list[Issue] = []
    for number, one in enumerate(value):
        where = f"{path}.{number}"
        if not isinstance(one, dict):
            issues.append(Issue(where, f"must be an object with from_s and text (got {repr(one)[:60]})", "type"))
            continue
        try:
            # Tables write what a row does not have as null.
            found.append(TimedPrompt.model_validate({str(k): v for k, v in one.items() if v is not None}))
        except ValidationError as error:
            issues += issues_of(error, where, "a prompt", TimedPrompt.model_fields)
            continue
        if not found[-1].text.strip():
            issues.append(Issue(f"{where}.text", "is blank", "missing"))
        if _LOST in found[-1].text:
            issues.append(
                Issue(f"{where}.text", "holds U+FFFD, which stands for a character that was lost", "encoding")
            )
    if issues:
        return nothing, tuple(issues)
    issues += order_issues(found, path)
    made = told(prompt, found)
    for number, text in enumerate(made.texts):
        if len(text) > MAX_TEXT_CHARS:
            said = f"{len(text)} characters with the prompt before it, at most {MAX_TEXT_CHARS}"
            issues.append(Issue(f"{path}.{number}.text", said, "too_long"))
    return (nothing, tuple(issues)) if issues else (made, ())


def turn_frames(turns_s: Sequence[float], frames: int, fps: float) -> tuple[tuple[int, ...], tuple[Issue, ...]]:
    """The frames from which the prompts after the first hold in a clip of so many, and what is wrong with them."""
    found: list[int] = []
    issues: list[Issue] = []
    before = 0
    for number, at_s in enumerate(turns_s, start=1):
        frame, path = round(at_s * fps), f"prompts.{number}.from_s"
        if frame >= frames:
            text = f"{at_s:g} s is after the end: the clip's last frame is at {(frames - 1) / fps:.3f} s"
            issues.append(Issue(path, text, "range"))
        elif frame <= before:
            text = (
                f"{at_s:g} s is frame {frame} at {fps:g} fps, and the one before begins there: at least {1 / fps:g} s"
            )
            issues.append(Issue(path, f"{text} apart", "range"))
        before = frame
        found.append(frame)
    return tuple(found), tuple(issues)

"""Several prompts of one clip, as a body says them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from schemas.timed_prompts import MAX_PROMPTS, MAX_TEXT_CHARS, TimedPrompt, read_prompts
from serve.wire.base import Refusal, Wire

CLIENT_S: Mapping[str, str] = {"from_s": "fromSeconds"}


class PromptBody(Wire):
    """What is to be seen from an instant on."""

    from_seconds: float = Field(ge=0, le=3600, description="from the clip's beginning; of the first, 0")
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)] = Field(
        description="the prompt from then on; or template and slots, as for promptText"
    )


PromptBodies = Annotated[tuple[PromptBody, ...], Field(max_length=MAX_PROMPTS)]


def prompts_of(said: tuple[PromptBody, ...], prompt: str) -> tuple[TimedPrompt, ...]:
    """The prompts as everything behind the body has them. Raises Refusal at the field."""
    if not said:
        return ()
    told: list[dict[str, Any]] = [{"from_s": one.from_seconds, "text": one.text} for one in said]
    _, issues = read_prompts(told, prompt)
    if issues:
        path = tuple(int(part) if part.isdigit() else CLIENT_S.get(part, part) for part in issues[0].path.split("."))
        raise Refusal(issues[0].message, issues[0].code, issues[0].choices, path)
    return tuple(TimedPrompt.model_validate(one) for one in told)

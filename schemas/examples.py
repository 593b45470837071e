"""Examples of what a variant can be asked for: what the endpoint's page fills its form with."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from schemas.inputs import MEDIA, Role
from schemas.motion import Steer

# What the page's form can hold of a create's body, and of an input in it.
FIELDS = ("promptText", "prompts", "ratio", "duration", "seed", "inputs", "camera", "paths")
INPUT_FIELDS = ("role", "image", "video", "kind", "extract", "atSeconds", "strength")
MAX_MEDIUM_CHARS = 2800  # 2 KiB in base64, and what stands before it: the page gets all examples at once
MAX_TITLE_CHARS = 40


class Example(BaseModel):
    """A request that shows something that the variant can do. The page of the endpoint offers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=MAX_TITLE_CHARS, description="what it shows, in a few words")
    request: dict[str, JsonValue] = Field(
        description=f"what a create takes, in its words, without `model`: {', '.join(FIELDS)}; media as `data:` URIs "
        "of at most 2 KiB"
    )

    @field_validator("request")
    @classmethod
    def _can_stand_in_the_form(cls, request: dict[str, JsonValue]) -> dict[str, JsonValue]:
        _known(request, FIELDS, "")
        if not request.get("promptText") and not request.get("prompts"):
            raise ValueError("an example has a promptText or prompts")
        for number, given in enumerate(_inputs(request)):
            _known(given, INPUT_FIELDS, f"inputs.{number}.")
            role, media = given.get("role"), [given[one] for one in ("image", "video") if one in given]
            if role not in set(Role):
                raise ValueError(f"inputs.{number}.role: {role!r} is none; available: {', '.join(Role)}")
            if len(media) != 1 or not str(media[0]).startswith("data:"):
                raise ValueError(f"inputs.{number}: needs one of {' and '.join(MEDIA[Role(role)])}, as a data: URI")
            if len(media[0]) > MAX_MEDIUM_CHARS:
                raise ValueError(
                    f"inputs.{number}: a data: URI of {len(media[0])} characters; at most {MAX_MEDIUM_CHARS}"
                )
        return request

    @property
    def roles(self) -> tuple[Role, ...]:
        """What its inputs are for."""
        return tuple(Role(given["role"]) for given in _inputs(self.request))

    @property
    def steers(self) -> tuple[Steer, ...]:
        """What it says of the motion, beside the prompt."""
        return tuple(steer for steer in Steer if self.request.get(steer.value))


def _inputs(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    inputs = request.get("inputs", [])
    if not isinstance(inputs, list | tuple) or not all(isinstance(one, dict) for one in inputs):
        raise ValueError("inputs: must be a list of tables")
    return [dict(one) for one in inputs if isinstance(one, dict)]


def _known(table: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    unknown = next((name for name in table if name not in fields), None)
    if unknown is not None:
        raise ValueError(f"{where}{unknown}: an example has no such field; available: {', '.join(fields)}")

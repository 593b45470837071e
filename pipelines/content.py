"""What a row has of its own, beside its settings: its types made right, and what is wrong with them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from pipelines.row_media import FoundMedia, RowMedia, media_issue
from schemas.errors import Issue, MediaError
from schemas.inputs import GivenInput, Input, inputs_of, read_input
from schemas.request import MAX_PROMPT_CHARS, MAX_SEED, Mode

_WHOLE = re.compile(r"^\s*[+-]?\d{1,18}(\.0*)?\s*$")
_MOST_ID_CHARS = 512
_LOST = "\ufffd"


@dataclass(frozen=True)
class Content:
    """A row's own part. `media` are where its inputs are read, the identities what stands for their contents."""

    id: str | None
    prompt: str
    negative_prompt: str
    seed: int | None
    media: tuple[str, ...]
    identities: tuple[str, ...]
    priority: int


def clean_content(
    row: tuple[Any, ...], given: Sequence[GivenInput], manifest: str, mode: Mode | None, media: RowMedia
) -> tuple[Content, tuple[Issue, ...]]:
    """The content of a row (in the order of `CONTENT_FIELDS`) with its inputs, and what is wrong with it. `mode` is
    None when the row's settings are wrong already."""
    row_id, prompt, _, negative, seed, _, _, _, priority, _ = row
    found: list[Issue] = []
    row_id = _id(row_id, found)
    texts = {name: _text(name, value, found) for name, value in (("prompt", prompt), ("negative_prompt", negative))}
    if (
        not texts["prompt"].strip()
        and mode in (None, Mode.TEXT_TO_VIDEO)
        and not any(i.path == "prompt" for i in found)
    ):
        found.append(Issue("prompt", "text_to_video needs a prompt", "missing"))
    whole_seed = _whole(seed, "seed", 0, MAX_SEED, found)
    whole_priority = _whole(priority, "priority", -100, 100, found)
    brought: list[FoundMedia] = []
    for one, path in given:
        try:
            brought.append(media(one.uri, manifest))
        except MediaError as error:
            found.append(media_issue(f"{path}.{one.medium}" if path.startswith("inputs.") else path, error))
    content = Content(
        id=row_id,
        prompt=texts["prompt"],
        negative_prompt=texts["negative_prompt"],
        seed=whole_seed,
        media=tuple(one.uri for one in brought),
        identities=tuple(one.identity for one in brought),
        priority=whole_priority or 0,
    )
    return content, tuple(found)


def row_inputs(inputs: Any, image: Any, video: Any, strength: Any) -> tuple[tuple[GivenInput, ...], tuple[Issue, ...]]:
    """The inputs that a row gives, as `inputs` or in short forms, and what is wrong with them. Media may be bytes."""
    found: list[Input] = []
    issues: list[Issue] = []
    if inputs is not None and not isinstance(inputs, list):
        return (), (Issue("inputs", f"must be a list of inputs (got {shown(inputs)})", "type"),)
    for number, value in enumerate(inputs or ()):
        media: dict[str, Any] = {}
        if isinstance(value, dict):
            media = {name: value[name] for name in ("image", "video") if value.get(name) is not None}
            value = {**value, **dict.fromkeys(media, "-")}
        one, wrong = read_input(value, f"inputs.{number}")
        issues += wrong
        if one is not None:
            found.append(one.model_copy(update=media))
    # What is no strength is for whoever reads the settings to say.
    is_share = isinstance(strength, int | float) and 0 < strength <= 1
    return inputs_of(found, image, video, strength if is_share else None), tuple(issues)


def metadata_json(value: Any) -> str:
    """A row's metadata as JSON. ValueError when it cannot be written as that."""
    try:
        return to_json(value, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True).decode()
    except (PydanticSerializationError, RecursionError, UnicodeError) as error:
        raise ValueError(f"cannot be kept as JSON: {str(error)[:120]}") from error


def shown(value: Any, most: int = 60) -> str:
    """The beginning of a value as Python writes it, however large the value is."""
    if isinstance(value, str | bytes):
        value = value[: most + 1]
    try:
        return repr(value)[:most]
    except ValueError:  # whole numbers of more digits than Python prints
        return f"a {type(value).__name__} too long to show"


def _id(row_id: Any, found: list[Issue]) -> str | None:
    if isinstance(row_id, float) and row_id.is_integer():
        row_id = int(row_id)  # pandas turns a column with gaps into floats
    if isinstance(row_id, int) and not isinstance(row_id, bool):
        row_id = shown(row_id, _MOST_ID_CHARS)
    if row_id is None:
        return None
    if not isinstance(row_id, str) or not row_id or len(row_id) > _MOST_ID_CHARS:
        found.append(Issue("id", f"must be a text of 1 to {_MOST_ID_CHARS} characters (got {shown(row_id)})", "type"))
        return None
    return row_id


def _text(name: str, text: Any, found: list[Issue]) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        found.append(Issue(name, f"must be a text (got {shown(text)})", "type"))
        return ""
    if len(text) > MAX_PROMPT_CHARS:
        found.append(Issue(name, f"{len(text)} characters, at most {MAX_PROMPT_CHARS}", "too_long"))
    if _LOST in text:
        found.append(
            Issue(name, f"holds U+FFFD, which stands for a character that was lost (got {shown(text)})", "encoding")
        )
    return text


def _whole(value: Any, name: str, least: int, most: int, found: list[Issue]) -> int | None:
    if value is None:
        return None
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, Decimal) and value == value // 1):
        number = int(value)  # CSV and pandas turn a column with gaps into floats
    elif isinstance(value, str) and _WHOLE.match(value):
        number = int(value.partition(".")[0])
    if number is None or not least <= number <= most:
        found.append(Issue(name, f"must be a whole number from {least} to {most} (got {shown(value)})", "range"))
        return None
    return number

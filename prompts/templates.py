"""Prompt templates: a sentence with slots, for one use (product, cinematic, style transfer, motion …).

A file of templates is TOML:

    [product]
    title = "A thing, as a catalogue shows it"
    prompt = "{subject}[ on {surface}][, {light}], product shot"
    negative_prompt = "text, watermark"

    [product.slots.subject]
    description = "what is shown"

    [product.slots.light]
    description = "how it is lit"
    default = "soft studio light"
    choices = ["soft studio light", "hard side light"]

`{name}` stands for a slot's value. What stands in square brackets is left out where a slot in it is empty. A slot
without a default has to be given, unless every place of it is in brackets. Filling one is pure: equal slots make
equal prompts, and the prompt that was made is what is rendered, moderated and fingerprinted.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import ConfigError, InvalidRequestError, Issue
from schemas.request import MAX_PROMPT_CHARS

MAX_SLOT_CHARS = 1000
_SLOT = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_BRACES = re.compile(r"[{}\[\]]")
_GAPS = re.compile(r"\s+")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Slot(_Frozen):
    """One blank of a template."""

    description: str = Field(default="", description="what to put in")
    default: str | None = Field(default=None, description="when nothing is given; empty: left out")
    choices: tuple[str, ...] = Field(default=(), description="values it may have; empty: any text")
    example: str = Field(default="", description="a value that shows what is meant")

    @model_validator(mode="after")
    def _default_is_a_choice(self) -> "Slot":
        if self.choices and self.default and self.default not in self.choices:
            raise ValueError(f"default {self.default!r} is none of its choices: {', '.join(self.choices)}")
        return self


class FilledPrompt(NamedTuple):
    """What a template made of its slots."""

    prompt: str
    negative_prompt: str


class PromptTemplate(_Frozen):
    """A sentence with slots. `prompt` and `negative_prompt` may hold slots and optional parts (see the module)."""

    title: str = Field(default="", description="for people")
    use: str = Field(default="", description="what it is for: product, cinematic, style transfer, motion …")
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS, description="with slots")
    negative_prompt: str = Field(
        default="", max_length=MAX_PROMPT_CHARS, description="with slots; a request's own wins"
    )
    slots: dict[str, Slot] = Field(default_factory=dict, description="by name")

    @model_validator(mode="after")
    def _slots_are_those_named(self) -> "PromptTemplate":
        named = set(_SLOT.findall(self.prompt)) | set(_SLOT.findall(self.negative_prompt))
        if unknown := sorted(named - set(self.slots)):
            raise ValueError(f"{{{unknown[0]}}} has no table [slots.{unknown[0]}]; there are: {_list(self.slots)}")
        if unused := sorted(set(self.slots) - named):
            raise ValueError(f"slot {unused[0]!r} stands nowhere in the prompt")
        for text in (self.prompt, self.negative_prompt):
            if left := _BRACES.search(_SLOT.sub("", _OPTIONAL.sub(r"\1", text))):
                raise ValueError(f"{left.group()!r} without its partner, or nested, in {text!r}")
        return self

    @property
    def required(self) -> tuple[str, ...]:
        """The slots that have to be given."""
        outside = _OPTIONAL.sub("", self.prompt) + _OPTIONAL.sub("", self.negative_prompt)
        must = set(_SLOT.findall(outside))
        return tuple(name for name, slot in self.slots.items() if name in must and slot.default is None)

    @property
    def example(self) -> dict[str, str]:
        """Values that show what is meant, one for each slot that has any."""
        told = {name: slot.example or slot.default or next(iter(slot.choices), "") for name, slot in self.slots.items()}
        return {name: value for name, value in told.items() if value}

    def filled(self, slots: Mapping[str, object], path: str = "slots") -> FilledPrompt:
        """The prompts with `slots` in their places. Text and numbers are taken; None is as not given.

        Raises InvalidRequestError with an issue for every slot that is missing, unknown or not to be had, at
        `path`.NAME.
        """
        issues: list[Issue] = []
        values = {name: slot.default or "" for name, slot in self.slots.items()}
        for name, value in slots.items():
            if name not in self.slots:
                near = difflib.get_close_matches(str(name), self.slots, n=1)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                issues.append(Issue(f"{path}.{name}", f"no such slot{meant}", "unknown", tuple(self.slots)))
            elif value is not None:
                text, wrong = _value(self.slots[name], value)
                values[name] = text
                issues += [Issue(f"{path}.{name}", wrong, "invalid", self.slots[name].choices)] if wrong else []
        known_wrong = {issue.path for issue in issues}
        for name in self.required:
            if not values[name] and f"{path}.{name}" not in known_wrong:
                slot = self.slots[name]
                what = f": {slot.description}" if slot.description else ""
                issues.append(Issue(f"{path}.{name}", f"is missing{what}", "missing", slot.choices))
        made = FilledPrompt(_with(self.prompt, values), _with(self.negative_prompt, values))
        for field, text in zip(made._fields, made, strict=True):
            if len(text) > MAX_PROMPT_CHARS:
                issues.append(
                    Issue(path, f"the {field} has {len(text)} characters, at most {MAX_PROMPT_CHARS}", "long")
                )
        if issues:
            raise InvalidRequestError(tuple(issues))
        return made


class Templates(_Frozen):
    """Templates by name."""

    templates: dict[str, PromptTemplate] = Field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.templates)

    def filled(self, name: object, slots: object, path: str = "template", slots_path: str = "slots") -> FilledPrompt:
        """A request's template with its slots. Raises InvalidRequestError with every issue and the choices."""
        template = self.templates.get(name) if isinstance(name, str) else None
        if template is None:
            near = difflib.get_close_matches(str(name), self.templates, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidRequestError((Issue(path, f"unknown template {name!r}{meant}", "unknown", self.names),))
        if slots is None:
            slots = {}
        if not isinstance(slots, Mapping):
            said = f"must be an object of slots (got {str(slots)[:60]!r})"
            raise InvalidRequestError((Issue(slots_path, said, "type", tuple(template.slots)),))
        return template.filled(slots, slots_path)

    def filled_each(self, prompts: Sequence[object], path: str = "prompts") -> tuple[list[object], str, list[Issue]]:
        """Several prompts of one clip, each with `template` and `slots` replaced by its text; the first negative prompt
        that a template has, as a clip has one; and what is wrong."""
        out: list[object] = []
        negative = ""
        issues: list[Issue] = []
        for number, one in enumerate(prompts):
            where = f"{path}.{number}"
            if not isinstance(one, dict) or (one.get("template") is None and one.get("slots") is None):
                out.append(one)
                continue
            rest = {name: value for name, value in one.items() if name not in ("template", "slots")}
            out.append(rest)
            if one.get("template") is None:
                issues.append(Issue(f"{where}.template", "slots are of a template", "missing", self.names))
            elif rest.get("text") is not None:
                issues.append(Issue(f"{where}.text", "give text or template, not both", "twice"))
            else:
                try:
                    made = self.filled(one["template"], one.get("slots"), f"{where}.template", f"{where}.slots")
                except InvalidRequestError as error:
                    issues += error.issues
                    continue
                rest["text"], negative = made.prompt, negative or made.negative_prompt
        return out, negative, issues


def read_templates(file: str | Path | None = None) -> Templates:
    """The templates that ship with Rushes and, over them, those of a TOML file.

    Raises ConfigError with file, template, field and value.
    """
    shipped = resources.files(__package__).joinpath("templates.toml").read_text(encoding="utf-8")
    found = dict(_parsed(shipped, "templates.toml").templates)
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"templates: {file}: {error}") from error
        found |= _parsed(text, str(file)).templates
    return Templates(templates=found)


def _parsed(text: str, where: str) -> Templates:
    try:
        return Templates(templates=tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"templates: {where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"][1:]))
        said = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f" (got {str(first['input'])[:60]!r})"
        raise ConfigError(f"templates: {where}: {field}: {said}{got}") from error


def _value(slot: Slot, value: object) -> tuple[str, str | None]:
    """(a slot's text, what is wrong with it)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return "", f"must be text or a number (got {str(value)[:60]!r})"
    text = _GAPS.sub(" ", str(value)).strip()
    if len(text) > MAX_SLOT_CHARS:
        return "", f"has {len(text)} characters, at most {MAX_SLOT_CHARS}"
    if slot.choices and text and text not in slot.choices:
        return "", f"{text[:60]!r} is none of its values"
    return text, None


def _with(text: str, values: Mapping[str, str]) -> str:
    def optional(part: re.Match[str]) -> str:
        inside = part.group(1)
        return inside if all(values[name] for name in _SLOT.findall(inside)) else ""

    kept = _OPTIONAL.sub(optional, text)
    # In one pass: braces in a slot's own text are text.
    return _GAPS.sub(" ", _SLOT.sub(lambda found: values[found.group(1)], kept)).strip()


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"

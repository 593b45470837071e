"""Reading a body: JSON in, a model out, or every issue with its path, its allowed values and a suggestion."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from schemas.errors import Issue

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound="Wire")


class Wire(BaseModel):
    """A body. Names are camelCase; a field that nobody knows is refused, so that a typo is not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, allow_inf_nan=False)


class WireIssue(BaseModel):
    """One thing wrong with a request."""

    model_config = ConfigDict(frozen=True)

    code: str
    path: Path
    message: str
    choices: tuple[str, ...] = ()
    suggestion: str | None = None

    def as_json(self) -> dict[str, JsonValue]:
        entry: dict[str, JsonValue] = {"code": self.code, "path": list(self.path), "message": self.message}
        if self.choices:
            entry["choices"] = list(self.choices)
        if self.suggestion is not None:
            entry["suggestion"] = self.suggestion
        return entry


class WireError(Exception):
    """A request that is refused with 400, in the client's own names."""

    def __init__(self, issues: Sequence[WireIssue], error: str = "Validation of body failed") -> None:
        self.issues = tuple(issues)
        self.error = error
        super().__init__("; ".join(issue.message for issue in self.issues) or error)


def issue(code: str, path: str | Path, message: str, choices: Sequence[str] = (), given: object = None) -> WireIssue:
    """`given`: what the client wrote, to find the choice that it may have meant."""
    place: Path = (path,) if isinstance(path, str) else path
    return WireIssue(code=code, path=place, message=message, choices=tuple(choices), suggestion=closest(given, choices))


def closest(given: object, choices: Sequence[str]) -> str | None:
    """The choice that `given` looks most like, or the only one there is."""
    if not isinstance(given, str) or not choices:
        return None
    by_fold = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(given.casefold()[:100], list(by_fold), n=1, cutoff=0.5)
    return by_fold[found[0]] if found else None


def read(model: type[Model], body: bytes, context: dict[str, Any] | None = None) -> Model:
    """The body as `model`. Raises WireError with every issue."""
    return validate(model, parse(body), context)


def parse(body: bytes) -> object:
    """The JSON in a body; an empty one is null. Raises WireError."""
    try:
        return from_json(body or b"null")
    except ValueError as error:
        raise WireError([issue("invalid_json", (), f"the body is no JSON: {error}")]) from None


def validate(model: type[Model], given: object, context: dict[str, Any] | None = None) -> Model:
    """JSON, already parsed, as `model`. Raises WireError with every issue."""
    try:
        return model.model_validate(given, context=context)
    except ValidationError as error:
        raise WireError(issues_of(error, model)) from None


def wire_issues(issues: Sequence[Issue], names: Mapping[str, str] | None = None) -> list[WireIssue]:
    """Ours, each with the path of the client's field that `names` gives for ours."""
    names = names or {}
    found = []
    for one in issues:
        suggestion = getattr(one, "suggestion", None)
        if suggestion is None and one.choices and one.code in _FIRST_IS_BEST:
            suggestion = one.choices[0]
        path = client_path(one.path, names)
        found.append(
            WireIssue(code=one.code, path=path, message=one.message, choices=one.choices, suggestion=suggestion)
        )
    return found


def client_path(path: str, names: Mapping[str, str]) -> Path:
    """One of our paths, as the client has it."""
    parts = _in_client_s_names(path, names)
    return tuple(int(name) if name.isdigit() else name for part in parts for name in part.split("."))


def _in_client_s_names(path: str, names: Mapping[str, str]) -> list[str]:
    """The parts of one of our paths, its beginning as `names` has it where it is there as a whole (`inputs.0`)."""
    parts = [part for part in path.split(".") if part]
    for length in range(len(parts), 1, -1):
        whole = names.get(".".join(parts[:length]))
        if whole is not None:
            # What the client calls one input has none of our fields.
            return [whole]
    return [names.get(part, part) for part in parts]


_FIRST_IS_BEST = frozenset({"shape", "deadline_cannot_be_kept", "price"})


def issues_of(error: ValidationError, model: type[BaseModel] | None = None) -> list[WireIssue]:
    """pydantic's complaints in ours. Values the client sent are not repeated: they may be long, or secret."""
    return [_issue_of(dict(entry), model) for entry in error.errors(include_url=False)]


_CODES = {"missing": "required", "extra_forbidden": "unrecognized_key"}


def _issue_of(entry: dict[str, Any], model: type[BaseModel] | None) -> WireIssue:
    kind, message = str(entry["type"]), str(entry["msg"])
    path: Path = tuple(part for part in entry["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    context = entry.get("ctx") or {}
    choices: tuple[str, ...] = ()
    given: object = entry.get("input")
    if isinstance(context.get("error"), Refusal):
        refusal: Refusal = context["error"]
        path = (*_by_alias(model, path), *refusal.within)
        return issue(refusal.code, path, str(refusal), refusal.choices, given)
    if kind == "extra_forbidden":
        name = str(path[-1]) if path else ""
        owner = _model_at(model, path[:-1])
        known = _names(owner) if owner else ()
        unsupported = getattr(owner, "unsupported", {}) if owner else {}
        if name in unsupported:
            return issue("unsupported", path, f"{name} is not available here: {unsupported[name]}")
        found = closest(name, known)
        return WireIssue(code=_CODES[kind], path=path, message=f"{name} is not known", choices=known, suggestion=found)
    if kind in ("literal_error", "enum"):
        choices = tuple(part.strip(" '") for part in str(context.get("expected", "")).replace(" or ", ", ").split(","))
        message = f"must be one of {', '.join(choices)}"
    elif kind == "missing":
        message = "is required"
    elif kind == "model_type":
        message = "must be a JSON object"
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    return issue(_CODES.get(kind, kind), path, message, choices, given)


def _by_alias(model: type[BaseModel] | None, path: Path) -> Path:
    """A default that is refused is told by pydantic under the field's own name."""
    field = model.model_fields.get(str(path[0])) if model and path else None
    return path if field is None or field.alias is None else (field.alias, *path[1:])


class Refusal(ValueError):
    """Raised by a field's validator: an issue with a code and choices of its own, `within` the field."""

    def __init__(self, message: str, code: str = "invalid", choices: Sequence[str] = (), within: Path = ()) -> None:
        self.code, self.choices, self.within = code, tuple(choices), within
        super().__init__(message)


def _names(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _model_at(model: type[BaseModel] | None, path: Path) -> type[BaseModel] | None:
    """The model that has the field `path` ends in, following aliases."""
    for part in path:
        if model is None:
            return None
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if (f.alias or name) == part), None)
        model = _model_of(field) if field else None
    return model


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    found: list[Any] = [field.annotation]
    while found:
        annotation = found.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        if get_origin(annotation) is not None:
            found.extend(get_args(annotation))
    return None

"""What pydantic says of a value that a client wrote, as issues with the place, the value and the choices."""

from collections.abc import Collection, Mapping

from pydantic import ValidationError

from schemas.errors import Issue

_SHOWN_CHARS = 60


def issues_of(
    error: ValidationError,
    path: str,
    noun: str,
    fields: Collection[str],
    choices: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Issue, ...]:
    """Of the value at `path`, one `noun` ('a step') with these `fields`; `choices` are those of a field that has few
    values."""
    found: list[Issue] = []
    for told in error.errors(include_url=False):
        name = str(told["loc"][0]) if told["loc"] else ""
        kind, message = str(told["type"]), str(told["msg"]).removeprefix("Value error, ")
        said = repr(told["input"])[:_SHOWN_CHARS]
        few = (choices or {}).get(name, ())
        if kind == "extra_forbidden":
            few, message = tuple(fields), f"no field of {noun} is called {name!r}"
        elif kind == "missing":
            message = "is missing"
        elif few:
            message = f"unknown {name} {said}"
        elif kind != "value_error":
            message = f"{message} (got {said})"
        found.append(Issue(f"{path}.{name}" if name else path, message, kind, few))
    return tuple(found)

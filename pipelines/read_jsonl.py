"""JSONL: one JSON object a line; and whole JSON files, an array of objects or objects one after the other."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from pipelines.chunk import Chunk, Cut, chunk_bytes_of
from pipelines.line_encoding import LineEncoding
from pipelines.manifest_file import ManifestFile
from pipelines.rows import Rows
from schemas.errors import ConfigError

# A JSON array is read at once.
_MOST_JSON_BYTES = 256 * 1024 * 1024
_MARK = "\ufeff".encode()
_MOST_DIGITS = 4000


def jsonl_cuts(file: ManifestFile, chunk_bytes: int, limit: int | None) -> tuple[str, list[Cut]]:
    """The file's encoding, and its parts of about `chunk_bytes`, each ending at a line end.

    Stops behind the part that holds row `limit`. A part of layout None and group 1 is a whole JSON file.
    """
    most, cuts, seen = chunk_bytes_of(file, chunk_bytes), list[Cut](), 0
    encoding = LineEncoding()
    held: list[bytes] = []
    held_bytes = start = 0
    line = 1

    def close(data: bytes) -> None:
        nonlocal start, line, seen
        lines = data.splitlines()
        if file.encoding == "utf-8":
            encoding.look(lines)
        rows = sum(not text.isspace() and bool(text) for text in lines)
        if rows:
            cuts.append(Cut(start, start + len(data), line, rows))
        seen += rows
        start += len(data)
        line += len(lines)

    with_limit = limit if limit is not None else float("inf")
    for block in file.blocks():
        if not start and not held and (values := _json_values(file, block)) is not None:
            return file.encoding, [Cut(0, 0, 1, values, group=1)] if values else []
        held.append(block)
        held_bytes += len(block)
        # Without a line end in it the block is inside a line that is longer than a part: read on.
        if held_bytes < most or b"\n" not in block:
            continue
        data = b"".join(held)
        end = data.rfind(b"\n") + 1
        close(data[:end])
        held, held_bytes = [data[end:]], len(data) - end
        if seen >= with_limit:
            break
    else:
        close(b"".join(held))
    return encoding.other or file.encoding, cuts


def read_jsonl(chunk: Chunk) -> Rows:
    """The rows of a part. A line that is no JSON object is a broken row."""
    if chunk.cut.group:
        return _read_json(chunk.file)
    rows = Rows(chunk.file.uri)
    parsed: list[dict[str, Any]] = []
    for offset, raw in enumerate(chunk.file.read(chunk.cut.start, chunk.cut.stop).splitlines()):
        raw = raw.removeprefix(_MARK)  # files that were put together have marks inside
        if not raw or raw.isspace():
            continue
        value: Any = {}
        try:
            value = from_json(raw)
            if not isinstance(value, dict):
                raise ValueError(f"not a row: a line must be a JSON object, not {type(value).__name__}")
        except ValueError as error:
            rows.broken.append((len(parsed), "", str(error).replace(" at line 1 column ", " at column ")))
            value = {}
        parsed.append(value)
        rows.lines.append(chunk.cut.first_line + offset)
    rows.fill(parsed)
    return rows


def _json_values(file: ManifestFile, head: bytes) -> int | None:
    """How many values a file has that is JSON as a whole, an array or objects over several lines; None for JSONL."""
    first = head.lstrip().splitlines()[0].strip() if head.strip() else b""
    if not first.startswith((b"[", b"{")) or (first[:1] == b"{" and first != b"{"):
        return None
    try:
        return sum(1 for _ in _values(_text(file)))
    except ValueError as error:
        try:
            from_json(first)
        except ValueError:
            if first[:1] == b"{" and b"\n{" in head:
                return None  # a first line that is broken, and others
            raise ConfigError(f"{file.uri}: not JSON: {error}") from error
        return None


def _read_json(file: ManifestFile) -> Rows:
    rows = Rows(file.uri)
    parsed: list[dict[str, Any]] = []
    # Of several on one line, the line would not tell which: values are counted.
    for number, value in enumerate(_values(_text(file)), 1):
        if not isinstance(value, dict):
            rows.broken.append((len(parsed), "", f"not a row: must be a JSON object, not {type(value).__name__}"))
            value = {}
        else:
            try:
                to_json(value)
            except (PydanticSerializationError, ValueError) as error:
                rows.broken.append((len(parsed), "", f"a text that is no Unicode: {str(error)[:120]}"))
                value = {}
        parsed.append(value)
        rows.lines.append(number)
    rows.fill(parsed)
    return rows


def _text(file: ManifestFile) -> str:
    data = file.read(0, _MOST_JSON_BYTES + 1)
    if len(data) > _MOST_JSON_BYTES:
        raise ConfigError(
            f"{file.uri}: JSON of more than {_MOST_JSON_BYTES >> 20} MiB; write one object a line (.jsonl)"
        )
    return data.decode("utf-8")


def _values(text: str) -> Iterator[Any]:
    """Each value of the text: the items of an array, or values one after the other.

    ValueError, with line and column, where it is not JSON.
    """
    decode = json.JSONDecoder(parse_int=_whole).raw_decode
    in_array = text.lstrip().startswith("[")
    at = len(text) - len(text.lstrip()) + in_array
    first = True
    while True:
        at = _skip(text, at)
        if in_array and text[at : at + 1] == "]":
            if text[at + 1 :].strip():
                raise json.JSONDecodeError("more behind the array", text, at + 1)
            return
        if not in_array and at == len(text):
            return
        if in_array and not first:
            if text[at : at + 1] != ",":
                raise json.JSONDecodeError("',' or ']' expected", text, at)
            at = _skip(text, at + 1)
        first = False
        try:
            value, at = decode(text, at)
        except RecursionError as error:
            raise json.JSONDecodeError("nested too deeply", text, at) from error
        yield value


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _whole(digits: str) -> int | float:
    # Python refuses to read longer ones; no field takes them.
    return int(digits) if len(digits) < _MOST_DIGITS else float("inf")

"""CSV as people have it: their separators, quotes that were never closed, cells of any size.

The standard library parses; what is ours is to know the header, and to lose no row behind a broken one.
"""

import csv
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.chunk import Chunk, CsvLayout, Cut, chunk_bytes_of
from pipelines.line_encoding import LineEncoding
from pipelines.manifest_file import ManifestFile
from pipelines.rows import ASKED_BY, FIELDS, Rows, field_of
from schemas.errors import ConfigError

_DELIMITERS = (",", ";", "\t", "|")
# A row longer than this has a quote that was never closed.
_MOST_ROW_BYTES = 64 * 1024 * 1024
_MARK = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECIMAL_COMMA = re.compile(r"^\s*-?\d+,\d+\s*$")
_DECIMALS = frozenset({"duration_s", "fps", "guidance_scale", "strength"})
_REASONS = {
    "unexpected end of data": "a quote that is never closed",
    "expected after": "a quote inside a quoted cell must be doubled",
}


@dataclass(frozen=True)
class Record:
    """One row's cells, or why it cannot be read; its first line and the one behind it. Its bytes are those from the row
    before: empty lines between are its own."""

    line: int
    next_line: int
    cells: list[str]
    raw_bytes: int
    wrong: str = ""


def csv_cuts(file: ManifestFile, chunk_bytes: int, limit: int | None) -> tuple[str, list[Cut]]:
    """The file's encoding, and its parts of about `chunk_bytes`, each ending where a row does.

    Stops behind the part that holds row `limit`. Raises ConfigError for a header that is none.
    """
    most = chunk_bytes_of(file, chunk_bytes)
    encoding = LineEncoding()
    lines = _watched(_physical_lines(file.blocks()), encoding if file.encoding == "utf-8" else None)
    layout, start, line = _header(file.uri, lines)
    if layout is None:
        return file.encoding, []
    cuts: list[Cut] = []
    stop, first_line, rows, seen = start, line, 0, 0
    for record in records(lines, layout, line):
        rows += bool(record.wrong) or any(cell.strip() for cell in record.cells)
        stop += record.raw_bytes
        if stop - start >= most or (limit is not None and seen + rows >= limit):
            cuts.append(Cut(start, stop, first_line, rows, layout=layout))
            seen += rows
            start, rows, first_line = stop, 0, record.next_line
            if limit is not None and seen >= limit:
                break
    if stop > start:
        cuts.append(Cut(start, stop, first_line, rows, layout=layout))
    return encoding.other or file.encoding, cuts


def read_csv(chunk: Chunk) -> Rows:
    """The rows of a part. What cannot be read as one is a broken row; an empty cell is a missing value."""
    layout = chunk.cut.layout
    assert layout is not None
    rows = Rows(chunk.file.uri)
    parsed: list[dict[str, Any]] = []
    data = chunk.file.read(chunk.cut.start, chunk.cut.stop)
    decimals = [name for name in layout.columns if field_of(name) in _DECIMALS and layout.delimiter != ","]
    for record in records(iter(data.splitlines(keepends=True)), layout, chunk.cut.first_line):
        cells = dict(zip(layout.columns, record.cells, strict=False))
        given = {name: cell for name, cell in cells.items() if cell and not cell.isspace()}
        more = [cell for cell in record.cells[len(layout.columns) :] if cell.strip()]
        wrong = record.wrong
        if not wrong and not given and not more:
            rows.blank += 1
            continue
        if more:
            wrong = f"{len(more)} more fields than the header has"
        elif "" in given:
            wrong = "a value in a column without a name"
        elif any(_SURROGATE.search(cell) for cell in given.values() if not cell.isascii()):
            wrong = "bytes that are not UTF-8, as the rest of the file is"
        if wrong:
            rows.broken.append((len(parsed), "", wrong))
            given = {}
        for name in decimals:
            if _DECIMAL_COMMA.match(given.get(name, "")):
                given[name] = given[name].replace(",", ".")
        parsed.append(given)
        rows.lines.append(record.line)
    rows.fill(parsed)
    return rows


def records(lines: Iterator[bytes], layout: CsvLayout, first_line: int) -> Iterator[Record]:
    """Every row of the physical lines, each line in exactly one: what cannot be a row is one that is `wrong`.

    A quote that is never closed swallows what follows it. So only its own line is wrong, and the lines behind are read
    again; of those a row is believed only when it has as many cells as the header.
    """
    csv.field_size_limit(sys.maxsize)
    feed = _Feed(lines)
    reader = _reader(feed, layout)
    line, skipped = first_line, 0
    while True:
        feed.taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reader = _reader(feed, layout)
            own, *others = feed.taken
            feed.give_back(others)
            yield Record(line, line + 1, [], skipped + len(own), _reason(error))
            line, skipped = line + 1, 0
            continue
        taken, taken_bytes = len(feed.taken), skipped + sum(map(len, feed.taken))
        skipped = 0
        if not cells:  # an empty line
            line, skipped = line + taken, taken_bytes
            feed.doubtful = max(0, feed.doubtful - taken)
            continue
        doubtful = feed.doubtful > 0
        feed.doubtful = max(0, feed.doubtful - taken)
        if doubtful and (len(cells) != len(layout.columns) or len(cells) < 2):
            yield Record(line, line + taken, [], taken_bytes, "behind a quote that was never closed")
        else:
            yield Record(line, line + taken, cells, taken_bytes)
        line += taken


class _Feed:
    """Physical lines as text for `csv.reader`, which can be given back. `doubtful` of them were read before."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._again: deque[bytes] = deque()
        self._taken_bytes = 0
        self.taken: list[bytes] = []
        self.doubtful = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        if not self.taken:
            self._taken_bytes = 0
        raw = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(raw)
        self._taken_bytes += len(raw)
        if self._taken_bytes > _MOST_ROW_BYTES and len(self.taken) > 1:
            raise csv.Error("unexpected end of data")
        return raw.decode("utf-8", "surrogateescape")

    def give_back(self, lines: list[bytes]) -> None:
        self._again.extendleft(reversed(lines))
        self.doubtful = max(self.doubtful - 1, len(lines))


def _reader(feed: _Feed, layout: CsvLayout) -> Iterator[list[str]]:
    return csv.reader(feed, delimiter=layout.delimiter, skipinitialspace=layout.skip_space, strict=True)


def _reason(error: csv.Error) -> str:
    said = str(error)
    return next((reason for part, reason in _REASONS.items() if part in said), f"not CSV: {said}")


def _header(uri: str, lines: Iterator[bytes]) -> tuple[CsvLayout | None, int, int]:
    """The layout, and the offset and line of the first row. None when the file holds nothing.

    The separator is the one that makes the most fields of the first line: what the columns are called is known.
    """
    offset, number, told = 0, 1, None
    for raw in lines:
        offset += len(raw)
        number += 1
        text = raw.decode("utf-8", "surrogateescape").removeprefix(_MARK).rstrip("\r\n")
        if not text.strip():
            continue
        if told is None and (said := re.fullmatch(r"sep=(.)", text.strip(), re.IGNORECASE)):
            told = said[1]  # how Excel is told of the separator
            continue
        layouts = [_layout(text, delimiter) for delimiter in ((told,) if told else _DELIMITERS)]
        best = max(layouts, key=lambda layout: len({field_of(name) for name in layout.columns} - {None}))
        _check_header(uri, best)
        return best, offset, number
    return None, offset, number


def _layout(text: str, delimiter: str) -> CsvLayout:
    try:
        cells = next(csv.reader([text], delimiter=delimiter))
    except (csv.Error, StopIteration):
        cells = [text]
    skip_space = any(cell.startswith(" ") for cell in cells[1:])
    if skip_space:
        cells = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))
    return CsvLayout(delimiter, tuple(cell.strip() for cell in cells), skip_space)


def _check_header(uri: str, layout: CsvLayout) -> None:
    names = [name for name in layout.columns if name]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{uri}: the column {twice[0]!r} is there twice")
    if not {field_of(name) for name in names} & ASKED_BY:
        raise ConfigError(
            f"{uri}: the first line must name the columns, and among them prompt, template, image or video "
            f"(got {', '.join(names)[:80]!r}); available: {', '.join(sorted(FIELDS))}"
        )


def _physical_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their ends, of which a block may hold a part."""
    rest = b""
    for block in blocks:
        lines = (rest + block).splitlines(keepends=True)
        rest = lines.pop() if lines else b""
        yield from lines
    yield from rest.splitlines(keepends=True)


def _watched(lines: Iterator[bytes], encoding: LineEncoding | None) -> Iterator[bytes]:
    for line in lines:
        if encoding is not None and not line.isascii():
            encoding.look([line])
        yield line

"""Manifests, mutated: whatever their bytes, every row in is a row accounted for.

    python -m tests.pipelines.manifest_fuzz [--runs 5000] [--seed 0]

A run writes a manifest of some format, changes its bytes, reads and plans it. Either the file is refused with a
ConfigError that names it, or every row of it is planned or rejected. How many rows there are is counted by other means
than those that read them: lines are split by a regular expression, arrays by `json.loads`, row groups by their footer;
of CSV, the text between the lines at which two rows start must be one record, or one line that is none.
"""

import argparse
import csv
import gzip
import io
import json
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.chunk import Chunk
from pipelines.plan import PlanRules, plan_rows
from pipelines.read import find_chunks, read_chunk
from pipelines.rows import Rows
from schemas.errors import ConfigError
from tests.pipelines.catalogs import two_variants

KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "csv.gz")
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")
PROMPTS = ("a red circle", "größer, “schön”", 'a "quoted" word', "two\nlines", "x" * 300, "", "semi;colon\ttab", "Ω é")
TOKENS = (
    b'"',
    b'""',
    b"'",
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"NaN",
    b"9" * 5000,
    b"[" * 500,
    b'{"prompt": "x"}\n',
    b"   \n",
    b",,,\n",
    b"\xe2\x80\xa8",
    b"prompt",
    b"seed",
)


def run(seed: int, folder: Path) -> str:
    """One mutated manifest; how it went. AssertionError or any other error is a finding."""
    chance = random.Random(seed)
    kind = chance.choice(KINDS)
    path = folder / f"m{seed}.{kind}"
    path.write_bytes(mutated(chance, manifest(chance, kind), kind))
    try:
        chunks = find_chunks(str(path), chunk_bytes=chance.choice((1, 64, 1 << 20)))
    except ConfigError as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name the file: {error}") from error
        return "refused"
    parts = [read_chunk(chunk) for chunk in chunks]
    rows = sum(map(len, parts))
    for part in parts:
        planned = plan_rows(part, PlanRules(two_variants(), lambda v, g: 0.0, lambda v: True))
        accepted = sum(group >= 0 for group in planned.group_of)
        assert len(planned.ids) == len(part) == accepted + len(planned.rejects)
        assert {position for position, _, _ in part.broken} <= {reject.position for reject in planned.rejects}
    check(path, kind, chunks, parts, rows)
    return "read"


def manifest(chance: random.Random, kind: str) -> bytes:
    rows = [row(chance) for _ in range(chance.randint(0, 12))]
    if kind == "parquet":
        table = pa.Table.from_pylist(rows or [{"prompt": "x"}])
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=chance.randint(1, 8))
        return sink.getvalue()
    encoding = chance.choice(ENCODINGS)
    if kind.startswith("jsonl"):
        text = "".join(json.dumps(one, ensure_ascii=chance.random() < 0.5) + "\n" for one in rows)
    elif kind == "json":
        text = json.dumps(rows, indent=chance.choice((None, 1)), ensure_ascii=False)
    else:
        sink_text = io.StringIO()
        delimiter = "\t" if kind == "tsv" else chance.choice(",;")
        writer = csv.DictWriter(sink_text, ("prompt", "seed", "shot"), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        text = sink_text.getvalue()
    return text.encode(encoding, "replace")


def row(chance: random.Random) -> dict[str, Any]:
    return {"prompt": chance.choice(PROMPTS), "seed": chance.randint(0, 9), "shot": chance.choice(("a", "ß", ""))}


def mutated(chance: random.Random, data: bytes, kind: str) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(0, 5)):
        at = chance.randint(0, len(changed))
        to = min(len(changed), at + chance.randint(0, 40))
        what = chance.randrange(5)
        if what == 0:
            del changed[at:to]
        elif what == 1:
            changed[at:at] = chance.choice(TOKENS)
        elif what == 2 and changed:
            changed[at % len(changed)] ^= 1 << chance.randrange(8)
        elif what == 3:
            changed[at:at] = changed[at:to] * chance.randint(1, 3)
        else:
            del changed[len(changed) - chance.randint(0, 30) if len(changed) > 30 else len(changed) :]
    packed = gzip.compress(bytes(changed)) if kind.endswith(".gz") else bytes(changed)
    # Seldom the packing itself is damaged.
    return packed[:-3] if kind.endswith(".gz") and chance.random() < 0.05 else packed


def check(path: Path, kind: str, chunks: list[Chunk], parts: list[Rows], rows: int) -> None:
    """Count the rows by other means."""
    lines = [line for part in parts for line in part.lines]
    assert lines == sorted(set(lines)), f"lines out of order or twice: {lines}"
    if kind == "parquet":
        assert rows == pq.read_metadata(path).num_rows
        return
    data = path.read_bytes()
    data = gzip.decompress(data) if kind.endswith(".gz") else data
    file = chunks[0].file
    text = data[file.mark_bytes :].decode(file.encoding, "surrogateescape" if file.encoding == "utf-8" else "replace")
    if kind in ("csv", "tsv", "csv.gz"):
        check_csv(text, chunks, parts)
    elif chunks[0].cut.group:
        assert rows == json_values(text)
    else:
        found = [
            number for number, line in enumerate(physical(text), 1) if line.removeprefix("\ufeff").strip(" \t\v\f")
        ]
        assert lines == found, f"{rows} rows of {len(found)} lines"


def check_csv(text: str, chunks: list[Chunk], parts: list[Rows]) -> None:
    all_lines = physical(text)
    starts = [line for part in parts for line in part.lines]
    broken = {part.lines[position] for part in parts for position, _, _ in part.broken}
    layout = chunks[0].cut.layout
    assert layout is not None
    options: dict[str, Any] = {"delimiter": layout.delimiter, "skipinitialspace": layout.skip_space, "strict": True}
    first = chunks[0].cut.first_line
    blank = 0
    for start, end in zip([first, *starts], [*starts, len(all_lines) + 1], strict=True):
        segment = all_lines[start - 1 : end - 1]
        is_row = start in starts and not (start == first and end == first)
        if start == first and end == first:
            continue
        try:
            found = list(csv.reader((line + "\n" for line in segment), **options))
        except csv.Error:
            assert start in broken, f"line {start} is no CSV, and was taken for a row"
            found = list(csv.reader((line + "\n" for line in segment[1:]), **options))
            is_row = False
        records = [cells for cells in found if cells]
        others = records[1:] if is_row else records
        assert not any(cell.strip() for cells in others for cell in cells), f"lost behind line {start}: {others}"
        blank += len(others)
    assert blank >= sum(part.blank for part in parts)


def physical(text: str) -> list[str]:
    """Lines as every system ends them; what follows the last end is a line when there is anything."""
    found = re.split("\r\n|\n|\r", text)
    return found if found[-1] else found[:-1]


def json_values(text: str) -> int:
    text = text.strip()
    if text.startswith("["):
        return len(json.loads(text, parse_int=lambda digits: 0))
    count, at, decoder = 0, 0, json.JSONDecoder(parse_int=lambda digits: 0)
    while at < len(text):
        _, at = decoder.raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
        count += 1
    return count


def main() -> None:
    """Print how many were read and refused; end with 1 at the first finding, whose manifest is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    csv.field_size_limit(sys.maxsize)
    outcomes: Counter[str] = Counter()
    folder = Path(tempfile.mkdtemp(prefix="rushes-fuzz-"))
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        try:
            outcomes[run(seed, folder)] += 1
        except Exception:
            print(f"seed {seed}: see {folder}", file=sys.stderr)
            raise
        for path in folder.iterdir():
            path.unlink()
    print(f"{arguments.runs} manifests: {dict(outcomes)}, every row accounted for")


if __name__ == "__main__":
    main()

"""Mutated images and videos, and mutated addresses of them, through planning, render and the endpoint's intake.

python -m tests.failures.media_fuzz [--runs 20000] [--seed 0] [--quick]

Whatever the bytes, each of the three takes them or refuses them with its own error: anything else is an escape, whose
seed is printed. Decoders run in this very process, so that one that crashes is seen too.
"""

import argparse
import base64
import json
import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.estimate import estimate
from schemas.errors import InvalidRequestError
from schemas.run import RunOptions
from serve.config import MediaLimits
from serve.media.check import check
from tests.models.media_fuzz import mutated, rendered, samples
from tests.pipelines.catalogs import TWO_VARIANTS

_QUICK = 300
_TOGETHER = 500  # rows of one manifest
_LETTERS = "é\0 %[]@:/\\?#.~\ud800𝄞'\"a1-"
_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Fuzz:
    """The three ways over one folder; mutants gather for planning, which takes manifests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._media = samples(folder)
        self._limits = MediaLimits()
        (folder / "catalog.toml").write_text(TWO_VARIANTS)
        self.outcomes: dict[str, Counter[str]] = {way: Counter() for way in ("render", "planning", "intake")}
        self._waiting: list[bytes] = []

    def run(self, seed: int) -> None:
        """One mutated file. Raises what escapes."""
        is_video, data = mutated(random.Random(seed), self._media)
        self.outcomes["render"][rendered(is_video, data)] += 1
        self.outcomes["intake"][self._taken(data)] += 1
        self._waiting.append(data)
        if len(self._waiting) == _TOGETHER:
            self.plan(seed)

    def _taken(self, data: bytes) -> str:
        file = self._folder / "upload"
        file.write_bytes(data)
        try:
            check(file, None, self._limits, "promptImage")
        except InvalidRequestError:
            return "refused"
        return "taken"

    def plan(self, seed: int) -> None:
        """What waits, in the columns that Hugging Face makes and as addresses of every kind. Every row is accounted
        for."""
        chance = random.Random(seed)
        mutants, self._waiting = self._waiting, []
        if not mutants:
            return
        wrapped = [{"bytes": data or None, "path": chance.choice((None, "x.png", "é\0"))} for data in mutants]
        for column in ("image", "video"):
            for values in (pa.array(wrapped, _STRUCT), pa.array(mutants, pa.binary())):
                table = pa.table({"prompt": ["a"] * len(mutants), column: values})
                pq.write_table(table, self._folder / "m.parquet")
                self._accounted("m.parquet", len(mutants))
            rows = [{"prompt": "a", column: self._address(chance, data)} for data in mutants]
            (self._folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            self._accounted("m.jsonl", len(rows))

    def _address(self, chance: random.Random, data: bytes) -> object:
        file = self._folder / "mutated"
        file.write_bytes(data)
        encoded = base64.b64encode(data).decode()
        return chance.choice(
            (
                f"data:image/png;base64,{encoded}",
                _bent(chance, f"data:image/png;base64,{encoded[:200]}"),
                _bent(chance, str(file)),
                {"bytes": None, "path": _bent(chance, str(file))},
                [{"uri": _bent(chance, "https://example.com/é.png"), "position": "first"}],
                _bent(chance, "https://user@example.com:443/a b.png?x=1#y"),
            )
        )

    def _accounted(self, manifest: str, rows: int) -> None:
        options = RunOptions(
            manifest=str(self._folder / manifest), catalog=str(self._folder / "catalog.toml"), variant="small", out=""
        )
        quote = estimate(options).quote
        counted = quote.to_render + quote.already_done + quote.duplicates + quote.rejected
        if not quote.rows == counted == rows:
            raise AssertionError(f"{manifest}: {rows} rows, {quote.rows} read, {counted} accounted for")
        self.outcomes["planning"]["taken"] += rows - quote.rejected
        self.outcomes["planning"]["refused"] += quote.rejected


def _bent(chance: random.Random, text: str) -> str:
    letters = list(text)
    for _ in range(chance.randint(1, 4)):
        letters[chance.randrange(len(letters))] = chance.choice(_LETTERS)
    return "".join(letters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} files")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    runs = _QUICK if asked.quick else asked.runs
    with tempfile.TemporaryDirectory(prefix="rushes-fuzz-") as name:
        fuzz = Fuzz(Path(name))
        for seed in range(asked.seed, asked.seed + runs):
            try:
                fuzz.run(seed)
            except Exception:
                print(f"seed {seed} escaped", file=sys.stderr)
                raise
        fuzz.plan(asked.seed)
    print(json.dumps({"files": runs, "escapes": 0, **fuzz.outcomes}))


if __name__ == "__main__":
    main()

"""Chains of the audit log in an object store: one a process, in segments that are written once.

    {"log": …, "position": n, "previous": …, "hash": …, "entry": {…}, "prompt": {"salt": …, "words": …}}

`prompt` is no part of what is hashed. A segment is only ever written again to take prompts away (`rewrite`).
"""

import json
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from schemas.audit import Action, Head, Prompt, Record, canonical
from schemas.errors import StorageError
from storage import keys
from storage.store import ObjectStore

_RECORDS_AN_OBJECT = 20_000
_READERS = 32  # a GET is all waiting
_AT_ONCE = 256


@dataclass(frozen=True)
class Line:
    """A record as it is stored: `log` names its chain, `prompt` lies beside it."""

    log: str
    record: Record
    prompt: Prompt | None = None


@dataclass(frozen=True)
class ChainEnds:
    """Of a chain; None where its first or last segment cannot be read."""

    first: Line | None
    last: Line | None

    @property
    def head(self) -> Head | None:
        """How far it goes."""
        last = self.last
        return None if last is None else Head(last.log, last.record.position, last.record.hash)

    def begins_with(self, *actions: Action) -> bool:
        return self.first is not None and json.loads(self.first.record.text).get("action") in actions


class UnreadableLineError(StorageError):
    """A line is no record."""


def line_of(line: Line) -> str:
    """As text, without the end of the line."""
    record, prompt = line.record, line.prompt
    beside = ""
    if prompt is not None:
        words = {} if prompt.words is None else {"words": prompt.words}
        beside = f',"prompt":{canonical({"salt": prompt.salt, **words})}'
    head = f'"hash":"{record.hash}","log":"{line.log}","position":{record.position},"previous":"{record.previous}"'
    return f'{{"entry":{record.text},{head}{beside}}}'


def parsed(text: str | bytes) -> Line:
    """Raises UnreadableLineError."""
    try:
        told: Any = json.loads(text)
        beside, entry = told.get("prompt"), told["entry"]
        if not isinstance(entry, dict):
            raise TypeError(f"its entry is a {type(entry).__name__}")
        record = Record(int(told["position"]), _text(told, "previous"), _text(told, "hash"), canonical(entry))
        words = None if beside is None or beside.get("words") is None else _text(beside, "words")
        prompt = None if beside is None else Prompt(_text(beside, "salt"), words)
        return Line(_text(told, "log"), record, prompt)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableLineError(f"{type(error).__name__}: {error}") from error


def _text(told: Any, name: str) -> str:
    """What somebody wrote into a log by hand may be anything."""
    value = told[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}")
    return value


class AuditSegments:
    """The chains below one store's `audit/`. Cheap to make; safe to share."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, log: str, lines: Sequence[Line]) -> None:
        """Records of one chain that follow each other, in one object. Durable when it returns."""
        key = keys.audit_segment(log, lines[0].record.position, len(lines))
        self._store.put(key, _body(lines), "application/x-ndjson")

    def chains(self) -> dict[str, list[str]]:
        """The segments of each chain, by their first position; chains by the first digits of their names. Without
        those of which all records are in a larger one too: it was made of them (`fold`)."""
        return {chain: _uncovered(found) for chain, found in self._all().items()}

    def drop_folded(self) -> None:
        """Delete segments of which all records are in a larger one: a fold was killed before it could."""
        for found in self._all().values():
            self._store.delete({key for _, _, key in found} - set(_uncovered(found)))

    def fold(self, segments: Sequence[str], most_records: int = _RECORDS_AN_OBJECT) -> int:
        """Put what stands in many segments of one chain into a few; how many objects are fewer. May be killed anywhere,
        and a segment that is written meanwhile stays as it is."""
        fewer = 0
        together: list[str] = []
        body = b""
        first = records = 0

        def close() -> None:
            nonlocal fewer, body, records
            if len(together) > 1:
                self._store.put(keys.audit_segment(log, first, records), body, "application/x-ndjson")
                self._store.delete(together)
                fewer += len(together) - 1
            together.clear()
            body, records = b"", 0

        log = ""
        with closing(self._bodies(segments)) as bodies:
            for key, some in bodies:
                of = keys.audit_segment_of(key)
                assert of is not None
                log, at, count = of
                if records and (at != first + records or records + count > most_records):
                    close()
                first = first if records else at
                together.append(key)
                body += some
                records += count
        close()
        return fewer

    def lines(self, segments: Sequence[str]) -> Iterator[Line | UnreadableLineError]:
        """What stands in some segments, one after the other."""
        with closing(self._bodies(segments)) as bodies:
            for _, body in bodies:
                yield from _lines(body)

    def ends(self, chains: Mapping[str, Sequence[str]]) -> dict[str, "ChainEnds"]:
        """The first and the last record of each chain, by its first and its last segment; without those of which
        nothing can be read."""
        wanted = dict.fromkeys(key for segments in chains.values() for key in (segments[0], segments[-1]))
        with closing(self._bodies(list(wanted))) as bodies:
            lines = {key: [line for line in _lines(body) if isinstance(line, Line)] for key, body in bodies}
        found = {chain: (lines[segments[0]], lines[segments[-1]]) for chain, segments in chains.items()}
        return {
            chain: ChainEnds(first[0] if first else None, last[-1] if last else None)
            for chain, (first, last) in found.items()
        }

    def erase(self, subject: str) -> int:
        """Take away the words and salts beside all records of a subject; of how many."""
        erased = 0
        needle = json.dumps(subject, ensure_ascii=False).encode()
        self.drop_folded()
        for segments in self.chains().values():
            with closing(self._bodies(segments)) as bodies:
                for key, body in bodies:
                    if needle in body:
                        erased += self._erase(key, body, subject)
        return erased

    def _all(self) -> dict[str, list[tuple[int, int, str]]]:
        """(first position, −records, key) of all segments, in order, by chain."""
        found: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for info in self._store.list(keys.AUDIT_SEGMENTS):
            if (of := keys.audit_segment_of(info.key)) is not None:
                chain, first, records = of
                found[chain].append((first, -records, info.key))
        return {chain: sorted(found[chain]) for chain in sorted(found)}

    def _erase(self, key: str, body: bytes, subject: str) -> int:
        kept: list[bytes] = []
        erased = 0
        for text in body.splitlines():
            line = next(_lines(text))
            of_subject = isinstance(line, Line) and json.loads(line.record.text).get("subject") == subject
            if isinstance(line, Line) and of_subject and line.prompt is not None:
                kept.append(line_of(Line(line.log, line.record)).encode())
                erased += 1
            else:
                kept.append(text)
        if erased:
            self._store.put(key, b"".join(text + b"\n" for text in kept), "application/x-ndjson")
        return erased

    def _bodies(self, segments: Sequence[str]) -> Generator[tuple[str, bytes], None, None]:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="audit") as threads:
            for start in range(0, len(segments), _AT_ONCE):
                some = segments[start : start + _AT_ONCE]
                yield from zip(some, threads.map(self._store.get, some), strict=True)


def _uncovered(segments: Iterable[tuple[int, int, str]]) -> list[str]:
    """Of segments (first, −records, key), in order, those that hold anything which the ones before do not."""
    kept: list[str] = []
    reached = 0
    for first, negative, key in segments:
        last = first - negative - 1
        if last > reached:
            kept.append(key)
            reached = last
    return kept


def _body(lines: Iterable[Line]) -> bytes:
    return "".join(f"{line_of(line)}\n" for line in lines).encode()


def _lines(body: bytes) -> Iterator[Line | UnreadableLineError]:
    for text in body.splitlines():
        try:
            yield parsed(text)
        except UnreadableLineError as error:
            yield error

"""The audit log of a folder that runs wrote to: read, held against the ledger, exported, prompts erased."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from actors.audit_trail import Trail, heads_in, stored_anchors
from schemas.audit import Action, AuditFilter, Entry, Head, Told, prompt_erased
from schemas.clip import Status
from schemas.errors import ConfigError, ObjectMissingError
from storage.audit_segments import AuditSegments, Line, UnreadableLineError, parsed
from storage.latest import fingerprint_ranges
from storage.ledger import Ledger
from storage.store import ObjectStore
from trust.audit_chain import AuditFault, AuditReport, ChainCheck, ChainReport, Fault
from trust.audit_source import Found, checked_anchors, signers_of

_ROWS_A_RANGE = 50_000
_MOST_FAULTS = 1000
_OPENINGS = (Action.RUN_STARTED, Action.PROMPT_ERASED)  # of chains that are no actor's


class RunAuditLog:
    """`AuditSource` over a run's store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._segments = store, AuditSegments(store)

    def verify(self, heads: Sequence[Head] = (), authorities: str | None = None) -> AuditReport:
        believed, faults = checked_anchors(stored_anchors(self._store), authorities)
        known: defaultdict[str, list[Head]] = defaultdict(list)
        for head in (*self._told_heads(self._chains()), *(anchor.head for anchor in believed), *heads):
            known[head.log[:16]].append(head)
        # Again: of a run that is going on, what a head tells of may have been written since the first look.
        chains = self._chains()
        seen = _Seen()
        reports = []
        for chain, segments in chains.items():
            report, unreadable = self._check(segments, known.pop(chain, []), seen)
            reports.append(report)
            faults += [*report.faults, *unreadable]
        for told in known.values():
            furthest = max(told, key=lambda head: head.position)
            said = f"it went to record {furthest.position}, and it is not there"
            faults.append(AuditFault(Fault.ABSENT, furthest.position, said, furthest.log))
        faults += self._contradictions(seen)
        unclaimed, missed = self._held_against_ledger(seen, chains)
        notes = [f"{missed} clips are older than the log: no record tells of them"] if missed else []
        if seen.unended:
            notes.append("the last run has not ended, or was killed: the next one tells how far its chains went")
        signers = signers_of(believed)
        return AuditReport(
            tuple(reports), tuple([*faults, *unclaimed][:_MOST_FAULTS]), len(believed), signers, notes=tuple(notes)
        )

    def records(self, of: AuditFilter) -> Iterator[Found]:
        for segments in self._chains().values():
            for line in self._segments.lines(segments):
                if isinstance(line, Line) and (entry := _entry(line)) is not None and of.takes(entry):
                    yield line.log, line.record, line.prompt

    def heads(self) -> tuple[Head, ...]:
        ends = self._segments.ends(self._chains()).values()
        return tuple(found.head for found in ends if found.head is not None and found.begins_with(*_OPENINGS))

    def erase(self, subject: str, now: float, actor: str) -> int:
        erased = self._segments.erase(subject)
        if erased:
            Trail(self._store).tell([Told(prompt_erased(subject, erased, now, actor))])
        return erased

    def _chains(self) -> Mapping[str, list[str]]:
        chains = self._segments.chains()
        if not chains:
            raise ConfigError(f"{self._store.address}: no audit log: no `rushes render` wrote one here")
        return chains

    def _told_heads(self, chains: Mapping[str, list[str]]) -> Iterator[Head]:
        """An actor's chain tells of its run's with its first record, a run's chain of others anywhere."""
        for chain, ends in self._segments.ends(chains).items():
            lines = self._segments.lines(chains[chain]) if ends.begins_with(*_OPENINGS) else (ends.first,)
            for line in lines:
                yield from heads_in(line)

    def _check(
        self, segments: Sequence[str], known: Sequence[Head], seen: "_Seen"
    ) -> tuple[ChainReport, list[AuditFault]]:
        check: ChainCheck | None = None
        unreadable: list[AuditFault] = []
        last, log = 0, ""
        for line in self._segments.lines(segments):
            if not isinstance(line, Line):
                unreadable.append(AuditFault(Fault.UNREADABLE, last + 1, str(line), log))
                continue
            if check is None:
                log = line.log
                check = ChainCheck(Head.opened(log), known)
            elif line.log != log:
                unreadable.append(AuditFault(Fault.FOREIGN, line.record.position, f"it is of {line.log[:16]}", log))
                continue
            check.see(line.record, line.prompt)
            last = line.record.position
            if (entry := _entry(line)) is not None:
                seen.add(entry)
            else:
                unreadable.append(AuditFault(Fault.UNREADABLE, last, "it is no record that this version knows", log))
        if check is None:
            return ChainCheck(Head.opened(""), ()).end(), unreadable
        return check.end(), unreadable

    def _contradictions(self, seen: "_Seen") -> list[AuditFault]:
        """Files of rejected rows that are not those that were recorded last."""
        found = []
        for key, expected in seen.rejects.items():
            try:
                digest = sha256(self._store.get(key)).hexdigest()
            except ObjectMissingError:
                digest = "gone"
            if digest != expected:
                said = f"{key} is not what it was when the run began: SHA-256 {digest[:12]}, told {expected[:12]}"
                found.append(AuditFault(Fault.CONTRADICTED, 0, said))
        return found

    def _see_new(self, before: Mapping[str, Sequence[str]], seen: "_Seen") -> Mapping[str, list[str]]:
        """What was written since; all chains that there are now."""
        chains = self._chains()
        seen_already = {key for found in before.values() for key in found}
        new = [key for found in chains.values() for key in found if key not in seen_already]
        for line in self._segments.lines(new):
            if isinstance(line, Line) and (entry := _entry(line)) is not None:
                seen.add(entry)
        return chains

    def _held_against_ledger(self, seen: "_Seen", chains: Mapping[str, Sequence[str]]) -> tuple[list[AuditFault], int]:
        """Clips of which the ledger tells and no record does, or with another content; how many are older than the
        log. `chains` are those that were seen: a run that is going on tells them first, then the ledger."""
        ledger = Ledger(self._store)
        faults: list[AuditFault] = []
        older = 0
        for least, below in fingerprint_ranges(max(1, -(-ledger.count() // _ROWS_A_RANGE))):
            loaded = ledger.load(least, below).select(["fingerprint", "status", "sha256", "finished_at"]).to_pylist()
            rows = [row for row in loaded if row["status"] == Status.SUCCEEDED.value]
            if seen.unended and not all(map(seen.tells_of, rows)):
                chains = self._see_new(chains, seen)
            for row in rows:
                if seen.tells_of(row):
                    continue
                if row["fingerprint"] in seen.tasks:
                    said = f"task {row['fingerprint']}: the ledger has another clip, {str(row['sha256'])[:12]}"
                    faults.append(AuditFault(Fault.CONTRADICTED, 0, said))
                elif seen.since and row["finished_at"] >= seen.since[:19]:
                    said = f"task {row['fingerprint']}: the ledger has its clip, and no record tells of it"
                    faults.append(AuditFault(Fault.ABSENT, 0, said))
                else:
                    older += 1
        return faults, older


class _Seen:
    """What records tell of that can be held against something else."""

    def __init__(self) -> None:
        self.clips: set[tuple[str, str]] = set()
        self.tasks: set[str] = set()
        self.rejects: dict[str, str] = {}
        self.since = ""
        self._rejected_at: dict[str, str] = {}
        self._open: dict[str, str] = {}  # of each run, when it last began
        self._ended: dict[str, str] = {}

    def add(self, entry: Entry) -> None:
        match entry.action:
            case Action.TASK_SUCCEEDED if entry.clip is not None:
                fingerprint = entry.subject.removeprefix("task:")
                self.tasks.add(fingerprint)
                self.clips.add((fingerprint, entry.clip.sha256))
            case Action.ROWS_REJECTED:
                key, digest = str(entry.details.get("file")), str(entry.details.get("sha256"))
                if entry.at >= self._rejected_at.get(key, ""):
                    self.rejects[key], self._rejected_at[key] = digest, entry.at
            case Action.RUN_STARTED:
                self.since = min(self.since or entry.at, entry.at)
                self._open[entry.subject] = max(entry.at, self._open.get(entry.subject, ""))
            case Action.RUN_ENDED:
                self._ended[entry.subject] = max(entry.at, self._ended.get(entry.subject, ""))
            case _:
                pass

    def tells_of(self, row: Mapping[str, str]) -> bool:
        """Whether a record tells of a row of the ledger, with this clip."""
        return (row["fingerprint"], row["sha256"]) in self.clips

    @property
    def unended(self) -> bool:
        return any(at > self._ended.get(run, "") for run, at in self._open.items())


def _entry(line: Line) -> Entry | None:
    try:
        return line.record.entry
    except ValidationError:
        return None


class ExportedLog:
    """`AuditSource` over a file of JSON lines that was exported: all of a log, or some of its records."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def verify(self, heads: Sequence[Head] = (), authorities: str | None = None) -> AuditReport:  # noqa: ARG002
        checks: dict[str, ChainCheck] = {}
        faults: list[AuditFault] = []
        try:
            with self._path.open("rb") as file:
                for number, text in enumerate(file, 1):
                    try:
                        line = parsed(text)
                    except UnreadableLineError as error:
                        faults.append(AuditFault(Fault.UNREADABLE, 0, f"line {number}: {error}"))
                        continue
                    if line.log not in checks:
                        known = [head for head in heads if line.log.startswith(head.log)]
                        checks[line.log] = ChainCheck(Head.opened(line.log), known, partial=True)
                    checks[line.log].see(line.record, line.prompt)
        except OSError as error:
            raise ConfigError(str(error)) from error
        reports = tuple(check.end() for check in checks.values())
        faults += [fault for report in reports for fault in report.faults]
        notes = ("an export: that records are missing from it is not seen",)
        return AuditReport(reports, tuple(faults), notes=notes)

    def records(self, of: AuditFilter) -> Iterator[Found]:
        with self._path.open("rb") as file:
            for text in file:
                line = parsed(text)
                if (entry := _entry(line)) is not None and of.takes(entry):
                    yield line.log, line.record, line.prompt

    def heads(self) -> tuple[Head, ...]:
        return tuple(report.head for report in self.verify().chains)

    def erase(self, subject: str, now: float, actor: str) -> int:  # noqa: ARG002
        raise ConfigError(f"{self._path}: an export: erase the prompt in the log itself")

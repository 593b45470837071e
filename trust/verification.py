"""What is found in one file, and what that comes to."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from trust.credentials import CredentialsFound, read_credentials
from trust.payload import payload_of
from trust.watermark import Watermark, detect


class Verdict(StrEnum):
    """The worst that is known of a file. In order: what stands first is what a person should look at first."""

    MISSING = "missing"  # a run has a record of it, and it is not there
    CHANGED = "changed"  # not the bytes that its credentials, or the run's record, tell of
    UNSIGNED = "unsigned"  # no credentials
    EXPIRED = "expired"  # as it was signed, but the certificate is in force no more, and nobody says when it was
    VALID = "valid"  # as it was signed, by whoever it was
    TRUSTED = "trusted"  # as it was signed, by somebody whose authority was given

    @property
    def rank(self) -> int:
        return list(Verdict).index(self)


@dataclass(frozen=True)
class MarkFound:
    """The watermark of a file. `payload` is None where it is there and cannot be read; `expected` says whether it is
    what the run's record, or the file's credentials, have; None where neither says."""

    payload: str | None
    expected: bool | None
    false_alarms: float


@dataclass(frozen=True)
class FileReport:
    """One file. `reasons` say why it is not valid. `watermark` is None where there is none, or nobody looked."""

    where: str
    verdict: Verdict
    sha256: str | None = None
    credentials: CredentialsFound | None = None
    watermark: MarkFound | None = None
    reasons: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


@dataclass(frozen=True)
class Recorded:
    """What a run's ledger says of a clip."""

    fingerprint: str
    sha256: str
    unsigned_sha256: str | None


def inspect(
    path: Path,
    where: str,
    recorded: Recorded | None = None,
    trust_anchors: str | None = None,
    pictures: Callable[[Path], Sequence[Any]] | None = None,
) -> FileReport:
    """Read the file's credentials, and hold it against the record where there is one. With `pictures`, which decodes
    it, its watermark is looked for. Raises what reading raises."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    found = read_credentials(path, trust_anchors)
    report = judge(where, sha256, found, recorded)
    mark = detect(pictures(path)) if pictures is not None else None
    return replace(report, watermark=mark_found(mark, found, recorded)) if mark is not None else report


def mark_found(mark: Watermark, found: CredentialsFound | None, recorded: Recorded | None) -> MarkFound:
    """The mark beside what it should be."""
    told = recorded.fingerprint if recorded is not None else ((found and found.render) or {}).get("fingerprint")
    expected = None if told is None or mark.payload is None else mark.payload == payload_of(told)
    return MarkFound(mark.payload.hex() if mark.payload is not None else None, expected, mark.false_alarms)


_VERDICTS = {
    "trusted": Verdict.TRUSTED,
    "valid": Verdict.VALID,
    "expired": Verdict.EXPIRED,
    "unread": Verdict.UNSIGNED,
}


def judge(where: str, sha256: str, found: CredentialsFound | None, recorded: Recorded | None) -> FileReport:
    """What it all comes to. Pure."""
    reasons: list[str] = []
    verdict = Verdict.UNSIGNED
    if found is not None:
        verdict = _VERDICTS.get(found.state, Verdict.CHANGED)
        reasons += found.problems
    if recorded is not None:
        wrong = _differences(sha256, found, recorded)
        if wrong:
            verdict = Verdict.CHANGED
            reasons = [*wrong, *reasons]
    return FileReport(where, verdict, sha256, found, reasons=tuple(reasons))


def worst(verdicts: list[Verdict]) -> Verdict:
    """The first of the list of verdicts; VALID where there is none."""
    return min(verdicts, key=lambda verdict: verdict.rank, default=Verdict.VALID)


def _differences(sha256: str, found: CredentialsFound | None, recorded: Recorded) -> list[str]:
    if sha256 != recorded.sha256:
        return [f"its SHA-256 is {sha256[:12]}…, recorded is {recorded.sha256[:12]}…"]
    render = (found.render if found is not None else None) or {}
    told = {"fingerprint": recorded.fingerprint, "unsigned_sha256": recorded.unsigned_sha256}
    return [
        f"its credentials have the {name} {render[name]}, recorded is {value}"
        for name, value in told.items()
        if value is not None and name in render and render[name] != value
    ]

"""Every key of a run, in one place. Pure: a name in, a key out; no key is built anywhere else.

    <out>/
    ├── run.json                                       what was asked and what came of it
    ├── contact-sheet.png
    ├── clips/<variant>/<xx>/<fingerprint>.mp4         and its poster .jpg beside it
    ├── plan/<run_id>/<name>
    ├── results/<run_id>/part-00000.parquet            one row per manifest row
    ├── rejects/<run_id>/part-00000.jsonl              rows that never became a task
    ├── failures/<fingerprint>.json                    tasks that failed for good, with all that is known
    ├── tasks/<task id>/clip.mp4                       the endpoint's: one object a task, its poster.jpg beside it
    └── ledger/
        ├── records/<xx>/<fingerprint>.json            the task succeeded
        ├── records/<xx>/<fingerprint>.<digest>.json   a try of it ended otherwise
        └── compacted/<name>.parquet                   many records in one file

An endpoint keeps its clips alike, and beside them what clients sent:

    ├── inputs/<sha256>.<ext>                          checked media that tasks read
    └── uploads/<id>                                   files sent ahead of a task, until they expire

`<xx>` is the fingerprint's first two digits: a folder of a million files is slow everywhere.
"""

import re
from urllib.parse import quote

RUN = "run.json"
CONTACT_SHEET = "contact-sheet.png"
CLIPS = "clips/"
TASKS = "tasks/"
PLAN = "plan/"
RESULTS = "results/"
REJECTS = "rejects/"
FAILURES = "failures/"
RECORDS = "ledger/records/"
COMPACTED = "ledger/compacted/"
INPUTS = "inputs/"
UPLOADS = "uploads/"

_RECORD = re.compile(r"ledger/records/[^/]+/(?P<fingerprint>[^/.]+)(?P<tried>\.[^/.]+)?\.json")


def clip(variant: str, fingerprint: str, suffix: str = "mp4") -> str:
    """`suffix` without its dot, as in `ClipFormat.suffix`."""
    return f"{CLIPS}{_part(variant)}/{fingerprint[:2]}/{fingerprint}.{suffix}"


def poster(variant: str, fingerprint: str, suffix: str = "jpg") -> str:
    """The still image of a clip, beside it."""
    return f"{CLIPS}{_part(variant)}/{fingerprint[:2]}/{fingerprint}.poster.{suffix}"


class BulkNames:
    """Clips of bulk runs: by variant and fingerprint."""

    def clip(self, variant: str, fingerprint: str, suffix: str) -> str:
        return clip(variant, fingerprint, suffix)

    def poster(self, variant: str, fingerprint: str) -> str:
        return poster(variant, fingerprint)


class TaskNames:
    """Clips of the endpoint: by task id alone, so that a task has one whichever variant an attempt went to."""

    def clip(self, variant: str, fingerprint: str, suffix: str) -> str:  # noqa: ARG002
        return f"{task_prefix(fingerprint)}clip.{suffix}"

    def poster(self, variant: str, fingerprint: str) -> str:  # noqa: ARG002
        return f"{task_prefix(fingerprint)}poster.jpg"


BULK_NAMES = BulkNames()
TASK_NAMES = TaskNames()


def task_prefix(task_id: str) -> str:
    """Everything that is stored for a task of the endpoint."""
    return f"{TASKS}{_part(task_id)}/"


def plan(run_id: str, name: str) -> str:
    return f"{PLAN}{_part(run_id)}/{name}"


def results_prefix(run_id: str) -> str:
    """The folder that data tools read; it holds nothing but Parquet parts."""
    return f"{RESULTS}{_part(run_id)}/"


def results_part(run_id: str, index: int) -> str:
    return f"{results_prefix(run_id)}part-{index:05d}.parquet"


def rejects_prefix(run_id: str) -> str:
    return f"{REJECTS}{_part(run_id)}/"


def rejects_part(run_id: str, index: int) -> str:
    return f"{rejects_prefix(run_id)}part-{index:05d}.jsonl"


def failure(fingerprint: str) -> str:
    return f"{FAILURES}{fingerprint}.json"


def records_prefix(digits: str = "") -> str:
    """All loose records, or those whose fingerprint starts with the two digits."""
    return f"{RECORDS}{digits}/" if digits else RECORDS


def record_prefix(fingerprint: str) -> str:
    """What every loose record of one task starts with."""
    return f"{RECORDS}{fingerprint[:2]}/{fingerprint}."


def succeeded_record(fingerprint: str) -> str:
    return f"{record_prefix(fingerprint)}json"


def tried_record(fingerprint: str, digest: str, quarantined: bool = False) -> str:
    """`digest` is of the record's content, so that an object under this key never changes."""
    return f"{record_prefix(fingerprint)}{digest}{'-quarantined' if quarantined else ''}.json"


def fingerprint_of_record(key: str) -> str | None:
    """The task of a loose record's key, or None when the key is no record."""
    match = _RECORD.fullmatch(key)
    return match["fingerprint"] if match else None


def is_succeeded_record(key: str) -> bool:
    """Whether the key alone says that its task succeeded."""
    match = _RECORD.fullmatch(key)
    return match is not None and match["tried"] is None


def is_quarantined_record(key: str) -> bool:
    """Whether the key alone says that its task was given up."""
    match = _RECORD.fullmatch(key)
    return match is not None and (match["tried"] or "").endswith("-quarantined")


def compacted(name: str) -> str:
    return f"{COMPACTED}{name}.parquet"


def media_input(digest: str, suffix: str) -> str:
    """Media that a task reads, by the SHA-256 of its bytes: sent twice, stored once. `suffix` without its dot."""
    return f"{INPUTS}{_part(digest)}.{suffix}"


def upload(upload_id: str) -> str:
    return f"{UPLOADS}{_part(upload_id)}"


def _part(name: str) -> str:
    """One part of a key: a variant called 'a/b' stays one folder, and '..' leads nowhere."""
    return quote(name, safe=" @+=,") if name.strip(".") else quote(name).replace(".", "%2E")

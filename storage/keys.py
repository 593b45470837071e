"""Every key of a run, in one place. Pure: a name in, a key out; no key is built anywhere else.

    <out>/
    ├── run.json                                       what was asked and what came of it
    ├── run.lock                                       who runs here now
    ├── contact-sheet.png
    ├── clips/<variant>/<xx>/<fingerprint>.mp4         and its poster .jpg beside it
    ├── plan/<run_id>/<name>
    ├── results/<run_id>/part-00000.parquet            one row per manifest row
    ├── rejects/<run_id>/part-00000.jsonl              rows that never became a task
    ├── failures/<fingerprint>.json                    tasks that failed for good, with all that is known
    ├── tasks/<task id>/clip.mp4                       the endpoint's: one object a task, its poster.jpg beside it
    ├── audit/segments/<chain>-<first>-<records>.jsonl the audit log: who asked for what, which clip came of it
    ├── audit/anchors/<log>-<position>.json            how far a log went, signed
    ├── embeddings/<xx>/<digest>.safetensors           of texts, where their encoder is large: encoded once a run
    ├── chunks/<xx>/<fingerprint>.zip                  of clips that take several calls, until the clip is there
    └── ledger/
        ├── records/<xx>/<fingerprint>.json            the task succeeded
        ├── records/<xx>/<fingerprint>.<digest>.json   a try of it ended otherwise
        ├── segments/<name>-<records>.jsonl            records that one actor wrote together
        └── compacted/<name>.parquet                   many records in one file, sorted

An endpoint keeps its clips alike, and beside them what clients sent:

    ├── inputs/<sha256>.<ext>                          checked media that tasks read
    ├── manifests/<key id>/…                           manifests that a key may name in a batch
    └── uploads/<id>                                   files sent ahead of a task, until they expire

`<xx>` is the fingerprint's first two digits: a folder of a million files is slow everywhere.
"""

import re
from urllib.parse import quote

RUN = "run.json"
RUN_LOCK = "run.lock"
CONTACT_SHEET = "contact-sheet.png"
CLIPS = "clips/"
TASKS = "tasks/"
PLAN = "plan/"
RESULTS = "results/"
REJECTS = "rejects/"
FAILURES = "failures/"
EMBEDDINGS = "embeddings/"
CHUNKS = "chunks/"
RECORDS = "ledger/records/"
SEGMENTS = "ledger/segments/"
COMPACTED = "ledger/compacted/"
INPUTS = "inputs/"
UPLOADS = "uploads/"
MANIFESTS = "manifests/"
AUDIT_SEGMENTS = "audit/segments/"
AUDIT_ANCHORS = "audit/anchors/"

_OUTPUTS = (PLAN, RESULTS, REJECTS, FAILURES, "ledger/", "audit/")
_RECORD = re.compile(r"ledger/records/[^/]+/(?P<fingerprint>[^/.]+)(?P<tried>\.[^/.]+)?\.json")

_SEGMENT = re.compile(r"ledger/segments/[^/]+-(?P<records>\d+)\.jsonl")
_CHAIN_DIGITS = 16
_AUDIT_SEGMENT = re.compile(r"audit/segments/(?P<chain>[0-9a-f]{16})-(?P<first>\d{12})-(?P<records>\d+)\.jsonl")
_AUDIT_ANCHOR = re.compile(r"audit/anchors/(?P<log>[0-9a-f]{16})-(?P<position>\d{12})\.json")
_CLIP = re.compile(r"clips/[^/]+/[0-9a-f]{2}/(?P<fingerprint>[0-9a-f]{32})\.(?!poster\.)[^/]+")


def clip(variant: str, fingerprint: str, suffix: str = "mp4") -> str:
    """`suffix` without its dot, as in `ClipFormat.suffix`."""
    return f"{CLIPS}{_part(variant)}/{fingerprint[:2]}/{fingerprint}.{suffix}"


def poster(variant: str, fingerprint: str, suffix: str = "jpg") -> str:
    """The still image of a clip, beside it."""
    return f"{CLIPS}{_part(variant)}/{fingerprint[:2]}/{fingerprint}.poster.{suffix}"


def clips_prefix(variant: str, digit: str) -> str:
    """What the clips and posters of a variant start with whose fingerprint starts with the hexadecimal digit."""
    return f"{CLIPS}{_part(variant)}/{digit}"


class BulkNames:
    """Clips of bulk runs: by variant and fingerprint."""

    def clip(self, variant: str, fingerprint: str, suffix: str) -> str:
        return clip(variant, fingerprint, suffix)

    def poster(self, variant: str, fingerprint: str) -> str:
        return poster(variant, fingerprint)

    def stage(self, task: str, number: int, fingerprint: str) -> str:  # noqa: ARG002
        """What the clip after so many finishing stages of a task is called by: here it is a clip like any other."""
        return fingerprint

    def chunk(self, task: str, number: int, fingerprint: str) -> str:  # noqa: ARG002
        """A chunk of a clip that is made in several calls."""
        return f"{CHUNKS}{fingerprint[:2]}/{fingerprint}.zip"


class TaskNames:
    """Clips of the endpoint: by task id alone, so that a task has one whichever variant an attempt went to."""

    def clip(self, variant: str, fingerprint: str, suffix: str) -> str:  # noqa: ARG002
        return f"{task_prefix(fingerprint)}clip.{suffix}"

    def poster(self, variant: str, fingerprint: str) -> str:  # noqa: ARG002
        return f"{task_prefix(fingerprint)}poster.jpg"

    def stage(self, task: str, number: int, fingerprint: str) -> str:  # noqa: ARG002
        """What the clip after so many finishing stages of a task is called by: it goes with its task."""
        return f"{task}.{number}"

    def chunk(self, task: str, number: int, fingerprint: str) -> str:  # noqa: ARG002
        """A chunk of a task's clip that is made in several calls: it goes with its task."""
        return f"{task_prefix(task)}chunk-{number:03d}.zip"


BULK_NAMES = BulkNames()
TASK_NAMES = TaskNames()


def task_prefix(task_id: str) -> str:
    """Everything that is stored for a task of the endpoint; of a clip that its own is made from, a folder inside."""
    task, dot, number = task_id.partition(".")
    return f"{TASKS}{_part(task)}/{f'stage-{number}/' if dot else ''}"


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


def embeddings(digest: str) -> str:
    """Of one text, by whatever decides them (64 hexadecimal digits)."""
    return f"{EMBEDDINGS}{digest[:2]}/{digest}.safetensors"


def records_prefix(digits: str = "") -> str:
    """All loose records, or those whose fingerprint starts with the two digits."""
    return f"{RECORDS}{digits}/" if digits else RECORDS


def record_prefix(fingerprint: str) -> str:
    """What every loose record of one task starts with."""
    return f"{RECORDS}{fingerprint[:2]}/{fingerprint}."


def succeeded_record(fingerprint: str) -> str:
    return f"{record_prefix(fingerprint)}json"


def tried_record(fingerprint: str, digest: str, outcome: str = "") -> str:
    """`digest` is of the record's content, so that an object under this key never changes. `outcome` is what the key
    alone shall say: `quarantined`, `revoked`, or `succeeded` for a success after one that was revoked."""
    return f"{record_prefix(fingerprint)}{digest}{'-' if outcome else ''}{outcome}.json"


def fingerprint_of_record(key: str) -> str | None:
    """The task of a loose record's key, or None when the key is no record."""
    match = _RECORD.fullmatch(key)
    return match["fingerprint"] if match else None


def is_succeeded_record(key: str) -> bool:
    """Whether the key alone says that its task succeeded."""
    match = _RECORD.fullmatch(key)
    return match is not None and (match["tried"] is None or match["tried"].endswith("-succeeded"))


def is_quarantined_record(key: str) -> bool:
    """Whether the key alone says that its task was given up."""
    match = _RECORD.fullmatch(key)
    return match is not None and (match["tried"] or "").endswith("-quarantined")


def is_output(key: str) -> bool:
    """Whether a run has written tables or lines there, which a manifest's folder may hold beside the manifest."""
    return key.startswith(_OUTPUTS)


def is_revoked_record(key: str) -> bool:
    """Whether the key alone says that what was recorded before no longer holds."""
    match = _RECORD.fullmatch(key)
    return match is not None and (match["tried"] or "").endswith("-revoked")


def segment(name: str, records: int) -> str:
    """Records in one object, that is written once."""
    return f"{SEGMENTS}{name}-{records}.jsonl"


def records_in_segment(key: str) -> int:
    """How many records a segment holds, by its key."""
    match = _SEGMENT.fullmatch(key)
    return int(match["records"]) if match else 0


def fingerprint_of_clip(key: str) -> str | None:
    """The task of a clip's key; None for posters and whatever else lies there."""
    match = _CLIP.fullmatch(key)
    return match["fingerprint"] if match else None


def compacted(name: str) -> str:
    return f"{COMPACTED}{name}.parquet"


def audit_segment(log: str, first: int, records: int) -> str:
    """Records of one chain of the audit log, from position `first` on, that were written together."""
    return f"{AUDIT_SEGMENTS}{log[:_CHAIN_DIGITS]}-{first:012d}-{records}.jsonl"


def audit_segment_of(key: str) -> tuple[str, int, int] | None:
    """(chain, first position, records) of a segment's key; None where it is none."""
    match = _AUDIT_SEGMENT.fullmatch(key)
    return (match["chain"], int(match["first"]), int(match["records"])) if match else None


def audit_anchor(log: str, position: int) -> str:
    return f"{AUDIT_ANCHORS}{log[:_CHAIN_DIGITS]}-{position:012d}.json"


def audit_anchor_of(key: str) -> tuple[str, int] | None:
    """(log, position) of an anchor's key, the log by its first digits; None where it is none."""
    match = _AUDIT_ANCHOR.fullmatch(key)
    return (match["log"], int(match["position"])) if match else None


def media_input(digest: str, suffix: str) -> str:
    """Media that a task reads, by the SHA-256 of its bytes: sent twice, stored once. `suffix` without its dot."""
    return f"{INPUTS}{_part(digest)}.{suffix}"


def manifests_prefix(key_id: str) -> str:
    """Where the manifests of an API key lie."""
    return f"{MANIFESTS}{_part(key_id)}/"


def upload(upload_id: str) -> str:
    return f"{UPLOADS}{_part(upload_id)}"


def _part(name: str) -> str:
    """One part of a key: a variant called 'a/b' stays one folder, and '..' leads nowhere."""
    return quote(name, safe=" @+=,") if name.strip(".") else quote(name).replace(".", "%2E")

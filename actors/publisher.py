"""From frames to a clip in the store and a record in the ledger.

The order is what makes a crash harmless: poster, clip, record. A record therefore means that both files are there;
a clip without a record is found by the next attempt, which stores nothing twice and writes the record.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from actors.encoder import EncoderSettings, encode, poster, read_metadata
from actors.renderer import Rendered, TaskFailure
from schemas.catalog import Variant
from schemas.clip import Clip, ClipFormat, Record, Status, Timings
from schemas.errors import CancelledError, MediaError
from schemas.task import Group, Task
from storage import keys
from storage.store import ObjectStore

_SHORT_FINGERPRINT = 8


class RecordWriter(Protocol):
    """The part of the ledger that a publisher needs."""

    def write(self, record: Record) -> object: ...


class ClipNames(Protocol):
    """Where clips go: `storage.keys` has one such pair for bulk runs and one for the endpoint."""

    def clip(self, variant: str, fingerprint: str, suffix: str) -> str: ...
    def poster(self, variant: str, fingerprint: str) -> str: ...


class Publisher:
    """Encodes, stores and records the clips of one variant. Thread-safe: it keeps nothing between calls.

    Errors of the store pass through: a StorageUnavailableError after the store's own retries is worth another
    `publish` of the same clip, which is idempotent.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: RecordWriter,
        variant: Variant,
        revision: str,
        *,
        settings: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
        names: ClipNames = keys.BULK_NAMES,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._variant = variant
        self._revision = revision
        self._settings = settings
        self._names = names
        self._clock = clock
        self._now = now

    def publish(self, rendered: Rendered, *, queue_s: float = 0.0, load_s: float = 0.0, attempts: int = 0) -> Record:
        """Store the clip (once, whoever else is storing it), then its record, which is returned.

        `attempts` are those made before this process had the task; `load_s` is its share of loading the model. What
        is billed is all the time for which the task held the accelerators: its share of the call that made the clip,
        of calls that were lost, and of the load.
        """
        task, group = rendered.task, rendered.group
        clip_format = ClipFormat(group.clip_format)
        timings = Timings(queue_s=queue_s, load_s=load_s, render_s=rendered.render_s)
        key = self._names.clip(self._variant.name, task.fingerprint, clip_format.suffix)
        poster_key = self._names.poster(self._variant.name, task.fingerprint)
        with tempfile.TemporaryDirectory(prefix=f"rushes-{task.fingerprint[:_SHORT_FINGERPRINT]}-") as folder:
            path = Path(folder, f"clip.{clip_format.suffix}")
            started = self._clock()
            metadata = self._metadata(rendered, timings)
            encode(rendered.frames, group.fps, clip_format, path, metadata, self._settings)
            image = poster(rendered.frames)
            encoded = self._clock()
            self._store.put(poster_key, image, "image/jpeg")
            digest, clip_bytes, variant = self._put_once(key, path, clip_format.content_type)
            stored = self._clock()
        held_s = rendered.render_s + rendered.lost_s + load_s
        record = Record(
            fingerprint=task.fingerprint,
            status=Status.SUCCEEDED,
            variant=variant,
            revision=self._revision,
            seed=task.seed,
            attempts=attempts + rendered.attempts,
            clip=Clip(
                uri=self._store.uri(key),
                poster_uri=self._store.uri(poster_key),
                sha256=digest,
                clip_bytes=clip_bytes,
                width=group.width,
                height=group.height,
                frames=group.frames,
                fps=group.fps,
            ),
            timings=timings.model_copy(update={"encode_s": encoded - started, "store_s": stored - encoded}),
            billed_gpu_s=held_s * (self._variant.needs.gpus or 1.0),
            billed_usd=held_s / 3600 * self._variant.price_usd_per_gpu_hour,
            finished_at=self._instant(),
        )
        self._ledger.write(record)
        return record

    def found(self, task: Task, group: Group) -> Record | None:
        """The record of a clip that an earlier attempt stored before it died; None where there is none.

        Seconds and variant are those that the file itself tells of.
        """
        clip_format = ClipFormat(group.clip_format)
        key = self._names.clip(self._variant.name, task.fingerprint, clip_format.suffix)
        if self._store.head(key) is None:
            return None
        with tempfile.TemporaryDirectory(prefix=f"rushes-{task.fingerprint[:_SHORT_FINGERPRINT]}-") as folder:
            path = Path(folder, f"clip.{clip_format.suffix}")
            self._store.download(key, path)
            digest, clip_bytes = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
            try:
                inside = read_metadata(path)
            except MediaError:
                inside = {}
        made = Group.model_validate({"variant": self._variant.name, **inside.get("group", group.model_dump())})
        timings = Timings.model_validate(inside.get("timings", {}))
        return Record(
            fingerprint=task.fingerprint,
            status=Status.SUCCEEDED,
            variant=str(inside.get("variant", self._variant.name)),
            revision=str(inside.get("revision", self._revision)),
            seed=task.seed,
            clip=Clip(
                uri=self._store.uri(key),
                poster_uri=self._store.uri(self._names.poster(self._variant.name, task.fingerprint)),
                sha256=digest,
                clip_bytes=clip_bytes,
                width=made.width,
                height=made.height,
                frames=made.frames,
                fps=made.fps,
            ),
            timings=timings,
            billed_gpu_s=timings.render_s * (self._variant.needs.gpus or 1.0),
            billed_usd=timings.render_s / 3600 * self._variant.price_usd_per_gpu_hour,
            finished_at=self._instant(),
        )

    def record_failure(self, failure: TaskFailure, *, attempts: int = 0, quarantined: bool = False) -> Record:
        """Record that a task has no clip and why, for people in `failures/` too. Nothing is billed."""
        record = Record(
            fingerprint=failure.task.fingerprint,
            status=Status.CANCELLED if isinstance(failure.error, CancelledError) else Status.FAILED,
            variant=self._variant.name,
            revision=self._revision,
            seed=failure.task.seed,
            attempts=attempts + failure.attempts,
            timings=Timings(render_s=failure.lost_s),
            error_class=type(failure.error).__name__,
            error=str(failure.error),
            quarantined=quarantined,
            finished_at=self._instant(),
        )
        account = {**self._inputs(failure.task, failure.group), **record.model_dump(mode="json", exclude_none=True)}
        body = json.dumps(account, indent=1, ensure_ascii=False).encode()
        self._store.put(keys.failure(failure.task.fingerprint), body, "application/json")
        self._ledger.write(record)
        return record

    def _put_once(self, key: str, path: Path, content_type: str) -> tuple[str, int, str]:
        """Store the file unless the clip is there already; SHA-256, size and variant of what is there afterwards."""
        if self._store.put(key, path, content_type, if_absent=True):
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size, self._variant.name
        # Another process was first. Its file has other timings in it, so the record must describe that one; where
        # tasks may change their variant between attempts, it may even be another variant's.
        self._store.download(key, path)
        try:
            variant = str(read_metadata(path).get("variant", self._variant.name))
        except MediaError:
            variant = self._variant.name
        data = path.read_bytes()
        return hashlib.sha256(data).hexdigest(), len(data), variant

    def _metadata(self, rendered: Rendered, timings: Timings) -> dict[str, Any]:
        """What goes into the file: enough to render it again."""
        times = timings.model_dump(include={"queue_s", "load_s", "render_s"})
        return {"made_by": "rushes", **self._inputs(rendered.task, rendered.group), "timings": times}

    def _inputs(self, task: Task, group: Group) -> dict[str, Any]:
        return {
            "fingerprint": task.fingerprint,
            "prompt": task.prompt,
            "negative_prompt": task.negative_prompt,
            "seed": task.seed,
            "image": task.image,
            "video": task.video,
            "variant": self._variant.name,
            "weights": self._variant.weights,
            "revision": self._revision,
            "group": group.model_dump(mode="json", exclude={"variant"}),
        }

    def _instant(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")

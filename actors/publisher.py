"""From frames to a clip in the store (marked, encoded, signed, stored once), and its record for whoever keeps records.

The order is what makes a crash harmless: poster, clip, record. A record therefore means that both files are there;
a clip without a record is found by the next attempt, which stores nothing twice and writes the record.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from actors.chunk_store import StoredChunks
from actors.decoder import read_frames, read_sound
from actors.encoder import EncoderSettings, encode, poster, read_metadata
from actors.provenance import ClaimInputs, Provenance, Signature, signature_in, stage_edits
from actors.renderer import Rendered, TaskFailure
from cluster.cost.quote import charge
from models.finishing import Finishing
from models.model import Frames, Sound, TaskMedia
from schemas.catalog import Variant
from schemas.clip import Clip, ClipFormat, Record, Status, Timings
from schemas.errors import CancelledError, MediaError, ModerationRefusedError, ObjectMissingError
from schemas.finish import chained
from schemas.moderation import Moderation
from schemas.task import Group, Task
from storage import keys
from storage.store import ObjectStore

_SHORT_FINGERPRINT = 8


class ClipNames(Protocol):
    """Where clips go: `storage.keys` has one such pair for bulk runs and one for the endpoint."""

    def clip(self, variant: str, fingerprint: str, suffix: str) -> str: ...
    def poster(self, variant: str, fingerprint: str) -> str: ...
    def stage(self, task: str, number: int, fingerprint: str) -> str: ...
    def chunk(self, task: str, number: int, fingerprint: str) -> str: ...


class Publisher:
    """Encodes and stores the clips of one variant. Thread-safe: it keeps nothing between calls.

    Errors of the store pass through: a StorageUnavailableError after the store's own retries is worth another
    `publish` of the same clip, which is idempotent.
    """

    def __init__(
        self,
        store: ObjectStore,
        variant: Variant,
        revision: str,
        *,
        settings: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
        provenance: Provenance = Provenance(),  # noqa: B008 (frozen)
        names: ClipNames = keys.BULK_NAMES,
        moderated_by: str = "",
        finishing: Finishing = Finishing(),  # noqa: B008 (it keeps networks only)
        recorded: Callable[[str], Record | None] = lambda fingerprint: None,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # Of clips of several calls. They go when the clip is there.
        self.chunks = StoredChunks(store, variant.name, names)
        self._store = store
        self._variant = variant
        self._revision = revision
        self._settings = settings
        self._provenance = provenance
        self._names = names
        self._moderated_by = moderated_by
        self._finishing = finishing
        self._recorded = recorded
        self._clock = clock
        self._now = now

    def publish(
        self,
        rendered: Rendered,
        *,
        queue_s: float = 0.0,
        load_s: float = 0.0,
        attempts: int = 0,
        moderation: Moderation = Moderation(),  # noqa: B008 (frozen)
    ) -> Record:
        """Store the clip (once, whoever else is storing it). Its record is returned, to be kept.

        What is to be done to it is done here, stage by stage: each takes the clip before it as it is stored, and
        stores its own. The records of those on the way are in `before`; all is billed to the task's own.

        `attempts` are those made before this process had the task; `load_s` is its share of loading the model. What
        is billed is all the time for which the task held the accelerators: its share of the call that made the clip,
        of calls that were lost, and of the load.
        """
        before: list[Record] = []
        finished_s = finished_usd = 0.0
        if rendered.group.finish:
            made = self._made(rendered, before, moderation)
            rendered, finished_s, finished_usd = made
        record = self._publish(rendered, queue_s, load_s, attempts, moderation, finished_s)
        self.chunks.drop(rendered.task, rendered.group)
        return record.model_copy(
            update={
                "before": tuple(before),
                "billed_usd": record.billed_usd + finished_usd,
                "billed_finish_usd": finished_usd,
            }
        )

    def _made(self, rendered: Rendered, before: list[Record], moderation: Moderation) -> tuple[Rendered, float, float]:
        """(The clip of the last stage, seconds, USD). Every clip on the way is stored, its record put into `before`."""
        task, group = rendered.task, rendered.group
        frames, sound, number = rendered.frames, rendered.sound, rendered.stage
        seconds = usd = 0.0
        if number is None:
            number, (frames, sound) = 0, self._kept(rendered, 0, before, moderation)
        while number < len(group.finish):
            stage, started = group.finish[number], self._clock()
            frames = self._finishing.apply(stage, frames, group.up_to(number).clip_fps)
            took_s = self._clock() - started
            seconds += took_s
            usd += took_s * self._finishing.finisher(stage).price_usd_per_hour / 3600
            number += 1
            if number < len(group.finish):
                here = replace(rendered, frames=frames, sound=sound)
                frames, sound = self._kept(here, number, before, moderation)
        return replace(rendered, task=task, frames=frames, sound=sound), seconds, usd

    def _kept(
        self, rendered: Rendered, number: int, before: list[Record], moderation: Moderation
    ) -> tuple[Frames, Sound | None]:
        """Store the clip after `number` stages; its frames and sound as they are stored, so that whoever goes on from
        there another time makes the same."""
        task, group = self._step(rendered.task, rendered.group, number)
        # Billed where it was made for.
        own = replace(rendered, task=task, group=group, render_s=0.0, lost_s=0.0)
        record = self._publish(own, 0.0, 0.0, 0, moderation, 0.0)
        before.append(record)
        stored = self._stored(task, group)
        if stored is None:
            raise MediaError(f"{task.fingerprint}: the clip that was just stored cannot be read back")
        return stored

    def latest(self, task: Task, group: Group, media: TaskMedia = TaskMedia()) -> Rendered | None:  # noqa: B008
        """The furthest clip on the way to a task's own that is stored whole; None where there is none.

        Whole is: it can be decoded, is as long and large as it should be, was made of that very group by this variant,
        and has the bytes that were recorded, where it was.
        """
        for number in reversed(range(len(group.finish))):
            step = self._step(task, group, number)
            key = self._names.clip(self._variant.name, step[0].fingerprint, ClipFormat(group.clip_format).suffix)
            if self._store.head(key) is None:
                continue
            stored = self._stored(*step)
            if stored is None:  # it is made again, and nothing is stored over what is there
                self._store.delete([key])
            else:
                frames, sound = stored
                return Rendered(
                    task, group, frames, 0.0, ingredients=media.ingredients, moderation=media.moderation,
                    stage=number, sound=sound,
                )  # fmt: skip
        return None

    def _step(self, task: Task, group: Group, number: int) -> tuple[Task, Group]:
        """The clip after `number` stages, as a task and a group of its own."""
        fingerprint = chained(task.base, group.finish[:number])
        name = self._names.stage(task.fingerprint, number, fingerprint)
        return replace(task, fingerprint=name, base=task.base if number else ""), group.up_to(number)

    def _stored(self, task: Task, group: Group) -> tuple[Frames, Sound | None] | None:
        clip_format = ClipFormat(group.clip_format)
        key = self._names.clip(self._variant.name, task.fingerprint, clip_format.suffix)
        record = self._recorded(task.fingerprint)
        shape = group.clip_shape
        with tempfile.TemporaryDirectory(prefix=f"rushes-{task.fingerprint[:_SHORT_FINGERPRINT]}-") as folder:
            path = Path(folder, f"clip.{clip_format.suffix}")
            try:
                inside = self._fetched(key, path)
                made = (inside.get("fingerprint"), inside.get("variant"), inside.get("group"))
                if made != (task.fingerprint, self._variant.name, group.told):
                    return None
                data = path.read_bytes()
                recorded = record.clip.sha256 if record is not None and record.clip is not None else None
                if recorded not in (None, hashlib.sha256(data).hexdigest()):
                    return None
                frames = np.stack([np.asarray(image) for image in read_frames(data, clip_format)])
                sound = read_sound(data) if group.audio else None
            except (MediaError, ObjectMissingError, ValueError):
                return None
        # Of an odd side the file holds its last row or column twice.
        frames = frames[:, : shape.height, : shape.width]
        is_whole = frames.shape == (shape.frames, shape.height, shape.width, 3) and (sound is not None) == group.audio
        return (frames, sound) if is_whole else None

    def _publish(
        self,
        rendered: Rendered,
        queue_s: float,
        load_s: float,
        attempts: int,
        moderation: Moderation,
        finished_s: float,
    ) -> Record:
        task, group = rendered.task, rendered.group
        clip_format = ClipFormat(group.clip_format)
        timings = Timings(queue_s=queue_s, load_s=load_s, render_s=rendered.render_s, finish_s=finished_s)
        key = self._names.clip(self._variant.name, task.fingerprint, clip_format.suffix)
        poster_key = self._names.poster(self._variant.name, task.fingerprint)
        with tempfile.TemporaryDirectory(prefix=f"rushes-{task.fingerprint[:_SHORT_FINGERPRINT]}-") as folder:
            path = Path(folder, f"clip.{clip_format.suffix}")
            started = self._clock()
            metadata = self._metadata(rendered, timings)
            frames, mark = self._provenance.marked(rendered.frames, task.fingerprint)
            encode(frames, group.clip_fps, clip_format, path, metadata, self._settings, rendered.sound)
            claim = self._claim(task, group, mark)
            image = self._provenance.signed_poster(poster(frames), claim, rendered.ingredients)
            signature = self._provenance.sign(path, claim, rendered.ingredients)
            encoded = self._clock()
            self._store.put(poster_key, image, "image/jpeg")
            ours = self._store.put(key, path, clip_format.content_type, if_absent=True)
            # Another process was first: its file has other timings in it, and where tasks may change their variant
            # between attempts it may even be another variant's. The record must describe what is stored.
            if not ours:
                metadata = self._fetched(key, path)
                signature = signature_in(path)
            clip = self._clip(task, group, path, signature)
            stored = self._clock()
        held_s = rendered.render_s + rendered.lost_s + load_s
        return Record(
            fingerprint=task.fingerprint,
            status=Status.SUCCEEDED,
            variant=str(metadata.get("variant", self._variant.name)),
            revision=self._revision,
            seed=task.seed,
            attempts=attempts + rendered.attempts,
            clip=clip,
            timings=timings.model_copy(update={"encode_s": encoded - started, "store_s": stored - encoded}),
            moderation=moderation,
            **self._bill(held_s),
            finished_at=self._instant(),
        )

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
            inside = self._fetched(key, path)
            made = Group.model_validate({"variant": self._variant.name, **inside.get("group", group.model_dump())})
            clip = self._clip(task, made, path, signature_in(path))
        self.chunks.drop(task, group)
        timings = Timings.model_validate(inside.get("timings", {}))
        return Record(
            fingerprint=task.fingerprint,
            status=Status.SUCCEEDED,
            variant=str(inside.get("variant", self._variant.name)),
            revision=str(inside.get("revision", self._revision)),
            seed=task.seed,
            clip=clip,
            timings=timings,
            **self._bill(timings.render_s),
            finished_at=self._instant(),
        )

    def record_failure(self, failure: TaskFailure, *, attempts: int = 0, quarantined: bool = False) -> Record:
        """The record of a task that has no clip, to be kept; for people it is stored in `failures/` too. What is
        billed is what the failure says: nothing, unless moderation refused a clip that was rendered."""
        refusal = failure.error.moderation if isinstance(failure.error, ModerationRefusedError) else Moderation()
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
            failure_code=refusal.code or None,
            moderation=refusal,
            # Where a scorer only failed, it may do better next time.
            refused_by=(self._moderated_by or None) if refusal.is_of_content else None,
            quarantined=quarantined,
            **self._bill(failure.billed_s),
            finished_at=self._instant(),
        )
        account = {**self._inputs(failure.task, failure.group), **record.model_dump(mode="json", exclude_none=True)}
        body = json.dumps(account, indent=1, ensure_ascii=False).encode()
        self._store.put(keys.failure(failure.task.fingerprint), body, "application/json")
        return record

    def _fetched(self, key: str, path: Path) -> dict[str, Any]:
        """Copy a stored clip to `path`; what it tells of itself, nothing where it is not ours."""
        self._store.download(key, path)
        try:
            return read_metadata(path)
        except MediaError:
            return {}

    def _clip(self, task: Task, group: Group, path: Path, signature: Signature) -> Clip:
        """The clip of a task, whose stored file `path` is a copy of."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        shape = group.clip_shape
        suffix = ClipFormat(group.clip_format).suffix
        return Clip(
            uri=self._store.uri(self._names.clip(self._variant.name, task.fingerprint, suffix)),
            poster_uri=self._store.uri(self._names.poster(self._variant.name, task.fingerprint)),
            sha256=digest,
            clip_bytes=path.stat().st_size,
            width=shape.width,
            height=shape.height,
            frames=shape.frames,
            fps=group.clip_fps,
            audio=group.audio,
            unsigned_sha256=signature.unsigned_sha256,
            signed_by=signature.signed_by,
        )

    def bill_of(self, failure: TaskFailure) -> dict[str, float]:
        """`billed_gpu_s` and `billed_usd` of a task that has no clip."""
        return self._bill(failure.billed_s)

    def _bill(self, held_s: float) -> dict[str, float]:
        """For a task that held one actor's accelerators for so long."""
        bill = charge(held_s, self._variant.price_usd_per_gpu_hour, gpus=self._variant.needs.gpus)
        return {"billed_gpu_s": bill.gpu_s, "billed_usd": bill.usd}

    def _metadata(self, rendered: Rendered, timings: Timings) -> dict[str, Any]:
        """What goes into the file: enough to render it again."""
        times = timings.model_dump(include={"queue_s", "load_s", "render_s", "finish_s"})
        return {"made_by": "rushes", **self._inputs(rendered.task, rendered.group), "timings": times}

    def _inputs(self, task: Task, group: Group) -> dict[str, Any]:
        return {
            "fingerprint": task.fingerprint,
            "prompt": task.prompt,
            **({"prompts": _told_prompts(task, group)} if task.later else {}),
            "negative_prompt": task.negative_prompt,
            "seed": task.seed,
            "inputs": [
                {**condition.model_dump(mode="json", exclude_none=True), "uri": uri}
                for condition, uri in zip(group.conditions, task.media, strict=False)
            ],
            "variant": self._variant.name,
            "weights": self._variant.weights,
            "revision": self._revision,
            "group": group.told,
        }

    def _claim(self, task: Task, group: Group, mark: str | None) -> ClaimInputs:
        inputs = self._inputs(task, group)
        edits = tuple(edit for stage in group.finish for edit in stage_edits(stage))
        return ClaimInputs(task, group, self._variant.weights, self._revision, inputs, self._instant(), mark, edits)

    def _instant(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="milliseconds")


def _told_prompts(task: Task, group: Group) -> list[dict[str, Any]]:
    """Several prompts, each with the frame from which it holds."""
    return [{"from_frame": frame, "text": text} for frame, text in zip((0, *group.turns), task.prompts, strict=True)]

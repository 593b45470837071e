"""The figures of clips: those that are kept, and those that are measured now, in processes that a clip may kill."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from actors.confined import ConfinedProcesses
from actors.media_reader import MEMORY_BYTES
from evaluation.scorers import Pictures, Scorer
from pipelines.clip_look import Look, look
from pipelines.evaluated_rows import EvaluatedClip
from schemas.errors import MediaError, ObjectMissingError, StorageError, first_line
from storage.clip_figures import ClipFigures, Figures
from storage.store import ObjectStore

_MOST_PROCESSES = 8
_CLIPS_AT_ONCE = 64
_CLIPS_A_PROCESS = 16  # below, starting another takes longer than it saves


@dataclass(frozen=True)
class Measurement:
    """Of one clip: figures by kind, scores by scorer. `unread` says why it has none, `unscored` why a scorer has none.
    `kept` where nothing had to be measured."""

    clip: EvaluatedClip
    figures: dict[str, Figures] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    unread: str | None = None
    unscored: dict[str, str] = field(default_factory=dict)
    kept: bool = False


class ClipMeasuring:
    """Measures clips of a store; `folder` is for the files meanwhile, `rows` says about how many. For one thread."""

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        figures: ClipFigures,
        kinds: frozenset[str],
        scorers: Sequence[Scorer],
        timeout_s: float,
        rows: int,
    ) -> None:
        self._store = store
        self._folder = folder
        self._figures = figures
        self._kinds = kinds
        self._scorers = tuple(scorers)
        self._timeout_s = timeout_s
        count = max(1, min(_MOST_PROCESSES, os.cpu_count() or 1, rows // _CLIPS_A_PROCESS))
        self._processes = ConfinedProcesses(count, MEMORY_BYTES)
        # More than there are processes: a download is all waiting.
        self._threads = ThreadPoolExecutor(2 * count, thread_name_prefix="evaluate")

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(cancel_futures=True)
        self._processes.close()

    def measure(self, clips: Sequence[EvaluatedClip]) -> Iterator[Measurement]:
        """In order. Raises StorageUnavailableError while the store does not answer."""
        waiting = iter(clips)
        while together := list(islice(waiting, _CLIPS_AT_ONCE)):
            known = [self._known(clip) for clip in together]
            looks = self._threads.map(self._look, together, *zip(*(self._missing(one) for one in known), strict=True))
            for one, seen in zip(known, looks, strict=True):
                yield one if seen is None else self._completed(one, seen)

    def pictures(self, clip: EvaluatedClip) -> Pictures | None:
        """Some frames of a clip; None where it cannot be read."""
        seen = self._look(clip, frozenset(), True)
        return seen.pictures if isinstance(seen, Look) else None

    def _known(self, clip: EvaluatedClip) -> Measurement:
        figures = {kind: found for kind in self._kinds if (found := self._figures.get(clip.sha256, kind)) is not None}
        scores = {
            scorer.name: float(found["score"])
            for scorer in self._scorers
            if (found := self._figures.get(clip.sha256, _kind(scorer, clip))) is not None
        }
        return Measurement(clip, figures, scores, kept=True)

    def _missing(self, known: Measurement) -> tuple[frozenset[str], bool]:
        """What is to be measured, and whether pictures are needed."""
        return self._kinds - known.figures.keys(), len(known.scores) < len(self._scorers)

    def _look(self, clip: EvaluatedClip, kinds: frozenset[str], pictures: bool) -> Look | str | None:
        """What is seen; why nothing is; None where nothing has to be."""
        if not kinds and not pictures:
            return None
        path = self._folder / clip.key.rpartition("/")[2]
        try:
            self._store.download(clip.key, path)
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != clip.sha256:
                    return "not the bytes that the run recorded"
            frames = int(clip.row["frames"] or 0)
            return self._processes.call(look, path, frames, kinds, pictures, timeout_s=self._timeout_s)
        except ObjectMissingError:
            return "recorded, and not there"
        except TimeoutError as error:
            return str(error)
        except ChildProcessError as error:
            return f"it cannot be decoded: {error}"
        except MemoryError:
            return "decoding it takes more memory than it may have"
        except (MediaError, StorageError) as error:
            return first_line(error)
        finally:
            path.unlink(missing_ok=True)

    def _completed(self, known: Measurement, seen: Look | str) -> Measurement:
        clip = known.clip
        if isinstance(seen, str):
            return Measurement(clip, unread=seen)
        for kind, found in seen.figures.items():
            self._figures.put(clip.sha256, kind, found)
        scores, unscored = dict(known.scores), {}
        for scorer in self._scorers:
            if scorer.name in scores or seen.pictures is None:
                continue
            try:
                scores[scorer.name] = float(scorer.score(seen.pictures, clip.row["prompt"] or ""))
            except Exception as error:  # somebody else's
                unscored[scorer.name] = first_line(error)
                continue
            self._figures.put(clip.sha256, _kind(scorer, clip), {"score": scores[scorer.name]})
        return Measurement(clip, {**known.figures, **seen.figures}, scores, unscored=unscored)


def _kind(scorer: Scorer, clip: EvaluatedClip) -> str:
    prompt = hashlib.sha256((clip.row["prompt"] or "").encode()).hexdigest()
    return f"{scorer.name}@{scorer.revision}:{prompt}"

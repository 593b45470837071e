"""Moderation of one process: asks every scorer of the settings and decides. The same at both ends.

The word list is ours and quick. Classifiers and scorers by entry point run in a confined process each: one that
raises, hangs, dies or returns nonsense costs what it was asked about, and nothing else. It is asked once more before
that counts; what follows then the settings say (`on_error`).
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from actors.confined import ConfinedProcess
from actors.weights import StoredWeights
from models.classifier import ClassifierSource, FrameClassifier, TextClassifier
from models.model import Frames, TaskMedia
from models.weights import folder_revision, is_local, local_path
from schemas.config import Config
from schemas.errors import one_line
from schemas.moderation import ModeratedPart, Moderation, ModerationSettings, NegativePrompts, OnError, PublicFigures
from trust.moderation.decide import could_not_score, decide
from trust.moderation.scorers import FrameScorer, Scores, TextScorer, checked, entry_point, find_scorer
from trust.moderation.words import WordList, read_word_list
from trust.redaction import without_words

log = logging.getLogger(__name__)

WORDS, TEXT_CLASSIFIER, FRAME_CLASSIFIER = "words", "text_classifier", "frame_classifier"
_PROMPTS_AT_ONCE = 64
# A scorer that has failed on so many in a row, each asked about by itself, is not asked about the rest of a batch.
_MOST_FAILURES = 3
_LOAD_AGAIN_S = 30.0


class Moderates(Protocol):
    """What the places where tasks pass ask of moderation."""

    def texts(
        self, prompts: Sequence[str], public_figures: PublicFigures = "auto", negatives: Sequence[str] = ()
    ) -> list[Moderation]: ...
    def media(self, media: TaskMedia, public_figures: PublicFigures = "auto") -> Moderation: ...
    def clip(self, frames: Frames, public_figures: PublicFigures = "auto") -> Moderation: ...


class Moderator:
    """By these settings. Thread-safe; starts no process before it is asked. Raises nothing over what it is asked."""

    def __init__(
        self,
        settings: ModerationSettings,
        config: Config,
        words: WordList | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`words` is the list where somebody has read it already. Raises ConfigError for one that cannot be read."""
        self.settings = settings
        if words is None and settings.word_list is not None:
            words = read_word_list(settings.word_list)
        self._words = words
        self._confined = [_Confined(spec, settings, clock) for spec in _specs(settings, config.cache_dir)]

    def texts(
        self, prompts: Sequence[str], public_figures: PublicFigures = "auto", negatives: Sequence[str] = ()
    ) -> list[Moderation]:
        """One entry a prompt, in order, with what is found of its negative prompt where `negatives` has one for each.
        Equal ones are asked about once, empty ones not at all."""
        found = self._texts(ModeratedPart.INPUT_TEXT, prompts, public_figures)
        how = self.settings.negative_prompts
        if how is NegativePrompts.OFF or not any(negatives):
            return found
        of_negatives = self._texts(ModeratedPart.INPUT_NEGATIVE, negatives, public_figures)
        if how is NegativePrompts.FLAG:
            of_negatives = [one.softened for one in of_negatives]
        return [one + other for one, other in zip(found, of_negatives, strict=True)]

    def _texts(self, part: ModeratedPart, prompts: Sequence[str], public_figures: PublicFigures) -> list[Moderation]:
        distinct = [prompt for prompt in dict.fromkeys(prompts) if prompt.strip()]
        found = dict.fromkeys(distinct, Moderation())
        if self._words is not None:
            for prompt, scores in zip(distinct, self._words.score_text(distinct), strict=True):
                found[prompt] += decide(part, WORDS, [scores], self.settings, public_figures)
        for scorer in self._confined:
            if not scorer.spec.may_score_text:
                continue
            for first in range(0, len(distinct), _PROMPTS_AT_ONCE):
                some = distinct[first : first + _PROMPTS_AT_ONCE]
                for prompt, entry in zip(some, scorer.text(some), strict=True):
                    found[prompt] += self._decided(part, scorer, entry, public_figures)
        return [found.get(prompt, Moderation()) for prompt in prompts]

    def media(self, media: TaskMedia, public_figures: PublicFigures = "auto") -> Moderation:
        """Of what a task brings, as the model would see it, and of what structures were found in."""
        found = Moderation()
        for one in (*media.inputs, *media.originals):
            pictures = (one,) if isinstance(one, Image.Image) else one
            part = ModeratedPart.INPUT_IMAGE if isinstance(one, Image.Image) else ModeratedPart.INPUT_VIDEO
            shown = [_rgb(pictures[at]) for at in self._sample(len(pictures))]
            found += self._pictures(part, np.stack(shown), public_figures)
        return found

    def clip(self, frames: Frames, public_figures: PublicFigures = "auto") -> Moderation:
        """Of a clip that was rendered: uint8 (frames, height, width, 3)."""
        shown = np.ascontiguousarray(np.asarray(frames)[self._sample(len(frames))])
        return self._pictures(ModeratedPart.OUTPUT_VIDEO, shown, public_figures)

    def close(self) -> None:
        """End the processes."""
        for scorer in self._confined:
            scorer.close()

    def _pictures(self, part: ModeratedPart, shown: Frames, public_figures: PublicFigures) -> Moderation:
        found = Moderation()
        for scorer in self._confined:
            if scorer.spec.may_score_frames:
                found += self._decided(part, scorer, scorer.frames(shown), public_figures)
        return found

    def _decided(
        self, part: ModeratedPart, scorer: "_Confined", entry: "Answer", public_figures: PublicFigures
    ) -> Moderation:
        name = scorer.spec.name
        if isinstance(entry, str):
            return could_not_score(part, name, entry, self.settings)
        return decide(part, name, entry, self.settings, public_figures)

    def _sample(self, frames: int) -> list[int]:
        """Of so many frames those that are looked at: the first, the last and what lies evenly between."""
        count = min(frames, self.settings.frames)
        return [int(at) for at in np.linspace(0, frames - 1, count).round()] if count > 1 else [0]


def open_moderator(settings: ModerationSettings, config: Config, words: WordList | None = None) -> Moderator | None:
    """None where nothing is moderated. Raises ConfigError."""
    return Moderator(settings, config, words) if settings.is_on else None


@dataclass(frozen=True)
class PromptModeration:
    """The moderation of prompts as a value that travels: each process that calls it makes its moderator once."""

    settings: ModerationSettings
    config: Config
    words: WordList | None = None

    def __call__(self, prompts: Sequence[str], negatives: Sequence[str] = ()) -> list[Moderation]:
        """As `Moderator.texts`."""
        if _OF_PROCESS and _OF_PROCESS[0] != self:
            self.close()
        if not _OF_PROCESS:
            _OF_PROCESS.extend((self, Moderator(self.settings, self.config, self.words)))
        moderator: Moderator = _OF_PROCESS[1]
        return moderator.texts(prompts, negatives=negatives)

    def close(self) -> None:
        """End what this process has of it."""
        if _OF_PROCESS:
            _OF_PROCESS.pop().close()
            _OF_PROCESS.clear()


# The PromptModeration that this process was asked by last, and its Moderator.
_OF_PROCESS: list[Any] = []


def open_prompt_moderation(settings: ModerationSettings, config: Config) -> PromptModeration | None:
    """None where no prompts are moderated. The word list is read here and now. Raises ConfigError."""
    if not settings.looks_at_text:
        return None
    return PromptModeration(settings, config, read_word_list(settings.word_list) if settings.word_list else None)


def moderated_by(settings: ModerationSettings) -> str:
    """The digest of what decides about input media and frames: settings, and as far as this machine has them, the
    classifier's files and the versions of packages. Empty where nothing does."""
    if not settings.looks_at_frames:
        return ""
    parts = [settings.frames_digest]
    source = settings.frame_classifier
    if source is not None and is_local(source) and local_path(source).is_dir():
        parts.append(folder_revision(local_path(source)))
    for name in settings.scorers:
        distribution = entry_point(name).dist
        parts.append(distribution.version if distribution is not None else "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def check_moderation(settings: ModerationSettings) -> str:
    """Who moderates, in a sentence for people. Loads no model. Raises ConfigError for what cannot be."""
    if not settings.is_on:
        return ""
    parts = []
    if settings.word_list is not None:
        words = read_word_list(settings.word_list)
        parts.append(f"{len(words.entries) + len(words.unspaced)} words of {settings.word_list}")
    parts += [f"{kind} {source}" for kind, source in _classifiers(settings)]
    for name in settings.scorers:
        entry_point(name)
        parts.append(f"scorer {name}")
    rule = "refused (fails closed)" if settings.on_error is OnError.REFUSE else "allowed and flagged (fails open)"
    return f"moderation by {', '.join(parts)}; what cannot be scored is {rule}"


# -- scorers in processes of their own ---------------------------------------------------------------------------------

Answer = Sequence[Scores] | str
"""Scores, or why there are none."""


@dataclass(frozen=True)
class ScorerSpec:
    """What a child loads: small, and travels to it."""

    name: str
    kind: str
    classifier: ClassifierSource | None = None
    cache: Path | None = None

    @property
    def may_score_text(self) -> bool:
        return self.kind != FRAME_CLASSIFIER

    @property
    def may_score_frames(self) -> bool:
        return self.kind != TEXT_CLASSIFIER

    def made(self) -> TextScorer | FrameScorer:
        if self.classifier is None:
            return find_scorer(self.name)
        kind = TextClassifier if self.kind == TEXT_CLASSIFIER else FrameClassifier
        return kind(self.classifier, cache=self.cache, store=StoredWeights())


def _classifiers(settings: ModerationSettings) -> list[tuple[str, str]]:
    named = ((TEXT_CLASSIFIER, settings.text_classifier), (FRAME_CLASSIFIER, settings.frame_classifier))
    return [(kind, source) for kind, source in named if source is not None]


def _specs(settings: ModerationSettings, cache: Path) -> list[ScorerSpec]:
    harmless = tuple(label.lower() for label in settings.harmless_labels)
    revisions = {
        TEXT_CLASSIFIER: settings.text_classifier_revision,
        FRAME_CLASSIFIER: settings.frame_classifier_revision,
    }
    built_in = [
        ScorerSpec(kind, kind, ClassifierSource(source, revisions[kind], settings.device, harmless), cache)
        for kind, source in _classifiers(settings)
    ]
    return built_in + [ScorerSpec(name, "entry_point") for name in settings.scorers]


class _Confined:
    """One scorer in its child. Loaded at the first question, and again in a new child after it has died or hung."""

    def __init__(self, spec: ScorerSpec, settings: ModerationSettings, clock: Callable[[], float]) -> None:
        self.spec = spec
        self._timeout_s, self._load_timeout_s, self._clock = settings.timeout_s, settings.load_timeout_s, clock
        self._lock = threading.Lock()
        self._process = ConfinedProcess(None)
        self._loaded: tuple[bool, bool] | None = None  # whether it scores text, and frames
        self._no_load: tuple[float, Exception] | None = None  # until when nobody tries again, and why

    def text(self, prompts: Sequence[str]) -> list[Answer]:
        """One answer a prompt. Where it fails on all of them together, each is asked about by itself."""
        if len(prompts) > 1:
            with suppress(Exception):
                return [[scores] for scores in self._ask(0, prompts, len(prompts))]
        answers: list[Answer] = []
        in_a_row = 0
        for prompt in prompts:
            if in_a_row >= _MOST_FAILURES:
                answers.append(f"not asked: it failed on {in_a_row} prompts in a row: {answers[-1]}"[:200])
                continue
            answer = self._twice(0, [prompt], 1, prompt)
            in_a_row = in_a_row + 1 if isinstance(answer, str) else 0
            answers.append(answer)
        return answers

    def frames(self, frames: Frames) -> Answer:
        return self._twice(1, frames, len(frames))

    def close(self) -> None:
        with self._lock:
            self._process.close()

    def _twice(self, what: int, given: Any, count: int, prompt: str = "") -> Answer:
        said = ""
        for _ in range(2):
            try:
                return self._ask(what, given, count)
            except Exception as error:
                # What it quotes would stand in logs that keep no prompts, and in the findings of its neighbours.
                told = without_words(str(error), prompt)
                said = f"{type(error).__name__}: {one_line(told)}" if told else type(error).__name__
                log.warning("moderation: %s could not score: %s", self.spec.name, said)
        return said

    def _ask(self, what: int, given: Any, count: int) -> Sequence[Scores]:
        """`what`: 0 text, 1 frames. No scores where the scorer has no method for it. Raises whatever goes wrong."""
        with self._lock:
            able = self._ensure_loaded()
            if not able[what]:
                return [{}] * count
            try:
                return self._process.call(_SCORE[what], self.spec, given, timeout_s=self._timeout_s)
            except (TimeoutError, ChildProcessError):
                self._loaded = None  # the next call has a new child
                raise

    def _ensure_loaded(self) -> tuple[bool, bool]:
        if self._loaded is not None:
            return self._loaded
        if self._no_load is not None and self._clock() < self._no_load[0]:
            raise self._no_load[1]
        try:
            self._loaded = self._process.call(_load, self.spec, timeout_s=self._load_timeout_s)
        except Exception as error:
            self._no_load = self._clock() + _LOAD_AGAIN_S, error
            raise
        self._no_load = None
        return self._loaded


# Of a child: what it has loaded.
_MADE: dict[ScorerSpec, Any] = {}


def _load(spec: ScorerSpec) -> tuple[bool, bool]:
    made = _MADE[spec] = spec.made()
    return hasattr(made, "score_text"), hasattr(made, "score_frames")


def _score(method: str, spec: ScorerSpec, given: Any) -> tuple[dict[str, float], ...]:
    # Checked here: what is nonsense need not even travel.
    return checked(getattr(_MADE[spec], method)(given), len(given))


_SCORE = (partial(_score, "score_text"), partial(_score, "score_frames"))


def _rgb(picture: Image.Image) -> Frames:
    return np.asarray(picture.convert("RGB"))

"""What moderation is told to do, and what it says of a task: values that both ends, the store and the audit log share.

scores of a part (text, image, video, frames) + thresholds → findings → one outcome: allow, flag or refuse
"""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PUBLIC_FIGURE = "public_figure"
"""The category whose thresholds a client may ask to be lower: `contentModeration.publicFigureThreshold`."""
COULD_NOT_SCORE = "INTERNAL"
"""The failure code of what is refused because nobody could say whether it may be: it is not the content's fault."""

NEVER: Literal["never"] = "never"
PublicFigures = Literal["auto", "low"]
Threshold = Annotated[float, Field(ge=0, le=1)] | Literal["never"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModeratedPart(StrEnum):
    """What of a task was looked at. The values are the ends of Runway's failure codes, and what they begin with."""

    INPUT_TEXT = "INPUT.TEXT"
    INPUT_NEGATIVE = "INPUT.TEXT.NEGATIVE"
    INPUT_IMAGE = "INPUT.IMAGE"
    INPUT_VIDEO = "INPUT.VIDEO"
    OUTPUT_VIDEO = "OUTPUT.VIDEO"

    @property
    def code(self) -> str:
        """Runway's failure code of a task that is refused for it."""
        known = ModeratedPart.INPUT_TEXT if self is ModeratedPart.INPUT_NEGATIVE else self
        return f"SAFETY.{known.value}"

    @property
    def is_input(self) -> bool:
        return self is not ModeratedPart.OUTPUT_VIDEO


class ModerationOutcome(StrEnum):
    """What becomes of a task, from the mildest to the strictest."""

    ALLOW = "allow"
    FLAG = "flag"  # goes on as if allowed, and is counted and recorded
    REFUSE = "refuse"  # for good: no other variant and no other attempt renders or publishes it

    @property
    def strictness(self) -> int:
        return tuple(ModerationOutcome).index(self)


_WORDS = {
    ModeratedPart.INPUT_TEXT: "the prompt",
    ModeratedPart.INPUT_NEGATIVE: "the negative prompt",
    ModeratedPart.INPUT_IMAGE: "the input image",
    ModeratedPart.INPUT_VIDEO: "the input video",
    ModeratedPart.OUTPUT_VIDEO: "the rendered video",
}


class Finding(_Frozen):
    """One category of one part, by one scorer, that is not simply allowed; or a scorer that failed on the part."""

    part: ModeratedPart
    outcome: ModerationOutcome
    scorer: str = Field(description="its name: words, text_classifier, frame_classifier, or of an entry point")
    category: str = Field(default="", description="empty where the scorer failed")
    score: float = Field(default=0.0, ge=0, le=1)
    error: str = Field(default="", description="why it could not be scored: the outcome is then the settings' on_error")

    @property
    def code(self) -> str:
        """The failure code where it refuses, else empty."""
        if self.outcome is not ModerationOutcome.REFUSE:
            return ""
        return COULD_NOT_SCORE if self.error else self.part.code

    @property
    def told(self) -> str:
        """For a client, where it refuses: no score and no scorer, which would help to get around it."""
        what = _WORDS[self.part]
        if self.error:
            return f"content moderation could not look at {what}, and what it cannot look at is refused"
        return f"content moderation refused {what}: {self.category}"

    def __str__(self) -> str:
        if self.error:
            return f"{self.part.value}: {self.scorer} could not score it: {self.error} ({self.outcome.value})"
        return f"{self.part.value}: {self.category} {self.score:.2f} by {self.scorer} ({self.outcome.value})"


class Moderation(_Frozen):
    """What was found of one task, or of one part of it. Nothing found: it is allowed."""

    findings: tuple[Finding, ...] = ()

    @property
    def outcome(self) -> ModerationOutcome:
        """The strictest of all findings'."""
        return max(
            (one.outcome for one in self.findings), key=lambda one: one.strictness, default=ModerationOutcome.ALLOW
        )

    @property
    def is_refused(self) -> bool:
        return self.outcome is ModerationOutcome.REFUSE

    @property
    def refusal(self) -> Finding | None:
        """What is told as the reason: of the findings that refuse, content before failures, then the highest score."""
        refusing = [one for one in self.findings if one.outcome is ModerationOutcome.REFUSE]
        return max(refusing, key=lambda one: (not one.error, one.score), default=None)

    @property
    def softened(self) -> "Moderation":
        """What refuses flags."""
        flag = ModerationOutcome.FLAG
        return Moderation(findings=tuple(one.model_copy(update={"outcome": flag}) for one in self.findings))

    @property
    def is_of_content(self) -> bool:
        """Whether what was found is why it is refused, and not that nobody could look."""
        return self.refusal is not None and not self.refusal.error

    @property
    def code(self) -> str:
        """The failure code of a task that is refused, else empty."""
        return self.refusal.code if self.refusal is not None else ""

    @property
    def told(self) -> str:
        """Why a task is refused, for a client; empty for one that is not."""
        return self.refusal.told if self.refusal is not None else ""

    def __add__(self, other: "Moderation") -> "Moderation":
        return Moderation(findings=(*self.findings, *other.findings))

    def __str__(self) -> str:
        return "; ".join(map(str, self.findings)) or ModerationOutcome.ALLOW.value


class OnError(StrEnum):
    """What becomes of what a scorer could not score: it raised, hung, died or returned nonsense."""

    REFUSE = "refuse"  # fails closed
    ALLOW = "allow"  # fails open, and is flagged


class NegativePrompts(StrEnum):
    """How negative prompts are moderated: whoever writes `gore` there mostly wants none, but a model may do as it is
    told there too."""

    REFUSE = "refuse"  # as prompts are
    FLAG = "flag"  # what would refuse a prompt flags
    OFF = "off"  # nobody looks


class Thresholds(_Frozen):
    """From which score on a category is flagged, and from which refused."""

    flag: Threshold = Field(default=0.5, description="flagged from this score on, 0 to 1")
    refuse: Threshold = Field(default=0.8, description="refused from this score on, 0 to 1")

    @model_validator(mode="after")
    def _flag_first(self) -> "Thresholds":
        if self.flag != NEVER and self.refuse != NEVER and self.flag > self.refuse:
            raise ValueError(f"flag ({self.flag:g}) is above refuse ({self.refuse:g}): nothing would be flagged")
        return self

    def outcome(self, score: float) -> ModerationOutcome:
        if self.refuse != NEVER and score >= self.refuse:
            return ModerationOutcome.REFUSE
        if self.flag != NEVER and score >= self.flag:
            return ModerationOutcome.FLAG
        return ModerationOutcome.ALLOW


class ModerationSettings(_Frozen):
    """Which scorers look at what goes in and comes out, and what follows from their scores. Without scorers nothing is
    looked at."""

    word_list: Path | None = Field(default=None, description="TOML: words and phrases of prompts, by category")
    text_classifier: str | None = Field(
        default=None, description="of prompts: a folder, s3:// prefix or hub id with safetensors of transformers"
    )
    text_classifier_revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")
    frame_classifier: str | None = Field(
        default=None, description="of input images, input videos and rendered frames: as text_classifier"
    )
    frame_classifier_revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")
    scorers: tuple[str, ...] = Field(default=(), description="entry points of the group `rushes.moderation`")
    thresholds: Thresholds = Field(
        default=Thresholds(), description="of every category that `categories` does not name"
    )
    categories: dict[str, Thresholds] = Field(default_factory=dict, description="thresholds by category")
    public_figure_low: Thresholds = Field(
        default=Thresholds(refuse=NEVER),
        description="of the category public_figure, where a client asks for publicFigureThreshold low",
    )
    harmless_labels: tuple[str, ...] = Field(
        default=("safe", "sfw", "normal", "neutral", "benign", "ok", "none", "non-toxic"),
        description="labels of classifiers that are no category, in lower case",
    )
    negative_prompts: NegativePrompts = Field(
        default=NegativePrompts.REFUSE,
        description="looked at as prompts are; `flag`: what would refuse a prompt flags; `off`: not looked at",
    )
    frames: int = Field(default=8, ge=1, description="looked at of a clip or an input video, evenly spaced")
    device: str = Field(default="cpu", description="where classifiers run: cpu, or cuda")
    timeout_s: float = Field(default=30.0, gt=0, description="for a scorer's answer, loading left out; then it failed")
    load_timeout_s: float = Field(default=300.0, gt=0, description="for a scorer to load; then it failed")
    on_error: OnError = Field(
        default=OnError.REFUSE, description="what a scorer fails on is refused (closed), or allowed and flagged (open)"
    )
    bill_refused_input: bool = Field(
        default=False, description="an endpoint bills the quote of a task whose input is refused; else it is free"
    )
    bill_refused_output: bool = Field(
        default=True, description="a clip that is refused is billed for what it held, as a published one"
    )

    @property
    def is_on(self) -> bool:
        return self.looks_at_text or self.looks_at_frames

    @property
    def looks_at_text(self) -> bool:
        return bool(self.word_list or self.text_classifier or self.scorers)

    @property
    def looks_at_frames(self) -> bool:
        return bool(self.frame_classifier or self.scorers)

    @property
    def of_text(self) -> "ModerationSettings":
        """What processes need that see prompts alone."""
        return self.model_copy(update={"frame_classifier": None})

    @property
    def of_frames(self) -> "ModerationSettings":
        """What processes need that see no prompts."""
        return self.model_copy(update={"word_list": None, "text_classifier": None})

    @property
    def frames_digest(self) -> str:
        """16 hexadecimal digits over what decides about frames, as far as the settings say it: a task that they refused
        is refused again as long as this stays. Empty where nothing looks at frames."""
        if not self.looks_at_frames:
            return ""
        told = self.model_dump_json(exclude=set(_NOT_OF_FRAMES))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def absolute(self) -> "ModerationSettings":
        """With files and folders of this machine as other processes find them, whose current folder is another."""

        def whole(source: str | None) -> str | None:
            if source is None or not source.startswith(("./", "../", "~")):
                return source
            return str(Path(source).expanduser().absolute())

        return self.model_copy(
            update={
                "word_list": None if self.word_list is None else self.word_list.expanduser().absolute(),
                "text_classifier": whole(self.text_classifier),
                "frame_classifier": whole(self.frame_classifier),
            }
        )

    def thresholds_of(self, category: str, public_figures: PublicFigures = "auto") -> Thresholds:
        if category == PUBLIC_FIGURE and public_figures == "low":
            return self.public_figure_low
        return self.categories.get(category, self.thresholds)


_NOT_OF_FRAMES = (
    "word_list",
    "text_classifier",
    "text_classifier_revision",
    "negative_prompts",
    "device",
    "timeout_s",
    "load_timeout_s",
    "on_error",
    "bill_refused_input",
    "bill_refused_output",
)

"""One bulk execution of a manifest: what it was asked to do, what it was said to cost, what became of it."""

import hashlib
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.audit import AuditSettings
from schemas.clip import ClipFormat
from schemas.finish import FitMode
from schemas.moderation import ModerationSettings
from schemas.task import Group
from schemas.trust import TrustSettings


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunOptions(_Frozen):
    """What `rushes render` was told."""

    manifest: str = Field(description="a file, a folder or a glob; local or s3://")
    out: str = Field(description="a folder or s3://bucket/prefix")
    catalog: str | None = Field(default=None, description="a catalog file; None is the one that ships")
    variant: str | None = Field(default=None, description="for rows that name none")
    limit: int | None = Field(default=None, ge=1, description="only the first rows")
    snap: bool = Field(default=False, description="change a shape that breaks a rule to the nearest valid one")
    templates: str | None = Field(default=None, description="a file of prompt templates, over those that ship")
    fit: FitMode | None = Field(
        default=None, description="bring clips to a size that the variant lacks; None: such rows are rejected"
    )
    loras: tuple[str, ...] | None = Field(
        default=None,
        description="sources of LoRAs that rows may bring, or what they lie below where it ends with /",
    )
    encoding: str | None = Field(default=None, description="of text manifests; None: what each file shows")
    strict: bool = Field(default=False, description="refuse columns that are no fields instead of keeping them")
    clip_format: ClipFormat = Field(default=ClipFormat.MP4, description="of the clips; png: frames in a zip")
    address: str | None = Field(default=None, description="a Ray cluster; None starts one here")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where the variant needs one"
    )
    retry_quarantined: bool = Field(default=False, description="try tasks again that killed their process twice")
    verify: bool = Field(default=False, description="read and hash the clips that are done, not only list them")
    stall_timeout_s: float = Field(default=1800.0, gt=0, description="a batch without a step for so long is killed")
    contact_sheet_clips: int = Field(default=24, ge=0, description="on contact-sheet.png, at most; 0: no sheet")
    max_concurrent: int | None = Field(default=None, ge=1, description="tasks rendered at once; None: what fits")

    trust: TrustSettings = Field(default=TrustSettings(), description="credentials and watermark of the clips")
    audit: AuditSettings = Field(default=AuditSettings(), description="the audit log of the run")
    moderation: ModerationSettings = Field(
        default=ModerationSettings(), description="of prompts, input media and frames; without scorers: none"
    )

    @property
    def run_id(self) -> str:
        """12 hexadecimal digits: the same manifest and settings are the same run, so a rerun resumes it."""
        own = {"manifest", "variant", "limit", "snap", "clip_format"} | ({"fit"} if self.fit else set())
        told = self.model_dump_json(include=own)
        return hashlib.sha256(told.encode()).hexdigest()[:12]


class RunStatus(StrEnum):
    """How a run stands, as `run.json` tells."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"  # every row has its outcome, whatever it is
    INTERRUPTED = "INTERRUPTED"  # by a person or a scheduler: the same command goes on
    FAILED = "FAILED"  # for a reason that concerns all of it: the same command goes on once that is mended


class GroupQuote(_Frozen):
    """What a group's tasks are said to take. GPU-seconds are accelerator-seconds: CPU where there is no GPU."""

    group: Group = Field(description="what its tasks have in common: variant, mode, shape, steps, guidance …")
    tasks: int = Field(description="to render")
    batches: int = Field(description="model calls")
    batch_size: int = Field(description="tasks in a model call, at most")
    gpu_s: float = Field(description="of its model calls")
    usd: float = Field(description="their price, and that of what is done to the clips afterwards")
    finish_usd: float = Field(default=0.0, description="of that, what is done afterwards")
    finish_s: float = Field(default=0.0, description="seconds of what is done afterwards, on no accelerator")


class RunQuote(_Frozen):
    """What a run is said to take, before it starts."""

    rows: int = Field(description="of the manifest")
    to_render: int = Field(description="tasks that are to be rendered")
    already_done: int = Field(description="rows whose clip is there")
    duplicates: int = Field(description="rows that are the same task as another")
    rejected: int = Field(description="rows that cannot be rendered")
    groups: tuple[GroupQuote, ...] = Field(description="tasks by what they have in common")
    actors: dict[str, int] = Field(description="pool size by variant")
    gpu_s: float = Field(description="of all model calls and loads")
    usd: float = Field(description="their price")
    wall_s: float = Field(description="seconds until the last clip, loading included")
    bound_s: float = Field(default=0.0, description="no schedule of these batches on this cluster ends sooner")
    measured: bool = Field(description="False when a cost is a prior from the architecture, not a measurement")


class RunSummary(_Frozen):
    """What became of a run. `rows = succeeded + failed + rejected`, always."""

    run_id: str = Field(description="the same for the same manifest and settings")
    manifest: str = Field(description="as it was given")
    out: str = Field(description="the store's whole address")
    rows: int = Field(description="of the manifest")
    succeeded: int = Field(description="rows that have their clip")
    failed: int = Field(description="rows whose task could not be rendered")
    rejected: int = Field(description="rows that never became a task")
    refused: int = Field(default=0, description="failed and rejected rows that moderation refused")
    flagged: int = Field(default=0, description="other rows in which moderation found something")
    rendered: int = Field(description="clips rendered now")
    reused: int = Field(description="rows whose clip was there already, or is another row's")
    actors_lost: int = Field(default=0, description="processes that died and were started again")
    texts_encoded: int = Field(default=0, description="prompts and negative prompts that a text encoder read")
    texts_reused: int = Field(default=0, description="those whose embeddings were kept from before instead")
    started_at: str = Field(description="ISO 8601, UTC")
    finished_at: str = Field(description="ISO 8601, UTC")
    plan_s: float = Field(description="seconds of planning")
    render_s: float = Field(description="seconds of rendering")
    wall_s: float = Field(description="seconds of all")
    billed_gpu_s: float = Field(description="for which accelerators were held, over all its clips")
    billed_usd: float = Field(description="their price")
    quoted_gpu_s: float = Field(description="what they were quoted at")
    quoted_usd: float = Field(description="what they were quoted at")
    results_uri: str = Field(description="the table of all rows, with every reason")
    rejects_uri: str | None = Field(default=None, description="rejected rows, with the valid choices")
    reasons: tuple[tuple[str, int], ...] = Field(default=(), description="why rows have no clip, the commonest first")
    contact_sheet_uri: str | None = Field(default=None, description="some clips as one picture")
    credentials: str = Field(default="", description="by whom the clips that were rendered now are signed")
    moderation: str = Field(default="", description="who moderates, and what becomes of what cannot be scored")

    @property
    def exit_code(self) -> int:
        """0 when every row has its clip, 3 when some failed or were rejected."""
        return 3 if self.failed or self.rejected else 0

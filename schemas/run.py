"""One bulk execution of a manifest: what it was asked to do, what it was said to cost, what became of it."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.clip import ClipFormat
from schemas.task import Group


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunOptions(_Frozen):
    """What `rushes render` was told."""

    manifest: str
    out: str
    catalog: str | None = Field(default=None, description="a catalog file; None is the one that ships")
    variant: str | None = Field(default=None, description="for rows that name none")
    limit: int | None = Field(default=None, ge=1)
    snap: bool = False
    clip_format: ClipFormat = ClipFormat.MP4
    address: str | None = Field(default=None, description="a Ray cluster; None starts one here")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    retry_quarantined: bool = False
    stall_timeout_s: float = Field(default=1800.0, gt=0, description="a batch without a step for so long is killed")
    contact_sheet_clips: int = Field(default=24, ge=0)

    @property
    def run_id(self) -> str:
        """12 hexadecimal digits: the same manifest and settings are the same run, so a rerun resumes it."""
        told = self.model_dump_json(include={"manifest", "variant", "limit", "snap", "clip_format"})
        return hashlib.sha256(told.encode()).hexdigest()[:12]


class GroupQuote(_Frozen):
    """What a group's tasks are said to take. GPU-seconds are accelerator-seconds: CPU where there is no GPU."""

    group: Group
    tasks: int
    batches: int
    batch_size: int
    gpu_s: float
    usd: float


class RunQuote(_Frozen):
    """What a run is said to take, before it starts."""

    rows: int
    to_render: int
    already_done: int
    duplicates: int
    rejected: int
    groups: tuple[GroupQuote, ...]
    actors: dict[str, int] = Field(description="pool size by variant")
    gpu_s: float
    usd: float
    wall_s: float = Field(description="seconds until the last clip, loading included")
    bound_s: float = Field(default=0.0, description="no schedule of these batches on this cluster ends sooner")
    measured: bool = Field(description="False when a cost is a prior from the architecture, not a measurement")


class RunSummary(_Frozen):
    """What became of a run. `rows = succeeded + failed + rejected`, always."""

    run_id: str
    manifest: str
    out: str
    rows: int
    succeeded: int
    failed: int
    rejected: int
    rendered: int = Field(description="clips rendered now")
    reused: int = Field(description="rows whose clip was there already, or is another row's")
    actors_lost: int = 0
    started_at: str
    finished_at: str
    plan_s: float
    render_s: float
    wall_s: float
    billed_gpu_s: float
    billed_usd: float
    quoted_gpu_s: float
    quoted_usd: float
    results_uri: str
    contact_sheet_uri: str | None = None

    @property
    def exit_code(self) -> int:
        """0 when every row has its clip, 3 when some failed or were rejected."""
        return 3 if self.failed or self.rejected else 0

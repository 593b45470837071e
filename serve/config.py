"""Everything that can be set on an endpoint, as one frozen tree: `rushes serve --config FILE.toml`, then flags."""

import socket
import tomllib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.audit import AuditSettings
from schemas.errors import ConfigError
from schemas.finish import FitMode
from schemas.moderation import ModerationSettings
from schemas.trust import TrustSettings

DAY_S = 86_400.0
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """What one key may do, unless the key itself says otherwise; not set: no limit."""

    max_concurrent: int | None = Field(default=None, ge=1, description="unfinished tasks; the rest is THROTTLED")
    max_daily: int | None = Field(default=None, ge=1, description="tasks created in a UTC day; then 429")
    monthly_credits: int = Field(default=1_000_000, ge=0, description="to spend in a UTC month; then 429")
    max_prompt_chars: int = Field(default=1000, ge=1, description="UTF-16 units, as Runway counts")
    max_body_bytes: int = Field(default=24 << 20, ge=1024, description="of a request that is no upload; then 413")
    body_timeout_s: float = Field(default=60.0, gt=0, description="for a whole body to come; then 408. Not of uploads")
    max_header_bytes: int = Field(default=16 << 10, ge=1024, description="of a request, all together; then 431")
    max_batch_tasks: int = Field(default=1000, ge=1, description="larger batches go to the bulk pipeline")


class MediaLimits(_Frozen):
    """Input media: what is taken by URL, inline and as an upload (Runway's figures), and what it may unfold to."""

    image_url_bytes: int = Field(default=16 << 20, description="an image that is fetched")
    image_data_bytes: int = Field(default=5 << 20, description="an image in a data URI")
    video_url_bytes: int = Field(default=32 << 20, description="a video that is fetched")
    video_data_bytes: int = Field(default=16 << 20, description="a video in a data URI")
    upload_bytes: int = Field(default=200 << 20, description="one upload")
    max_pixels: int = Field(default=64_000_000, description="of one frame, read from the header before decoding")
    max_video_s: float = Field(default=60.0, description="length of an input video")
    fetch_timeout_s: float = Field(default=20.0, description="for the whole download, from the name lookup on")
    keep_inputs_s: float = Field(
        default=7 * DAY_S, ge=3600, description="checked media of tasks that have ended stay for so long, at least"
    )
    allow_private: bool = Field(default=False, description="fetch from private addresses: for tests and laboratories")


class Queue(_Frozen):
    """How tasks are dispatched."""

    lease_s: float = Field(default=8.0, gt=0, description="a replica that is silent for so long has lost its tasks")
    heartbeat_s: float = Field(default=1.0, gt=0, description="between a replica's signs of life")
    max_attempts: int = Field(default=3, ge=1, description="of a task; then it is a dead letter")
    retry_base_s: float = Field(default=1.0, ge=0, description="the first pause between attempts; they grow")
    stall_s: float = Field(default=300.0, gt=0, description="a replica without a denoising step for so long restarts")
    drain_s: float = Field(default=60.0, ge=0, description="what running renders get on shutdown")


class Pools(_Frozen):
    """Which variants are served, and with how many replicas."""

    variants: tuple[str, ...] = Field(
        default=("directed", "embedded", "embedded-turbo"), min_length=1, description="names or aliases of the catalog"
    )
    min_replicas: dict[str, int] = Field(
        default_factory=dict,
        description="by variant; 1 for the first, else 0; where no variants are said, 1 for directed and embedded",
    )
    max_replicas: dict[str, int] = Field(default_factory=dict, description="by variant; 1 unless set")
    idle_to_zero_s: float = Field(default=300.0, description="a replica beyond min_replicas that was idle so long ends")
    accelerator: str | None = Field(
        default=None, description="the type that variants without one are predicted for; the cluster's when not set"
    )

    @model_validator(mode="before")
    @classmethod
    def _newcomers_do_not_wait(cls, told: object) -> object:
        """The page begins with one of the default variants, `auto` with another: a replica of each is there."""
        if isinstance(told, dict) and not {"variants", "min_replicas"} & told.keys():
            return {**told, "min_replicas": {"directed": 1, "embedded": 1}}
        return told


class Webhooks(_Frozen):
    """Signed messages on the end of a task or batch."""

    secret: str | None = Field(default=None, description="'whsec_…'; made and kept in the store when not set")
    timeout_s: float = Field(default=10.0, description="for the receiver's whole answer")
    max_attempts: int = Field(default=12, description="then the message is given up")
    base_s: float = Field(default=5.0, description="the first pause between attempts; each is twice the last")
    most_s: float = Field(default=3600.0, description="the longest pause")


class Retention(_Frozen):
    """How long the store keeps what is over, in seconds; inf: for ever. Clips of pruned tasks stay in `out`."""

    idempotency_s: float = Field(default=7 * DAY_S, ge=DAY_S, description="an Idempotency-Key, after its use")
    deliveries_s: float = Field(
        default=30 * DAY_S, ge=DAY_S, description="a webhook message, after it was delivered or given up"
    )
    router_decisions_s: float = Field(default=30 * DAY_S, ge=DAY_S, description="an entry of a router's log")
    tasks_s: float = Field(default=90 * DAY_S, ge=DAY_S, description="a task, after its end; its bill stays")
    batches_s: float = Field(default=90 * DAY_S, ge=DAY_S, description="a batch, after its end")
    audit_s: float = Field(default=365 * DAY_S, ge=DAY_S, description="a record of the audit log")

    @model_validator(mode="after")
    def _replays_find_their_tasks(self) -> "Retention":
        if self.tasks_s < self.idempotency_s:
            ages = f"tasks_s ({self.tasks_s:g}) is less than idempotency_s ({self.idempotency_s:g})"
            raise ValueError(f"{ages}: a replay names its tasks")
        return self


class ServeConfig(_Frozen):
    """One endpoint."""

    out: str = Field(default="out/serve", description="where clips and uploads go: a folder or s3://bucket/prefix")
    database: str | None = Field(default=None, description="SQLAlchemy URL; OUT/tasks.sqlite when not set")
    catalog: str | None = Field(default=None, description="a catalog file; the one that ships when not set")
    templates: str | None = Field(default=None, description="a file of prompt templates, over those that ship")
    host: str = Field(default="127.0.0.1", description="the address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="the port to listen on")
    public_origin: str | None = Field(default=None, description="https://… as clients reach us; http://host:port else")
    auth: bool = Field(default=True, description="false: requests need no key; only on a loopback address")
    ingress_replicas: int = Field(
        default=1, ge=1, description="processes that answer HTTP; more than one needs Postgres"
    )
    fit_sizes: FitMode | None = Field(
        default=None,
        description="bring clips to a size in pixels that the variant lacks; not set: the nearest that it has",
    )
    loras: tuple[str, ...] = Field(
        default=(),
        description="sources of LoRAs that requests may bring, or what they lie below where it ends with /",
    )
    url_expiry_s: float = Field(default=DAY_S, gt=0, description="of output URLs")
    upload_expiry_s: float = Field(default=DAY_S, gt=0, description="of uploads and of the URLs that take them")
    limits: Limits = Field(default=Limits(), description="of one key")
    media: MediaLimits = Field(default=MediaLimits(), description="of input media")
    queue: Queue = Field(default=Queue(), description="how tasks are dispatched")
    pools: Pools = Field(default=Pools(), description="which variants are served")
    webhooks: Webhooks = Field(default=Webhooks(), description="messages on the end of a task or batch")
    retention: Retention = Field(default=Retention(), description="how long what is over is kept")
    trust: TrustSettings = Field(default=TrustSettings(), description="credentials and watermark of the clips")
    audit: AuditSettings = Field(default=AuditSettings(), description="the audit log")
    moderation: ModerationSettings = Field(
        default=ModerationSettings(), description="of prompts, input media and frames; without scorers: none"
    )

    @model_validator(mode="after")
    def _loras_lie_somewhere(self) -> "ServeConfig":
        for source in self.loras:
            if source.startswith(("./", "../")):
                raise ValueError(f"loras: {source}: say the whole path: replicas run in folders of their own")
        return self

    @model_validator(mode="after")
    def _open_only_at_home(self) -> "ServeConfig":
        if not self.auth and self.host not in LOOPBACK:
            raise ValueError(f"without keys the endpoint binds to {', '.join(sorted(LOOPBACK))}, not {self.host}")
        return self

    @property
    def origin(self) -> str:
        """Without a slash at its end."""
        return (self.public_origin or f"http://{_url_host(self.host)}:{self.port}").rstrip("/")

    @property
    def database_url(self) -> str:
        """Raises ConfigError where there is no place for SQLite."""
        if self.database is not None:
            return self.database
        if "://" in self.out and not self.out.startswith("file://"):
            raise ConfigError(
                f"database: clips go to {self.out}, so say where tasks are kept: sqlite:///… or postgresql://…"
            )
        return f"sqlite:///{Path(self.out.removeprefix('file://')).resolve() / 'tasks.sqlite'}"


def _url_host(host: str) -> str:
    """As a URL that opens has it: an IPv6 address in brackets, and for every address of the machine one that it has."""
    if host in ANY_ADDRESS:
        host = own_address()
    return f"[{host}]" if ":" in host else host


@lru_cache(maxsize=1)
def own_address() -> str:
    """The address by which this machine reaches others, and they it; loopback where there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("198.51.100.1", 9))  # of a network for documentation: nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(asking.getsockname()[0])


def read_serve_config(path: Path | None, **flags: object) -> ServeConfig:
    """The file, then the flags that are not None. Raises ConfigError with file, field, value and choices."""
    table: dict[str, object] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
    for name, value in flags.items():
        before = table.get(name)
        if name == "trust" and isinstance(before, dict) and isinstance(value, dict):
            value = {**before, **value}  # an option overrules its key of the table, not the others
        if value is not None:
            table[name] = value
    try:
        return ServeConfig.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path or 'options'}: {field or 'config'}: {first['msg']} (got {first['input']!r})"
        ) from error

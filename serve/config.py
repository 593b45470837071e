"""Everything that can be set on an endpoint, as one frozen tree: `rushes serve --config FILE.toml`, then flags."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import ConfigError

DAY_S = 86_400.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """What one key may do, unless the key itself says otherwise; None: no limit."""

    max_concurrent: int | None = Field(default=None, ge=1, description="unfinished tasks; the rest is THROTTLED")
    max_daily: int | None = Field(default=None, ge=1, description="tasks created in a UTC day; then 429")
    monthly_credits: int = Field(default=1_000_000, ge=0, description="shown as balance; 1 credit is a cent")
    max_prompt_chars: int = Field(default=1000, ge=1, description="UTF-16 units, as Runway counts")
    max_body_bytes: int = Field(default=24 << 20, ge=1024)
    max_header_bytes: int = Field(default=16 << 10, ge=1024)
    max_batch_tasks: int = Field(default=1000, ge=1, description="larger batches go to the bulk pipeline")


class MediaLimits(_Frozen):
    """Input media: what is taken by URL, inline and as an upload (Runway's figures), and what it may unfold to."""

    image_url_bytes: int = 16 << 20
    image_data_bytes: int = 5 << 20
    video_url_bytes: int = 32 << 20
    video_data_bytes: int = 16 << 20
    upload_bytes: int = 200 << 20
    max_pixels: int = Field(default=64_000_000, description="of one frame, read from the header before decoding")
    max_video_s: float = 60.0
    fetch_timeout_s: float = 20.0
    keep_inputs_s: float = Field(
        default=7 * DAY_S, ge=3600, description="checked media of tasks that have ended stay for so long, at least"
    )
    allow_private: bool = Field(default=False, description="fetch from private addresses: for tests and laboratories")


class Queue(_Frozen):
    """How tasks are dispatched."""

    lease_s: float = Field(default=8.0, gt=0, description="a replica that is silent for so long has lost its tasks")
    heartbeat_s: float = Field(default=1.0, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    retry_base_s: float = Field(default=1.0, ge=0)
    stall_s: float = Field(default=300.0, gt=0, description="a replica without a denoising step for so long restarts")
    drain_s: float = Field(default=60.0, ge=0, description="what running renders get on shutdown")


class Pools(_Frozen):
    """Which variants are served, and with how many replicas."""

    variants: tuple[str, ...] = Field(default=("embedded", "embedded-turbo"), min_length=1)
    min_replicas: dict[str, int] = Field(default_factory=dict, description="by variant; 1 for the first, else 0")
    max_replicas: dict[str, int] = Field(default_factory=dict, description="by variant; 1 unless set")
    idle_to_zero_s: float = 300.0
    accelerator: str | None = Field(default=None, description="of the replicas; taken from the cluster when not set")


class Webhooks(_Frozen):
    """Signed messages on the end of a task or batch."""

    secret: str | None = Field(default=None, description="'whsec_…'; made and kept in the store when not set")
    timeout_s: float = 10.0
    max_attempts: int = 12
    base_s: float = 5.0
    most_s: float = 3600.0


class ServeConfig(_Frozen):
    """One endpoint."""

    out: str = Field(default="out/serve", description="where clips and uploads go: a folder or s3://bucket/prefix")
    database: str | None = Field(default=None, description="SQLAlchemy URL; <out>/tasks.sqlite when not set")
    catalog: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    public_origin: str | None = Field(default=None, description="https://… as clients reach us; http://host:port else")
    auth: bool = True
    ingress_replicas: int = Field(default=1, ge=1)
    url_expiry_s: float = Field(default=DAY_S, gt=0)
    upload_expiry_s: float = Field(default=DAY_S, gt=0)
    limits: Limits = Limits()
    media: MediaLimits = MediaLimits()
    queue: Queue = Queue()
    pools: Pools = Pools()
    webhooks: Webhooks = Webhooks()

    @model_validator(mode="after")
    def _open_only_at_home(self) -> "ServeConfig":
        if not self.auth and self.host not in LOOPBACK:
            raise ValueError(f"without keys the endpoint binds to {', '.join(sorted(LOOPBACK))}, not {self.host}")
        return self

    @property
    def origin(self) -> str:
        """Without a slash at its end."""
        return (self.public_origin or f"http://{self.host}:{self.port}").rstrip("/")

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


def read_serve_config(path: Path | None, **flags: object) -> ServeConfig:
    """The file, then the flags that are not None. Raises ConfigError with file, field, value and choices."""
    table: dict[str, object] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
    table |= {name: value for name, value in flags.items() if value is not None}
    try:
        return ServeConfig.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path or 'options'}: {field or 'config'}: {first['msg']} (got {first['input']!r})"
        ) from error

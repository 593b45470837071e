"""The catalog: which variants there are, what they can render, what they need and what they cost."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import CatalogError
from schemas.request import Mode
from schemas.shape import Shape, ShapeRule

Dtype = Literal["float32", "float16", "bfloat16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Adapter(_Frozen):
    """A LoRA on top of the weights. `source` is a hub id, a local folder or file, or an s3:// prefix."""

    source: str
    weight: float = 1.0
    name: str | None = None
    revision: str | None = None
    weight_file: str | None = Field(default=None, description="the file inside `source`, when it has several")


class SpeedSettings(_Frozen):
    """What makes a variant faster or smaller. Every field is off unless the catalog turns it on."""

    compile: bool = False
    attention_backend: str | None = None
    cache: Literal["first_block", "mag", "pab", "taylorseer"] | None = None
    cache_options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    vae_tiling: bool = False
    vae_slicing: bool = False
    offload: Literal["none", "model", "group"] = "none"
    channels_last: bool = False


class Needs(_Frozen):
    """What one actor of a variant holds."""

    gpus: float = Field(default=1.0, ge=0)
    cpus: float = Field(default=1.0, gt=0)
    accelerator_type: str | None = None
    vram_gib: float = Field(default=0.0, ge=0)
    memory_gib: float = Field(default=0.0, ge=0)


class Latent(_Frozen):
    """How pixels become tokens: latent frames × latent height × latent width ÷ patch."""

    channels: int = Field(ge=1)
    spatial: int = Field(ge=1, description="pixels per latent cell, each side")
    temporal: int = Field(ge=1, description="frames per latent frame")
    patch: tuple[int, int, int] = (1, 2, 2)

    def tokens(self, shape: Shape) -> int:
        """Latent tokens of one clip, n in `step time = b·n + c·n²`."""
        frames = (shape.frames - 1) // self.temporal + 1 if self.temporal > 1 else shape.frames
        t, h, w = self.patch
        return (
            max(1, -(-frames // t))
            * max(1, shape.height // self.spatial // h)
            * max(1, shape.width // self.spatial // w)
        )


class BatchPoint(_Frozen):
    """A measured point of the batch curve: at `tokens` tokens a clip, `batch` clips in one call take
    `batch / speedup` times as long as one."""

    tokens: int = Field(ge=1)
    batch: int = Field(ge=1)
    speedup: float = Field(gt=0)


class CostProfile(_Frozen):
    """Seconds on the reference accelerator: `fixed + clip + steps·g·(a + b·n + c·n²) + decode·pixels·frames`.

    g is the guidance factor (2 with classifier-free guidance, as the model runs twice). Zeros mean
    'not measured': the prior from the architecture stands in, and `rushes calibrate` replaces it.
    """

    accelerator: str = Field(default="cpu", description="what these seconds were measured on")
    measured: bool = False
    parameters_b: float = Field(default=0.0, ge=0, description="denoiser parameters, billions")
    hidden: int = Field(default=0, ge=0, description="width of the denoiser, for the attention term")
    layers: int = Field(default=0, ge=0)
    fixed_s: float = Field(default=0.0, ge=0, description="of a call, whatever it renders")
    clip_s: float = Field(default=0.0, ge=0, description="of a clip, whatever its shape")
    step_s: float = Field(default=0.0, ge=0, description="a: launches and Python, whatever the shape and the batch")
    step_s_per_token: float = Field(default=0.0, ge=0, description="b")
    step_s_per_token_squared: float = Field(default=0.0, ge=0, description="c")
    decode_s_per_megapixel: float = Field(default=0.0, ge=0, description="over all frames of the clip")
    encode_s_per_megapixel: float = Field(default=0.0, ge=0, description="video encoding, on CPU")
    load_cold_s: float = Field(default=0.0, ge=0)
    load_warm_s: float = Field(default=0.0, ge=0)


class Variant(_Frozen):
    """One servable model configuration."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str = ""
    pipeline: str = Field(description="diffusers class, e.g. WanPipeline")
    pipelines: dict[Mode, str] = Field(default_factory=dict, description="classes of the other modes")
    weights: str = Field(description="hub id, local folder, or s3:// prefix; 'embedded:NAME' ships with Rushes")
    revision: str | None = None
    weight_variant: str | None = Field(default=None, description="diffusers' file variant, e.g. 'fp16'")
    motion_adapter: str | None = Field(default=None, description="AnimateDiff: the adapter's hub id or folder")
    modes: tuple[Mode, ...] = Field(min_length=1)
    dtype: Dtype = "bfloat16"
    vae_dtype: Dtype | None = None
    loras: tuple[Adapter, ...] = ()
    steps: int = Field(ge=1)
    min_steps: int = Field(default=1, ge=1)
    guidance: float = Field(default=0.0, ge=0)
    guidance_off_at: float = Field(default=1.0, description="at or below this the model runs once a step")
    scheduler: str | None = None
    scheduler_options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    call_options: dict[str, bool | int | float | str | tuple[float, ...]] = Field(
        default_factory=dict, description="further arguments of the model call, e.g. LTX's decode_timestep"
    )
    fps: float = Field(gt=0)
    strength: float = Field(default=0.7, gt=0, le=1)
    shape: ShapeRule
    latent: Latent
    needs: Needs = Needs()
    speed: SpeedSettings = SpeedSettings()
    cost: CostProfile = CostProfile()
    batch_curve: tuple[BatchPoint, ...] = ()
    max_batch: int = Field(default=1, ge=1)
    price_usd_per_gpu_hour: float = Field(default=0.0, ge=0, description="of one actor's accelerators together")
    quality: float = Field(default=0.5, ge=0, le=1, description="measured; ranks variants of one mode")
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    auto: bool = Field(default=True, description="may be chosen for variant = 'auto'")
    license: str = ""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over what decides the pixels: part of every task's fingerprint."""
        # Not cached: `model_copy(update=…)` would carry the old one along.
        fields = {"pipeline", "pipelines", "weights", "revision", "weight_variant", "motion_adapter", "dtype"}
        fields |= {"vae_dtype", "loras", "scheduler_options", "call_options", "speed"}
        inputs = self.model_dump(mode="json", include=fields)
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    def pipeline_for(self, mode: Mode) -> str:
        """The diffusers class that renders `mode`."""
        return self.pipelines.get(mode, self.pipeline)

    def runs_guided(self, guidance: float) -> bool:
        """True when classifier-free guidance runs the model twice a step."""
        return guidance > self.guidance_off_at


class Catalog(_Frozen):
    """The variants by name, in the file's order; aliases resolve to names."""

    variants: dict[str, Variant]

    @model_validator(mode="after")
    def _names_resolve(self) -> "Catalog":
        owner: dict[str, str] = {}
        for variant in self.variants.values():
            for name in (variant.name, *variant.aliases):
                if name in owner or name == "auto":
                    raise ValueError(
                        f"variant {variant.name!r}: the name {name!r} is taken by {owner.get(name, 'auto')!r}"
                    )
                owner[name] = variant.name
        for variant in self.variants.values():
            for fallback in variant.fallbacks:
                if fallback not in owner:
                    known = ", ".join(sorted(owner))
                    raise ValueError(f"variant {variant.name!r}: unknown fallback {fallback!r}; available: {known}")
        return self

    @cached_property
    def _by_name(self) -> dict[str, Variant]:
        return {name: v for v in self.variants.values() for name in (v.name, *v.aliases)}

    def find(self, name: str) -> Variant | None:
        """The variant of that name or alias."""
        return self._by_name.get(name)

    def __getitem__(self, name: str) -> Variant:
        return self._by_name[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a request may use, `auto` first."""
        return ("auto", *sorted(self._by_name))


def parse_catalog(text: str, where: str, base: Path | None = None) -> Catalog:
    """Read a catalog from TOML. Relative weights folders are taken from `base`, the file's own folder.

    Raises CatalogError naming file, variant and field.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{where}: not TOML: {error}") from error
    unknown = set(table) - {"variants"}
    if unknown:
        raise CatalogError(f"{where}: unknown key {sorted(unknown)[0]!r}; available: variants")
    variants: dict[str, Variant] = {}
    for name, entry in table.get("variants", {}).items():
        try:
            variants[name] = Variant.model_validate({"name": name, **_resolved(entry, base)})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise CatalogError(f"{where}: variants.{name}.{field}: {first['msg']} (got {first['input']!r})") from error
    if not variants:
        raise CatalogError(f"{where}: no [variants.NAME] in it")
    try:
        return Catalog(variants=variants)
    except ValidationError as error:
        raise CatalogError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def load_catalog(path: Path) -> Catalog:
    """Read a catalog file."""
    try:
        return parse_catalog(path.read_text(), str(path), path.resolve().parent)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error


def shipped_catalog() -> Catalog:
    """The catalog that ships with Rushes."""
    path = resources.files("rushes") / "catalog.toml"
    return parse_catalog(path.read_text(), str(path))


def _resolved(entry: Mapping[str, object], base: Path | None) -> dict[str, object]:
    """Make `./folder` weights absolute: the catalog travels to other processes, its folder does not."""

    def absolute(value: object) -> object:
        relative = base is not None and isinstance(value, str) and value.startswith(("./", "../"))
        return str((base / str(value)).resolve()) if relative and base is not None else value

    out = dict(entry)
    for field in ("weights", "motion_adapter"):
        if field in out:
            out[field] = absolute(out[field])
    loras = out.get("loras")
    if isinstance(loras, list):
        out["loras"] = [
            {**lora, "source": absolute(lora.get("source"))} if isinstance(lora, dict) else lora for lora in loras
        ]
    return out

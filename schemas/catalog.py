"""The catalog: which variants there are, what they can render, what they need and what they cost."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from schemas.chunks import Chunks
from schemas.conditions import HOLDS_A_VIDEO, carried, classes_with, kinds_of, roles_of, steers_of
from schemas.directions import Direction
from schemas.errors import CatalogError
from schemas.examples import Example
from schemas.extract import FLOOR_EXTRACTORS, Extractor
from schemas.finish import FLOOR, Finisher
from schemas.inputs import FRAMES, Kind, Role
from schemas.motion import PathGuide, Steer
from schemas.parts import ControlNet, IpAdapter, MotionLoras, Part
from schemas.request import Mode
from schemas.shape import Shape, ShapeRule
from schemas.sharding import why_not_split
from schemas.sliding import FRAMEPACK, SEVERAL_PROMPTS, slide_issue, whole_lengths
from schemas.sound import SOUNDING, passes_with_sound

_E = TypeVar("_E", Finisher, Extractor)
Dtype = Literal["float32", "float16", "bfloat16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Adapter(_Frozen):
    """A LoRA on top of the weights. `source` is a hub id, a local folder or file, or an s3:// prefix."""

    source: str = Field(description="hub id, local folder or file, or s3:// prefix")
    weight: float = Field(default=1.0, description="how strongly it acts")
    name: str | None = Field(default=None, description="of the adapter in diffusers; lora0, lora1 … when not set")
    revision: str | None = Field(default=None, description="commit, branch or tag, of a hub id")
    weight_file: str | None = Field(default=None, description="the file inside `source`, when it has several")


class SpeedSettings(_Frozen):
    """What makes a variant faster or smaller. Every field is off unless the catalog turns it on."""

    compile: bool = Field(default=False, description="compile the denoiser's repeated blocks (torch.compile)")
    attention_backend: str | None = Field(default=None, description="diffusers' name of one, e.g. '_native_cudnn'")
    cache: Literal["first_block", "mag", "pab", "taylorseer"] | None = Field(
        default=None, description="diffusers' cache between denoising steps: faster, other pixels"
    )
    cache_options: dict[str, float | int | str | bool] = Field(
        default_factory=dict, description="fields of that cache's configuration class"
    )
    vae_tiling: bool = Field(default=False, description="decode in tiles: less memory")
    vae_slicing: bool = Field(default=False, description="decode the clips of a batch one by one: less memory")
    offload: Literal["none", "model", "group"] = Field(
        default="none", description="keep parts in the host's memory while they do not run; nothing on a CPU"
    )
    channels_last: bool = Field(default=False, description="convolution weights with channels innermost")
    quantization: Literal["int8", "fp8", "gguf"] | None = Field(
        default=None,
        description="the denoiser's linear weights in 8 bits, by torchao, or those of a GGUF file: less memory, other "
        "pixels; with the extra `quantize`",
    )
    gguf: str | None = Field(
        default=None,
        description="of that kind: the denoiser's file, local, `s3://…`, or `owner/name/FILE.gguf` of the hub",
    )

    @model_validator(mode="after")
    def _a_file_where_one_is_read(self) -> "SpeedSettings":
        if (self.quantization == "gguf") != (self.gguf is not None):
            raise ValueError("quantization 'gguf' and the file `gguf` go together")
        if self.gguf is not None and (not self.gguf.endswith(".gguf") or "/" not in self.gguf):
            raise ValueError("gguf: a file, ./FILE.gguf, s3://…/FILE.gguf or owner/name/FILE.gguf")
        return self


class Needs(_Frozen):
    """What one actor of a variant holds."""

    gpus: float = Field(
        default=1.0,
        ge=0,
        description="0: it renders on the CPU; below 1: actors share a GPU; above 1: a clip is split among so many, by "
        "classes that can",
    )
    cpus: float = Field(default=1.0, gt=0, description="what Ray reserves, and the threads that the model gets")
    accelerator_type: str | None = Field(default=None, description="as Ray names it, e.g. 'H200'; any when not set")
    vram_gib: float = Field(default=0.0, ge=0, description="accelerators with less are not considered; 0: any")
    memory_gib: float = Field(default=0.0, ge=0, description="of the host, reserved in Ray; 0: none")


class Latent(_Frozen):
    """How pixels become tokens: latent frames × latent height × latent width ÷ patch."""

    channels: int = Field(ge=1, description="of the VAE's latents")
    spatial: int = Field(ge=1, description="pixels per latent cell, each side")
    temporal: int = Field(ge=1, description="frames per latent frame")
    patch: tuple[int, int, int] = Field(
        default=(1, 2, 2), description="latent frames, rows and columns that make one token"
    )

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

    tokens: int = Field(ge=1, description="of one clip")
    batch: int = Field(ge=1, description="clips in one call")
    speedup: float = Field(gt=0, description="over as many calls of one clip; below 1 a batch is slower")


class CostProfile(_Frozen):
    """Seconds on the reference accelerator: `fixed + clip + steps·g·(a + b·n + c·n²) + decode·pixels·frames`.

    g is the guidance factor (2 with classifier-free guidance, as the model runs twice). Zeros mean
    'not measured': the prior from the architecture stands in, and `rushes calibrate` replaces it.
    """

    accelerator: str = Field(default="cpu", description="what these seconds were measured on")
    measured: bool = Field(default=False, description="false: quotes call themselves estimated")
    parameters_b: float = Field(default=0.0, ge=0, description="denoiser parameters, billions")
    hidden: int = Field(default=0, ge=0, description="width of the denoiser, for the attention term")
    layers: int = Field(default=0, ge=0, description="of the denoiser, for the attention term")
    fixed_s: float = Field(default=0.0, ge=0, description="of a call, whatever it renders")
    clip_s: float = Field(default=0.0, ge=0, description="of a clip, whatever its shape")
    step_s: float = Field(default=0.0, ge=0, description="a: launches and Python, whatever the shape and the batch")
    step_s_per_token: float = Field(default=0.0, ge=0, description="b: of a denoising step, for each token")
    step_s_per_token_squared: float = Field(default=0.0, ge=0, description="c: the same, for its square")
    decode_s_per_megapixel: float = Field(default=0.0, ge=0, description="over all frames of the clip")
    encode_s_per_megapixel: float = Field(default=0.0, ge=0, description="video encoding, on CPU")
    load_cold_s: float = Field(default=0.0, ge=0, description="to load the weights when nothing is cached")
    load_warm_s: float = Field(default=0.0, ge=0, description="to load them from the machine's own caches")


class Variant(_Frozen):
    """One servable model configuration."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="the NAME of [variants.NAME]: not written again")
    title: str = Field(default="", description="for people")
    pipeline: str = Field(description="diffusers class, e.g. WanPipeline")
    pipelines: dict[Mode, str] = Field(default_factory=dict, description="classes of the other modes")
    weights: str = Field(description="hub id, local folder, or s3:// prefix; 'embedded:NAME' ships with Rushes")
    revision: str | None = Field(default=None, description="commit, branch or tag of a hub id; pin it to repeat runs")
    weight_variant: str | None = Field(default=None, description="diffusers' file variant, e.g. 'fp16'")
    motion_adapter: str | None = Field(default=None, description="AnimateDiff: the adapter's hub id or folder")
    controlnet: ControlNet | None = Field(default=None, description="of a class that draws over a structure or frames")
    ip_adapter: IpAdapter | None = Field(default=None, description="of an AnimateDiff: what makes it take styles")
    motion_loras: MotionLoras | None = Field(
        default=None, description="of an AnimateDiff: what makes it follow `camera`, by direction"
    )
    modes: tuple[Mode, ...] = Field(min_length=1, description="what it renders")
    conditions: tuple[str, ...] | None = Field(
        default=None,
        description="roles of inputs that the weights obey, or `structure:edges`; `camera`, `paths`; when not set, the "
        "class's usual ones",
    )
    dtype: Dtype = Field(default="bfloat16", description="of the weights; on a CPU always float32")
    vae_dtype: Dtype | None = Field(default=None, description="of the VAE; as `dtype` when not set")
    loras: tuple[Adapter, ...] = Field(default=(), description="loaded in this order")
    steps: int = Field(ge=1, description="for rows that do not say")
    min_steps: int = Field(default=1, ge=1, description="fewer are refused")
    guidance: float = Field(default=0.0, ge=0, description="classifier-free guidance, for rows that do not say")
    guidance_off_at: float = Field(default=1.0, description="at or below this the model runs once a step")
    scheduler: str | None = Field(default=None, description="diffusers class; the weights' own when not set")
    scheduler_options: dict[str, float | int | str | bool] = Field(
        default_factory=dict, description="further arguments of the scheduler class"
    )
    call_options: dict[str, bool | int | float | str | tuple[float, ...]] = Field(
        default_factory=dict, description="further arguments of the model call, e.g. LTX's decode_timestep"
    )
    fps: float = Field(gt=0, description="for rows that do not say")
    strength: float = Field(
        default=0.7, gt=0, le=1, description="of video_to_video, for rows that do not say: the share that is made anew"
    )
    shape: ShapeRule = Field(description="what sizes and lengths it renders")
    chunks: Chunks | None = Field(
        default=None,
        description="longer clips, and several prompts, in several calls, each from the last frames of the one before; "
        "not done when not set",
    )
    latent: Latent = Field(description="how pixels become tokens")
    needs: Needs = Field(default=Needs(), description="what one actor holds")
    speed: SpeedSettings = Field(default=SpeedSettings(), description="what makes it faster or smaller")
    cost: CostProfile = Field(default=CostProfile(), description="what a call takes")
    batch_curve: tuple[BatchPoint, ...] = Field(
        default=(), description="measured gain of batches; a prior from the accelerator when empty"
    )
    max_batch: int = Field(default=1, ge=1, description="clips in one model call, at most")
    price_usd_per_gpu_hour: float = Field(default=0.0, ge=0, description="of all that one actor holds")
    quality: float = Field(default=0.5, ge=0, le=1, description="measured; ranks variants of one mode")
    aliases: tuple[str, ...] = Field(default=(), description="further names that requests may use")
    fallbacks: tuple[str, ...] = Field(
        default=(), description="variants that the endpoint may render a task with instead, the preferred first"
    )
    path_guide: PathGuide = Field(
        default=PathGuide.BOXES,
        description="how a class with a control video is shown paths: boxes (VACE's layouts) or dots (discs on black)",
    )
    words: tuple[str, ...] = Field(
        default=(),
        description="of a small model: prompts with none of these words are told of before they are rendered",
    )
    auto: bool = Field(default=True, description="may be chosen for variant = 'auto'")
    license: str = Field(default="", description="of the weights; shown, not enforced")
    examples: tuple[Example, ...] = Field(
        default=(), description="what the endpoint's page offers to fill its form with"
    )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over what decides the pixels: part of every task's fingerprint."""
        # Not cached: `model_copy(update=…)` would carry the old one along.
        fields = {"pipeline", "pipelines", "weights", "revision", "weight_variant", "motion_adapter", "dtype"}
        fields |= {"vae_dtype", "loras", "scheduler_options", "call_options", "speed"}
        # Those that it has: what has none is what it was before there were any.
        fields |= {part.value for part in self.parts}
        if self.path_guide is not PathGuide.BOXES:
            fields.add("path_guide")
        inputs = self.model_dump(mode="json", include=fields)
        # Settings that came later: a variant without them keeps the digest that it had.
        for later in ("quantization", "gguf"):
            if inputs["speed"][later] is None:
                del inputs["speed"][later]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]

    def pipeline_for(self, mode: Mode) -> str:
        """The diffusers class that renders `mode`."""
        return self.pipelines.get(mode, self.pipeline)

    def roles(self, mode: Mode) -> tuple[Role, ...]:
        """What inputs may be for, in `mode`; none where it does not render that."""
        return roles_of(self.pipeline_for(mode), mode, self.conditions, self.parts) if mode in self.modes else ()

    def needed(self, mode: Mode) -> tuple[Role, ...]:
        """The roles without which it renders nothing in `mode`, beside those that make a call one of that mode."""
        needs = carried(self.pipeline_for(mode), mode).needs if mode in self.modes else frozenset()
        return tuple(role for role in Role if role in needs)

    @property
    def parts(self) -> frozenset[Part]:
        """Which networks its entry names beside the weights."""
        return frozenset(part for part in Part if getattr(self, part.value) is not None)

    def steers(self, mode: Mode) -> tuple[Steer, ...]:
        """What of a shot's motion it follows, in `mode`."""
        return steers_of(self.pipeline_for(mode), mode, self.conditions, self.parts) if mode in self.modes else ()

    def directions(self, mode: Mode) -> tuple[Direction, ...]:
        """The ways that the camera may go in `mode`, where the weights know directions and no amounts; () where they
        follow its keys, or none."""
        by = carried(self.pipeline_for(mode), mode).steers_by.get(Steer.CAMERA)
        if self.motion_loras is None or by is not Part.MOTION_LORAS or Steer.CAMERA not in self.steers(mode):
            return ()
        return tuple(self.motion_loras.by_direction)

    def continues(self, mode: Mode) -> bool:
        """Whether a clip of `mode` may be made of several calls, each from the last frames of the one before."""
        after = Mode.VIDEO_TO_VIDEO if mode is Mode.VIDEO_TO_VIDEO else Mode.IMAGE_TO_VIDEO
        # Its own frames are pictures: who takes drawings does not know them.
        takes = Role.FIRST_FRAME in self.roles(after) and Kind.RAW in self.kinds(Role.FIRST_FRAME)
        return self.chunks is not None and mode in self.modes and takes

    def longest_frames(self, mode: Mode, fps: float) -> int:
        """Frames of the longest clip of several calls; 0 where there are none."""
        return int(self.chunks.max_s * fps + 1e-6) if self.chunks is not None and self.continues(mode) else 0

    def longest_s(self, mode: Mode) -> float:
        """Seconds of the longest clip at the variant's own rate, to the millisecond."""
        return round(max(self.shape.max_frames, self.longest_frames(mode, self.fps)) / self.fps, 3)

    def makes_sound(self, mode: Mode) -> bool:
        """Whether its clips of `mode` have sound."""
        return mode in self.modes and self.pipeline_for(mode) in SOUNDING

    def several_prompts(self, mode: Mode) -> bool:
        """Whether a clip of `mode` may have several prompts, each from its instant on."""
        return self.continues(mode) or (mode in self.modes and self.pipeline_for(mode) in SEVERAL_PROMPTS)

    @property
    def all_steers(self) -> tuple[Steer, ...]:
        """What of a shot's motion it follows, in any of its modes."""
        return tuple(steer for steer in Steer if any(steer in self.steers(mode) for mode in self.modes))

    @property
    def all_directions(self) -> tuple[Direction, ...]:
        """The ways that the camera may go, in any of its modes; as for `directions`."""
        return tuple(way for way in Direction if any(way in self.directions(mode) for mode in self.modes))

    @property
    def all_roles(self) -> tuple[Role, ...]:
        """What inputs may be for, in any of its modes."""
        found = {role for mode in self.modes for role in self.roles(mode)}
        return tuple(role for role in Role if role in found)

    def kinds(self, role: Role) -> tuple[Kind, ...]:
        """What inputs of a role may show, where they have a kind: structures and frames; () where it takes none."""
        if role not in self.all_roles or role not in FRAMES | {Role.STRUCTURE}:
            return ()
        by = {carried(self.pipeline_for(mode), mode).by.get(role) for mode in self.modes if role in self.roles(mode)}
        if self.controlnet is not None and Part.CONTROLNET in by:
            return (self.controlnet.kind,)
        return (Kind.RAW,) if role in FRAMES else kinds_of(self.conditions)

    @model_validator(mode="after")
    def _parts_are_of_its_classes(self) -> "Variant":
        forms = {self.pipeline_for(mode): carried(self.pipeline_for(mode), mode) for mode in self.modes}
        for part in Part:
            able = [name for name, form in forms.items() if part in form.parts]
            if part in self.parts and not able:
                takers = ", ".join(classes_with(part))
                raise ValueError(f"{part}: {self.pipeline} takes none; available: {takers}")
            if part is Part.CONTROLNET and able and part not in self.parts:
                raise ValueError(
                    f"{able[0]} needs a controlnet and what it follows: "
                    f'controlnet = {{ source = "./folder", kind = "edges" }}; kinds: {", ".join(Kind)}'
                )
        return self

    @model_validator(mode="after")
    def _gpus_share_a_clip(self) -> "Variant":
        classes = dict.fromkeys(self.pipeline_for(mode) for mode in self.modes)
        wrong = why_not_split(classes, self.needs.gpus, self.speed.cache)
        if wrong is not None:
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _conditions_are_carried(self) -> "Variant":
        can = frozenset().union(*(carried(self.pipeline_for(mode), mode).with_parts(self.parts) for mode in self.modes))
        able = [role.value for role in Role if role in can]
        steers = frozenset().union(
            *(carried(self.pipeline_for(mode), mode).steers_with(self.parts) for mode in self.modes)
        )
        able += [steer.value for steer in Steer if steer in steers]
        for said in self.conditions or ():
            role, colon, kind = said.partition(":")
            if role not in able:
                raise ValueError(
                    f"conditions: {self.pipeline} carries no {said!r}; available: {', '.join(able) or 'none'}"
                )
            if colon and (role != Role.STRUCTURE or kind not in set(Kind)):
                kinds = ", ".join(f"structure:{one}" for one in Kind)
                raise ValueError(f"conditions: {said!r} is no kind of structure; available: {kinds}")
            by_sections = FRAMEPACK in {self.pipeline_for(mode) for mode in self.modes}
            if role == Role.LAST_FRAME and by_sections and self.call_options.get("sampling_type") == "vanilla":
                raise ValueError(
                    "conditions: sampling_type 'vanilla' goes on from the first frame and takes no last_frame; "
                    "available: first_frame"
                )
            if colon and self.controlnet is not None and kind != self.controlnet.kind:
                own = f"structure:{self.controlnet.kind}"
                raise ValueError(f"conditions: {said!r} is not what its controlnet follows; available: {own}")
        return self

    @model_validator(mode="after")
    def _chunks_can_be(self) -> "Variant":
        for mode in self.modes:
            told = slide_issue(self.pipeline_for(mode), self.call_options, self.latent.temporal)
            if told is not None:
                raise ValueError(told)
        chunks = self.chunks
        if chunks is None:
            return self
        width, height, _ = self.shape.native[0]
        wrong = self.shape.issues(Shape(width=width, height=height, frames=chunks.frames))
        if wrong:
            raise ValueError(f"chunks.frames: {wrong[0]}")
        after = self.pipeline_for(Mode.IMAGE_TO_VIDEO)
        whole = whole_lengths(after, self.call_options, chunks.frames, self.latent.temporal)
        if whole and chunks.frames not in whole:
            lengths = ", ".join(map(str, whole))
            raise ValueError(f"chunks.frames: {after} makes whole sections; available: {lengths}")
        if chunks.overlap >= chunks.frames:
            raise ValueError(f"chunks.overlap: must be below the {chunks.frames} frames of a chunk")
        if not any(self.continues(mode) for mode in self.modes):
            raise ValueError(
                f"chunks: a chunk begins with the last frame of the one before, and {self.pipeline} takes no "
                "first_frame here; available: modes with image_to_video and conditions with first_frame"
            )
        able = {self.pipeline_for(Mode.IMAGE_TO_VIDEO), self.pipeline_for(Mode.VIDEO_TO_VIDEO)} & HOLDS_A_VIDEO
        if chunks.overlap > 1 and not able:
            raise ValueError(f"chunks.overlap: {self.pipeline} holds single frames, not a video; available: 1")
        return self

    @model_validator(mode="after")
    def _examples_can_be_asked_for(self) -> "Variant":
        # As far as it is known here; the endpoint's own reading of a body holds for the rest.
        sizes = tuple(dict.fromkeys(f"{width}:{height}" for width, height, _ in self.shape.native))
        for number, example in enumerate(self.examples):
            where, ratio = f"examples.{number}", example.request.get("ratio")
            for role in example.roles:
                if role not in self.all_roles:
                    able = ", ".join(self.all_roles) or "none"
                    raise ValueError(f"{where}: {self.name} takes no {role}; available: {able}")
            for steer in example.steers:
                if steer not in self.all_steers:
                    able = ", ".join(self.all_steers) or "none"
                    raise ValueError(f"{where}: {self.name} follows no {steer}; available: {able}")
            if example.request.get("prompts") and not any(self.several_prompts(mode) for mode in self.modes):
                raise ValueError(f"{where}: {self.name} follows one prompt; available: promptText")
            if ratio is not None and ratio not in sizes:
                raise ValueError(f"{where}: ratio {ratio!r} is no native size; available: {', '.join(sizes)}")
        return self

    def runs_guided(self, guidance: float) -> bool:
        """True when classifier-free guidance runs the model twice a step."""
        return guidance > self.guidance_off_at

    def passes(self, guidance: float) -> int:
        """How often a step runs the model on one clip."""
        guided = self.runs_guided(guidance)
        if self.pipeline in SOUNDING:
            return passes_with_sound(self.call_options, guided)
        return 2 if guided else 1


class Catalog(_Frozen):
    """The variants by name, in the file's order; aliases resolve to names."""

    variants: dict[str, Variant]
    finishers: dict[str, Finisher] = FLOOR
    extractors: dict[str, Extractor] = FLOOR_EXTRACTORS

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

    def with_variants(self, variants: dict[str, Variant]) -> "Catalog":
        """The same catalog with these variants in place of its own. Raises ValidationError where they do not go
        together."""
        fields = {name: getattr(self, name) for name in Catalog.model_fields}
        return Catalog(**{**fields, "variants": variants})

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
    unknown = set(table) - {"variants", "finishers", "extractors"}
    if unknown:
        raise CatalogError(f"{where}: unknown key {sorted(unknown)[0]!r}; available: extractors, finishers, variants")
    variants: dict[str, Variant] = {}
    for name, entry in table.get("variants", {}).items():
        try:
            variants[name] = Variant.model_validate({"name": name, **_resolved(entry, base)})
        except ValidationError as error:
            first = error.errors()[0]
            told = first["msg"].removeprefix("Value error, ")
            field = ".".join(map(str, first["loc"]))
            if not field:  # of the entry as a whole, which is too much to show
                raise CatalogError(f"{where}: variants.{name}: {told}") from error
            raise CatalogError(f"{where}: variants.{name}.{field}: {told} (got {first['input']!r})") from error
    if not variants:
        raise CatalogError(f"{where}: no [variants.NAME] in it")
    # The floor is the choice of those who name nobody, so it comes first; an entry of its name replaces it.
    finishers = {**FLOOR, **_entries(table, "finishers", Finisher, where, base)}
    extractors = {**FLOOR_EXTRACTORS, **_entries(table, "extractors", Extractor, where, base)}
    try:
        return Catalog(variants=variants, finishers=finishers, extractors=extractors)
    except ValidationError as error:
        raise CatalogError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def _entries(table: Mapping[str, Any], key: str, model: type[_E], where: str, base: Path | None) -> dict[str, _E]:
    found: dict[str, _E] = {}
    for name, entry in table.get(key, {}).items():
        try:
            found[name] = model.model_validate({"name": name, **_resolved(entry, base)})
        except ValidationError as error:
            first: ErrorDetails = error.errors()[0]
            place = ".".join(map(str, (key, name, *first["loc"])))
            told = first["msg"].removeprefix("Value error, ")
            raise CatalogError(f"{where}: {place}: {told}") from error
    return found


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
    """Make folders absolute that are named from the catalog's own: it travels to other processes, its folder does not.
    `owner/name` is such a folder where there is one, else a repository of the hub."""

    def absolute(value: object) -> object:
        if base is None or not isinstance(value, str) or ":" in value or not value:
            return value
        there = base / value
        return str(there.resolve()) if value.startswith(("./", "../")) or there.exists() else value

    def placed(part: object) -> object:
        if not isinstance(part, dict):
            return part
        return {name: absolute(value) if name == "source" else placed(value) for name, value in part.items()}

    out = dict(entry)
    for field in ("weights", "motion_adapter"):
        if field in out:
            out[field] = absolute(out[field])
    for field in Part:
        if field in out:
            out[field] = placed(out[field])
    speed = out.get("speed")
    if isinstance(speed, dict) and "gguf" in speed:
        out["speed"] = {**speed, "gguf": absolute(speed["gguf"])}
    loras = out.get("loras")
    if isinstance(loras, list):
        out["loras"] = [
            {**lora, "source": absolute(lora.get("source"))} if isinstance(lora, dict) else lora for lora in loras
        ]
    return out

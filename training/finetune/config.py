"""What one fine-tuning is told, and what it leaves behind."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.catalog import Variant
from schemas.request import Mode


class FinetuneConfig(BaseModel):
    """One fine-tuning run. The same config, data and machine give the same weights."""

    model_config = ConfigDict(frozen=True)

    weights: str = Field(description="hub id, local folder, or embedded:NAME")
    pipeline: str = Field(description="diffusers class, e.g. WanPipeline")
    data: Path = Field(description="a folder of clips, or a JSONL, CSV or Parquet manifest")
    out: Path
    revision: str | None = None
    motion_adapter: str | None = Field(default=None, description="of AnimateDiff, where the weights have none")
    call_options: dict[str, bool | int | float | str | tuple[float, ...]] = Field(
        default_factory=dict, description="the catalog's, as what is trained is to be rendered with them"
    )
    lora_rank: int | None = Field(default=16, ge=1, description="None trains all weights of the denoiser")
    layers: Literal["all", "spatial", "temporal"] = "all"
    text_encoder: bool = Field(default=False, description="train its weights too; they are saved beside the adapter")
    steps: int = Field(default=300, ge=1)
    batch: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    prompt_drop: float = Field(default=0.1, ge=0, lt=1)
    shift: float = Field(default=3.0, gt=0, description="of the noise levels, for flow-matching models")
    width: int = Field(default=64, ge=8)
    height: int = Field(default=64, ge=8)
    frames: int = Field(default=17, ge=1)
    fps: float = Field(default=8.0, gt=0)
    seed: int = 0
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    gradient_checkpointing: bool | None = Field(default=None, description="None: on a GPU only")
    checkpoint_every: int = Field(default=100, ge=1, description="steps")
    sample_every: int = Field(default=0, ge=0, description="steps; 0 renders no samples")
    sample_prompts: tuple[str, ...] = ()
    sample_steps: int = Field(default=12, ge=1)
    sample_guidance: float = Field(default=3.0, ge=0)
    resume: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.text_encoder and self.lora_rank is not None and self.layers != "all":
            raise ValueError("text_encoder goes with layers = 'all': a partial adapter has no place for it")
        if self.sample_every and not self.sample_prompts:
            raise ValueError("sample_every needs sample_prompts")
        return self


class FinetuneResult(BaseModel):
    """Where everything is. `adapter` is what `load_lora_weights` or `from_pretrained` takes."""

    model_config = ConfigDict(frozen=True)

    adapter: Path
    steps: int
    first_loss: float
    last_loss: float
    curve: Path
    log: Path
    samples: tuple[Path, ...]
    seconds: float


def config_for(variant: Variant, data: Path, out: Path, **changes: object) -> FinetuneConfig:
    """The defaults for a catalog variant, with its own guidance and frame rate; `changes` are fields of the config."""
    told: dict[str, object] = {
        "weights": variant.weights,
        "revision": variant.revision,
        "pipeline": variant.pipeline_for(Mode.TEXT_TO_VIDEO),
        "motion_adapter": variant.motion_adapter,
        "call_options": dict(variant.call_options),
        "data": data,
        "out": out,
        "fps": variant.fps,
        "sample_steps": variant.steps,
        "sample_guidance": variant.guidance,
    }
    return FinetuneConfig.model_validate(told | changes)

"""LoRAs that a request brings, beside those of its variant's catalog entry.

A `Lora` is what a client says. Whose weight is 0 says nothing: it is no part of the group. Where they may come from is
a run's or an endpoint's to say (`allowed`).
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import Issue
from schemas.issues import issues_of

MAX_LORAS = 8
MOST_KEPT = 8  # that a loaded model keeps, of those that it used last
MOST_WEIGHT = 8.0
# Classes of diffusers for video that have no `load_lora_weights`; a test holds it against the library.
WITHOUT = frozenset(
    {
        "AllegroPipeline",
        "Cosmos2VideoToWorldPipeline",
        "Cosmos2_5_TransferPipeline",
        "Cosmos3OmniPipeline",
        "CosmosTextToWorldPipeline",
        "CosmosVideoToWorldPipeline",
        "EasyAnimateControlPipeline",
        "EasyAnimateInpaintPipeline",
        "EasyAnimatePipeline",
        "Footage",
        "HunyuanVideo15ImageToVideoPipeline",
        "HunyuanVideo15Pipeline",
        "MotifVideoImage2VideoPipeline",
        "MotifVideoPipeline",
        "StableVideoDiffusionPipeline",
    }
)


class Lora(BaseModel):
    """One LoRA of a request. `digest` is of its content, where whoever plans has looked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(min_length=1, max_length=1000, description="hub id, folder or file, or s3:// prefix")
    weight: float = Field(default=1.0, ge=-MOST_WEIGHT, le=MOST_WEIGHT, description="how strongly it acts")
    digest: str = ""


def takes_loras(pipeline: str) -> bool:
    """Whether requests may bring LoRAs to this class."""
    return pipeline not in WITHOUT


def read_loras(value: Any, path: str = "loras") -> tuple[tuple[Lora, ...], tuple[Issue, ...]]:
    """LoRAs from JSON, or what is wrong with them."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple):
        return (), (Issue(path, f"must be a list of sources with weights (got {repr(value)[:60]})", "type"),)
    found: list[Lora] = []
    issues: list[Issue] = []
    for number, one in enumerate(value):
        if isinstance(one, Lora):
            found.append(one)
            continue
        told = {"source": one} if isinstance(one, str) else one
        if not isinstance(told, dict) or "digest" in told:
            issues.append(Issue(f"{path}.{number}", "must be an object with source and weight", "type"))
            continue
        try:
            found.append(Lora.model_validate({str(k): v for k, v in told.items() if v is not None}))
        except ValidationError as error:
            issues += issues_of(error, f"{path}.{number}", "a LoRA", ("source", "weight"))
    return tuple(found), tuple(issues)


def brought(loras: Sequence[Lora]) -> tuple[str, ...]:
    """Those that a model has to have loaded for them to act, each by what it is and whatever its weight."""
    return tuple(f"{one.source}@{one.digest}" for one in loras if one.weight != 0)


def resolved_loras(
    loras: Sequence[Lora], pipeline: str, allowed: Sequence[str] | None
) -> tuple[tuple[Lora, ...], tuple[Issue, ...]]:
    """Those that act on a clip of this class, and what is wrong with them. `allowed` None: all may be brought."""
    issues: list[Issue] = []
    if len(loras) > MAX_LORAS:
        issues.append(Issue("loras", f"{len(loras)} of them, at most {MAX_LORAS}", "too_many"))
    sources: set[str] = set()
    for number, lora in enumerate(loras):
        path = f"loras.{number}.source"
        if lora.source in sources:
            issues.append(Issue(path, f"{lora.source!r} is given twice", "twice"))
        sources.add(lora.source)
        if allowed is not None and not is_allowed(lora.source, allowed):
            issues.append(Issue(path, f"{lora.source[:200]!r} may not be brought here", "not_allowed", tuple(allowed)))
    if loras and not takes_loras(pipeline):
        issues.append(Issue("loras", f"{pipeline} takes none", "not_taken"))
    return tuple(one for one in loras if one.weight != 0), tuple(issues)


def is_allowed(source: str, allowed: Sequence[str]) -> bool:
    """Whether a source is one of `allowed`, or lies below one that ends with a slash."""
    if any(part in ("..", ".") for part in source.replace("\\", "/").split("/")[1:]):
        return False
    return any(source == one or (one.endswith("/") and source.startswith(one)) for one in allowed)

"""Model routers on the wire: their settings, how a PATCH changes them, and the entries of their log."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError

from cluster.routing.terms import Preference
from serve.store.contract import RouterConfig
from serve.wire.base import Refusal, Wire, WireError, issues_of
from serve.wire.instants import iso

SCHEMA_VERSION = 1
PROVIDER = "rushes"


def _slug(text: str) -> str:
    if not all(char.isascii() and (char.isalnum() or char in "-_.") for char in text) or not text[0].isalnum():
        raise Refusal("must be letters, digits, '-', '_' and '.', the first a letter or digit", "invalid_format")
    return text


Slug = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_slug)]
Credits = Annotated[int, Field(ge=0, le=1_000_000_000)]


class RouterFallback(Wire):
    """What to do when the preferred model cannot start now."""

    on_capacity: bool = False


class RouterCaps(Wire):
    """The most that one clip may be estimated at."""

    audio: Credits | None = None
    image: Credits | None = None
    video: Credits | None = None


class RouterModels(Wire):
    """Which models may be chosen."""

    mode: Literal["allow_new_except", "allowlist_only"]
    ids: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(max_length=200)


class RouterSettings(Wire):
    """What a router goes by. Without any: every model, the cheapest."""

    schema_version: Literal[1] = 1
    optimize_for: Preference | None = None
    models: RouterModels | None = None
    max_credits_per_generation: RouterCaps | None = None
    fallback: RouterFallback | None = None

    @property
    def prefer(self) -> Preference:
        return self.optimize_for or Preference.COST

    @property
    def on_capacity(self) -> bool:
        return self.fallback is not None and self.fallback.on_capacity

    @property
    def video_cap(self) -> int | None:
        return self.max_credits_per_generation.video if self.max_credits_per_generation else None

    def as_json(self) -> dict[str, JsonValue]:
        """As stored and shown: what was never said is not in it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class NewRouter(Wire):
    """`POST /v1/routers`."""

    slug: Slug = Field(examples=["production-video"])
    name: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    settings: RouterSettings = RouterSettings()


class RouterPatch(Wire):
    """`PATCH /v1/routers/{id}`."""

    unsupported: ClassVar[dict[str, str]] = {"slug": "a slug never changes; make another router"}

    name: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=2000)
    settings: dict[str, Any] | None = None


def merged(settings: Mapping[str, JsonValue], changes: Mapping[str, Any]) -> RouterSettings:
    """The settings with `changes` laid over them, level by level; null takes away. Raises WireError."""
    whole = _laid_over(settings, changes)
    try:
        return RouterSettings.model_validate(whole)
    except ValidationError as error:
        found = issues_of(error, RouterSettings)
        raise WireError([one.model_copy(update={"path": ("settings", *one.path)}) for one in found]) from None


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for name, value in above.items():
        before = out.get(name)
        if value is None:
            out.pop(name, None)
        elif isinstance(value, Mapping):
            out[name] = _laid_over(before if isinstance(before, Mapping) else {}, value)
        else:
            out[name] = value
    return out


def router_body(router: RouterConfig) -> dict[str, JsonValue]:
    body: dict[str, JsonValue] = {
        "id": router.id,
        "slug": router.slug,
        "name": router.name,
        "settings": {"schemaVersion": SCHEMA_VERSION, **router.settings},
        "version": router.version,
        "createdAt": iso(router.created_at),
        "updatedAt": iso(router.updated_at),
    }
    if router.description is not None:
        body["description"] = router.description
    return body


# Ours has more filters than Runway's log has names: each is told under the one before it that Runway has.
_STAGES: Mapping[str, str] = {
    "capability": "capability",
    "shape": "capability",
    "prompt_length": "prompt_length",
    "input_support": "input_support",
    "allow_deny": "allow_deny",
    "quality": "allow_deny",
    "price": "price",
    "deadline": "price",
}
_OUTCOMES = {"cost": "cost", "fallback": "fallback", "single_candidate": "single_candidate"}
_REASONS = frozenset({"lowest_cost", "best_latency", "best_quality", "only_eligible_model", "filter_order_fallback"})


def pipeline(
    story: Sequence[Mapping[str, Any]],
    *,
    skipped: Sequence[str],
    all_exhausted: bool,
    capacity: bool,
    unable: Sequence[str] = (),
) -> tuple[list[JsonValue], list[JsonValue]]:
    """(pipeline, emptiedBy) of `DecisionTrace.as_log()` in Runway's words. `capacity`: it had a say; `unable`: models
    that were passed over because others have the very shape."""
    stages: dict[str, list[str]] = {}
    ranked: str | None = None
    for entry in story:
        if entry["type"] == "filter":
            stages[_STAGES[str(entry["filter"])]] = [name for name in entry["models"] if name not in unable]
        elif entry["type"] == "rank":
            ranked = str(entry["outcome"])
    told: list[JsonValue] = []
    for stage, models in stages.items():
        told.append({"type": "filter", "filter": stage, "models": list(models)})
        if not models:
            return told, [stage]
    if capacity:
        told.append({"type": "capacity", "skipped": list(skipped), "allExhausted": all_exhausted})
    if ranked is not None and ranked != "refused":
        told.append({"type": "rank", "outcome": _OUTCOMES.get(ranked, "selected")})
    return told, []


def log_entry(
    *,
    entry_id: str,
    at: float,
    request_id: str,
    status: str,
    told: Sequence[JsonValue] = (),
    emptied_by: Sequence[JsonValue] = (),
    model: str | None = None,
    credits: float | None = None,
    reason: str | None = None,
    reason_code: str | None = None,
    task_id: str | None = None,
) -> dict[str, JsonValue]:
    """One decision, or one request that came to none."""
    return {
        "id": entry_id,
        "createdAt": iso(at),
        "requestId": request_id,
        "status": status,
        "pipeline": list(told),
        "emptiedBy": list(emptied_by),
        "model": model,
        "provider": PROVIDER if model is not None else None,
        "estimatedCredits": credits,
        "reason": reason,
        "reasonCode": reason_code if reason_code in _REASONS else None,
        "taskId": task_id,
    }

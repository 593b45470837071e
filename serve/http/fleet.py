"""What is served and how it fares: `GET /v1/variants`, `GET /v1/pools`."""

import math
from collections.abc import Callable
from threading import Lock
from time import monotonic

from fastapi import APIRouter, Depends, Request
from pydantic import JsonValue

from prompts.templates import PromptTemplate
from schemas.catalog import Variant
from schemas.clip import Status
from schemas.extract import Extractor
from schemas.finish import Finisher
from schemas.inputs import Kind, Role
from schemas.loras import takes_loras
from schemas.shape import Shape, ShapeRule
from serve.context import Context
from serve.dispatch.fleet import FleetReport, PoolReport
from serve.http.routes import in_thread
from serve.keys import caller
from serve.store.contract import Counts
from serve.wire.instants import iso

STALE_S = 10.0  # a dispatcher that has not written for so long is taken for dead
COUNT_S = 1.0
_MOST_CHOICES = 40

router = APIRouter(prefix="/v1", tags=["fleet"], dependencies=[Depends(caller)])


@router.get("/variants", summary="The models that are served, finishers, extractors, and where LoRAs may come from")
async def variants(request: Request) -> dict[str, JsonValue]:
    context: Context = request.app.state.context
    served = context.admission.served
    return {
        "variants": [_variant(variant) for variant in served.variants.values()],
        "finishers": [_finisher(finisher) for finisher in served.finishers.values()],
        "extractors": [_extractor(extractor) for extractor in served.extractors.values()],
        "loraSources": list(context.config.loras),
    }


@router.get("/templates", summary="Prompt templates, with their slots")
async def templates(request: Request) -> dict[str, JsonValue]:
    context: Context = request.app.state.context
    return {"templates": [_template(*named) for named in context.templates.templates.items()]}


@router.get("/pools", summary="Load and health, as the dispatcher last saw them")
async def pools(request: Request) -> dict[str, JsonValue]:
    context: Context = request.app.state.context
    fleet = await in_thread(context.admission.fleet)
    counts = await in_thread(_counted(request).counts)
    now = context.now()
    waiting = await in_thread(context.admission.starts_in_s)
    return {
        "at": iso(fleet.at or None),
        "now": iso(now),
        "stale": is_stale(fleet, now),
        "draining": fleet.draining,
        "queue": {
            **{
                status.value.lower(): counts.by_status.get(status, 0)
                for status in (Status.PENDING, Status.THROTTLED, Status.RUNNING)
            },
            "dead": counts.dead,
        },
        "pools": [_pool(pool, waiting.get(pool.name, math.inf)) for pool in fleet.pools],
    }


def _template(name: str, template: PromptTemplate) -> JsonValue:
    slots: dict[str, JsonValue] = {
        slot: {**told.model_dump(mode="json"), "required": slot in template.required}
        for slot, told in template.slots.items()
    }
    return {
        "name": name,
        "title": template.title,
        "use": template.use,
        "promptText": template.prompt,
        "negativePrompt": template.negative_prompt,
        "slots": slots,
    }


class Counted:
    """The store's counts, at most `COUNT_S` old: many pages ask, and counting takes longer the more tasks there are."""

    def __init__(self, count: Callable[[], Counts]) -> None:
        self._count = count
        self._lock = Lock()
        self._kept = Counts({})
        self._at = -math.inf

    def counts(self) -> Counts:
        """Blocking. Those who ask while it counts wait for the same count."""
        with self._lock:
            if monotonic() - self._at > COUNT_S:
                self._kept, self._at = self._count(), monotonic()
            return self._kept


def _counted(request: Request) -> Counted:
    state = request.app.state
    found: Counted | None = getattr(state, "counted", None)
    if found is None:
        found = state.counted = Counted(state.context.store.tasks.counts)
    return found


def is_stale(fleet: FleetReport, now: float) -> bool:
    """True when the dispatcher is silent, or never spoke."""
    return now - fleet.at > STALE_S


def _pool(pool: PoolReport, starts_in_s: float) -> dict[str, JsonValue]:
    return {
        "name": pool.name,
        "variant": pool.variant,
        "accelerator": pool.accelerator,
        "healthy": pool.healthy,
        "replicas": pool.replicas,
        "starting": pool.starting,
        "busy": pool.busy,
        "queued": pool.queued,
        "startsInSeconds": round(starts_in_s, 3) if math.isfinite(starts_in_s) and pool.healthy else None,
        "loadSeconds": round(pool.load_s, 3),
        "priceUsdPerHour": pool.price_usd_per_hour,
        "failures": pool.failures,
        "lastFailure": pool.last_failure[:300],
    }


def _variant(variant: Variant) -> dict[str, JsonValue]:
    rule, default = variant.shape, variant.shape.default()
    ratios = tuple(dict.fromkeys(f"{width}:{height}" for width, height, _ in rule.native))
    return {
        "name": variant.name,
        "title": variant.title,
        "aliases": list(variant.aliases),
        "auto": variant.auto,
        "modes": [mode.value for mode in variant.modes],
        "inputs": [_input(variant, role) for role in variant.all_roles],
        "motion": [steer.value for steer in variant.all_steers],
        # Where there are any the camera goes as far as the weights learned, not as far as a key says.
        "cameraDirections": [way.value for way in variant.all_directions],
        "audio": [mode.value for mode in variant.modes if variant.makes_sound(mode)],
        "severalPrompts": [mode.value for mode in variant.modes if variant.several_prompts(mode)],
        "loras": [mode.value for mode in variant.modes if takes_loras(variant.pipeline_for(mode))],
        "maxDuration": max(variant.longest_s(mode) for mode in variant.modes),
        "ratios": list(ratios),
        "durations": list(_durations(rule, variant.fps)),
        "default": {
            "ratio": f"{default.width}:{default.height}",
            "duration": round(default.frames / variant.fps, 3),
            "fps": variant.fps,
            "steps": variant.steps,
            "guidance": variant.guidance,
        },
        "shapeRule": {
            "sidesDivideBy": rule.divisor,
            "minSide": rule.min_side,
            "maxPixels": rule.max_pixels,
            "frames": f"{rule.frame_step}k+{rule.frame_offset}" if rule.frame_step > 1 else "any",
            "minFrames": rule.min_frames,
            "maxFrames": rule.max_frames,
        },
        "priceUsdPerHour": variant.price_usd_per_gpu_hour,
        "quality": variant.quality,
        "quantization": variant.speed.quantization,
        "measured": variant.cost.measured,
        "fallbacks": list(variant.fallbacks),
        "license": variant.license,
        # Bodies of creates, without `model`.
        "examples": [{"title": example.title, "request": example.request} for example in variant.examples],
    }


def _finisher(finisher: Finisher) -> JsonValue:
    """Without its weights, which are a place on machines of ours."""
    return {
        "name": finisher.name,
        "title": finisher.title,
        "operations": [operation.value for operation in finisher.operations],
        "method": finisher.method,
        "secondsPerMegapixel": finisher.s_per_megapixel,
        "priceUsdPerHour": finisher.price_usd_per_hour,
    }


def _extractor(extractor: Extractor) -> JsonValue:
    """As of a finisher, without its weights."""
    return {"name": extractor.name, "title": extractor.title, "kind": extractor.kind.value, "method": extractor.method}


def _input(variant: Variant, role: Role) -> dict[str, JsonValue]:
    shown = variant.kinds(role)
    # That a frame is a picture goes without saying.
    kinds: list[JsonValue] = [kind.value for kind in shown] if role is Role.STRUCTURE or shown != (Kind.RAW,) else []
    told: dict[str, JsonValue] = {"role": role.value}
    if kinds:
        told["kinds"] = kinds
    if all(role in variant.needed(mode) for mode in variant.modes):
        told["required"] = True
    return told


def _durations(rule: ShapeRule, fps: float) -> tuple[float, ...]:
    """The lengths there are, in seconds; where they are many, some of them, the native ones among them."""
    native = sorted({frames for _, _, frames in rule.native})
    frames = [
        count
        for count in range(rule.min_frames, rule.max_frames + 1)
        if not rule.issues(Shape(width=rule.native[0][0], height=rule.native[0][1], frames=count))
    ]
    if len(frames) > _MOST_CHOICES:
        step = len(frames) / (_MOST_CHOICES - len(native))
        frames = sorted({*(frames[int(place * step)] for place in range(_MOST_CHOICES - len(native))), *native})
    return tuple(round(count / fps, 3) for count in frames)

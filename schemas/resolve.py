"""From what a client asked for to the group that renders it. The manifest and the endpoint both come through here."""

import difflib
import re
from collections.abc import Callable
from fractions import Fraction

from schemas.catalog import Catalog, Variant
from schemas.clip import ClipFormat
from schemas.errors import InvalidRequestError, Issue
from schemas.request import Mode, Settings
from schemas.shape import Shape
from schemas.task import Group

_SCHEDULER = re.compile(r"^[A-Za-z0-9]+Scheduler$")

Rank = Callable[[Variant, Group], float]


def resolve(
    settings: Settings,
    catalog: Catalog,
    *,
    has_image: bool,
    has_video: bool,
    rank: Rank,
    may_run: Callable[[Variant], bool] = lambda _: True,
    snap: bool = False,
    clip_format: ClipFormat = ClipFormat.MP4,
) -> Group:
    """The group that `settings` fall into.

    `auto` takes the variant with the lowest `rank` among those that `may_run` and can render the request as it is
    written; ties go to the catalog's order. With `snap` a shape that breaks the rule becomes the nearest one that
    does not. Raises InvalidRequestError with every issue found, choices included.
    """
    mode = settings.mode or _implied_mode(has_image, has_video)
    media = _media_issues(mode, has_image, has_video)
    if settings.variant != "auto":
        variant = catalog.find(settings.variant)
        if variant is None:
            close = difflib.get_close_matches(settings.variant, catalog.names, cutoff=0.4)
            names = tuple(dict.fromkeys((*close, *catalog.names)))
            unknown = Issue("variant", f"unknown variant {settings.variant!r}", "unknown_variant", names)
            raise InvalidRequestError((unknown, *media))
        group, issues = _fit(settings, variant, mode, snap, clip_format)
        if group is None or media:
            raise InvalidRequestError((*issues, *media))
        return group
    if media:
        raise InvalidRequestError(media)
    fitting: list[tuple[float, Group]] = []
    reasons: list[str] = []
    for variant in catalog.variants.values():
        if not variant.auto or mode not in variant.modes or not may_run(variant):
            continue
        group, issues = _fit(settings, variant, mode, snap, clip_format)
        if group is not None:
            fitting.append((rank(variant, group), group))
        else:
            reasons.append(f"{variant.name} ({'; '.join(map(str, issues))})")
    if not fitting:
        able = tuple(v.name for v in catalog.variants.values() if mode in v.modes)
        why = f": {', '.join(reasons)}" if reasons else f" among those that serve {mode} and can run here"
        raise InvalidRequestError((Issue("variant", f"no variant fits{why}", "no_variant", able),))
    return min(fitting, key=lambda pair: pair[0])[1]


def _implied_mode(has_image: bool, has_video: bool) -> Mode:
    if has_video:
        return Mode.VIDEO_TO_VIDEO
    return Mode.IMAGE_TO_VIDEO if has_image else Mode.TEXT_TO_VIDEO


def _media_issues(mode: Mode, has_image: bool, has_video: bool) -> tuple[Issue, ...]:
    found: list[Issue] = []
    if mode is Mode.IMAGE_TO_VIDEO and not has_image:
        found.append(Issue("image", f"{mode} needs an image", "missing"))
    if mode is Mode.VIDEO_TO_VIDEO and not has_video:
        found.append(Issue("video", f"{mode} needs a video", "missing"))
    if has_image and mode is not Mode.IMAGE_TO_VIDEO:
        found.append(Issue("image", f"{mode} takes no image", "not_taken"))
    if has_video and mode is not Mode.VIDEO_TO_VIDEO:
        found.append(Issue("video", f"{mode} takes no video", "not_taken"))
    return tuple(found)


def _fit(
    settings: Settings, variant: Variant, mode: Mode, snap: bool, clip_format: ClipFormat
) -> tuple[Group | None, tuple[Issue, ...]]:
    """The group on this variant, or what keeps the settings from fitting it."""
    issues: list[Issue] = []
    if mode not in variant.modes:
        issues.append(Issue("mode", f"{variant.name} does not serve {mode}", "mode", tuple(variant.modes)))
    fps = settings.fps or variant.fps
    shape = _shape(settings, variant, fps)
    wrong = variant.shape.issues(shape)
    if wrong and snap:
        shape = variant.shape.nearest(shape)
    else:
        issues += [Issue(i.path, f"{i.message} on {variant.name}", i.code, i.choices) for i in wrong]
    steps = settings.num_inference_steps or variant.steps
    if steps < variant.min_steps:
        issues.append(
            Issue("num_inference_steps", f"{steps} is too few on {variant.name}: at least {variant.min_steps}", "steps")
        )
    if settings.scheduler is not None and not _SCHEDULER.match(settings.scheduler):
        issues.append(
            Issue(
                "scheduler", f"{settings.scheduler!r} is no diffusers scheduler class, such as 'EulerDiscreteScheduler'"
            )
        )
    if settings.strength is not None and mode is not Mode.VIDEO_TO_VIDEO:
        issues.append(Issue("strength", f"{mode} takes no strength", "not_taken"))
    if issues:
        return None, tuple(issues)
    group = Group(
        variant=variant.name,
        variant_digest=variant.digest,
        mode=mode,
        width=shape.width,
        height=shape.height,
        frames=shape.frames,
        fps=fps,
        steps=steps,
        guidance=variant.guidance if settings.guidance_scale is None else settings.guidance_scale,
        scheduler=settings.scheduler or variant.scheduler,
        strength=(settings.strength or variant.strength) if mode is Mode.VIDEO_TO_VIDEO else None,
        clip_format=clip_format.value,
    )
    return group, ()


def _shape(settings: Settings, variant: Variant, fps: float) -> Shape:
    default, size = variant.shape.default(), settings.size
    if size is None:
        width, height = default.width, default.height
    elif isinstance(size, Fraction):
        width, height = variant.shape.for_ratio(size)
    else:
        width, height = size
    if settings.num_frames is not None:
        frames = settings.num_frames
    elif settings.duration_s is not None:
        frames = variant.shape.frames_for(settings.duration_s, fps)
    else:
        frames = default.frames
    return Shape(width=width, height=height, frames=frames)

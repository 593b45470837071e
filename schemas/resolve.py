"""From what a client asked for to the group that renders it. The manifest and the endpoint both come through here."""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from schemas.catalog import Catalog, Variant
from schemas.chunks import Windows, cut
from schemas.clip import ClipFormat
from schemas.conditions import ENDS_WITH_ITS_LAST, Condition, implied_mode, resolved
from schemas.directions import direction_issues
from schemas.errors import InvalidRequestError, Issue
from schemas.finish import FinishStep, FitMode, asks_for_size, larger_by, resolved_finish
from schemas.inputs import FRAMES, InputSpec, Kind, Role, spec_issues
from schemas.loras import resolved_loras
from schemas.motion import Steer
from schemas.request import Mode, Settings
from schemas.shape import Shape
from schemas.sliding import SEVERAL_PROMPTS, slide_of, whole_lengths, window_issues
from schemas.sound import FORMATS
from schemas.steering import (
    edit_issues,
    frames_given,
    range_issues,
    steering_issues,
    steering_of,
    steers_in,
    unseen_source_issues,
)
from schemas.task import Group
from schemas.timed_prompts import turn_frames

# Delays of GIF are whole hundredths of a second, and viewers slow down those of one.
_MAX_GIF_FPS = 50.0
_SCHEDULER = re.compile(r"^[A-Za-z0-9]+Scheduler$")

Rank = Callable[[Variant, Group], float]


@dataclass(frozen=True)
class _Asked:
    """What is asked for, whichever variant is looked at, and the rules of where it is asked (see `resolve`)."""

    settings: Settings
    mode: Mode
    inputs: tuple[InputSpec, ...]
    turns_s: tuple[float, ...]
    catalog: Catalog
    snap: bool
    clip_format: ClipFormat
    fit_sizes: FitMode | None
    loras: tuple[str, ...] | None

    @property
    def needs(self) -> tuple[Steer | Role, ...]:
        """What a variant must be able to do beside taking the inputs."""
        edit = self.settings.edit
        region = edit is not None and edit.region is not None
        return (*steers_in(self.settings), *((Role.MASK,) if region else ()))

    def able(self, near: Variant | None = None, *, several: bool = False, sound: bool = False) -> tuple[str, ...]:
        """Who can, the one most like `near` first."""
        able = able_variants(self.catalog, self.mode, self.inputs, near, self.needs, several=several, sound=sound)
        if not steers_in(self.settings):
            return able
        lacks = {name: self._lacks(self.catalog[name]) for name in able}
        # Who would with something beside it is a choice where nobody does as it is.
        return tuple(name for name in able if not lacks[name]) or tuple(
            name for name in able if {issue.code for issue in lacks[name]} == {"missing"}
        )

    def _lacks(self, variant: Variant) -> tuple[Issue, ...]:
        """What keeps a variant that follows a camera or paths from following these."""
        settings, mode, fps = self.settings, self.mode, self.settings.fps or variant.fps
        frames = _shape(settings, variant, mode, fps).frames
        roles = [spec.role for spec in self.inputs]
        found = steering_issues(settings, variant.pipeline_for(mode), roles, variant.roles(mode), (), frames, fps)
        ways = variant.directions(mode)
        return (*found, *(direction_issues(settings.camera, ways, frames, fps) if ways else ()))


def resolve(
    settings: Settings,
    catalog: Catalog,
    *,
    inputs: tuple[InputSpec, ...] = (),
    turns_s: tuple[float, ...] = (),
    rank: Rank,
    may_run: Callable[[Variant], bool] = lambda _: True,
    snap: bool = False,
    clip_format: ClipFormat = ClipFormat.MP4,
    fit_sizes: FitMode | None = None,
    loras: tuple[str, ...] | None = None,
) -> Group:
    """The group that `settings` fall into.

    `auto` takes the variant with the lowest `rank` among those that `may_run` and can render the request as it is
    written; ties go to the catalog's order. With `snap` a shape that breaks the rule becomes the nearest one that
    does not. With `fit_sizes` the clip is brought to a size in pixels that the variant lacks, whether `finish` says so
    or not. `loras` are the sources that LoRAs may be brought from; None: any. `inputs` are the request's, without
    their media; the group's conditions are in their order. `turns_s` are the instants of its prompts after the first.
    Raises InvalidRequestError with every issue found, choices included.
    """
    mode = settings.mode or implied_mode(spec.role for spec in inputs)
    roles = {spec.role for spec in inputs}
    media = (*_media_issues(mode, inputs), *spec_issues(inputs), *edit_issues(settings, roles))
    asked = _Asked(settings, mode, inputs, turns_s, catalog, snap, clip_format, fit_sizes, loras)
    if settings.variant != "auto":
        variant = catalog.find(settings.variant)
        if variant is None:
            close = difflib.get_close_matches(settings.variant, catalog.names, cutoff=0.4)
            names = tuple(dict.fromkeys((*close, *catalog.names)))
            unknown = Issue("variant", f"unknown variant {settings.variant!r}", "unknown_variant", names)
            raise InvalidRequestError((unknown, *media))
        group, issues = _fit(asked, variant)
        if media:  # what a variant says to inputs that no clip can have is beside the point
            beside = ("inputs", "image", "video", "edit")
            others = tuple(one for one in issues if one.path.partition(".")[0] not in beside)
            raise InvalidRequestError((*others, *media))
        if group is None:
            raise InvalidRequestError(issues)
        return group
    if media:
        raise InvalidRequestError(media)
    fitting: list[tuple[float, Group]] = []
    reasons: list[str] = []
    for variant in catalog.variants.values():
        if not variant.auto or mode not in variant.modes or not may_run(variant):
            continue
        group, issues = _fit(asked, variant)
        if group is not None:
            fitting.append((rank(variant, group), group))
        else:
            reasons.append(f"{variant.name} ({'; '.join(map(str, issues))})")
    if not fitting:
        able = asked.able(several=bool(turns_s), sound=bool(settings.audio))
        why = f": {', '.join(reasons)}" if reasons else f" among those that serve {mode} and can run here"
        raise InvalidRequestError((Issue("variant", f"no variant fits{why}", "no_variant", able),))
    return min(fitting, key=lambda pair: pair[0])[1]


def able_variants(
    catalog: Catalog,
    mode: Mode,
    inputs: tuple[InputSpec, ...] = (),
    near: Variant | None = None,
    needs: Sequence[Steer | Role] = (),
    *,
    several: bool = False,
    sound: bool = False,
) -> tuple[str, ...]:
    """The variants that render `mode` with such inputs and follow what it `needs`, also with `several` prompts or with
    `sound`; the one most like `near` first: its fallbacks, then those whose usual clip is nearest in size and
    length."""
    able = [
        v
        for v in catalog.variants.values()
        if mode in v.modes
        and not any(misses(v, mode, one) for one in inputs)
        and set(v.needed(mode)) <= {one.role for one in inputs}
        and set(needs) <= {*v.steers(mode), *v.roles(mode)}
        and (not several or v.several_prompts(mode))
        and (not sound or v.makes_sound(mode))
    ]
    if near is not None:
        own = [v.name for v in map(catalog.find, near.fallbacks) if v is not None]
        able.sort(key=lambda v: (own.index(v.name) if v.name in own else len(own), _apart(v, near)))
    return tuple(v.name for v in able)


def _does(able: Sequence[str]) -> str:
    """Who can, at the end of a sentence about who cannot."""
    return f"; {able[0]} does" if able else ""


def _apart(one: Variant, other: Variant) -> float:
    a, b = one.shape.default(), other.shape.default()
    return abs(math.log(a.pixels * a.frames / (b.pixels * b.frames)))


def misses(variant: Variant, mode: Mode, spec: InputSpec) -> str | None:
    """What keeps a variant from taking an input; None when it takes it."""
    if spec.role not in variant.roles(mode):
        return f"{variant.name} takes no {spec.role}"
    kinds = variant.kinds(spec.role)
    shown = spec.kind or Kind.RAW
    if kinds and shown not in kinds:
        return f"{variant.name} takes no {spec.role} of kind {shown}, but of {', '.join(kinds)}"
    return None


def _media_issues(mode: Mode, inputs: tuple[InputSpec, ...]) -> tuple[Issue, ...]:
    """Where a mode was named and the inputs are of another."""
    found: list[Issue] = []
    roles = {spec.role for spec in inputs}
    if mode is Mode.IMAGE_TO_VIDEO and not roles & FRAMES:
        found.append(Issue("image", f"{mode} needs an image", "missing"))
    if mode is Mode.VIDEO_TO_VIDEO and Role.SOURCE not in roles:
        found.append(Issue("video", f"{mode} needs a video", "missing"))
    for spec in inputs:
        if (mode is Mode.TEXT_TO_VIDEO and spec.role in FRAMES) or (
            mode is not Mode.VIDEO_TO_VIDEO and spec.role is Role.SOURCE
        ):
            what = f"no {spec.role}" if spec.path.startswith("inputs.") else f"no {spec.medium}"
            found.append(Issue(spec.at("role"), f"{mode} takes {what}", "not_taken"))
    return tuple(found)


def _fit(asked: _Asked, variant: Variant) -> tuple[Group | None, tuple[Issue, ...]]:
    """The group on this variant, or what keeps the settings from fitting it."""
    settings, mode, catalog = asked.settings, asked.mode, asked.catalog
    issues: list[Issue] = []
    if mode not in variant.modes:
        nearest = asked.able(variant)[:1]
        issues.append(
            Issue("mode", f"{variant.name} does not serve {mode}{_does(nearest)}", "mode", tuple(variant.modes))
        )
    fps = settings.fps or variant.fps
    steps = _finish_steps(settings, variant, fps, asked.fit_sizes)
    size = settings.size if isinstance(settings.size, tuple) else None
    shape = _shape(settings, variant, mode, fps, any_size=size is not None and asks_for_size(steps))
    longest = variant.longest_frames(mode, fps)
    if size is not None and (more := larger_by(steps, size, shape.frames, fps)) > 1:
        large = variant.shape.nearest(
            Shape(width=math.ceil(size[0] * more), height=math.ceil(size[1] * more), frames=shape.frames), longest
        )
        shape = Shape(width=large.width, height=large.height, frames=shape.frames)
    wrong = variant.shape.issues(shape, longest)
    if wrong and asked.snap:
        shape = variant.shape.nearest(shape, longest)
    else:
        issues += [Issue(i.path, f"{i.message} on {variant.name}", i.code, i.choices) for i in wrong]
    finish, wrong_finish = resolved_finish(steps, shape, fps, catalog.finishers, size)
    issues += wrong_finish
    last_fps, of = (finish[-1].fps, "finish") if finish else (fps, "fps")
    if asked.clip_format is ClipFormat.GIF and last_fps > _MAX_GIF_FPS:
        issues.append(Issue(of, f"{last_fps:g} is more than a GIF can show: at most {_MAX_GIF_FPS:g}", "range"))
    denoising = settings.num_inference_steps or variant.steps
    if denoising < variant.min_steps:
        text = f"{denoising} is too few on {variant.name}: at least {variant.min_steps}"
        issues.append(Issue("num_inference_steps", text, "steps"))
    if settings.scheduler is not None and not _SCHEDULER.match(settings.scheduler):
        issues.append(
            Issue(
                "scheduler", f"{settings.scheduler!r} is no diffusers scheduler class, such as 'EulerDiscreteScheduler'"
            )
        )
    if settings.strength is not None and all(spec.path.startswith("inputs.") for spec in asked.inputs):
        text = "it is the short form beside image or video: an input has its own"
        issues.append(Issue("strength", text if asked.inputs else f"{mode} takes no strength", "not_taken"))
    adapters, wrong_loras = resolved_loras(settings.loras, variant.pipeline_for(mode), asked.loras)
    issues += wrong_loras
    conditions, wrong_inputs = _conditions(asked, variant, shape.frames, fps)
    issues += wrong_inputs
    issues += _steering(asked, variant, conditions, shape.frames, fps)
    turns, chunks, wrong_length = _in_time(asked, variant, shape, fps)
    issues += wrong_length
    audio, wrong_audio = _audio(asked, variant, chunks)
    issues += wrong_audio
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
        steps=denoising,
        guidance=variant.guidance if settings.guidance_scale is None else settings.guidance_scale,
        scheduler=settings.scheduler or variant.scheduler,
        conditions=conditions,
        **steering_of(settings)._asdict(),
        clip_format=asked.clip_format.value,
        audio=audio,
        loras=adapters,
        turns=turns,
        chunks=chunks,
        finish=finish,
    )
    return group, ()


def _audio(asked: _Asked, variant: Variant, chunks: Windows | None) -> tuple[bool, list[Issue]]:
    """Whether the clip has sound; what keeps one that is asked for from it. Unasked it has where there is any."""
    mode, clip_format, wanted = asked.mode, asked.clip_format, asked.settings.audio
    lacks = None
    able: tuple[str, ...] = ()
    if not variant.makes_sound(mode):
        able = asked.able(variant, sound=True)
        lacks = f"{variant.name} makes no sound{_does(able)}"
    elif clip_format not in FORMATS:
        able = tuple(one.value for one in FORMATS)
        lacks = f"a {clip_format.value} holds no sound; those that do: {', '.join(able)}"
    elif chunks is not None:
        lacks = f"{variant.name} makes sound within one call only, of {chunks.frames} frames"
    if wanted and lacks is not None and mode in variant.modes:
        return False, [Issue("audio", lacks, "not_taken", able)]
    return wanted is not False and lacks is None, []


def _in_time(
    asked: _Asked, variant: Variant, shape: Shape, fps: float
) -> tuple[tuple[int, ...], Windows | None, list[Issue]]:
    """(Frames at which prompts after the first begin; how the clip is cut into calls, where it is; what is wrong)."""
    mode, turns_s = asked.mode, asked.turns_s
    if mode not in variant.modes:
        return (), None, []
    if turns_s and not variant.several_prompts(mode):
        able = asked.able(variant, several=True)
        return (), None, [Issue("prompts", f"{variant.name} follows one prompt a clip{_does(able)}", "role", able)]
    turns, wrong = turn_frames(turns_s, shape.frames, fps)
    issues = [*wrong]
    pipeline = variant.pipeline_for(mode)
    is_long = any(issue.path == "num_frames" for issue in variant.shape.issues(shape))
    if pipeline in SEVERAL_PROMPTS and not is_long:
        slide = slide_of(pipeline, variant.call_options, shape.frames, variant.latent.temporal)
        return turns, None, [*issues, *(() if wrong else window_issues(slide, turns, fps, pipeline))]
    last = next((spec for spec in asked.inputs if spec.role is Role.LAST_FRAME), None)
    if variant.chunks is None or not variant.continues(mode) or not (turns or is_long):
        whole = whole_lengths(pipeline, variant.call_options, shape.frames, variant.latent.temporal)
        if last is not None and whole and shape.frames not in whole and not is_long:
            text = f"{shape.frames}: with a last_frame the clip ends where a section of {pipeline} does"
            issues.append(Issue("num_frames", text, "shape", tuple(map(str, whole))))
        return turns, None, issues
    windows = variant.chunks.windows
    for steer in steers_in(asked.settings):
        text = f"{variant.name} follows it within one call only, of one prompt and {variant.shape.max_frames} frames"
        issues.append(Issue(steer.value, text, "conflict", ("duration_s", "prompts")))
    if last is not None and not issues and variant.pipeline_for(Mode.IMAGE_TO_VIDEO) in ENDS_WITH_ITS_LAST:
        end = cut(shape.frames, turns, windows)[-1]
        full = end.start + windows.frames
        if end.stop != full:
            text = f"with a last_frame the clip ends where a chunk of {windows.frames} frames does"
            issues.append(Issue("num_frames", f"{shape.frames}: {text}", "shape", (str(full),)))
    return turns, windows, issues


def _steering(
    asked: _Asked, variant: Variant, conditions: tuple[Condition, ...], frames: int, fps: float
) -> list[Issue]:
    """What keeps a variant from following the motion, or from the edit."""
    settings, mode = asked.settings, asked.mode
    if mode not in variant.modes:
        return []
    cannot = [steer for steer in steers_in(settings) if steer not in variant.steers(mode)]
    if cannot:
        able = asked.able(variant)
        return [Issue(steer.value, f"{variant.name} follows no {steer}{_does(able)}", "role", able) for steer in cannot]
    given = frames_given([(one.role, one.frame) for one in conditions])
    roles = [spec.role for spec in asked.inputs]
    found = [
        *range_issues(settings, frames, fps),
        *unseen_source_issues(variant.pipeline_for(mode), asked.inputs, settings.edit, variant.strength),
        *steering_issues(settings, variant.pipeline_for(mode), roles, variant.roles(mode), given, frames, fps),
    ]
    ways = variant.directions(mode)
    astray = direction_issues(settings.camera, ways, frames, fps) if ways and not found else ()
    other = f"; {able[0]} follows it" if astray and (able := asked.able(variant)) else ""
    return [
        *(
            Issue(i.path, f"{i.message} (on {variant.name})", i.code, i.choices or asked.able(variant))
            if i.code == "not_taken"
            else i
            for i in found
        ),
        *(Issue(i.path, f"{i.message} (on {variant.name}){other}", i.code, i.choices) for i in astray),
    ]


def _finish_steps(
    settings: Settings, variant: Variant, fps: float, fit_sizes: FitMode | None
) -> tuple[FinishStep, ...]:
    """What is asked for; where sizes are fitted and the variant lacks the one that is asked for, that as well."""
    steps, size = settings.finish, settings.size
    if fit_sizes is None or not isinstance(size, tuple) or any(step.interpolate is None for step in steps):
        return steps
    shape = _shape(settings, variant, None, fps)
    lacks = any(issue.path in ("width", "height") for issue in variant.shape.issues(shape))
    return (*steps, FinishStep(fit=fit_sizes)) if lacks else steps


def _conditions(asked: _Asked, variant: Variant, frames: int, fps: float) -> tuple[tuple[Condition, ...], list[Issue]]:
    mode, inputs = asked.mode, asked.inputs
    if mode not in variant.modes:
        return (), []
    absent = [role for role in variant.needed(mode) if role not in {spec.role for spec in inputs}]
    issues = [_absent(variant, role) for role in absent]
    for spec in inputs:
        why = misses(variant, mode, spec)
        if why is not None:
            field = "kind" if spec.role in variant.roles(mode) else "role"
            able = asked.able(variant)
            issues.append(Issue(spec.at(field), why + _does(able), "role", able))
    if issues:
        return (), issues
    pipeline, extractors = variant.pipeline_for(mode), asked.catalog.extractors
    conditions, wrong = resolved(inputs, pipeline, mode, frames, fps, variant.strength, extractors)
    return conditions, [Issue(i.path, f"{i.message} (on {variant.name})", i.code, i.choices) for i in wrong]


def _absent(variant: Variant, role: Role) -> Issue:
    kinds = variant.kinds(role)
    of_kind = f" of kind {' or '.join(kinds)}" if kinds else ""
    return Issue(
        "inputs", f"{variant.name} renders over a {role}{of_kind}, and there is none", "missing", (role.value,)
    )


def _shape(settings: Settings, variant: Variant, mode: Mode | None, fps: float, *, any_size: bool = False) -> Shape:
    """What the model renders, as long as it may be in `mode`. With `any_size` it is what the variant has that is most
    like the size asked for."""
    default, size = variant.shape.default(), settings.size
    if any_size and isinstance(size, tuple):
        wrong = variant.shape.issues(Shape(width=size[0], height=size[1], frames=default.frames))
        size = Fraction(*size) if wrong else size
    if size is None:
        width, height = default.width, default.height
    elif isinstance(size, Fraction):
        width, height = variant.shape.for_ratio(size)
    else:
        width, height = size
    if settings.num_frames is not None:
        frames = settings.num_frames
    elif settings.duration_s is not None:
        longest = variant.longest_frames(mode, fps) if mode is not None else 0
        frames = variant.shape.frames_for(settings.duration_s, fps, longest)
    else:
        frames = default.frames
    return Shape(width=width, height=height, frames=frames)

"""What a client submits: every JSON body that asks for a clip is read here, into one value.

    JSON object → wire body (`serve.wire.creates`) → Submission → its media taken in → a Decision of admission

Creates, rows of batches, estimates and `generate/video` differ only in the body that they accept. Whatever is wrong is
a WireError whose paths are the client's own field names.
"""

import asyncio
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_args

from cluster.routing.router import Choice
from cluster.routing.terms import Preference
from schemas.clip import ClipFormat
from schemas.conditions import implied_mode
from schemas.errors import InvalidRequestError, MediaError
from schemas.finish import FinishStep
from schemas.footage import FOOTAGE
from schemas.inputs import Input, Role
from schemas.loras import Lora
from schemas.moderation import Moderation, PublicFigures
from schemas.request import Mode, Request
from schemas.shape import MAX_FPS, MIN_FPS
from schemas.task import sample_seed
from serve.admission.admission import Admission
from serve.admission.offer import Decision, RefusedError
from serve.admission.templating import with_prompts
from serve.context import Context
from serve.errors import AddressError
from serve.keys import share_of
from serve.media.intake import Intake
from serve.store.contract import ApiKey
from serve.tasks import CREDITS_PER_USD, Constraints, NewTask
from serve.webhooks import check_webhook_url
from serve.wire.base import WireError, WireIssue, issue, validate, wire_issues
from serve.wire.creates import Creates, GenerateVideo, ImageToVideo, TextToVideo, VideoToVideo
from serve.wire.field_names import GENERATE_NAMES, WIRE_NAMES
from serve.wire.inputs import NamedInput, names_of
from serve.wire.motion import camera_of, paths_of
from serve.wire.own import Own
from serve.wire.shot import ContentModeration, Shot
from serve.wire.upscale import VideoUpscale

Asks = TypeVar("Asks", bound=Own)
Body = type[Creates] | type[GenerateVideo]

_CREATES: Mapping[Mode, type[Creates]] = {
    Mode.TEXT_TO_VIDEO: TextToVideo,
    Mode.IMAGE_TO_VIDEO: ImageToVideo,
    Mode.VIDEO_TO_VIDEO: VideoToVideo,
}
_FORMATS = {
    "mp4": ClipFormat.MP4,
    "webm": ClipFormat.WEBM,
    "gif": ClipFormat.GIF,
    "png_sequence": ClipFormat.PNG,
}


class SubmissionRefusedError(WireError):
    """No variant would do within the constraints. `choice` is the whole account."""

    def __init__(self, error: RefusedError, names: Mapping[str, str]) -> None:
        self.choice: Choice = error.choice
        super().__init__(wire_issues(error.issues, names))


@dataclass(frozen=True)
class Routed:
    """What only a body of `generate/video` says. `prefer` and `resolution` are None where it does not say them."""

    slug: str
    prefer: Preference | None
    resolution: str | None


@dataclass(frozen=True)
class Submission:
    """A body, read but not admitted. `request` holds the client's address of the media until they are taken in."""

    key: ApiKey
    mode: Mode
    request: Request
    constraints: Constraints
    names: Mapping[str, str]  # of the fields of `request` and `constraints`, as this body calls them
    clip_format: ClipFormat = ClipFormat.MP4
    media: tuple[NamedInput, ...] = ()
    webhook_url: str | None = None
    routed: Routed | None = None
    moderation: Moderation = field(default_factory=Moderation)  # of the prompt

    async def with_media_taken(self, intake: Intake) -> "Submission":
        """With the addresses of our checked copies of the media. Raises WireError at the fields that named those that
        cannot be had. Of what is refused already nothing is taken."""
        if not self.media or self.moderation.is_refused:
            return self
        taken = await asyncio.gather(*(self._taken(intake, one) for one in self.media))
        issues = [one for found in taken if not isinstance(found, Input) for one in found]
        if issues:
            raise WireError(issues)
        inputs = tuple(found for found in taken if isinstance(found, Input))
        return replace(self, request=self.request.model_copy(update={"inputs": inputs}))

    async def _taken(self, intake: Intake, named: NamedInput) -> Input | list[WireIssue]:
        path = named.media_path
        try:
            uri = await intake.take(named.input.uri, named.input.medium, self.key, ".".join(map(str, path)))
        except InvalidRequestError as error:
            return [one.model_copy(update={"path": path}) for one in wire_issues(error.issues)]
        except (MediaError, AddressError) as error:
            code = "asset_invalid" if isinstance(error, MediaError) else "asset_url"
            return [issue(code, path, str(error))]
        return named.input.at_uri(uri)

    def consider(self, admission: Admission) -> Decision:
        """What admission decides; nothing changes.

        Raises WireError, SubmissionRefusedError where routing refused, and NoCapacityError.
        """
        limits, samples = self.constraints, self.request.samples
        if samples > 1:  # the price limit is of all of them
            limits = limits.model_copy(update={"max_usd": limits.max_usd / samples})
        try:
            return admission.consider(
                self.request, limits, self.clip_format, key_id=self.key.id, share=share_of(self.key)
            )
        except RefusedError as error:
            raise SubmissionRefusedError(error, self.names) from error
        except InvalidRequestError as error:
            raise WireError(wire_issues(error.issues, self.names)) from error

    def decide(self, context: Context, kind: str, batch_id: str | None = None) -> list[NewTask]:
        """As `consider`, as the tasks to store: one for each sample."""
        return self.tasks(self.consider(context.admission), context, kind, batch_id=batch_id)

    def tasks(
        self,
        decision: Decision,
        context: Context,
        kind: str,
        *,
        model: str | None = None,
        batch_id: str | None = None,
        router_id: str | None = None,
    ) -> list[NewTask]:
        """What was decided, as the tasks to store: one for each sample. `model`: as the client calls the variant,
        where the request does not name it."""
        seed = secrets.randbits(32) if self.request.seed is None else self.request.seed
        return [
            decision.as_task(
                key_id=self.key.id,
                kind=kind,
                model=model or self.request.variant,
                batch_id=batch_id,
                router_id=router_id,
                webhook_url=self.webhook_url,
                moderation=self.moderation,
                bill_refused=context.config.moderation.bill_refused_input,
                seed=sample_seed(seed, sample),
            )
            for sample in range(self.request.samples)
        ]


def moderated(submissions: Sequence[Submission], context: Context) -> list[Submission]:
    """Each with what moderation finds of its prompt. In a thread: a scorer may take a while."""
    moderator = context.moderator
    if moderator is None:
        return list(submissions)
    found: dict[int, Moderation] = {}
    for how in get_args(PublicFigures):
        some = [at for at, one in enumerate(submissions) if one.constraints.public_figures == how]
        # Each of several prompts is looked at by itself, the negative prompt once.
        asked = [
            (at, text, "" if number else submissions[at].request.negative_prompt)
            for at in some
            for number, text in enumerate(submissions[at].request.told.texts)
        ]
        told = moderator.texts([text for _, text, _ in asked], how, [negative for _, _, negative in asked])
        for (at, _, _), more in zip(asked, told, strict=True):
            found[at] = found[at] + more if at in found else more
    return [replace(one, moderation=found[at]) for at, one in enumerate(submissions)]


def submission_of(given: object, context: Context, key: ApiKey, body: Body | None = None) -> Submission:
    """Read `given`, JSON already parsed, as what `key` submits.

    `body` is what the route accepts. None: any of the creates; the field `mode` says which, or the media imply it.
    Raises WireError with every issue.
    """
    given = with_prompts(given, context.templates)
    if body is None:
        given, body = _create_of(given)
    read = read_body(body, given, context)
    return _routed(read, key) if isinstance(read, GenerateVideo) else _create(read, key)


def read_body(body: type[Asks], given: object, context: Context) -> Asks:
    """`given` as `body`, by this endpoint's limits. Raises WireError with every issue."""
    limits = {"max_prompt_chars": context.config.limits.max_prompt_chars, "now": context.now()}
    read = validate(body, given, limits)
    if read.webhook_url is not None:
        try:
            check_webhook_url(read.webhook_url, allow_private=context.config.media.allow_private)
        except InvalidRequestError as error:
            raise WireError(wire_issues(error.issues)) from error
    return read


def _create_of(given: object) -> tuple[object, type[Creates]]:
    """(`given` without `mode`, which create it is)."""
    if not isinstance(given, dict):
        raise WireError([issue("model_type", (), "must be a JSON object")])
    fields: dict[str, Any] = dict(given)
    said, choices = fields.pop("mode", None), tuple(mode.value for mode in Mode)
    if said is not None:
        if not isinstance(said, str) or said not in choices:
            raise WireError([issue("invalid", "mode", f"must be one of {', '.join(choices)}", choices, said)])
        return fields, _CREATES[Mode(said)]
    if fields.get("videoUri") is not None or fields.get("promptVideo") is not None:
        return fields, VideoToVideo
    if fields.get("promptImage") is not None:
        return fields, ImageToVideo
    inputs = fields.get("inputs")
    roles = [one.get("role") for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    roles += [Role.KEYFRAME] if fields.get("keyframes") else []
    return fields, _CREATES[implied_mode(Role(role) for role in roles if role in set(Role))]


def _create(body: Creates, key: ApiKey) -> Submission:
    media, names = body.named_inputs, dict(WIRE_NAMES)
    if body.num_frames is not None:
        names["num_frames"] = "numFrames"
    if isinstance(body, VideoToVideo):
        names |= {f"inputs.{number}.strength": "strength" for number, one in enumerate(media) if not one.is_own}
    return _submission(body, body, key, media, names, variant=body.model, ratio=body.ratio)


def _routed(body: GenerateVideo, key: ApiKey) -> Submission:
    shot, names = body.input, dict(GENERATE_NAMES)
    if shot.num_frames is not None:
        names["num_frames"] = "input.numFrames"
    media = tuple(one.within(("input",)) for one in shot.named_inputs)
    asked = Routed(body.config_id, body.optimize_for, shot.resolution)
    return replace(_submission(body, shot, key, media, names, ratio=shot.ratio), routed=asked)


def _submission(
    own: Own,
    shot: Shot,
    key: ApiKey,
    media: tuple[NamedInput, ...],
    names: Mapping[str, str],
    *,
    variant: str = "auto",
    ratio: str | None,
) -> Submission:
    mode = implied_mode(one.input.role for one in media)
    # `Shot` has the same limits as `Request`, so that this never refuses.
    request = Request(
        mode=mode,
        variant=variant,
        ratio=ratio,
        num_frames=shot.num_frames,
        duration_s=shot.duration,
        fps=shot.fps,
        num_inference_steps=shot.num_inference_steps,
        guidance_scale=shot.guidance_scale,
        scheduler=shot.scheduler,
        prompt=shot.prompt_text or "",
        prompts=shot.timed_prompts,
        negative_prompt=shot.negative_prompt,
        seed=shot.seed,
        inputs=tuple(one.input for one in media),
        camera=camera_of(shot.camera),
        paths=paths_of(shot.paths),
        edit=shot.edit,
        priority=own.priority,
        finish=tuple(one.step for one in shot.finish),
        samples=shot.samples,
        audio=shot.audio,
        loras=tuple(Lora(source=one.source, weight=one.weight) for one in shot.loras),
    )
    return Submission(
        key,
        mode,
        request,
        _constraints(own, shot.content_moderation),
        {**names_of(media), **names},
        clip_format=_FORMATS[shot.output_format],
        media=media,
        webhook_url=own.webhook_url,
    )


def footage_submission(body: VideoUpscale, key: ApiKey) -> Submission:
    """A video that only something is to be done to. What that is follows once it is known (`of_size`)."""
    named = body.named_input
    names = {
        **WIRE_NAMES,
        **names_of((named,)),
        "finish.0.upscale": "resolution",
        "finish.0.interpolate": "targetFramerate",
    }
    for number in range(len(body.finish)):  # the first step is the model's own
        names |= {f"finish.{number + 1}.{field}": f"finish.{number}.{field}" for field in FinishStep.model_fields}
        names[f"finish.{number + 1}"] = f"finish.{number}"
    request = Request(mode=Mode.VIDEO_TO_VIDEO, variant=FOOTAGE, inputs=(named.input,), priority=body.priority)
    limits = _constraints(body, body.content_moderation)
    formats = _FORMATS[body.output_format]
    return Submission(
        key, request.mode or Mode.VIDEO_TO_VIDEO, request, limits, names, formats, (named,), body.webhook_url
    )


def of_size(submission: Submission, body: VideoUpscale, shown: tuple[int, int, int, float]) -> Submission:
    """With the size, length and rate of its video, and what is to be done to it."""
    width, height, frames, fps = shown
    told = {"width": width, "height": height, "num_frames": frames, "fps": min(max(fps, MIN_FPS), MAX_FPS)}
    update = {**told, "finish": (body.step(width, height), *(one.step for one in body.finish))}
    return replace(submission, request=submission.request.model_copy(update=update))


def _constraints(body: Own, moderation: ContentModeration | None) -> Constraints:
    """What the client allows."""
    return Constraints(
        allow=body.allow_models,
        deny=body.deny_models,
        fall_back=body.fallback,
        prefer=body.optimize_for or Preference.LATENCY,
        min_quality=body.min_quality,
        max_usd=math.inf if body.max_credits is None else body.max_credits / CREDITS_PER_USD,
        deadline_at=math.inf if body.deadline is None else body.deadline,
        skip_busy=body.skip_busy,
        public_figures="auto" if moderation is None else moderation.public_figure_threshold,
    )

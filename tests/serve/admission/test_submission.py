"""One parser of bodies: whichever route a body comes by, it is the same submission, or refused in the same words."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from prompts.templates import read_templates
from schemas.catalog import Catalog, load_catalog
from schemas.chunks import Chunks
from schemas.inputs import Input, Role
from schemas.moderation import Moderation
from schemas.request import Mode
from serve.admission.admission import Admission
from serve.admission.submission import Body, Submission, SubmissionRefusedError, moderated, submission_of
from serve.config import Pools, ServeConfig
from serve.context import Context
from serve.dispatch.jobs import as_rendered
from serve.store.contract import ApiKey
from serve.tasks import StoredTask
from serve.wire.base import Wire, WireError
from serve.wire.creates import GenerateInput, GenerateVideo, ImageToVideo, TextToVideo, VideoToVideo
from serve.wire.own import Own
from serve.wire.shot import Shot
from serve.wire.tasks import prompts_shown
from serve.wire.upscale import VideoUpscale
from tests.serve.http.endpoint import CATALOG, KeptIntake, stored

NOW = 1_000_000.0
KEY = ApiKey("key-a", "a", NOW)
TEXT = {"model": "shapes", "promptText": "a red circle"}
IMAGE = {**TEXT, "promptImage": "https://example.com/first.png"}
VIDEO = {**TEXT, "model": "tiny-random", "promptVideo": "https://example.com/clip.mp4", "strength": 0.5}


@pytest.fixture
def context() -> Context:
    config = ServeConfig(pools=Pools(variants=("shapes", "tiny-random")))
    catalog = load_catalog(CATALOG)
    nothing: Any = None
    intake: Any = KeptIntake()
    return Context(
        config, catalog, nothing, nothing, Admission(config, catalog, None, lambda: NOW), intake, now=lambda: NOW
    )


def refused(context: Context, given: object, body: Body | None = None) -> list[tuple[str, tuple[str | int, ...]]]:
    with pytest.raises(WireError) as caught:
        submission_of(given, context, KEY, body)
    return [(one.code, one.path) for one in caught.value.issues]


@pytest.mark.parametrize(("given", "body"), [(TEXT, TextToVideo), (IMAGE, ImageToVideo), (VIDEO, VideoToVideo)])
def test_a_route_a_row_and_an_estimate_read_the_same(context: Context, given: dict[str, Any], body: Body) -> None:
    by_route = submission_of(given, context, KEY, body)
    assert submission_of(given, context, KEY) == by_route
    assert submission_of({**given, "mode": by_route.mode.value}, context, KEY) == by_route


def test_a_create_and_a_router_s_body_ask_for_the_same_clip(context: Context) -> None:
    given = {"promptText": "a red circle", "duration": 2, "seed": 7, "referenceImages": [{"role": "first", "uri": "x"}]}
    outer = {"priority": 3, "maxCredits": 50, "denyModels": ["tiny-random"]}
    routed = submission_of({"configId": "any", "input": given, **outer}, context, KEY, GenerateVideo)
    create = submission_of(
        {"model": "auto", "promptText": "a red circle", "duration": 2, "seed": 7, "promptImage": "x", **outer},
        context,
        KEY,
    )
    assert (routed.mode, routed.request, routed.constraints) == (create.mode, create.request, create.constraints)
    assert [one.media_path for one in create.media] == [("promptImage",)]
    assert [one.media_path for one in routed.media] == [("input", "referenceImages", 0, "uri")]


# Every field that the creates share, with something to say in it.
SHOT: dict[str, Any] = {
    "promptText": "a red circle",
    "prompts": [{"fromSeconds": 0, "text": "a red circle"}, {"fromSeconds": 1, "text": "a blue square"}],
    "negativePrompt": "rain",
    "duration": 2,
    "numFrames": 17,
    "fps": 12,
    "seed": 7,
    "outputFormat": "webm",
    "audio": False,
    "contentModeration": {"publicFigureThreshold": "low"},
    "numInferenceSteps": 4,
    "guidanceScale": 2.5,
    "scheduler": "EulerDiscreteScheduler",
    "keyframes": [{"at": 0.5, "uri": "https://example.com/a.png"}],
    "inputs": [{"role": "first_frame", "image": "https://example.com/a.png"}],
    "camera": [{"atSeconds": 1, "pan": 10}],
    "paths": [{"label": "it", "point": [0.1, 0.1], "keys": [{"atSeconds": 1, "x": 0.9, "y": 0.5}]}],
    "edit": {"speed": 2},
    "finish": [{"upscale": 2}],
    "loras": [{"source": "owner/ink", "weight": 0.5}],
    "samples": 3,
    "template": "motion",
    "slots": {"subject": "a red circle", "direction": "left"},
}
CREATES: tuple[type[Wire], ...] = (TextToVideo, ImageToVideo, VideoToVideo, GenerateInput, VideoUpscale)


def test_what_the_creates_share_is_all_tried_here() -> None:
    assert set(SHOT) == {field.alias for field in Shot.model_fields.values()}


@pytest.mark.parametrize("field", sorted(set(SHOT) - {"slots"}))
@pytest.mark.parametrize(
    ("path", "more"),
    [
        (ImageToVideo, {"promptImage": "https://example.com/first.png"}),
        (VideoToVideo, {"videoUri": "https://example.com/clip.mp4"}),
        (GenerateVideo, {}),
    ],
)
def test_what_one_create_heeds_they_all_do(context: Context, field: str, path: Body, more: dict[str, Any]) -> None:
    context = replace(context, templates=read_templates())
    said = {field: SHOT[field], **({"slots": SHOT["slots"]} if field == "template" else {})}
    if field not in ("template", "prompts", "promptText"):
        said["promptText"] = "x"
    by_text = submission_of({"model": "auto", **said}, context, KEY, TextToVideo)
    body = {"configId": "any", "input": said} if path is GenerateVideo else {"model": "auto", **said, **more}
    other = submission_of(body, context, KEY, path)
    own, theirs = by_text.request.model_dump(), other.request.model_dump()
    beside = {"mode", "inputs"} if more else set()
    assert {name: own[name] for name in own if name not in beside} == {
        name: theirs[name] for name in theirs if name not in beside
    }
    assert set(by_text.request.inputs) <= set(other.request.inputs)
    assert (by_text.clip_format, by_text.constraints) == (other.clip_format, other.constraints)
    plain = submission_of({"model": "auto", "promptText": "x"}, context, KEY, TextToVideo)
    assert field == "audio" or (plain.request, plain.clip_format, plain.constraints) != (
        by_text.request,
        by_text.clip_format,
        by_text.constraints,
    )


@pytest.mark.parametrize("body", CREATES)
def test_no_create_lacks_a_field_of_another_without_saying_what_to_say_instead(body: type[Wire]) -> None:
    fields = {str(field.alias) for other in (*CREATES, Own) for field in other.model_fields.values()}
    own = {str(field.alias) for field in body.model_fields.values()}
    assert fields - own <= set(getattr(body, "unsupported", {}))


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"camera": [{"atSeconds": -1}]}, ("input", "camera", 0, "atSeconds")),
        ({"numFrames": 17, "duration": 2}, ("input", "numFrames")),
        ({"prompts": [{"fromSeconds": 1, "text": "x"}]}, ("input", "prompts", 0, "fromSeconds")),
        ({"finish": [{"upscale": 0.5}]}, ("input", "finish", 0)),
        ({"prompts": [{"fromSeconds": 0, "template": "nobody"}]}, ("input", "prompts", 0, "template")),
        ({"inputs": [{"role": "mask"}]}, ("input", "inputs", 0)),
        ({"ratio": "16:9"}, ("input", "ratio")),
        ({"priority": 3}, ("input", "priority")),
    ],
)
def test_what_is_wrong_in_a_router_s_input_is_told_where_it_stands(
    context: Context, given: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    context = replace(context, templates=read_templates())
    body = {"configId": "any", "input": {"promptText": "x", **given}}
    assert path in [found for _, found in refused(context, body, GenerateVideo)]


def test_what_belongs_into_a_router_s_input_is_not_taken_beside_it(context: Context) -> None:
    body = {"configId": "any", "input": {"promptText": "x"}, "samples": 2, "camera": []}
    assert refused(context, body, GenerateVideo) == [("unsupported", ("samples",)), ("unsupported", ("camera",))]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"edit": {"speed": 2}}, ("input", "edit")),
        ({"camera": [{"atSeconds": 1, "pan": 10}]}, ("input", "camera")),
        ({"audio": True}, ("input", "audio")),
        ({"finish": [{"upscale": 2, "by": "nobody"}]}, ("input", "finish", 0, "by")),
        ({"loras": [{"source": "owner/else"}]}, ("input", "loras", 0, "source")),
        ({"inputs": [{"role": "mask", "image": "https://example.com/a.png"}]}, ("input", "inputs", 0, "role")),
    ],
)
def test_what_would_have_no_effect_is_refused_of_a_router_too(
    context: Context, given: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    body = {"configId": "any", "input": {"promptText": "x", **given}}
    with pytest.raises(WireError) as caught:
        submission_of(body, context, KEY, GenerateVideo).consider(context.admission)
    assert path in [one.path for one in caught.value.issues]


def test_the_field_that_named_the_media_is_the_field_that_is_refused(context: Context) -> None:
    for given, path in (
        ({**TEXT, "promptImage": "https://bad"}, ("promptImage",)),
        ({**TEXT, "videoUri": "https://bad"}, ("videoUri",)),
        ({**TEXT, "promptVideo": "https://bad"}, ("promptVideo",)),
    ):
        submission = submission_of(given, context, KEY)
        with pytest.raises(WireError) as caught:
            asyncio.run(submission.with_media_taken(context.intake))
        assert [(one.code, one.path) for one in caught.value.issues] == [("asset_invalid", path)]


def test_media_are_taken_for_who_submits_and_then_stand_in_the_request(context: Context) -> None:
    taken = asyncio.run(submission_of(VIDEO, context, KEY).with_media_taken(context.intake))
    assert taken.mode is Mode.VIDEO_TO_VIDEO
    assert taken.request.inputs == (Input(role=Role.SOURCE, video="s3://bucket/inputs/video", strength=0.5),)
    assert taken.decide(context, "batch", "b")[0].request == taken.request


@pytest.mark.parametrize(
    "given", [{**TEXT, "webhookUrl": "https://127.0.0.1/x"}, {**IMAGE, "webhookUrl": "https://[::1]/"}]
)
def test_a_webhook_that_may_not_be_called_is_refused_wherever_it_is_named(
    context: Context, given: dict[str, Any]
) -> None:
    assert refused(context, given) == [("webhook_url", ("webhookUrl",))]
    routed = {"configId": "any", "input": {"promptText": "x"}, "webhookUrl": given["webhookUrl"]}
    assert refused(context, routed, GenerateVideo) == [("webhook_url", ("webhookUrl",))]


def test_what_a_body_accepts_no_other_does(context: Context) -> None:
    assert refused(context, {**TEXT, "mode": "text_to_video"}, TextToVideo) == [("unrecognized_key", ("mode",))]
    assert refused(context, {**TEXT, "configId": "any"}) == [("unrecognized_key", ("configId",))]
    assert refused(context, {**TEXT, "mode": "audio"}) == [("invalid", ("mode",))]
    assert refused(context, [TEXT]) == refused(context, [TEXT], TextToVideo) == [("model_type", ())]


def test_admission_refuses_in_the_names_of_the_body(context: Context) -> None:
    def refusal(submission: Submission) -> SubmissionRefusedError:
        with pytest.raises(SubmissionRefusedError) as caught:
            submission.consider(context.admission)
        return caught.value

    late = {"deadline": 0.001, "fallback": False}
    assert [one.path for one in refusal(submission_of({**TEXT, **late}, context, KEY)).issues] == [("deadline",)]
    routed = {"configId": "any", "input": {"promptText": "x"}, "allowModels": ["mochi"]}
    error = refusal(submission_of(routed, context, KEY, GenerateVideo))
    assert [one.path for one in error.issues] == [("configId",)]
    assert error.choice.story.emptied_by
    with pytest.raises(WireError) as caught:
        submission_of({**TEXT, "model": "shaped"}, context, KEY).consider(context.admission)
    assert [one.path for one in caught.value.issues] == [("model",)]


def test_an_offer_is_that_of_the_key_s_next_turn(context: Context) -> None:
    """Whoever has many tasks waiting is offered a later end than whoever has none."""
    admission = context.admission
    for seq in range(1, 21):
        (task,) = submission_of(TEXT, context, KEY).decide(context, "text_to_video")
        admission.accepted([stored(task, seq, NOW)])
    own = submission_of(TEXT, context, KEY).consider(admission)
    other = submission_of(TEXT, context, ApiKey("key-b", "b", NOW)).consider(admission)
    assert other.offer.eta_at < own.offer.eta_at


TURNS = [{"fromSeconds": 0, "text": "a red circle"}, {"fromSeconds": 2, "text": "a blue square"}]


@pytest.fixture
def long_context(context: Context) -> Context:
    """Where `tiny-random` takes several prompts."""
    catalog = load_catalog(CATALOG)
    tiny = catalog["tiny-random"]
    chunks = Chunks(frames=tiny.shape.native[0][2], max_s=30)
    variants = {**catalog.variants, tiny.name: tiny.model_copy(update={"chunks": chunks})}
    served = Catalog(variants=variants)
    return replace(context, catalog=served, admission=Admission(context.config, served, None, lambda: NOW))


def test_several_prompts_are_a_task_of_several_calls_whichever_way_they_come(long_context: Context) -> None:
    body = {"model": "tiny-random", "prompts": TURNS, "duration": 6, "seed": 1}
    (task,) = submission_of(body, long_context, KEY, TextToVideo).decide(long_context, "text_to_video")
    assert (task.group.turns, task.group.frames) == ((16,), 49)
    assert task.group.chunks is not None
    stored_task = StoredTask.model_validate({**task.model_dump(), "seq": 1, "status": "PENDING", "created_at": NOW})
    assert as_rendered(stored_task).prompts == ("a red circle", "a blue square")
    assert prompts_shown(task.request)["prompts"] == [
        {**one, "fromSeconds": float(one["fromSeconds"])} for one in TURNS
    ]  # type: ignore[arg-type]
    assert submission_of({**body, "mode": "text_to_video"}, long_context, KEY).request == task.request
    # What is said beside them holds throughout; longer clips cost more.
    (plain,) = submission_of({**TEXT, "model": "tiny-random", "duration": 2}, long_context, KEY).decide(
        long_context, ""
    )
    assert task.offer.gpu_s > 2 * plain.offer.gpu_s
    beside = submission_of({**body, "promptText": "on black,"}, long_context, KEY, TextToVideo)
    assert beside.request.told.texts == ("on black, a red circle", "on black, a blue square")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompts": [{"fromSeconds": 1, "text": "a"}]}, ("range", ("prompts", 0, "fromSeconds"))),
        ({"prompts": [*TURNS, {"fromSeconds": 1, "text": "a"}]}, ("order", ("prompts", 2, "fromSeconds"))),
        ({"prompts": [{"text": "a"}]}, ("required", ("prompts", 0, "fromSeconds"))),
        ({"prompts": [{**TURNS[0], "until": 3}]}, ("unrecognized_key", ("prompts", 0, "until"))),
        ({"prompts": "a"}, ("tuple_type", ("prompts",))),
        ({"prompts": []}, ("required", ("promptText",))),
        ({"prompts": [{"fromSeconds": 0, "template": "none"}]}, ("unknown", ("prompts", 0, "template"))),
        ({"promptText": "x" * 995}, ("too_big", ("prompts", 0, "text"))),
    ],
)
def test_wrong_prompts_are_refused_at_the_client_s_fields(context: Context, changes: Any, told: Any) -> None:
    assert refused(context, {"model": "tiny-random", "prompts": TURNS, **changes}, TextToVideo) == [told]


def test_a_variant_of_one_prompt_refuses_several_with_those_that_take_them(long_context: Context) -> None:
    submission = submission_of({"model": "shapes", "prompts": TURNS, "duration": 4}, long_context, KEY, TextToVideo)
    with pytest.raises(WireError) as caught:
        submission.consider(long_context.admission)
    (wrong,) = caught.value.issues
    assert (wrong.path, wrong.choices) == (("prompts",), ("tiny-random",))
    after = submission_of({"model": "tiny-random", "prompts": TURNS, "duration": 1}, long_context, KEY, TextToVideo)
    with pytest.raises(WireError) as caught:
        after.consider(long_context.admission)
    assert caught.value.issues[0].path == ("prompts", 1, "fromSeconds")


def test_each_prompt_is_moderated_and_the_negative_one_once(context: Context) -> None:
    class Listening:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str]] = []

        def texts(self, prompts: Any, _how: Any, negatives: Any) -> list[Moderation]:
            self.asked += zip(prompts, negatives, strict=True)
            return [Moderation()] * len(prompts)

    listening: Any = Listening()
    body = {"model": "tiny-random", "prompts": TURNS, "negativePrompt": "gray"}
    moderated([submission_of(body, context, KEY)], replace(context, moderator=listening))
    assert listening.asked == [("a red circle", "gray"), ("a blue square", "")]

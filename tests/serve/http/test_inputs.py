"""What Runway's unmodified client says of images and videos, and what our own `inputs` say besides."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from runwayml import BadRequestError, RunwayML

from schemas.conditions import Condition
from schemas.extract import Extraction
from schemas.inputs import Kind, Role
from serve.config import Pools
from tests.pipelines.catalogs import directed
from tests.serve.http.conftest import strict
from tests.serve.http.endpoint import Endpoint, KeptIntake, endpoint

A, B, C, CLIP = (f"https://example.com/{name}" for name in ("a.png", "b.png", "c.png", "clip.mp4"))


class NamingIntake(KeptIntake):
    """Takes everything, each by its own name."""

    async def take(self, uri: str, kind: str, key: Any, path: Any) -> str:
        await super().take(uri, kind, key, path)
        return f"s3://bucket/{uri.rpartition('/')[2]}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    pools = Pools(variants=("small", "vace", "frames", "ends"))
    with endpoint(tmp_path_factory.mktemp("inputs"), directed(), NamingIntake(), pools=pools) as running:
        yield running


@pytest.fixture
def http(served: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.secret}"}, timeout=30) as client:
        yield client


@pytest.fixture
def client(served: Endpoint) -> Iterator[RunwayML]:
    with strict(served) as client:
        yield client


Told = list[tuple[Role, int | None, str]]


def told(served: Endpoint, task_id: str) -> tuple[str, Told]:
    """(the variant, each condition's role, frame and media) of a task."""
    task = served.store.tasks.get(task_id)
    assert task is not None
    given = zip(task.group.conditions, task.request.all_inputs, strict=True)
    return task.group.variant, [(c.role, c.frame, one.input.uri.rpartition("/")[2]) for c, one in given]


def test_a_list_of_images_has_a_first_and_a_last_frame_and_references(served: Endpoint, client: RunwayML) -> None:
    images: Any = [{"uri": A, "position": "first"}, {"uri": B, "position": "last"}]
    common: dict[str, Any] = {"prompt_text": "x", "ratio": "1280:720", "duration": 2}
    made = client.image_to_video.create(model="ends", prompt_image=images, **common)  # type: ignore[call-overload]
    assert told(served, made.id) == ("ends", [(Role.FIRST_FRAME, 0, "a.png"), (Role.LAST_FRAME, 16, "b.png")])
    with_reference: Any = [images[0], {"uri": C}]
    made = client.image_to_video.create(  # type: ignore[call-overload]
        model="vace", prompt_image=with_reference, **common
    )
    assert told(served, made.id) == ("vace", [(Role.FIRST_FRAME, 0, "a.png"), (Role.REFERENCE, None, "c.png")])


@pytest.mark.parametrize("references", [[{"uri": A}, {"uri": B}], A])
def test_references_beside_text(served: Endpoint, client: RunwayML, references: Any) -> None:
    made = client.text_to_video.create(  # type: ignore[call-overload]
        model="vace", prompt_text="x", ratio="1280:720", duration=2, references=references
    )
    variant, inputs = told(served, made.id)
    assert variant == "vace"
    assert inputs[0] == (Role.REFERENCE, None, "a.png")
    assert {role for role, _, _ in inputs} == {Role.REFERENCE}


def test_keyframes_beside_a_video(served: Endpoint, client: RunwayML) -> None:
    made = client.video_to_video.create(  # type: ignore[call-overload]
        model="vace",
        prompt_text="in winter",
        video_uri=CLIP,
        keyframes=[{"seconds": 1.0, "uri": A}, {"at": 1.0, "uri": B}],
        references=[{"uri": C}],
    )
    assert told(served, made.id) == (
        "vace",
        [
            (Role.SOURCE, None, "clip.mp4"),
            (Role.KEYFRAME, 8, "a.png"),
            (Role.KEYFRAME, 16, "b.png"),
            (Role.REFERENCE, None, "c.png"),
        ],
    )


def test_a_router_goes_by_what_is_put_in(served: Endpoint, client: RunwayML) -> None:
    client.routers.create(slug="any", name="any", settings={"optimizeFor": "cost"})  # type: ignore[arg-type]

    def routed(**fields: Any) -> tuple[str, Told]:
        made = client.generate.video.create(config_id="any", input={"prompt_text": "x", "duration": 2, **fields})
        return told(served, made.id)

    assert routed(reference_images=[{"role": "first", "uri": A}])[0] == "small"
    last = routed(reference_images=[{"role": "last", "uri": A}])
    assert last[1] == [(Role.LAST_FRAME, 16, "a.png")]
    assert last[0] in ("vace", "frames")
    assert routed(reference_images=[{"role": "reference", "uri": A}])[0] == "vace"
    both = routed(
        reference_videos=[{"role": "source", "uri": CLIP}],
        keyframes=[{"seconds": 0.5, "uri": A}],
        reference_images=[{"role": "reference", "uri": B}],
    )
    assert both == (
        "vace",
        [(Role.SOURCE, None, "clip.mp4"), (Role.REFERENCE, None, "b.png"), (Role.KEYFRAME, 4, "a.png")],
    )


CAMERA = [{"atSeconds": 1.0, "pan": 10}]


def test_a_router_heeds_what_the_creates_do(served: Endpoint, client: RunwayML) -> None:
    """Runway's client passes on what stands in `input`, whatever it is called."""
    client.routers.create(slug="own", settings={"optimize_for": "cost"})

    def routed(**fields: Any) -> Any:
        given: Any = {"prompt_text": "x", "duration": 2, **fields}
        return client.generate.video.create(config_id="own", input=given)

    plain, moved = routed(), routed(camera=CAMERA, reference_images=[{"role": "first", "uri": A}])
    assert (plain.routing.model, moved.routing.model) == ("small", "vace")
    task = served.store.tasks.get(moved.id)
    assert task is not None
    assert [(key.at_s, key.pan) for key in task.group.camera] == [(0.0, 0.0), (1.0, 10.0)]
    three = routed(samples=3, finish=[{"upscale": 2}, {"interpolate": 16}], outputFormat="webm")
    tasks = [served.store.tasks.get(one["id"]) for one in three.samples]
    assert [task.group.clip_fps for task in tasks if task] == [16.0] * 3
    assert {task.group.clip_format for task in tasks if task} == {"webm"}
    assert len({task.seed for task in tasks if task}) == 3
    assert three.routing.estimated_cost.credits == three.estimatedCost["credits"] > 0


def test_a_router_s_log_says_who_cannot_follow(served: Endpoint, client: RunwayML) -> None:
    models: Any = {"mode": "allowlist_only", "ids": ["small", "ends"]}
    router = client.routers.create(slug="unable", settings={"models": models})
    given: Any = {"prompt_text": "x", "camera": CAMERA, "reference_images": [{"role": "first", "uri": A}]}
    with pytest.raises(BadRequestError) as caught:
        client.generate.video.create(config_id=router.slug, input=given)
    body: Any = caught.value.body
    assert body["emptiedBy"] == ["allow_deny"]
    (entry,) = client.routers.list_requests(router.id, limit=1)
    capability: Any = entry.pipeline[0]
    assert set(capability.models).isdisjoint({"small", "ends"})
    client.routers.update(router.id, settings={"models": {"mode": "allowlist_only", "ids": ["small", "vace"]}})
    assert client.generate.video.create(config_id=router.slug, input=given).routing.model == "vace"


def test_a_router_s_cap_is_of_each_sample_and_a_request_s_own_of_all(client: RunwayML, http: httpx.Client) -> None:
    router = client.routers.create(slug="samples")
    given: Any = {"promptText": "x", "duration": 2, "numInferenceSteps": 1000}
    one = int(client.generate.video.create(config_id="samples", input=given).routing.estimated_cost.credits)
    assert one > 1, "so that three cost more than the cap of one"
    client.routers.update(router.id, settings={"max_credits_per_generation": {"video": one}})
    three = {**given, "samples": 3}
    made = client.generate.video.create(config_id="samples", input=three)
    assert made.routing.estimated_cost.credits == 3 * one
    limited = {"configId": "samples", "input": three, "maxCredits": 3 * one}
    said = http.post("/v1/estimates", json=limited).json()
    assert said["estimatedCost"]["credits"] == 3 * one
    two = 200 * said["estimatedCost"]["usd"] / 3
    assert http.post("/v1/generate/video", json={**limited, "maxCredits": two}).status_code == 400


def test_our_own_inputs_say_what_runway_s_fields_cannot(served: Endpoint, http: httpx.Client) -> None:
    body = {
        "model": "vace",
        "promptText": "x",
        "videoUri": CLIP,
        "inputs": [
            {"role": "mask", "image": A},
            {"role": "structure", "kind": "edges", "video": CLIP, "strength": 0.5},
            {"role": "keyframe", "image": B, "atSeconds": 1.5},
        ],
    }
    made = http.post("/v1/video_to_video", json=body).json()
    task = served.store.tasks.get(made["id"])
    assert task is not None
    assert task.group.conditions == (
        Condition(role=Role.MASK, medium="image"),
        Condition(role=Role.STRUCTURE, medium="video", kind=Kind.EDGES, strength=0.5),
        Condition(role=Role.KEYFRAME, medium="image", frame=12),
        Condition(role=Role.SOURCE, medium="video"),
    )
    alone = {"model": "auto", "promptText": "x", "inputs": [{"role": "structure", "kind": "depth", "image": A}]}
    made = http.post("/v1/text_to_video", json=alone).json()
    assert told(served, made["id"]) == ("vace", [(Role.STRUCTURE, None, "a.png")])


FIRST = {"model": "small", "promptText": "x"}
REFUSED: list[tuple[str, dict[str, Any], str, list[str | int], str, list[str]]] = [
    (
        "image_to_video",
        {**FIRST, "promptImage": [{"uri": A, "position": "first"}, {"uri": B, "position": "last"}]},
        "role",
        ["promptImage", 1, "position"],
        "small takes no last_frame; vace does",
        ["vace", "frames", "ends"],
    ),
    (
        "text_to_video",
        {**FIRST, "references": [{"uri": A}]},
        "role",
        ["references", 0, "position"],
        "vace does",
        ["vace"],
    ),
    (
        "video_to_video",
        {**FIRST, "model": "vace", "videoUri": CLIP, "keyframes": [{"seconds": 9, "uri": A}]},
        "range",
        ["keyframes", 0],
        "after the end: the clip's last is 2.000 s",
        [],
    ),
    (
        "video_to_video",
        {
            **FIRST,
            "videoUri": CLIP,
            "keyframes": [{"seconds": 1, "uri": A, "range": {"startSeconds": 0, "endSeconds": 2}}],
        },
        "unsupported",
        ["keyframes", 0, "range"],
        "limits an edit",
        [],
    ),
    (
        "video_to_video",
        {**FIRST, "videoUri": CLIP, "keyframes": [{"uri": A}]},
        "invalid",
        ["keyframes", 0],
        "seconds",
        [],
    ),
    (
        "video_to_video",
        {**FIRST, "model": "vace", "videoUri": CLIP, "strength": 0.5},
        "not_taken",
        ["strength"],
        "takes no strength of a source",
        [],
    ),
    (
        "text_to_video",
        {**FIRST, "inputs": [{"role": "keyframe", "image": A, "atSeconds": 1, "atFrame": 2}]},
        "value_error",
        ["inputs", 0],
        "its place",
        [],
    ),
    (
        "text_to_video",
        {**FIRST, "model": "frames", "inputs": [{"role": "keyframe", "image": A, "atSeconds": 5}]},
        "range",
        ["inputs", 0, "atSeconds"],
        "after the end",
        [],
    ),
    (
        "text_to_video",
        {**FIRST, "inputs": [{"role": "first", "image": A}]},
        "enum",
        ["inputs", 0, "role"],
        "first_frame",
        ["first_frame", "last_frame"],
    ),
    (
        "text_to_video",
        {**FIRST, "inputs": [{"role": "mask", "image": A}]},
        "missing",
        ["inputs", 0, "role"],
        "there is no source",
        [],
    ),
    (
        "image_to_video",
        {**FIRST, "promptImage": [{"uri": A, "position": "first"}, {"uri": "https://bad", "position": "first"}]},
        "twice",
        ["promptImage", 1, "position"],
        "a second first_frame",
        [],
    ),
    (
        "image_to_video",
        {
            **FIRST,
            "model": "ends",
            "promptImage": [{"uri": A, "position": "first"}, {"uri": "https://bad", "position": "last"}],
        },
        "asset_invalid",
        ["promptImage", 1, "uri"],
        "not an image",
        [],
    ),
]


@pytest.mark.parametrize(("path", "body", "code", "place", "message", "choices"), REFUSED)
def test_what_cannot_be_is_refused_at_its_place_with_the_choices(
    http: httpx.Client,
    served: Endpoint,
    path: str,
    body: dict[str, Any],
    code: str,
    place: list[str | int],
    message: str,
    choices: list[str],
) -> None:
    before = served.store.tasks.recent(1)
    answer = http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400, answer.text
    issue = answer.json()["issues"][0]
    assert (issue["code"], issue["path"]) == (code, place)
    assert message in issue["message"]
    assert issue.get("choices", [])[: len(choices)] == choices
    assert served.store.tasks.recent(1) == before


def test_runway_s_client_is_told_which_image_was_refused(client: RunwayML) -> None:
    images: Any = [{"uri": A, "position": "last"}]
    with pytest.raises(BadRequestError) as caught:
        client.image_to_video.create(  # type: ignore[call-overload]
            model="small", prompt_image=images, prompt_text="x", ratio="1280:720", duration=2
        )
    body: Any = caught.value.body
    assert body["issues"][0]["path"] == ["promptImage", 0, "position"]


def test_variants_tell_what_they_take(http: httpx.Client) -> None:
    by_name = {one["name"]: one for one in http.get("/v1/variants").json()["variants"]}
    assert by_name["small"]["inputs"] == [{"role": "first_frame"}]
    assert by_name["frames"]["inputs"] == [{"role": role} for role in ("first_frame", "last_frame", "keyframe")]
    assert {"role": "structure", "kinds": ["depth", "edges"]} in by_name["vace"]["inputs"]


def test_a_structure_may_be_found_in_a_plain_video(served: Endpoint, http: httpx.Client) -> None:
    extractors = http.get("/v1/variants").json()["extractors"]
    assert extractors == [
        {"name": "canny", "title": "OpenCV's Canny edges, white on black", "kind": "edges", "method": "canny"}
    ]
    given = {"role": "structure", "kind": "edges", "video": CLIP, "extract": True}
    answer = http.post("/v1/text_to_video", json={"model": "vace", "promptText": "x", "inputs": [given]})
    task = served.store.tasks.get(answer.json()["id"])
    assert task is not None
    assert task.group.conditions[0].extract == Extraction(method="canny")
    unknown = {**given, "extract": "sobel"}
    refused = http.post("/v1/text_to_video", json={"model": "vace", "promptText": "x", "inputs": [unknown]})
    assert refused.status_code == 400
    (issue,) = refused.json()["issues"]
    assert issue["path"] == ["inputs", 0, "extract"]
    assert "'sobel' finds no edges" in issue["message"]
    assert issue["choices"] == ["canny"]


def test_media_of_waiting_tasks_are_in_use_whatever_they_are_for(served: Endpoint, http: httpx.Client) -> None:
    body = {
        **FIRST,
        "model": "ends",
        "promptImage": [{"uri": f"{A}1", "position": "first"}, {"uri": f"{B}2", "position": "last"}],
    }
    assert http.post("/v1/image_to_video", json=body).status_code == 200
    assert {"s3://bucket/a.png1", "s3://bucket/b.png2"} <= served.store.tasks.media_in_use()

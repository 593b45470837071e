"""What is done to clips, and several samples of one request, as Runway's client and plain HTTP say them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from runwayml import BadRequestError, RunwayML

from schemas.catalog import Catalog
from serve.config import Pools
from tests.pipelines.catalogs import two_variants
from tests.serve.http.conftest import strict
from tests.serve.http.endpoint import Endpoint, KeptIntake, endpoint

BODY = {"model": "small", "promptText": "a fox", "duration": 2, "seed": 7}


def priced() -> Catalog:
    """Lanczos costs a dollar a second."""
    catalog = two_variants()
    lanczos = catalog.finishers["lanczos"].model_copy(update={"price_usd_per_hour": 3600.0, "s_per_megapixel": 1.0})
    return catalog.model_copy(update={"finishers": {**catalog.finishers, "lanczos": lanczos}})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    pools = Pools(variants=("small", "swift"))
    folder = tmp_path_factory.mktemp("finish")
    with endpoint(folder, priced(), KeptIntake(), pools=pools, fit_sizes="crop", loras=("/loras/",)) as running:
        yield running


@pytest.fixture
def http(served: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.secret}"}, timeout=30) as client:
        yield client


@pytest.fixture
def client(served: Endpoint) -> Iterator[RunwayML]:
    with strict(served) as client:
        yield client


def made(http: httpx.Client, path: str = "/v1/text_to_video", **more: Any) -> dict[str, Any]:
    answer = http.post(path, json={**BODY, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_clients_learn_who_finishes_clips_and_not_where_weights_lie(http: httpx.Client) -> None:
    finishers = {one["name"]: one for one in http.get("/v1/variants").json()["finishers"]}
    assert finishers["lanczos"] == {
        "name": "lanczos",
        "title": "FFmpeg's scaler, Lanczos",
        "operations": ["upscale", "fit"],
        "method": "lanczos",
        "secondsPerMegapixel": 1.0,
        "priceUsdPerHour": 3600.0,
    }
    assert finishers["motion"]["operations"] == ["interpolate"]


def test_the_steps_of_a_request_are_the_stages_of_its_task(served: Endpoint, http: httpx.Client) -> None:
    answer = made(http, ratio="96:64", finish=[{"interpolate": 24, "by": "motion"}, {"upscale": 2}])
    assert answer["rendered"]["finish"] == ["interpolate to 24 fps by motion", "upscale to 192x128 by lanczos"]
    assert answer["rendered"]["clip"] == {"width": 192, "height": 128, "frames": 51, "fps": 24.0}
    assert (answer["rendered"]["width"], answer["rendered"]["frames"]) == (96, 17)
    task = served.store.tasks.get(answer["id"])
    assert task is not None
    assert [stage.told for stage in task.group.finish] == answer["rendered"]["finish"]


def test_a_window_moves_through_a_clip_that_is_rendered_larger(served: Endpoint, http: httpx.Client) -> None:
    answer = made(http, ratio="112:112", finish=[{"reframe": [{"atSeconds": 2, "pan": 5}]}])
    assert answer["rendered"]["finish"] == ["reframe to 112x112 by window"]
    assert (answer["rendered"]["width"], answer["rendered"]["clip"]["width"]) == (128, 112)
    task = served.store.tasks.get(answer["id"])
    assert task is not None
    assert [(key.at_s, key.pan) for key in task.group.finish[0].camera] == [(0.0, 0.0), (2.0, 5.0)]


def test_runway_s_client_gets_the_size_that_it_asks_for_where_sizes_are_fitted(
    served: Endpoint, client: RunwayML
) -> None:
    answer = client.text_to_video.create(model="small", prompt_text="x", ratio="1280:720", duration=2)  # type: ignore[call-overload]
    task = served.store.tasks.get(answer.id)
    assert task is not None
    assert (task.group.width, task.group.height) == (80, 48)
    assert (task.group.clip_shape.width, task.group.clip_shape.height) == (1280, 720)


def test_what_is_done_to_the_clip_is_in_its_price(http: httpx.Client) -> None:
    plain = made(http, ratio="96:64")
    large = made(http, ratio="96:64", finish=[{"upscale": 2}])
    seconds = 192 * 128 * 17 / 1e6
    assert large["quote"]["usd"] - plain["quote"]["usd"] == pytest.approx(seconds, rel=0.05)
    limited = http.post("/v1/text_to_video", json={**BODY, "ratio": "96:64", "finish": [{"upscale": 2}],
                                                   "maxCredits": 10})  # fmt: skip
    assert limited.status_code == 400
    assert [one["path"] for one in limited.json()["issues"]] == [["maxCredits"]]


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"interpolate": 4}, ["finish", 0, "interpolate"]),
        ({"upscale": 0.5}, ["finish", 0]),
        ({"upscale": 2, "by": "magic"}, ["finish", 0, "by"]),
        ({"fit": "squash", "size": "64:64"}, ["finish", 0, "fit"]),
        ({"sharpen": 2}, ["finish", 0, "sharpen"]),
        ({"reframe": [{"atSeconds": 1, "pan": 25}]}, ["finish", 0, "reframe"]),
        ({"reframe": [{"atSeconds": 1, "spin": 25}]}, ["finish", 0, "reframe", 0, "spin"]),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(
    http: httpx.Client, step: dict[str, Any], path: list[Any]
) -> None:
    answer = http.post("/v1/text_to_video", json={**BODY, "finish": [step]})
    assert answer.status_code == 400
    assert path in [one["path"] for one in answer.json()["issues"]], answer.text


def test_samples_are_tasks_with_seeds_of_their_own(served: Endpoint, http: httpx.Client) -> None:
    one, three = made(http), made(http, samples=3)
    assert "samples" not in one
    told = three["samples"]
    assert (told[0]["id"], told[0]["seed"]) == (three["id"], 7)
    assert len({sample["seed"] for sample in told}) == len({sample["id"] for sample in told}) == 3
    tasks = [served.store.tasks.get(sample["id"]) for sample in told]
    assert [task.seed for task in tasks if task] == [sample["seed"] for sample in told]
    assert len({task.group.key for task in tasks if task}) == 1, "one group, and so one model call"
    assert three["estimatedCost"]["usd"] == pytest.approx(3 * one["estimatedCost"]["usd"])
    more = made(http, samples=4)
    assert [sample["seed"] for sample in more["samples"]][:3] == [sample["seed"] for sample in told]


def test_samples_of_a_batch_s_row_and_of_an_estimate_count(http: httpx.Client) -> None:
    answer = http.post("/v1/batches", json={"tasks": [{**BODY, "samples": 3}, BODY]})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["taskIds"]) == 4
    one, five = (http.post("/v1/estimates", json={**BODY, "samples": count}).json() for count in (1, 5))
    assert five["estimatedCost"]["usd"] == pytest.approx(5 * one["estimatedCost"]["usd"])


def test_a_replayed_request_tells_of_the_same_samples(http: httpx.Client) -> None:
    twice = [
        http.post("/v1/text_to_video", json={**BODY, "samples": 2}, headers={"Idempotency-Key": "k"}).json()
        for _ in range(2)
    ]
    assert twice[0]["samples"] == twice[1]["samples"]


@pytest.mark.parametrize("samples", [0, 65, 1.5])
def test_no_number_of_samples_is_refused(client: RunwayML, samples: float) -> None:
    with pytest.raises(BadRequestError, match="samples"):
        client.text_to_video.create(  # type: ignore[call-overload]
            model="small", prompt_text="x", ratio="1280:720", extra_body={"samples": samples}
        )


def test_loras_come_from_where_the_endpoint_takes_them(served: Endpoint, http: httpx.Client) -> None:
    answer = made(http, loras=[{"source": "/loras/ink", "weight": 0.5}])
    task = served.store.tasks.get(answer["id"])
    assert task is not None
    assert [(lora.source, lora.weight) for lora in task.group.loras] == [("/loras/ink", 0.5)]
    told = http.get("/v1/variants").json()
    assert told["loraSources"] == ["/loras/"]
    assert {one["name"]: one["loras"] for one in told["variants"]} == {
        "small": ["text_to_video", "image_to_video"],
        "swift": ["text_to_video"],
    }
    refused = http.post("/v1/text_to_video", json={**BODY, "loras": [{"source": "owner/else"}]})
    assert refused.status_code == 400
    (issue,) = refused.json()["issues"]
    assert (issue["path"], issue["choices"]) == (["loras", 0, "source"], ["/loras/"])

"""What a model would be shown of a create, drawn before anything is rendered."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from serve.config import Pools
from tests.serve.http.endpoint import Endpoint, OwnIntake, catalog_with, endpoint

WIDTH, HEIGHT = 128, 128


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    pools = Pools(variants=("embedded", "directed"))
    told = ("first_frame", "source", "mask", "structure:boxes", "camera", "paths")
    catalog = catalog_with(directed={"conditions": told})
    with endpoint(tmp_path_factory.mktemp("guides"), catalog, OwnIntake(), pools=pools) as running:
        yield running


@pytest.fixture
def http(served: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.secret}"}, timeout=60) as client:
        yield client


def picture() -> str:
    """A red square on blue, left of the middle, as a data URI."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (30, 40, 200))
    image.paste((220, 30, 30), (20, 44, 60, 84))
    written = io.BytesIO()
    image.save(written, "PNG")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


def drawn(answer: httpx.Response) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(what is shown, where it is made anew), both (frames, height, width, 3)."""
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["guide"].removeprefix("data:video/mp4;base64,"))
    with av.open(io.BytesIO(data)) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    half = frames.shape[2] // 2
    return frames[:, :, :half], frames[:, :, half:]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "directed", "promptText": "a red square", "ratio": "128:128", "duration": 2, **more}


def test_a_camera_moves_what_is_shown_of_the_first_frame(served: Endpoint, http: httpx.Client) -> None:
    camera = [{"atSeconds": 0}, {"atSeconds": 2, "truck": 0.3}]
    shown, anew = drawn(http.post("/v1/guides", json=body(promptImage=picture(), camera=camera)))
    reds = [np.nonzero(frame[64, :, 0] > 150)[0].mean() for frame in (shown[0], shown[-1])]
    assert reds[0] == pytest.approx(40, abs=3)
    assert reds[1] == pytest.approx(40 - 0.3 * WIDTH, abs=12), "a truck to the right moves the scene to the left"
    assert anew[0].mean() < 5, "the first frame is kept"
    assert anew[-1, :, -20:].mean() > 240, "what is uncovered is made anew"
    assert not served.store.tasks.recent(1), "nothing was asked for"


def test_a_path_is_drawn_as_a_dot_that_moves(http: httpx.Client) -> None:
    path = {"label": "red square", "box": [0.1, 0.4, 0.3, 0.6], "keys": [{"atSeconds": 2, "x": 0.8, "y": 0.5}]}
    shown, _ = drawn(http.post("/v1/guides", json=body(paths=[path])))
    bright = [np.nonzero(frame.max(axis=(0, 2)) > 128)[0] for frame in (shown[0], shown[-1])]
    assert bright[0].mean() == pytest.approx(0.2 * WIDTH, abs=4)
    assert bright[1].mean() == pytest.approx(0.8 * WIDTH, abs=6)
    models = {"mode": "allowlist_only", "ids": ["directed"]}
    http.post("/v1/routers", json={"slug": "any", "settings": {"models": models}})
    given = {"promptText": "a red square", "aspectRatio": "1:1", "duration": 2, "paths": [path]}
    routed, _ = drawn(http.post("/v1/guides", json={"configId": "any", "input": given}))
    np.testing.assert_array_equal(routed, shown)


def test_large_shots_are_drawn_small_and_in_their_proportion(http: httpx.Client, served: Endpoint) -> None:
    answer = http.post("/v1/guides", json=body(promptImage=picture(), ratio="192:108"))
    shown, _ = drawn(answer)
    made = answer.json()["rendered"]
    assert shown.shape[2] / shown.shape[1] == pytest.approx(made["width"] / made["height"], abs=0.05)
    assert len(shown) == made["frames"]


def test_a_prompt_alone_shows_nothing(http: httpx.Client) -> None:
    answer = http.post("/v1/guides", json=body())
    assert answer.status_code == 200
    assert answer.json()["guide"] is None
    assert answer.json()["variant"] == "directed"


def test_what_a_create_would_refuse_is_refused_with_the_choices(http: httpx.Client) -> None:
    camera = [{"atSeconds": 0}, {"atSeconds": 2, "truck": 0.3}]
    for wrong, field in (
        (body(camera=camera), "camera"),  # moves over a first frame, and there is none
        ({**body(promptImage=picture(), camera=camera, fallback=False), "model": "embedded"}, "camera"),
        (body(inputs=[{"role": "sky", "image": picture()}]), "inputs"),
        (body(promptImage="data:image/png;base64,AAAA"), "promptImage"),
    ):
        answer = http.post("/v1/guides", json=wrong)
        assert answer.status_code == 400, answer.text
        assert answer.json()["issues"][0]["path"][0] == field


def test_without_a_key_nothing_is_drawn(served: Endpoint) -> None:
    assert httpx.post(f"{served.url}/v1/guides", json=body()).status_code == 401


def test_a_guide_is_no_larger_than_it_needs_to_be() -> None:
    from serve.http.guides import LONGEST_SIDE, _small
    from tests.models.tiny_variants import T2V, group_of, tiny_variant

    group = group_of(tiny_variant("wan", Path("x")), T2V).model_copy(update={"width": 1280, "height": 720})
    small = _small(group)
    assert (small.width, small.height) == (LONGEST_SIDE, 216)
    assert (small.shape.width, small.shape.height) == (LONGEST_SIDE, 216)
    assert _small(small) == small

"""Cameras on a served variant that knows directions only: what clients are told of it, and what is refused."""

from collections.abc import Iterator

import httpx
import pytest

from serve.config import Pools
from tests.schemas.test_directions import CATALOG, END, WAYS
from tests.serve.http.endpoint import Endpoint, KeptIntake, endpoint


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    pools = Pools(variants=("ways", "free"))
    with endpoint(tmp_path_factory.mktemp("ways"), CATALOG, KeptIntake(), pools=pools) as running:
        yield running


def test_clients_are_told_the_directions_and_refused_what_has_more(served: Endpoint) -> None:
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.secret}"}, timeout=30) as http:
        told = {one["name"]: one for one in http.get("/v1/variants").json()["variants"]}
        assert {name: (one["motion"], one["cameraDirections"]) for name, one in told.items()} == {
            "ways": (["camera"], list(WAYS)),
            "free": (["camera"], []),
        }
        body = {"model": "ways", "promptText": "x", "duration": END}
        answer = http.post("/v1/text_to_video", json={**body, "camera": [{"atSeconds": END, "tilt": 5}]})
        assert answer.status_code == 400
        (issue,) = answer.json()["issues"]
        assert (issue["path"], issue["choices"]) == (["camera"], list(WAYS))
        assert issue["message"] == "tilt up is no way that it knows (on ways); free follows it"
        made = http.post("/v1/text_to_video", json={**body, "camera": [{"atSeconds": END, "pan": 5}]})
        assert made.status_code == 200, made.text
        task = served.store.tasks.get(made.json()["id"])
    assert task is not None
    assert [key.pan for key in task.group.camera] == [0, 5]

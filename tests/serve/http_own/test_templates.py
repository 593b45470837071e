"""Prompt templates over HTTP, and what an estimate says of a prompt."""

from typing import Any

import httpx
import pytest

from tests.serve.http.endpoint import Endpoint

SLOTS = {"subject": "a red circle", "direction": "left"}
BY_TEMPLATE = {"model": "shapes", "template": "motion", "slots": SLOTS}


def test_templates_are_listed_with_what_their_slots_want(client: httpx.Client) -> None:
    found = {one["name"]: one for one in client.get("/v1/templates").json()["templates"]}
    assert found["motion"]["slots"]["direction"]["choices"] == ["left", "right", "up", "down"]
    assert found["motion"]["slots"]["subject"]["required"] is True


def test_a_template_makes_the_prompt_of_the_task(client: httpx.Client, served: Endpoint) -> None:
    made = client.post("/v1/text_to_video", json=BY_TEMPLATE)
    assert made.status_code == 200, made.text
    task = served.store.tasks.get(made.json()["id"])
    assert task is not None
    assert task.request.prompt == "a red circle moving left"
    served.finish(task.id)
    batch = client.post("/v1/batches", json={"tasks": [{**BY_TEMPLATE, "mode": "text_to_video"}]})
    assert batch.status_code == 200, batch.text


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"promptText": "x"}, ["promptText"]),
        ({"template": None}, ["template"]),
        ({"template": "nothing"}, ["template"]),
        ({"slots": {"subject": "a", "direction": "in"}}, ["slots", "direction"]),
        ({"slots": {}}, ["slots", "subject"]),
        ({"slots": 3}, ["slots"]),
    ],
)
def test_a_wrong_template_is_refused_at_its_field(
    client: httpx.Client, changes: dict[str, Any], path: list[str]
) -> None:
    answer = client.post("/v1/text_to_video", json={**BY_TEMPLATE, **changes})
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == path


def test_an_estimate_shows_the_prompt_and_what_looks_like_a_mistake(client: httpx.Client) -> None:
    said = client.post("/v1/estimates", json=BY_TEMPLATE).json()
    assert (said["promptText"], said["findings"]) == ("a red circle moving left", [])
    said = client.post("/v1/estimates", json={"model": "shapes", "promptText": "a red circel, vertical video"}).json()
    found = {one["code"]: one for one in said["findings"]}
    assert set(found) == {"unknown_words", "contradiction"}
    assert found["unknown_words"]["path"] == ["promptText"]
    assert "'circle'" in found["unknown_words"]["suggestion"]

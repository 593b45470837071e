"""What a create would cost, when it would be done, by whom and why: before it is sent, and as it then is."""

from typing import Any

import httpx
import pytest

from tests.serve.http.endpoint import Endpoint, pool
from tests.serve.http_own.conftest import PRICES, fresh

TEXT = {"model": "auto", "promptText": "a red circle moving left"}


def estimate(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/estimates", json={**TEXT, **changes})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_an_estimate_says_all_that_the_create_then_does(client: httpx.Client, served: Endpoint) -> None:
    said = estimate(client, model="shapes", seed=1)
    made = client.post("/v1/text_to_video", json={**TEXT, "model": "shapes", "seed": 1}).json()
    assert said["routed"] is True
    assert said["estimatedCost"] == made["estimatedCost"]
    assert said["variant"] == made["variant"] == "shapes"
    assert said["rendered"] == made["rendered"]
    assert said["gpuSeconds"] == made["quote"]["gpuSeconds"]
    assert 0 < said["seconds"] <= said["secondsP90"]
    assert said["measured"] is True
    served.finish(made["id"])


def test_nothing_is_stored_or_fetched(client: httpx.Client, served: Endpoint) -> None:
    before = served.store.tasks.recent(100)
    taken = len(served.context.intake.taken)  # type: ignore[attr-defined]
    said = estimate(client, promptImage="https://example.com/first.png")
    assert said["routed"]
    estimate(client, model="tiny-random", videoUri="https://example.com/clip.mp4", mode="video_to_video")
    assert served.store.tasks.recent(100) == before
    assert len(served.context.intake.taken) == taken  # type: ignore[attr-defined]


def test_the_choice_follows_what_is_asked_for(client: httpx.Client) -> None:
    first = estimate(client)
    assert (first["reason"], first["variant"]) == ("best_latency", "shapes-turbo")
    assert "done first" in first["words"]
    cheap = estimate(client, optimizeFor="cost")
    best = estimate(client, optimizeFor="quality")
    assert cheap["reason"] == "lowest_cost"
    assert best["variant"] == "shapes"
    assert cheap["estimatedCost"]["usd"] <= first["estimatedCost"]["usd"]


def test_the_alternatives_have_a_price_and_a_time_each(client: httpx.Client) -> None:
    others = {one["variant"]: one for one in estimate(client)["alternatives"]}
    assert set(others) == set(PRICES)
    assert [name for name, one in others.items() if one["chosen"]] == ["shapes-turbo"]
    assert all(one["usd"] > 0 and one["seconds"] > 0 and one["withinLimits"] for one in others.values())


def test_the_story_says_who_was_dropped_and_why(client: httpx.Client) -> None:
    said = estimate(client, denyModels=["shapes-turbo"])
    assert any("shapes-turbo" in line for line in said["explanation"])
    assert said["explanation"][-1].startswith("chosen:")
    assert [step["type"] for step in said["steps"]][-2:] == ["capacity", "rank"]


def test_a_backlog_moves_the_choice_and_the_time(client: httpx.Client, served: Endpoint) -> None:
    idle = estimate(client, model="shapes")
    served.note(
        pool("shapes", price_usd_per_hour=3.6, queued=20, backlog_s=30.0),
        pool("shapes-turbo", price_usd_per_hour=7.2, queued=20, backlog_s=40.0),
    )
    busy = estimate(client, model="shapes")
    assert busy["seconds"] > idle["seconds"] + 20
    assert busy["queuePosition"] == 20
    assert estimate(client)["variant"] == "shapes"
    fresh(served)


def test_a_price_limit_that_nobody_keeps_is_an_answer_and_not_an_error(client: httpx.Client) -> None:
    said = estimate(client, maxCredits=0.0001)
    assert said["routed"] is False
    assert said["issues"][0]["path"] == ["maxCredits"]
    assert said["alternatives"]
    assert not any(one["withinLimits"] for one in said["alternatives"])


def test_a_deadline_that_cannot_be_kept_names_the_earliest(client: httpx.Client) -> None:
    said = estimate(client, deadline=0.01)
    assert (said["routed"], said["reason"]) == (False, "deadline_cannot_be_kept")
    assert said["earliestSeconds"] > 0
    assert "earliest" in said["words"]


def test_when_all_are_down_it_says_so(client: httpx.Client, served: Endpoint) -> None:
    served.note(*(pool(name, healthy=False, replicas=0) for name in PRICES))
    said = estimate(client)
    assert (said["routed"], said["reason"]) == (False, "no_healthy_pool")
    fresh(served)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"model": "nope", "promptText": "x"}, ["model"]),
        ({"model": "auto"}, ["promptText"]),
        ({"model": "auto", "promptText": "x", "durations": 3}, ["durations"]),
        ({"model": "auto", "promptText": "x", "mode": "text_to_song"}, ["mode"]),
        ({"configId": "no-such-router", "input": {"promptText": "x"}}, ["configId"]),
        ([1, 2], []),
    ],
)
def test_a_body_that_is_wrong_is_told_where(client: httpx.Client, body: Any, path: list[str]) -> None:
    answer = client.post("/v1/estimates", json=body)
    assert answer.status_code == 400
    assert path in [issue["path"] for issue in answer.json()["issues"]]


def test_a_saved_router_is_estimated_too(client: httpx.Client) -> None:
    made = client.post("/v1/routers", json={"slug": "cheap", "settings": {"optimizeFor": "quality"}})
    assert made.status_code in (200, 201), made.text
    answer = client.post("/v1/estimates", json={"configId": "cheap", "input": {"promptText": "a red circle"}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["variant"] == "shapes"


def test_it_takes_a_key(served: Endpoint) -> None:
    assert httpx.post(f"{served.url}/v1/estimates", json=TEXT).status_code == 401

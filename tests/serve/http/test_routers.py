"""Model routers through the strict client: their settings, what they choose, and the log of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from runwayml import AsyncRunwayML, BadRequestError, ConflictError, NotFoundError, RunwayML

from tests.serve.http.conftest import strict
from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint, pool

HELLO: Any = {"prompt_text": "hello", "aspect_ratio": "1:1", "duration": 2}
PRICES = {"shapes": 1000.0, "shapes-turbo": 100.0, "tiny-random": 10.0}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """With prices, and each variant up."""
    catalog = catalog_with(PRICES, shapes={"quality": 0.9}, shapes_turbo={"quality": 0.8})
    with endpoint(Path(tmp_path_factory.mktemp("routers")), catalog) as running:
        fleet(running)
        yield running


@pytest.fixture(autouse=True)
def _all_up(served: Endpoint) -> None:
    fleet(served)


def fleet(served: Endpoint, **waits: float) -> None:
    """Pools of the three variants, by name the seconds until they could start."""
    served.note(
        *(
            pool(name, price_usd_per_hour=price, backlog_s=waits.get(name.replace("-", "_"), 0.0))
            for name, price in PRICES.items()
        )
    )


def issues(error: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = error.body["issues"]
    return found


def test_a_router_is_made_read_changed_and_deleted(client: RunwayML) -> None:
    made = client.routers.create(slug="production-video", description="for the shop")
    assert (made.slug, made.name, made.version, made.description) == (
        "production-video",
        "production-video",
        1,
        "for the shop",
    )
    assert made.settings.schema_version == 1
    assert client.routers.retrieve(made.id) == client.routers.retrieve(made.id)
    with pytest.raises(ConflictError):
        client.routers.create(slug="production-video")
    renamed = client.routers.update(made.id, name="Shop", description=None)
    assert (renamed.name, renamed.description, renamed.version) == ("Shop", None, 1)
    assert client.routers.delete(made.id) is None
    with pytest.raises(NotFoundError):
        client.routers.retrieve(made.id)
    assert client.routers.create(slug="production-video").id != made.id


def test_a_patch_merges_level_by_level(client: RunwayML) -> None:
    made = client.routers.create(
        slug="merging",
        settings={
            "optimize_for": "quality",
            "models": {"mode": "allowlist_only", "ids": ["embedded", "tiny"]},
            "max_credits_per_generation": {"video": 50, "image": 3},
            "fallback": {"on_capacity": True},
        },
    )
    one = client.routers.update(made.id, settings={"optimize_for": "cost"})
    assert one.version == 2
    assert one.settings.models is not None
    assert one.settings.models.ids == ["embedded", "tiny"]
    two = client.routers.update(made.id, settings={"max_credits_per_generation": {"video": None}})
    caps = two.settings.max_credits_per_generation
    assert caps is not None
    assert (caps.video, caps.image) == (None, 3)
    three = client.routers.update(made.id, settings={"models": {"ids": ["tiny"]}})  # type: ignore[typeddict-item]
    assert three.settings.models is not None
    assert (three.settings.models.mode, three.settings.models.ids) == ("allowlist_only", ["tiny"])
    four = client.routers.update(made.id, settings={"max_credits_per_generation": None})
    assert four.settings.max_credits_per_generation is None
    assert four.version == 5
    assert client.routers.update(made.id, settings={"optimize_for": "cost"}).version == 5


@pytest.mark.parametrize(
    ("settings", "path", "suggestion"),
    [
        ({"models": {"mode": "allowlist_only", "ids": ["embeded"]}}, ["settings", "models", "ids", 0], "embedded"),
        ({"optimizeFor": "speed"}, ["settings", "optimizeFor"], None),
        ({"models": {"ids": []}}, ["settings", "models", "mode"], None),
        ({"maxCreditsPerGeneration": {"video": -1}}, ["settings", "maxCreditsPerGeneration", "video"], None),
        ({"fallBack": {}}, ["settings", "fallBack"], "fallback"),
        ({"schemaVersion": 2}, ["settings", "schemaVersion"], None),
    ],
)
def test_wrong_settings_are_refused(
    client: RunwayML, http: httpx.Client, settings: dict[str, Any], path: list[str | int], suggestion: str | None
) -> None:
    kept = client.routers.create(slug=f"kept-{abs(hash(str(settings)))}")
    answers = [
        http.post("/v1/routers", json={"slug": "wrong", "settings": settings}),
        http.patch(f"/v1/routers/{kept.id}", json={"settings": settings}),
    ]
    for answer in answers:
        assert answer.status_code == 400, answer.text
        (issue,) = [one for one in answer.json()["issues"] if one["path"] == path]
        assert issue.get("suggestion") == suggestion
    assert client.routers.retrieve(kept.id).version == 1


def test_a_slug_never_changes(client: RunwayML, http: httpx.Client) -> None:
    made = client.routers.create(slug="stays")
    answer = http.patch(f"/v1/routers/{made.id}", json={"slug": "goes"})
    assert answer.status_code == 400
    assert "never changes" in answer.text
    for slug in ("", "a b", "-a", "x" * 101, "ä"):
        assert http.post("/v1/routers", json={"slug": slug}).status_code == 400


def test_lists_are_paged(served: Endpoint) -> None:
    client = strict(served, served.another_key())
    slugs = [f"number-{number}" for number in range(5)]
    for slug in slugs:
        client.routers.create(slug=slug)
    assert [one.slug for one in client.routers.list(limit=2)] == slugs[::-1]

    async def every() -> list[str]:
        async with AsyncRunwayML(
            base_url=served.url, api_key=client.api_key, _strict_response_validation=True
        ) as other:
            return [one.slug async for one in other.routers.list(limit=3)]

    assert asyncio.run(every()) == slugs[::-1]
    with pytest.raises(BadRequestError):
        client.routers.list(limit=0)
    with pytest.raises(BadRequestError):
        client.routers.list(limit=2, cursor="nonsense")


def test_routers_of_another_key_are_not_there(served: Endpoint, client: RunwayML) -> None:
    made = client.routers.create(slug="mine")
    stranger = strict(served, served.another_key())
    for call in (stranger.routers.retrieve, stranger.routers.delete):
        with pytest.raises(NotFoundError):
            call(made.id)
    with pytest.raises(NotFoundError):
        stranger.generate.video.create(config_id="mine", input=HELLO)


@pytest.mark.parametrize(
    ("optimize_for", "model", "reason"),
    [
        ("cost", "shapes-turbo", "lowest_cost"),
        ("quality", "shapes", "best_quality"),
        ("latency", "shapes-turbo", "best_latency"),
    ],
)
def test_a_preference_decides_between_equals(
    served: Endpoint, client: RunwayML, optimize_for: Any, model: str, reason: str
) -> None:
    router = client.routers.create(slug=f"by-{optimize_for}", settings={"optimize_for": optimize_for})
    made = client.generate.video.create(config_id=router.slug, input=HELLO)
    assert made.routing.model == model
    assert made.routing.provider == "rushes"
    assert made.routing.resolved_settings.optimize_for == optimize_for
    assert made.routing.resolved_settings.price_ceiling is None
    assert made.routing.resolved_input.ratio == "64:64"
    assert made.routing.resolved_input.duration == pytest.approx(2.125)
    assert made.routing.capacity_fallback is None
    (entry,) = client.routers.list_requests(router.id, limit=5)
    assert (entry.status, entry.model, entry.reason_code, entry.task_id) == ("routed", model, reason, made.id)
    assert entry.estimated_credits == made.routing.estimated_cost.credits > 0
    assert [one.type for one in entry.pipeline] == ["filter"] * 5 + ["rank"]
    task = served.store.tasks.get(made.id)
    assert task is not None
    assert (task.kind, task.router_id) == ("generate", router.id)


def test_a_model_is_called_as_the_list_that_allows_it_calls_it(served: Endpoint, client: RunwayML) -> None:
    alias = next(one for one in served.context.catalog["shapes"].aliases if one != "shapes")
    models: Any = {"mode": "allowlist_only", "ids": [alias, "tiny"]}
    router = client.routers.create(slug="by-alias", settings={"optimize_for": "quality", "models": models})
    made = client.generate.video.create(config_id="by-alias", input=HELLO)
    assert made.routing.model == alias
    (entry,) = client.routers.list_requests(router.id, limit=5)
    assert entry.model == alias
    task = served.store.tasks.get(made.id)
    assert task is not None
    assert (task.model, task.offer.variant) == (alias, "shapes")
    open_router = client.routers.create(slug="open", settings={"optimize_for": "quality"})
    asked = client.generate.video.create(config_id=open_router.slug, input=HELLO, extra_body={"allowModels": [alias]})
    assert asked.routing.model == alias


def test_a_cap_leaves_out_who_costs_more(client: RunwayML) -> None:
    router = client.routers.create(slug="capped", settings={"optimize_for": "quality"})
    dear = client.generate.video.create(config_id="capped", input=HELLO).routing
    assert dear.model == "shapes"
    cap = int(dear.estimated_cost.credits) - 1
    client.routers.update(router.id, settings={"max_credits_per_generation": {"video": cap}})
    cheap = client.generate.video.create(config_id="capped", input=HELLO).routing
    assert (cheap.model, cheap.resolved_settings.price_ceiling) == ("shapes-turbo", cap)
    assert cheap.estimated_cost.credits <= cap
    client.routers.update(router.id, settings={"max_credits_per_generation": {"video": 0}})
    with pytest.raises(BadRequestError) as caught:
        client.generate.video.create(config_id="capped", input=HELLO)
    body: Any = caught.value.body
    assert (body["code"], body["emptiedBy"]) == ("no_eligible_model", ["price"])
    client.routers.update(router.id, settings={"max_credits_per_generation": {"video": None}})
    assert client.generate.video.create(config_id="capped", input=HELLO).routing.model == "shapes"
    log = list(client.routers.list_requests(router.id, limit=2))
    assert [entry.status for entry in log] == ["routed", "no_eligible_model", "routed", "routed"]
    assert log[1].emptied_by == ["price"]
    assert (log[1].model, log[1].reason_code, log[1].task_id) == (None, None, None)


def test_lists_say_who_may(client: RunwayML) -> None:
    router = client.routers.create(
        slug="listed", settings={"models": {"mode": "allowlist_only", "ids": ["tiny", "shapes"]}}
    )
    made = client.generate.video.create(config_id="listed", input=HELLO).routing
    assert made.model == "tiny"  # not meant for auto, and named here; called as it was named
    client.routers.update(router.id, settings={"models": {"mode": "allow_new_except", "ids": ["shapes-turbo"]}})
    assert client.generate.video.create(config_id="listed", input=HELLO).routing.model == "shapes"
    client.routers.update(router.id, settings={"models": {"mode": "allowlist_only", "ids": ["wan-14b"]}})
    with pytest.raises(BadRequestError) as caught:
        client.generate.video.create(config_id="listed", input=HELLO)
    body: Any = caught.value.body
    assert body["emptiedBy"] == ["allow_deny"]


def test_capacity_skips_who_cannot_start(served: Endpoint, client: RunwayML) -> None:
    router = client.routers.create(
        slug="on-capacity", settings={"optimize_for": "cost", "fallback": {"on_capacity": True}}
    )
    fleet(served, shapes_turbo=60.0)
    made = client.generate.video.create(config_id="on-capacity", input=HELLO)
    assert made.routing.model == "shapes"
    assert made.routing.capacity_fallback is not None
    assert made.routing.capacity_fallback.skipped == ["shapes-turbo"]
    assert not made.routing.capacity_fallback.all_exhausted
    fleet(served, shapes_turbo=60.0, shapes=60.0)
    made = client.generate.video.create(config_id="on-capacity", input=HELLO)
    assert made.routing.model == "shapes-turbo"  # nobody can: the best-ranked one, and it queues
    assert made.routing.capacity_fallback is not None
    assert made.routing.capacity_fallback.all_exhausted
    assert made.routing.capacity_fallback.skipped == []
    entries = list(client.routers.list_requests(router.id, limit=5))
    capacity = [one for entry in entries for one in entry.pipeline if one.type == "capacity"]
    assert [(one.skipped, one.all_exhausted) for one in capacity] == [([], True), (["shapes-turbo"], False)]

    client.routers.update(router.id, settings={"fallback": {"on_capacity": False}})
    fleet(served, shapes_turbo=60.0)
    made = client.generate.video.create(config_id="on-capacity", input=HELLO)
    assert made.routing.model == "shapes-turbo"  # queues for the cheaper one
    assert made.routing.capacity_fallback is None


def test_refusals_are_in_the_log(client: RunwayML) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.generate.video.create(config_id="later", input=HELLO)
    body: Any = caught.value.body
    assert body["code"] == "router_config_not_found"
    router = client.routers.create(slug="later")
    wrong: Any = {"prompt_text": "x", "aspect_ratio": "5:4"}
    with pytest.raises(BadRequestError) as refused:
        client.generate.video.create(config_id="later", input=wrong)
    assert issues(refused.value)[0]["path"] == ["input", "aspectRatio"]
    client.generate.video.create(config_id="later", input=HELLO)
    statuses = ["routed", "invalid_request", "router_config_not_found"]
    for limit in (1, 2, 3, 10):
        assert [entry.status for entry in client.routers.list_requests(router.id, limit=limit)] == statuses


def test_media_go_to_who_takes_them(client: RunwayML) -> None:
    client.routers.create(slug="media")
    image: Any = {"reference_images": [{"role": "first", "uri": "https://example.com/a.png"}]}
    assert client.generate.video.create(config_id="media", input=image).routing.model == "shapes-turbo"
    video: Any = {"reference_videos": [{"role": "source", "uri": "https://example.com/a.mp4"}]}
    assert client.generate.video.create(config_id="media", input=video).routing.model == "tiny-random"
    bad: Any = {"reference_images": [{"role": "first", "uri": "https://bad"}]}
    with pytest.raises(BadRequestError) as caught:
        client.generate.video.create(config_id="media", input=bad)
    assert issues(caught.value)[0]["path"] == ["input", "referenceImages", 0, "uri"]


def test_who_has_the_very_shape_comes_first(client: RunwayML) -> None:
    """256 × 256 is beyond `shapes`; `tiny-random` renders it as it is, so nobody else is asked."""
    router = client.routers.create(
        slug="very-shape",
        settings={"optimize_for": "quality", "models": {"mode": "allowlist_only", "ids": ["tiny", "shapes"]}},
    )
    given: Any = {"prompt_text": "x", "aspect_ratio": "1:1", "duration": 8}
    made = client.generate.video.create(config_id="very-shape", input=given).routing
    assert (made.model, made.resolved_input.duration) == ("tiny", pytest.approx(8.1, abs=0.1))
    (entry,) = client.routers.list_requests(router.id, limit=5)
    capability: Any = entry.pipeline[0]
    assert capability.models == ["tiny-random"]


def test_a_replayed_request_is_decided_once(client: RunwayML, http: httpx.Client) -> None:
    router = client.routers.create(slug="replayed")
    body = {"configId": "replayed", "input": {"promptText": "x"}}
    made = [http.post("/v1/generate/video", json=body, headers={"Idempotency-Key": "once"}).json() for _ in range(2)]
    assert made[0]["id"] == made[1]["id"]
    assert made[0]["routing"] == made[1]["routing"]
    assert len(list(client.routers.list_requests(router.id, limit=5))) == 1

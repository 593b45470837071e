"""A scripted classifier before and behind the model of a running endpoint: what it refuses has no clip.

The bulk end of the same is `tests/pipelines/test_moderated_run.py`.
"""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from runwayml import RunwayML

from cluster.topology import Topology
from models.model import Model
from schemas.clip import Status
from schemas.moderation import ModerationOutcome, ModerationSettings
from serve.config import Pools, Queue
from serve.tasks import StoredTask
from storage import keys
from storage.store import open_store
from tests.failures import endpoint as support
from tests.failures.endpoint import Endpoint, catalog_text
from tests.failures.held_model import held
from tests.failures.script import Script
from tests.painted_model import PaintedModel
from tests.scripted_scorer import NAME, RED

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

CATALOG = catalog_text(small=["spare"], spare=[]).replace(
    'modes = ["text_to_video"]',
    'pipelines = { image_to_video = "WanImageToVideoPipeline" }\nmodes = ["text_to_video", "image_to_video"]',
)
POOLS = Pools(variants=("small", "spare"), min_replicas={"small": 1, "spare": 1})
QUEUE = Queue(lease_s=4.0, heartbeat_s=0.3, max_attempts=2, retry_base_s=0.1, drain_s=30.0)


def painted(model: Model, script: Script) -> Model:
    """Clips have the colours that their prompts name, and the script has each call."""
    return PaintedModel(held(model, script))


@pytest.fixture(scope="module")
def served(ray_cluster: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder, settings = tmp_path_factory.mktemp("endpoint"), ModerationSettings(scorers=(NAME,))
    with support.endpoint(folder, CATALOG, POOLS, QUEUE, painted, moderation=settings) as endpoint:
        endpoint.wait_for_pools(small=1, spare=1)
        yield endpoint


def stored_of(served: Endpoint, task: StoredTask) -> list[str]:
    return [info.key for info in open_store(served.config.out).list(keys.task_prefix(task.id))]


def check_refused(served: Endpoint, task: StoredTask, code: str, calls: int) -> None:
    """It has failed for good, with Runway's code; nothing of it is stored; no other attempt, no other variant."""
    assert task.outcome is not None
    assert (task.status, task.outcome.failure_code) == (Status.FAILED, code)
    assert task.outcome.moderation.is_refused
    assert not task.outcome.dead
    assert task.variant == "small"
    assert task.attempts == task.epoch <= 1
    assert stored_of(served, task) == []
    assert len(served.script.events("called", task.request.prompt)) == calls


def test_what_is_refused_at_either_side_of_the_model_has_no_clip_and_the_others_have_theirs(served: Endpoint) -> None:
    client = RunwayML(base_url=served.config.origin, api_key="none", _strict_response_validation=True, max_retries=0)
    data = io.BytesIO()
    Image.new("RGB", (64, 64), RED).save(data, "PNG")
    red = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"

    def create(prompt: str, **more: Any) -> str:
        wanted = {"extra_body": {"model": "small", "seed": 1}, "ratio": "1280:720", "duration": 2}
        if more:
            return client.image_to_video.create(model="gen4.5", prompt_text=prompt, **more, **wanted).id
        return client.text_to_video.create(model="gen4.5", prompt_text=prompt, **wanted).id

    text = create("FORBIDDEN")
    picture = create("from a picture", prompt_image=red)
    output = create("paint it RED")
    fine, doubtful = create("a circle"), create("a DOUBTFUL circle, AMBER at last")
    text_task, picture_task, output_task = served.ended(text, picture, output)

    check_refused(served, text_task, "SAFETY.INPUT.TEXT", calls=0)
    check_refused(served, picture_task, "SAFETY.INPUT.IMAGE", calls=0)
    check_refused(served, output_task, "SAFETY.OUTPUT.VIDEO", calls=1)
    bills = [task.outcome.billed_gpu_s > 0 for task in (text_task, picture_task, output_task) if task.outcome]
    assert bills == [False, False, True], "what is refused before the model is free, what it made is billed"
    for task_id, code, what in (
        (text, "SAFETY.INPUT.TEXT", "prompt"),
        (output, "SAFETY.OUTPUT.VIDEO", "rendered video"),
    ):
        told = client.tasks.retrieve(task_id)
        assert told.status == "FAILED"
        assert told.failure_code == code
        assert told.failure == f"content moderation refused the {what}: violence"

    fine_task, doubtful_task = served.succeeded(fine, doubtful)
    assert fine_task.outcome is not None
    assert fine_task.outcome.moderation.outcome is ModerationOutcome.ALLOW
    assert doubtful_task.outcome is not None
    assert doubtful_task.moderation.outcome is doubtful_task.outcome.moderation.outcome is ModerationOutcome.FLAG
    pool = served.report()["small"]
    assert (pool["healthy"], pool["last_failure"]) == (True, "")
    counted = served.client.get("/metrics").text
    assert 'rushes_moderated_tasks_total{category="violence",outcome="refuse",part="OUTPUT.VIDEO"} 1.0' in counted

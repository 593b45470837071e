"""Runway's `video_upscale`, by its unmodified client: a video that came in, made larger or smoother."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runwayml import BadRequestError, RunwayML

from actors.encoder import encode
from actors.media_reader import read_media
from models.finishing import Finishing
from models.loader import load_model
from models.media import shown_video
from models.model import TaskMedia
from schemas.clip import ClipFormat
from schemas.task import RenderBatch
from serve.config import Pools
from serve.dispatch.jobs import as_rendered
from tests.pipelines.catalogs import two_variants
from tests.serve.http.conftest import strict
from tests.serve.http.endpoint import Endpoint, KeptIntake, endpoint

CLIP = "https://example.com/clip.mp4"
WIDTH, HEIGHT, FRAMES, FPS = 96, 64, 12, 8


class Filmed(KeptIntake):
    """Takes everything, as one video of this size."""

    async def shown(self, _uri: str) -> tuple[int, int, int, float]:
        return WIDTH, HEIGHT, FRAMES, float(FPS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("upscale")
    with endpoint(folder, two_variants(), Filmed(), pools=Pools(variants=("small", "footage"))) as running:
        yield running


@pytest.fixture
def client(served: Endpoint) -> Iterator[RunwayML]:
    with strict(served) as client:
        yield client


@pytest.fixture
def video(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 256, (1, HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8), FRAMES, axis=0)
    encode(frames.repeat(8, axis=1).repeat(8, axis=2), FPS, ClipFormat.MP4, tmp_path / "clip.mp4")
    return tmp_path / "clip.mp4"


UPSCALE: dict[str, Any] = {"model": "magnific_video_upscaler_creative", "video_uri": CLIP}
SMOOTH: dict[str, Any] = {"model": "enhance_frame_rate", "video_uri": CLIP, "target_framerate": "24"}


@pytest.mark.parametrize(
    ("asked", "size", "frames", "fps"),
    [
        ({**UPSCALE, "resolution": "720p"}, (1080, 720), FRAMES, 8.0),
        (UPSCALE, (2160, 1440), FRAMES, 8.0),
        (SMOOTH, (WIDTH, HEIGHT), 3 * FRAMES, 24.0),
        ({**SMOOTH, "target_framerate": "29_97"}, (WIDTH, HEIGHT), 45, 29.97),
        ({**SMOOTH, "extra_body": {"finish": [{"upscale": 2}]}}, (2 * WIDTH, 2 * HEIGHT), 3 * FRAMES, 24.0),
    ],
)
def test_the_task_is_the_video_and_what_is_done_to_it(
    served: Endpoint, client: RunwayML, asked: dict[str, Any], size: tuple[int, int], frames: int, fps: float
) -> None:
    task = served.store.tasks.get(client.video_upscale.create(**asked).id)
    assert task is not None
    assert task.kind == "video_upscale"
    assert (task.group.variant, task.group.width, task.group.height) == ("footage", WIDTH, HEIGHT)
    shape = task.group.clip_shape
    assert ((shape.width, shape.height), shape.frames, task.group.clip_fps) == (size, frames, fps)
    assert shape.frames / task.group.clip_fps == pytest.approx(FRAMES / FPS, abs=0.5 / fps)


def test_the_clip_is_the_video_itself_larger(served: Endpoint, client: RunwayML, video: Path) -> None:
    task = served.store.tasks.get(client.video_upscale.create(**{**UPSCALE, "resolution": "720p"}).id)
    assert task is not None
    assert shown_video(video) == (WIDTH, HEIGHT, FRAMES, float(FPS))
    group = task.group
    media = read_media(lambda _uri: video.read_bytes(), group, as_rendered(task).media)
    assert isinstance(media, TaskMedia)
    variant = served.context.admission.served[group.variant]
    batch = RenderBatch(group, (as_rendered(task),))
    (clip,) = load_model(variant).render(batch, (media,), lambda *_: None, frozenset)
    assert isinstance(clip, np.ndarray)
    np.testing.assert_array_equal(clip[3], np.asarray(media.inputs[0][3]))  # type: ignore[index]
    (stage,) = group.finish
    large = Finishing().apply(stage, clip, group.fps)
    assert large.shape == (FRAMES, 720, 1080, 3)
    # Seen from afar it is the same picture.
    means = [one.reshape(FRAMES, 8, -1, 12, one.shape[2] // 12, 3).mean(axis=(2, 4)) for one in (large, clip)]
    assert np.abs(means[0] - means[1]).mean() < 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({**UPSCALE, "creativity": 50}, "creativity"),
        ({**SMOOTH, "target_framerate": "7"}, "targetFramerate"),
        ({**UPSCALE, "resolution": "8k"}, "resolution"),
        ({**UPSCALE, "extra_body": {"targetFramerate": "24"}}, "targetFramerate"),
        ({**UPSCALE, "model": "gen4"}, "model"),
        ({**UPSCALE, "extra_body": {"camera": [{"atSeconds": 1, "pan": 3}]}}, "not rendered anew"),
        ({**UPSCALE, "extra_body": {"samples": 2}}, "not rendered anew"),
        ({**UPSCALE, "extra_body": {"finish": [{"interpolate": 4}]}}, "finish.*0.*interpolate"),
    ],
)
def test_what_has_no_effect_is_refused(client: RunwayML, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequestError, match=told):
        client.video_upscale.create(**asked)


def test_a_video_that_is_as_smooth_already_is_refused_where_it_is_said(client: RunwayML, served: Endpoint) -> None:
    served.context.intake.shown = _smooth  # type: ignore[method-assign]
    try:
        with pytest.raises(BadRequestError, match="is no more than the 24 that the clip has") as caught:
            client.video_upscale.create(**SMOOTH)
        assert caught.value.body["issues"][0]["path"] == ["targetFramerate"]  # type: ignore[index]
    finally:
        del served.context.intake.shown


async def _smooth(_uri: str) -> tuple[int, int, int, float]:
    return WIDTH, HEIGHT, FRAMES, 24.0

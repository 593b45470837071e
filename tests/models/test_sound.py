"""Sound: made with the pictures by a real tiny LTX-2, carried through finishing and storing, heard in the file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from actors.decoder import read_sound
from actors.encoder import encode
from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer
from models.loaded import LoadedModel
from models.loader import load
from models.model import Sound, Sounding, TaskMedia, frames_of, ignore_step, nobody_cancelled
from schemas.catalog import Catalog, Variant
from schemas.clip import ClipFormat
from schemas.errors import BadOutputError, InvalidRequestError
from schemas.finish import FLOOR, read_steps, resolved_finish
from schemas.request import Mode, Request
from schemas.resolve import resolve
from schemas.task import Group, chained
from storage.store import open_store
from tests.models.tiny_sound import RATE_HZ, ltx2
from tests.models.tiny_variants import T2V, batch_of, group_of
from training.tiny import save, seeded

FPS, FRAMES = 8, 9
SECONDS = FRAMES / FPS


def variant_of(folder: Path, **changes: Any) -> Variant:
    return Variant.model_validate(
        {
            "name": "sounding",
            "weights": str(folder),
            "pipeline": "LTX2Pipeline",
            "modes": ("text_to_video",),
            "dtype": "float32",
            "steps": 2,
            "guidance": 3.0,
            "fps": FPS,
            "call_options": {"max_sequence_length": 64},
            "shape": {"divisor": 16, "max_frames": 81, "max_pixels": 65536, "native": [(32, 32, FRAMES)]},
            "latent": {"channels": 4, "spatial": 8, "temporal": 2},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save(seeded(ltx2, 0), tmp_path_factory.mktemp("ltx2"))
    return load(variant_of(folder), device="cpu")


def made(model: LoadedModel, *prompts: str, **changes: Any) -> list[Any]:
    group = group_of(model.variant, T2V, width=32, height=32, frames=FRAMES, fps=FPS, **changes)
    work = batch_of(group, *prompts)
    return list(model.render(work, (TaskMedia(),) * len(prompts), ignore_step, nobody_cancelled))


def tone(hz: float, seconds: float, rate_hz: int = 24_000, channels: int = 2) -> Sound:
    """A sine, as loud in each channel, half the loudness in the second."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    return Sound(np.stack([wave / (1 + at) for at in range(channels)]).astype(np.float32), rate_hz)


def pitch(samples: npt.NDArray[np.float32], rate_hz: int) -> float:
    """The loudest frequency, in hertz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


def test_a_clip_comes_with_sound_of_its_own_length(model: LoadedModel) -> None:
    one, other = made(model, "rain", "a train", audio=True)
    for clip in (one, other):
        assert isinstance(clip, Sounding)
        assert clip.frames.shape == (FRAMES, 32, 32, 3)
        assert (clip.sound.rate_hz, clip.sound.samples.shape) == (RATE_HZ, (2, round(SECONDS * RATE_HZ)))
        assert 0.001 < np.abs(clip.sound.samples).max() <= 1
    assert not np.allclose(one.sound.samples, other.sound.samples), "another prompt sounds otherwise"


def test_without_sound_the_pictures_are_the_same(model: LoadedModel) -> None:
    (silent,), (sounding,) = made(model, "rain"), made(model, "rain", audio=True)
    assert isinstance(silent, np.ndarray)
    assert (silent == frames_of(sounding)).all()


def test_sound_that_is_not_numbers_is_no_clip(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = model.pipes[Mode.TEXT_TO_VIDEO]
    monkeypatch.setattr(pipe.vocoder, "forward", lambda mel, *_: torch.full((len(mel), 2, 10), float("nan")))
    (broken,) = made(model, "rain", audio=True)
    assert isinstance(broken, BadOutputError)
    assert "sound" in str(broken)


@pytest.mark.parametrize(
    ("clip_format", "codec", "rate_hz"), [(ClipFormat.MP4, "aac", 24_000), (ClipFormat.WEBM, "opus", 48_000)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_heard_again(
    tmp_path: Path, clip_format: ClipFormat, codec: str, rate_hz: int, channels: int
) -> None:
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    path = tmp_path / f"clip.{clip_format.suffix}"
    encode(frames, 8, clip_format, path, sound=tone(440, 1.5, channels=channels))
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        assert codec in track.codec_context.name
        assert (track.rate, track.channels) == (rate_hz, channels)
        assert len(list(container.decode(video=0))) == 16
    heard = read_sound(path.read_bytes())
    assert heard is not None
    assert heard.samples.shape[1] / heard.rate_hz == pytest.approx(2.0, abs=0.06), "as long as the pictures"
    loud = heard.samples[:, heard.rate_hz // 4 : heard.rate_hz]
    assert pitch(loud[0], heard.rate_hz) == pytest.approx(440, abs=4)
    assert np.abs(heard.samples[:, int(1.7 * heard.rate_hz) :]).max() < 0.02, "then silence"
    if channels == 2:
        left, right = (float(np.sqrt((one**2).mean())) for one in loud)
        assert right / left == pytest.approx(0.5, abs=0.05), "each channel is its own"


def test_the_same_sound_is_the_same_file(tmp_path: Path) -> None:
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    for name in "ab":
        encode(frames, 8, ClipFormat.MP4, tmp_path / name, sound=tone(440, 2))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_stored_clip_says_that_it_has_sound_and_keeps_it_when_it_is_finished(
    model: LoadedModel, tmp_path: Path
) -> None:
    steps, _ = read_steps([{"interpolate": 16}, {"upscale": 2}])
    plain = group_of(model.variant, T2V, width=32, height=32, frames=FRAMES, fps=FPS, audio=True)
    stages, wrong = resolved_finish(steps, plain.shape, plain.fps, FLOOR, None)
    assert not wrong
    group = plain.changed(finish=stages)
    (task,) = batch_of(plain, "rain").tasks
    task = replace(task, base=task.fingerprint, fingerprint=chained(task.fingerprint, stages))
    publisher = Publisher(open_store(str(tmp_path)), model.variant, "1")
    frames = np.full((FRAMES, 32, 32, 3), 90, np.uint8)
    sound = tone(440, SECONDS)
    record = publisher.publish(Rendered(task, group, frames, 0.1, sound=sound))
    assert record.clip is not None
    assert record.clip.audio
    assert [one.clip.audio for one in record.before if one.clip is not None] == [True, True]
    heard = read_sound(Path(record.clip.uri.removeprefix("file://")).read_bytes())
    assert heard is not None
    assert heard.samples.shape[1] / heard.rate_hz == pytest.approx(record.clip.frames / record.clip.fps, abs=0.06)
    assert pitch(heard.samples[0, 6000:20_000], heard.rate_hz) == pytest.approx(440, abs=5), "after three encodings"

    again = publisher.latest(task, group)
    assert again is not None
    assert again.sound is not None, "who goes on from what is stored has it too"
    assert pitch(again.sound.samples[0, 6000:20_000], again.sound.rate_hz) == pytest.approx(440, abs=5)


def test_a_renderer_keeps_pictures_and_sound_apart(model: LoadedModel) -> None:
    group = group_of(model.variant, T2V, width=32, height=32, frames=FRAMES, fps=FPS, audio=True)
    (rendered,) = Renderer(model).render(batch_of(group, "rain"))
    assert isinstance(rendered, Rendered)
    assert rendered.frames.shape == (FRAMES, 32, 32, 3)
    assert rendered.sound is not None


# --- What a request may say ------------------------------------------------------------------------------------------


def resolved(catalog: Catalog, clip_format: ClipFormat = ClipFormat.MP4, **said: Any) -> Group:
    settings = Request(prompt="rain", **said).settings
    return resolve(settings, catalog, rank=lambda variant, group: 0.0, clip_format=clip_format)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    sounding = variant_of(Path("x"))
    silent = sounding.model_copy(update={"name": "silent", "pipeline": "LTXPipeline"})
    return Catalog(variants={"sounding": sounding, "silent": silent})


def test_sound_is_there_where_it_is_made_unless_it_is_not_wanted(catalog: Catalog) -> None:
    assert resolved(catalog, variant="sounding").audio
    assert resolved(catalog, variant="sounding", audio=True).audio
    assert not resolved(catalog, variant="sounding", audio=False).audio
    assert not resolved(catalog, variant="silent").audio
    assert not resolved(catalog, ClipFormat.GIF, variant="sounding").audio
    assert resolved(catalog, audio=True).variant == "sounding", "auto takes one that can"


def test_the_fingerprint_is_another_with_sound_and_that_of_before_without(catalog: Catalog) -> None:
    with_it, without = resolved(catalog, variant="sounding"), resolved(catalog, variant="sounding", audio=False)
    assert with_it.fingerprint("rain", "", 1) != without.fingerprint("rain", "", 1)
    assert "audio" not in without.told
    assert with_it.told["audio"] is True


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"variant": "silent"}, "silent makes no sound; sounding does"),
        ({"variant": "sounding", "clip_format": ClipFormat.GIF}, "a gif holds no sound; those that do: mp4, webm"),
    ],
)
def test_sound_that_cannot_be_had_is_refused_with_the_choices(catalog: Catalog, said: Any, told: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        resolved(catalog, **said, audio=True)
    (issue,) = refused.value.issues
    assert issue.path == "audio"
    assert told in issue.message
    assert issue.choices

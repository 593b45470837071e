"""Media are read in processes of their own: whatever one does, its task fails and the others are read."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.confined import ConfinedProcess
from actors.encoder import encode
from actors.media_reader import ConfinedMediaReader, read_media
from models.model import TaskMedia
from schemas.clip import ClipFormat
from schemas.conditions import Condition
from schemas.errors import MediaError, MediaUnavailableError, VariantLoadError
from schemas.extract import Extraction
from schemas.inputs import Kind, Role
from schemas.motion import Edit
from schemas.task import Group, Task
from tests.actors.fetches import FromFolder, fetch
from tests.models.tiny_variants import I2V, T2V, V2V, group_of, task_of, tiny_variant

VARIANT = tiny_variant("wan", Path("/weights"))
IMAGES = group_of(VARIANT, I2V)
PATIENCE_S = 120.0  # on a busy machine what is imported to read an image takes a while


@pytest.fixture(scope="module")
def reader() -> Iterator[ConfinedMediaReader]:
    reader = ConfinedMediaReader(fetch, PATIENCE_S)
    yield reader
    reader.close()


def tasks(group: Group, *uris: str) -> list[Task]:
    return [task_of(group, "p", k, media=(uri,)) for k, uri in enumerate(uris)]


def test_an_edit_retimes_the_source_and_the_mask_that_goes_with_it_and_nothing_else(tmp_path: Path) -> None:
    count = np.arange(20, dtype=np.uint8)[:, None, None, None] * 10
    encode(np.ascontiguousarray(np.broadcast_to(count, (20, 32, 32, 3))), 8, ClipFormat.MP4, tmp_path / "v.mp4")
    given = [(Role.SOURCE, None), (Role.MASK, None), (Role.STRUCTURE, Kind.EDGES)]
    conditions = tuple(Condition(role=role, medium="video", kind=kind, start_s=0.5) for role, kind in given)
    group = group_of(VARIANT, V2V, conditions=conditions, edit=Edit(speed=2, reverse=True))
    media = read_media(lambda uri: (tmp_path / uri).read_bytes(), group, ["v.mp4"] * 3)
    assert isinstance(media, TaskMedia)
    shown = [[round(float(np.asarray(one).mean()) / 10) for one in video] for video in media.inputs]  # type: ignore[union-attr]
    assert shown == [[12, 10, 8, 6, 4], [12, 10, 8, 6, 4], [4, 5, 6, 7, 8]]


def test_a_structure_is_found_where_it_is_asked_for_and_what_it_was_found_in_is_kept_for_moderation(
    tmp_path: Path,
) -> None:
    count = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    count[:, 8:24, 8:24] = 200
    encode(count, 8, ClipFormat.MP4, tmp_path / "v.mp4")
    edges = Condition(role=Role.STRUCTURE, medium="video", kind=Kind.EDGES, extract=Extraction(method="canny"))
    group = group_of(VARIANT, T2V, conditions=(edges, edges.model_copy(update={"extract": None})))
    reader = ConfinedMediaReader(FromFolder(tmp_path), PATIENCE_S)
    (media,) = reader.read(group, [task_of(group, "p", media=("v.mp4", "v.mp4"))])
    broken = edges.model_copy(update={"extract": Extraction(method="depth", weights=str(tmp_path / "gone"))})
    wanting = group_of(VARIANT, T2V, conditions=(broken,))
    (failed,) = reader.read(wanting, [task_of(wanting, "p", media=("v.mp4",))])
    reader.close()
    assert isinstance(media, TaskMedia)
    found, plain = media.inputs
    assert isinstance(found, tuple)
    assert isinstance(plain, tuple)
    inside = [np.asarray(video[2])[12:20, 12:20].mean() for video in (found, plain)]
    assert inside[0] == 0, "no edges inside"
    assert inside[1] > 180
    assert np.asarray(found[2]).max() == 255
    assert media.originals == (plain,)
    assert isinstance(failed, VariantLoadError)


def test_an_image_comes_in_the_clips_own_size(reader: ConfinedMediaReader) -> None:
    (media,) = reader.read(IMAGES, tasks(IMAGES, "good"))
    assert isinstance(media, TaskMedia)
    (image,) = media.inputs
    assert isinstance(image, Image.Image)
    assert image.size == (32, 32)


@pytest.mark.parametrize(
    ("uri", "kind", "told"),
    [
        ("junk", MediaError, "junk: not an image that can be read"),
        ("gone", MediaError, "gone: not there"),
        ("away", MediaUnavailableError, "away: the server is away"),
        ("reset", MediaUnavailableError, "reset: ConnectionResetError: reset by peer"),
        ("odd", MediaError, "odd: KeyError"),
        ("dies", MediaError, "dies: it cannot be decoded: its process ended with SIGSEGV"),
        ("huge", MediaError, "huge: decoding it takes more memory than it may have"),
        ("asks to leave", MediaError, "asks to leave: it cannot be decoded: its process ended with code 1"),
    ],
)
def test_what_happens_to_one_is_that_tasks_failure_and_its_mates_are_read(
    reader: ConfinedMediaReader, uri: str, kind: type[Exception], told: str
) -> None:
    check_between(reader, uri, kind, told)


def test_what_hangs_is_not_waited_for_longer_than_it_may_take() -> None:
    reader = ConfinedMediaReader(fetch, 12.0)  # its mates must be read within
    check_between(reader, "hangs", MediaUnavailableError, "hangs: not done within 12 s")
    reader.close()


def check_between(reader: ConfinedMediaReader, uri: str, kind: type[Exception], told: str) -> None:
    """What becomes of one, between two that are read."""
    before, bad, after = reader.read(IMAGES, tasks(IMAGES, "good", uri, "fine"))
    assert isinstance(before, TaskMedia)
    assert isinstance(after, TaskMedia)
    assert type(bad) is kind
    assert str(bad).startswith(told)


def test_a_video_is_cut_to_the_clips_frames(tmp_path: Path) -> None:
    group = group_of(VARIANT, V2V)
    source = np.random.default_rng(0).integers(0, 255, (9, 48, 48, 3), dtype=np.uint8)
    encode(source, 8, ClipFormat.MP4, tmp_path / "in.mp4")
    reader = ConfinedMediaReader(FromFolder(tmp_path), 60.0)
    (tmp_path / "odd.mp4").write_bytes((tmp_path / "in.mp4").read_bytes().replace(b"avc1", b"zzzz"))
    media, odd, none = reader.read(group, [*tasks(group, "in.mp4", "odd.mp4"), task_of(group, "p")])
    reader.close()
    assert isinstance(media, TaskMedia)
    (video,) = media.inputs
    assert isinstance(video, tuple)
    assert [frame.size for frame in video] == [(32, 32)] * 5
    assert isinstance(odd, MediaError), "four bytes of its header name a codec that nobody has"
    assert "has no source" in str(none)


def test_a_batch_without_media_starts_no_process() -> None:
    reader = ConfinedMediaReader(fetch, 0.0)
    group = group_of(VARIANT, T2V)
    assert reader.read(group, [task_of(group, "a"), task_of(group, "b")]) == [TaskMedia(), TaskMedia()]


def test_a_process_is_kept_until_a_call_ends_it() -> None:
    process = ConfinedProcess(1 << 30)
    pids = [process.call(os.getpid, timeout_s=30.0) for _ in range(2)]
    assert pids[0] == pids[1] != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        process.call(int, "x", timeout_s=30.0)
    assert process.call(os.getpid, timeout_s=30.0) == pids[0]
    with pytest.raises(ChildProcessError, match="code 3"):
        process.call(os._exit, 3, timeout_s=30.0)
    assert process.call(os.getpid, timeout_s=30.0) != pids[0]
    process.close()


def test_a_result_that_does_not_travel_is_told_and_the_process_stays() -> None:
    process = ConfinedProcess(1 << 30)
    pid = process.call(os.getpid, timeout_s=30.0)
    with pytest.raises(TypeError, match="does not travel"):
        process.call(memoryview, b"x", timeout_s=30.0)
    assert process.call(os.getpid, timeout_s=30.0) == pid
    process.close()


ORPHAN = """
import os, signal
from actors.confined import ConfinedProcess
print(ConfinedProcess(1 << 30).call(os.getpid, timeout_s=60.0), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_ends_with_the_one_that_started_it() -> None:
    told = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    assert told.stdout.strip().isdigit()
    turns = threading.Event()
    with suppress(OSError):  # it is gone
        while "zombie" not in Path("/proc", told.stdout.strip(), "status").read_text():
            assert not turns.wait(0.02)

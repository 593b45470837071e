"""From what a request names to an object: by URL from real servers that misbehave, inline, and as an upload."""

import asyncio
import base64
import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import InvalidRequestError
from serve.config import MediaLimits, ServeConfig
from serve.media.intake import Intake
from serve.net import Outbound
from serve.store.contract import ApiKey, Store, Upload
from storage import keys
from storage.objects import ObjectStore
from tests.serve.media import samples
from tests.serve.strangers import Script, Stranger, drip, endless, hang, ok, raw, status

KEY, OTHER = ApiKey(id="key_1", name="a", created_at=0.0), ApiKey(id="key_2", name="b", created_at=0.0)
PNG = samples.image("PNG")
UPLOAD_ID = "9f1c7d1e-5d0a-4a0e-8f14-0a2d53b1c9aa"

Take = Callable[..., str]


@pytest.fixture
def config() -> ServeConfig:
    return ServeConfig(media=MediaLimits(fetch_timeout_s=1.0, image_url_bytes=100_000, image_data_bytes=5000))


@pytest.fixture
def intake(config: ServeConfig, store: Store, objects: ObjectStore) -> Intake:
    return Intake(config, store, objects, now=lambda: 1000.0)


def take(intake: Intake, uri: str, kind: str = "image", key: ApiKey = KEY, path: str = "promptImage") -> str:
    return asyncio.run(intake.take(uri, kind, key, path))


def from_stranger(config: ServeConfig, store: Store, objects: ObjectStore, script: Script, kind: str = "image") -> str:
    with Stranger() as server:
        server.answers(script)
        intake = Intake(config, store, objects, outbound=server.outbound())
        return take(intake, server.url("/a.png"), kind)


def stored(objects: ObjectStore) -> list[str]:
    return [info.key for info in objects.list()]


def test_a_url_becomes_an_object_by_its_content(config: ServeConfig, store: Store, objects: ObjectStore) -> None:
    uri = from_stranger(config, store, objects, ok(PNG, "image/png"))
    key = f"inputs/{hashlib.sha256(PNG).hexdigest()}.png"
    assert uri == objects.uri(key)
    assert objects.get(key) == PNG
    # Again, by another way: the same object.
    assert from_stranger(config, store, objects, ok(PNG, "image/png")) == uri
    assert stored(objects) == [key]


def test_an_answer_in_chunks_without_a_length_is_taken(config: ServeConfig, store: Store, objects: ObjectStore) -> None:
    body = b"".join(f"{len(PNG[i : i + 7]):x}\r\n".encode() + PNG[i : i + 7] + b"\r\n" for i in range(0, len(PNG), 7))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    from_stranger(config, store, objects, raw(head + body + b"0\r\n\r\n"))
    assert len(stored(objects)) == 1


MISBEHAVIOUR: dict[str, tuple[Script, str]] = {
    "fails": (status(500), "could not be fetched: 500"),
    "is not there": (status(404), "could not be fetched: 404"),
    "answers with a part": (lambda visit: visit.head(206, "Content-Length: 0"), "could not be fetched: 206"),
    "has nothing": (ok(b"", "image/png"), "an empty file"),
    "hangs": (hang(), "not fetched within 1 s"),
    "drips": (drip("image/png", 0.02), "not fetched within 1 s"),
    "never ends": (endless("image/png"), "more than 100,000 bytes"),
    "says that it is too large": (ok(b"", "image/png", length=100_001), "100,001 bytes is more than 100,000 bytes"),
    "is too large": (endless("image/png", b"\0" * 100_001), "more than 100,000 bytes"),
    "ends early": (ok(PNG, "image/png", length=len(PNG) + 1), "no complete answer"),
    "says two lengths": (ok(PNG, "image/png", "Content-Length: 5"), "no complete answer"),
    "says no length that is one": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: -5\r\n\r\n" + PNG),
        "no complete answer",
    ),
    "speaks another protocol": (raw(b"220 smtp ready\r\n"), "no complete answer"),
    "has no type": (ok(PNG, None), "without a Content-Type"),
    "lies about its type": (ok(PNG, "image/jpeg"), "but it is image/png"),
    "has a page": (ok(samples.HTML, "image/png"), "not image"),
    "has an svg": (ok(samples.SVG, "image/svg+xml"), "not image"),
    "sends it packed": (ok(PNG, "image/png", "Content-Encoding: gzip"), "compressed"),
    "has a bomb": (ok(samples.webp_canvas(16_383, 16_383), "image/webp"), "more than 64,000,000 pixels"),
    "redirects to itself": (status(301, "Location: /b.png"), "301, and redirects are not followed"),
    "redirects to the metadata": (status(302, "Location: http://169.254.169.254/"), "redirects are not followed"),
    "redirects to a private host": (status(307, "Location: https://127.0.0.1/"), "redirects are not followed"),
    "redirects to a file": (status(308, "Location: file:///etc/passwd"), "redirects are not followed"),
}


@pytest.mark.parametrize(("script", "why"), MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
def test_a_server_that_misbehaves_is_refused_in_time(
    config: ServeConfig, store: Store, objects: ObjectStore, script: Script, why: str
) -> None:
    start = time.perf_counter()
    with pytest.raises(InvalidRequestError, match=why) as refused:
        from_stranger(config, store, objects, script)
    assert refused.value.issues[0].path == "promptImage"
    assert time.perf_counter() - start < 3.0
    assert stored(objects) == []


def test_a_video_has_limits_of_its_own(config: ServeConfig, store: Store, objects: ObjectStore) -> None:
    data = samples.video("mp4")
    uri = from_stranger(config, store, objects, ok(data, "video/mp4"), "video")
    assert uri.endswith(".mp4")
    with pytest.raises(InvalidRequestError, match="video/mp4, not image"):
        from_stranger(config, store, objects, ok(data, "video/mp4"), "image")
    small = ServeConfig(media=MediaLimits(video_url_bytes=len(data) - 1))
    with pytest.raises(InvalidRequestError, match=f"{len(data):,} bytes is more than"):
        from_stranger(small, store, objects, ok(data, "video/mp4"), "video")


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "s3://bucket/key",
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "gs://bucket/key",
        "",
        "a",
        "runway:/x",
        " https://example.com/a.png",
    ],
)
def test_only_three_schemes_are_taken(intake: Intake, objects: ObjectStore, uri: str) -> None:
    with pytest.raises(InvalidRequestError, match="not an address that media are taken from") as refused:
        take(intake, uri)
    assert refused.value.issues[0].choices == ("https://", "data:", "runway://")
    assert stored(objects) == []


@pytest.mark.parametrize("uri", ["https://127.0.0.1/a.png", "https://localhost/a.png", "https://u:p@example.com/a.png"])
def test_a_url_of_ours_is_refused_at_its_field(intake: Intake, uri: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        take(intake, uri, path="promptImage.0.uri")
    assert refused.value.issues[0].path == "promptImage.0.uri"


def test_a_domain_that_leads_inside_is_refused(config: ServeConfig, store: Store, objects: ObjectStore) -> None:
    with Stranger() as inside:
        outbound = Outbound(resolver=lambda host, port: ["127.0.0.1"], trust=inside.trust)
        intake = Intake(config, store, objects, outbound=outbound)
        with pytest.raises(InvalidRequestError, match="does not have a public address"):
            take(intake, "https://media.stranger.test/a.png")
        assert inside.connections == 0


def data_uri(data: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def test_a_data_uri_becomes_an_object(intake: Intake, objects: ObjectStore) -> None:
    take(intake, data_uri(PNG))
    assert objects.get(f"inputs/{hashlib.sha256(PNG).hexdigest()}.png") == PNG
    take(intake, data_uri(samples.image("JPEG"), "image/jpg"))
    take(intake, "DATA:image/png;name=a.png;base64," + base64.b64encode(PNG).decode())
    assert len(stored(objects)) == 2


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("data:", "looks like"),
        ("data:,hello", "looks like"),
        ("data:image/png,abc", "looks like"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,!!!!", "not base64"),
        ("data:image/png;base64,é", "not base64"),
        ("data:image/png;base64,AAA", "not base64"),
        (data_uri(PNG, "image/jpeg"), "but it is image/png"),
        (data_uri(samples.SVG, "image/svg+xml"), "not image"),
        (data_uri(b"\0" * 5001), "5,001 bytes is more than 5,000 bytes"),
        ("data:image/png;base64," + "A" * 10_000, "more than 5,000 bytes"),
    ],
)
def test_a_data_uri_has_the_same_limits(intake: Intake, objects: ObjectStore, uri: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        take(intake, uri)
    assert stored(objects) == []


def sent(store: Store, objects: ObjectStore, data: bytes = PNG, expires_at: float = 2000.0) -> str:
    """An upload of KEY whose file has come."""
    key = keys.upload(UPLOAD_ID)
    objects.put(key, data)
    store.uploads.add(Upload(UPLOAD_ID, KEY.id, "a.png", key, created_at=0.0, expires_at=expires_at))
    store.uploads.complete(UPLOAD_ID, "image/png", len(data))
    return f"runway://{UPLOAD_ID}"


def test_an_upload_is_copied_so_that_a_task_outlives_it(intake: Intake, store: Store, objects: ObjectStore) -> None:
    uri = take(intake, sent(store, objects))
    objects.delete([keys.upload(UPLOAD_ID)])
    assert uri == objects.uri(f"inputs/{hashlib.sha256(PNG).hexdigest()}.png")
    assert len(stored(objects)) == 1


def test_nobody_else_s_upload_is_taken(intake: Intake, store: Store, objects: ObjectStore) -> None:
    uri = sent(store, objects)
    with pytest.raises(InvalidRequestError) as refused:
        take(intake, uri, key=OTHER)
    with pytest.raises(InvalidRequestError) as missing:
        take(intake, "runway://00000000-0000-0000-0000-000000000000", key=OTHER)
    assert str(refused.value) == str(missing.value)  # nor is it told that there is one


def test_an_upload_past_its_time_is_not_taken(intake: Intake, store: Store, objects: ObjectStore) -> None:
    with pytest.raises(InvalidRequestError, match="expired"):
        take(intake, sent(store, objects, expires_at=1000.0))


def test_an_upload_without_a_file_is_not_taken(intake: Intake, store: Store) -> None:
    store.uploads.add(Upload(UPLOAD_ID, KEY.id, "a.png", keys.upload(UPLOAD_ID), created_at=0.0, expires_at=2000.0))
    with pytest.raises(InvalidRequestError, match="never sent"):
        take(intake, f"runway://{UPLOAD_ID}")


def test_an_upload_of_another_kind_is_not_taken(intake: Intake, store: Store, objects: ObjectStore) -> None:
    with pytest.raises(InvalidRequestError, match="image/png, not video"):
        take(intake, sent(store, objects), "video")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "x" * 36, UPLOAD_ID.upper(), f"{UPLOAD_ID}/..", "%2e%2e"])
def test_an_upload_s_name_is_an_id(intake: Intake, store: Store, objects: ObjectStore, name: str) -> None:
    sent(store, objects)
    with pytest.raises(InvalidRequestError, match="no such upload"):
        take(intake, f"runway://{name}")


def test_many_at_once_leave_nothing_on_the_disk(
    config: ServeConfig, store: Store, objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with Stranger() as server:
        scripts = [ok(PNG, "image/png"), status(500), ok(samples.HTML, "image/png")] * 20
        server.answers(*scripts)
        intake = Intake(config, store, objects, outbound=server.outbound())

        async def everybody() -> list[str | BaseException]:
            takes = [intake.take(server.url(f"/{i}"), "image", KEY, "promptImage") for i in range(60)]
            return await asyncio.gather(*takes, return_exceptions=True)

        answers = asyncio.run(everybody())
    assert sum(isinstance(answer, str) for answer in answers) == 20
    assert all(isinstance(answer, str | InvalidRequestError) for answer in answers)
    assert list(scratch.iterdir()) == []
    assert len(stored(objects)) == 1


def test_one_key_whose_servers_hang_takes_nobody_else_s_turn(
    config: ServeConfig, store: Store, objects: ObjectStore
) -> None:
    with Stranger() as server:
        server.answers(hang())
        media = config.media.model_copy(update={"fetch_timeout_s": 20.0})
        config = config.model_copy(update={"media": media})
        intake = Intake(config, store, objects, outbound=server.outbound())

        async def both() -> float:
            hanging = [asyncio.create_task(intake.take(server.url(), "image", KEY, "a")) for _ in range(100)]
            await asyncio.sleep(0)
            start = time.perf_counter()
            await intake.take(data_uri(PNG), "image", OTHER, "promptImage")
            took_s = time.perf_counter() - start
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
            return took_s

        assert asyncio.run(both()) < config.media.fetch_timeout_s / 2


def test_the_event_loop_goes_on_while_media_are_checked(
    config: ServeConfig, store: Store, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.media import intake as module

    begun, go_on, loop_thread = threading.Event(), threading.Event(), threading.get_ident()
    threads: list[int] = []
    real = module.check

    def held(*given: object, **named: object) -> object:
        threads.append(threading.get_ident())
        begun.set()
        assert go_on.wait(60)
        return real(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "check", held)
    intake = Intake(config, store, objects)

    async def both() -> None:
        taking = asyncio.create_task(intake.take(data_uri(PNG), "image", KEY, "promptImage"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        go_on.set()  # only a loop that runs comes here
        await taking

    asyncio.run(both())
    assert threads
    assert loop_thread not in threads

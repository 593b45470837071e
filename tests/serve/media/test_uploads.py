"""Uploads over HTTP: signed, once, in time, within the limit."""

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import Response

from schemas.catalog import Catalog
from schemas.errors import InvalidRequestError
from serve.config import MediaLimits, ServeConfig
from serve.context import Context
from serve.http import errors
from serve.keys import load_secret
from serve.media.intake import Intake
from serve.media.uploads import create, include, router, sweep
from serve.store.contract import ApiKey, Store
from storage import keys
from storage.objects import ObjectStore
from tests.serve.media import samples

KEY = ApiKey(id="key_1", name="a", created_at=0.0)
PNG = samples.image("PNG")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def context(store: Store, objects: ObjectStore, clock: Clock) -> Context:
    config = ServeConfig(
        public_origin="https://rushes.test", media=MediaLimits(upload_bytes=200_000), upload_expiry_s=60.0
    )
    intake = Intake(config, store, objects, now=clock)
    return Context(
        config=config,
        catalog=Catalog(variants={}),
        store=store,
        objects=objects,
        admission=None,  # type: ignore[arg-type]
        intake=intake,
        now=clock,
        secret=load_secret(store),
    )


@pytest.fixture
def client(context: Context) -> Iterator[TestClient]:
    app = FastAPI()
    app.state.context = context
    app.include_router(router)
    errors.install(app)
    app.add_exception_handler(InvalidRequestError, answered)
    with TestClient(app, base_url="https://rushes.test") as opened:
        yield opened


async def answered(request: Request, error: Exception) -> Response:
    return errors.as_response(request, error)  # as the outermost middleware does


def send(client: TestClient, made: dict[str, Any], data: bytes = PNG, **fields: str) -> int:
    answer = client.post(made["uploadUrl"], data=made["fields"] | fields, files={"file": ("a.png", data)})
    assert answer.status_code == 204 or answer.json()["error"]
    return answer.status_code


def stored(objects: ObjectStore) -> list[str]:
    return [info.key for info in objects.list()]


def test_a_file_is_sent_and_kept(client: TestClient, context: Context, objects: ObjectStore) -> None:
    made: dict[str, Any] = create(context, KEY, "a.png")
    upload_id = made["runwayUri"].removeprefix("runway://")
    assert made["uploadUrl"] == f"https://rushes.test/uploads/{upload_id}"
    assert all(isinstance(value, str) for value in made["fields"].values())
    assert send(client, made) == 204
    assert objects.get(keys.upload(upload_id)) == PNG
    upload = context.store.uploads.get(upload_id)
    assert upload is not None
    assert (upload.content_type, upload.upload_bytes, upload.key_id) == ("image/png", len(PNG), KEY.id)


def test_a_video_is_sent_and_more_fields_do_no_harm(client: TestClient, context: Context) -> None:
    assert send(client, create(context, KEY, "a.mp4"), samples.video("mp4"), metadata="{}") == 204


def test_an_upload_is_for_one_file(client: TestClient, context: Context, objects: ObjectStore) -> None:
    made = create(context, KEY, "a.png")
    assert send(client, made) == 204
    assert send(client, made, samples.image("JPEG")) == 409
    assert objects.get(stored(objects)[0]) == PNG


def test_of_two_at_once_one_is_kept(client: TestClient, context: Context, objects: ObjectStore) -> None:
    made, codes = create(context, KEY, "a.png"), list[int]()
    files = [PNG, samples.image("JPEG")] * 4
    threads = [threading.Thread(target=lambda data=data: codes.append(send(client, made, data))) for data in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [204] + [409] * 7
    assert len(stored(objects)) == 1


def test_a_refused_file_may_be_mended(client: TestClient, context: Context) -> None:
    made = create(context, KEY, "a.png")
    assert send(client, made, samples.HTML) == 400
    assert send(client, made) == 204


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"signature": ""}, 403),
        ({"signature": "A" * 43}, 403),
        ({"signature": "é"}, 403),
        ({"expires": "9999999999"}, 403),
        ({"expires": ""}, 403),
    ],
)
def test_tampered_fields_are_refused(
    client: TestClient, context: Context, objects: ObjectStore, fields: dict[str, str], code: int
) -> None:
    assert send(client, create(context, KEY, "a.png"), **fields) == code
    assert stored(objects) == []


def test_the_fields_of_one_upload_are_not_for_another(client: TestClient, context: Context) -> None:
    one, two = create(context, KEY, "a.png"), create(context, KEY, "a.png")
    assert send(client, one | {"fields": two["fields"]}) == 403


def test_fields_that_come_after_the_file_are_too_late(client: TestClient, context: Context) -> None:
    made: dict[str, Any] = create(context, KEY, "a.png")
    parts = [("file", ("a.png", PNG)), *((name, (None, value)) for name, value in made["fields"].items())]
    assert client.post(made["uploadUrl"], files=parts).status_code == 403


def test_an_upload_expires(client: TestClient, context: Context, clock: Clock, objects: ObjectStore) -> None:
    made = create(context, KEY, "a.png")
    clock.now += 60.0
    assert send(client, made) == 404
    assert stored(objects) == []


def test_an_upload_that_was_never_made_is_not_there(client: TestClient, context: Context) -> None:
    made = create(context, KEY, "a.png")
    for name in ("00000000-0000-0000-0000-000000000000", "x", "..%2f..%2fetc"):
        assert send(client, made | {"uploadUrl": f"https://rushes.test/uploads/{name}"}) == 404


@pytest.mark.parametrize("extra", [1, 300_000])
def test_a_file_over_the_limit_is_refused(
    client: TestClient, context: Context, objects: ObjectStore, extra: int
) -> None:
    assert send(client, create(context, KEY, "a.png"), b"\x89PNG" + b"\0" * (199_996 + extra)) == 413
    assert stored(objects) == []


def test_a_body_without_a_length_is_cut_at_the_limit(client: TestClient, context: Context) -> None:
    """Chunked: nobody said beforehand how much it would be, and it would never end."""
    made: dict[str, Any] = create(context, KEY, "a.png")
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        for name, value in made["fields"].items():
            yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while given < 5_000_000:
            given += 50_000
            yield b"\0" * 50_000

    answer = client.post(
        made["uploadUrl"], content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 413


def test_what_comes_behind_the_form_is_counted_too(client: TestClient, context: Context, objects: ObjectStore) -> None:
    made: dict[str, Any] = create(context, KEY, "a.png")

    def endless() -> Iterator[bytes]:
        for name, value in made["fields"].items():
            yield f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
        for _ in range(100):
            yield b"\0" * 50_000

    answer = client.post(
        made["uploadUrl"], content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 413
    assert stored(objects) == []


BODIES = {
    "no multipart": ("application/json", b"{}", 400),
    "no boundary": ("multipart/form-data", b"", 400),
    "nothing": ("multipart/form-data; boundary=b", b"", 400),
    "no file": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--',
        400,
    ),
    "noise": ("multipart/form-data; boundary=b", b"\0" * 999, 400),
    "no name": ("multipart/form-data; boundary=b", b"--b\r\n\r\n1\r\n--b--", 400),
    "a long header": ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"a" * 100_000, 400),
    "a long field": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"1" * 20_000,
        400,
    ),
    "many fields": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 30,
        400,
    ),
}


@pytest.mark.parametrize(("content_type", "body", "code"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_form_is_refused(
    client: TestClient, context: Context, objects: ObjectStore, content_type: str, body: bytes, code: int
) -> None:
    made: dict[str, Any] = create(context, KEY, "a.png")
    answer = client.post(made["uploadUrl"], content=body, headers={"Content-Type": content_type})
    assert answer.status_code == code
    assert "error" in answer.json()
    assert stored(objects) == []


def test_a_file_cut_short_is_refused(client: TestClient, context: Context, objects: ObjectStore) -> None:
    made: dict[str, Any] = create(context, KEY, "a.png")
    form = io.BytesIO()
    for name, value in made["fields"].items():
        form.write(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    form.write(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PNG)
    answer = client.post(
        made["uploadUrl"], content=form.getvalue(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 400
    assert "cut short" in answer.json()["error"]
    assert stored(objects) == []


@pytest.mark.parametrize("data", [b"", samples.HTML, samples.SVG, samples.webp_canvas(16_383, 16_383), PNG[:-9]])
def test_an_upload_is_checked_like_all_media(
    client: TestClient, context: Context, objects: ObjectStore, data: bytes
) -> None:
    assert send(client, create(context, KEY, "a.png"), data) == 400
    assert stored(objects) == []


@pytest.mark.parametrize("name", ["", "a" * 256, "../a.png", "a\\b.png", "a\nb", "a\0b"])
def test_a_filename_is_a_name(context: Context, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="filename"):
        create(context, KEY, name)


def test_nothing_stays_on_the_disk(
    client: TestClient, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for data in (PNG, samples.HTML, b"\0" * 200_001):
        send(client, create(context, KEY, "a.png"), data)
    assert list(scratch.iterdir()) == []


def test_a_running_application_sweeps(context: Context, clock: Clock, store: Store, objects: ObjectStore) -> None:
    made = create(context, KEY, "a.png")
    upload_id = str(made["runwayUri"]).removeprefix("runway://")
    clock.now += 61
    app = FastAPI()
    app.state.starting, app.state.stopping = [], []
    include(app, context)

    async def life() -> None:
        await app.state.starting[0]()
        for _ in range(500):
            if store.uploads.get(upload_id) is None:
                break
            await asyncio.sleep(0.01)
        await app.state.stopping[0]()

    asyncio.run(life())
    assert store.uploads.get(upload_id) is None


def test_what_has_expired_is_swept(
    client: TestClient, context: Context, clock: Clock, store: Store, objects: ObjectStore
) -> None:
    sent, unsent = create(context, KEY, "a.png"), create(context, KEY, "b.png")
    assert send(client, sent) == 204
    assert sweep(store, objects, clock.now) == 0
    clock.now += 61
    young = create(replace(context), KEY, "c.png")
    assert send(client, young) == 204
    assert sweep(store, objects, clock.now) == 2
    for made in (sent, unsent):
        assert store.uploads.get(str(made["runwayUri"]).removeprefix("runway://")) is None
    assert stored(objects) == [keys.upload(str(young["runwayUri"]).removeprefix("runway://"))]
    assert sweep(store, objects, clock.now) == 0


def test_a_key_that_sends_much_leaves_the_slots_of_others_free(context: Context) -> None:
    async def many() -> None:
        held, let_go = [0], asyncio.Event()

        async def slow() -> None:
            async with context.intake.receiving("greedy"):
                held[0] += 1
                await let_go.wait()

        greedy = [asyncio.create_task(slow()) for _ in range(50)]
        await asyncio.sleep(0)
        others = [context.intake.receiving(f"key_{n}") for n in range(6)]
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            for other in others:
                await stack.enter_async_context(other)
            assert held == [2]
        let_go.set()
        await asyncio.gather(*greedy)
        assert held == [50]

    asyncio.run(many())

"""Signed URLs of a folder, and what they do not open; those of a bucket."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from schemas.catalog import Catalog
from schemas.errors import ConfigError, StorageError
from serve.config import ServeConfig
from serve.context import Context
from serve.keys import load_secret
from serve.media.intake import Intake
from serve.media.outputs import honoured_range, router
from serve.media.urls import output_url, signature
from serve.store.contract import Store
from storage.objects import ObjectStore
from storage.store import open_store
from tests.s3_server import S3Server
from tests.serve.media import samples

CLIP = "clips/embedded/9f/9f1c 7d1e.mp4"
DATA = samples.video("mp4")


def make(store: Store, objects: ObjectStore, now: float = 1000.0, secret: bytes | None = None) -> Context:
    config = ServeConfig(public_origin="https://rushes.test/", url_expiry_s=60.0)
    return Context(
        config=config,
        catalog=Catalog(variants={}),
        store=store,
        objects=objects,
        admission=None,  # type: ignore[arg-type]
        intake=Intake(config, store, objects),
        now=lambda: now,
        secret=load_secret(store) if secret is None else secret,
    )


@pytest.fixture
def context(store: Store, objects: ObjectStore) -> Context:
    objects.put(CLIP, DATA)
    return make(store, objects)


@pytest.fixture
def client(context: Context) -> Iterator[TestClient]:
    app = FastAPI()
    app.state.context = context
    app.include_router(router)
    with TestClient(app, base_url="https://rushes.test") as opened:
        yield opened


def test_a_signed_url_gives_the_clip(client: TestClient, context: Context) -> None:
    url = output_url(context, context.objects.uri(CLIP))
    assert url.startswith("https://rushes.test/outputs/clips/embedded/9f/9f1c%207d1e.mp4?")
    answer = client.get(url)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = client.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(DATA)))


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=10-", 206, 10, None),
        ("bytes=-5", 206, -5, None),
        ("bytes=99999999-", 416, 0, 0),
    ],
)
def test_a_player_reads_ranges(
    client: TestClient, context: Context, asked: str, status: int, start: int, end: int | None
) -> None:
    answer = client.get(output_url(context, context.objects.uri(CLIP)), headers={"Range": asked})
    assert answer.status_code == status
    if status == 206:
        assert answer.content == DATA[start:end]
        assert answer.headers["content-range"].endswith(f"/{len(DATA)}")


@pytest.mark.parametrize(
    ("key", "content_type"),
    [("clips/a/b.webm", "video/webm"), ("clips/a/b.gif", "image/gif"), ("clips/a/b.zip", "application/zip")],
)
def test_the_type_is_the_file_s(client: TestClient, context: Context, key: str, content_type: str) -> None:
    context.objects.put(key, b"x")
    assert client.get(output_url(context, context.objects.uri(key))).headers["content-type"] == content_type


def test_a_url_expires(client: TestClient, context: Context) -> None:
    earlier = make(context.store, context.objects, now=900.0)
    answer = client.get(output_url(earlier, context.objects.uri(CLIP)))
    assert answer.status_code == 403
    assert "expired" in answer.text
    barely = make(context.store, context.objects, now=941.0)
    assert client.get(output_url(barely, context.objects.uri(CLIP))).status_code == 200


def test_a_url_is_for_one_object_and_one_time(client: TestClient, context: Context) -> None:
    context.objects.put("clips/embedded/other.mp4", b"other")
    url = output_url(context, context.objects.uri(CLIP))
    path, query = urlsplit(url).path, urlsplit(url).query
    tampered = (
        path,
        f"{path}?expires=2000",
        f"{path}?{query}A",
        f"{path}?{query[:-1]}",
        f"{path}?{query.replace('expires=1060', 'expires=1061')}",
        f"{path}?{query.replace('expires=1060', 'expires=01060')}",
        f"{path}?{query.replace('signature=', 'signature=é')}",
        f"/outputs/clips/embedded/other.mp4?{query}",
        f"/outputs/{CLIP.upper()}?{query}",
        f"/outputs//{CLIP}?{query}",
        f"/outputs/?{query}",
        f"/outputs/{'a' * 2000}?{query}",
        f"{path}?expires=1060&signature={signature(b's' * 32, 'output', CLIP, '1060')}",
        f"{path}?expires=1060&signature={signature(context.secret, 'upload', CLIP, '1060')}",
    )
    for wrong in tampered:
        assert client.get(wrong).status_code == 403, wrong


@pytest.mark.parametrize(
    "key",
    [
        "../secret.txt",
        "clips/../../secret.txt",
        "clips/./a",
        "/etc/passwd",
        "clips",
        "",
        "a\0b",
        "clips/none.mp4",
        "clips/link.mp4",
        "clips\\a",
    ],
)
def test_a_key_that_leaves_the_folder_opens_nothing_even_signed(
    client: TestClient, context: Context, tmp_path: Path, key: str
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "out" / "clips" / "link.mp4").symlink_to(tmp_path / "secret.txt")
    signed = f"expires=2000&signature={signature(context.secret, 'output', key, '2000')}"
    for written in {quote(key, safe=""), quote(key), quote(quote(key, safe=""))}:
        answer = client.get(f"/outputs/{written}?{signed}")
        assert answer.status_code in (403, 404)
        assert "secret" not in answer.text


def test_what_lies_outside_has_no_url(context: Context, tmp_path: Path) -> None:
    for uri in ((tmp_path / "secret.txt").as_uri(), "file:///etc/passwd", "/etc/passwd"):
        with pytest.raises(StorageError, match="no URL leads there"):
            output_url(context, uri)


def test_without_a_secret_nothing_is_signed(store: Store, objects: ObjectStore) -> None:
    with pytest.raises(ConfigError):
        output_url(make(store, objects, secret=b""), objects.uri(CLIP))


@pytest.mark.s3
def test_a_bucket_signs_for_itself(store: Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    objects = open_store(s3_server.make_bucket("outputs") + "/prefix")
    objects.put("clips/a b.mp4", DATA, "video/mp4")
    context = make(store, objects)
    for url in (
        output_url(context, objects.uri("clips/a b.mp4")),
        output_url(make(store, open_store("s3://elsewhere")), "s3://outputs/prefix/clips/a b.mp4"),
    ):
        with urllib.request.urlopen(url) as answer:  # no credentials
            assert answer.read() == DATA
            assert answer.headers["content-type"] == "video/mp4"
        assert "Expires=" in url


@pytest.mark.parametrize(
    ("given", "heeded"),
    [
        ("bytes=0-9", "bytes=0-9"),
        ("Bytes=-5", "bytes=-5"),
        ("bytes=0-4, 10-", "bytes=0-4,10-"),
        ("bytes=0-4,5000-", "bytes=0-4"),  # what can be satisfied
        ("bytes=5000-,6000-", "bytes=5000-"),  # nothing can: 416
        ("bytes=-0", "bytes=-0"),
        ("bytes=9-2", None),
        ("bytes=a-b", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes", None),
        ("items=0-5", None),
        ("bytes=0-5;x", None),
        ("bytes=1.5-2", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("0-5", None),
        ("", None),
    ],
)
def test_a_range_that_is_none_is_not_heeded(
    client: TestClient, context: Context, given: str, heeded: str | None
) -> None:
    assert honoured_range(given, 100) == heeded
    answer = client.get(output_url(context, context.objects.uri(CLIP)), headers={"Range": given})
    assert answer.status_code in (200, 206, 416)
    if heeded is None:
        assert (answer.status_code, answer.content) == (200, DATA)


def test_two_ranges_in_two_headers_are_none(client: TestClient, context: Context) -> None:
    url = output_url(context, context.objects.uri(CLIP))
    answer = client.get(url, headers=[("Range", "bytes=0-1"), ("Range", "bytes=3-4")])
    assert (answer.status_code, answer.content) == (200, DATA)

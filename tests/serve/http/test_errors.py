"""Refusals: the envelope, the path in the client's own names, what would be right, and what is probably meant."""

import json
import logging
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from schemas.errors import StorageUnavailableError
from serve.config import Limits
from serve.errors import StoreUnavailableError
from tests.serve.http.endpoint import Endpoint, endpoint

TEXT = {"model": "embedded", "promptText": "a red circle"}
URL = "https://example.com/a"

# (path, body, status, code, issue's path, part of the message, suggestion)
REFUSED: list[tuple[str, dict[str, Any], str, list[str | int], str, str | None]] = [
    ("text_to_video", {}, "required", ["model"], "required", None),
    ("text_to_video", {"model": "embedded"}, "required", ["promptText"], "required", None),
    ("text_to_video", {**TEXT, "promptText": ""}, "string_too_short", ["promptText"], "1 character", None),
    ("text_to_video", {**TEXT, "promptText": "x" * 1001}, "too_big", ["promptText"], "1000 UTF-16", None),
    # Each of these is two UTF-16 units, as Runway counts.
    ("text_to_video", {**TEXT, "promptText": "🎬" * 501}, "too_big", ["promptText"], "has 1002", None),
    ("text_to_video", {**TEXT, "promptText": "a\0b"}, "invalid", ["promptText"], "U+0000", None),
    ("text_to_video", {**TEXT, "model": "embeded"}, "unknown_model", ["model"], "unknown model", "embedded"),
    ("text_to_video", {**TEXT, "model": "wan-14b"}, "not_served", ["model"], "not served here", None),
    ("text_to_video", {**TEXT, "promptTxt": "x"}, "unrecognized_key", ["promptTxt"], "not known", "promptText"),
    ("text_to_video", {**TEXT, "ratio": "wide"}, "invalid_format", ["ratio"], "1280:720", None),
    ("text_to_video", {**TEXT, "ratio": "0:1"}, "invalid_format", ["ratio"], "positive", None),
    ("text_to_video", {**TEXT, "ratio": "9" * 30 + ":720"}, "invalid_format", ["ratio"], "too large", None),
    ("text_to_video", {**TEXT, "duration": 0}, "greater_than", ["duration"], "greater than 0", None),
    ("text_to_video", {**TEXT, "duration": "x"}, "float_parsing", ["duration"], "valid number", None),
    ("text_to_video", {**TEXT, "seed": -1}, "greater_than_equal", ["seed"], "0", None),
    ("text_to_video", {**TEXT, "seed": 2**32}, "less_than_equal", ["seed"], "4294967295", None),
    ("text_to_video", {**TEXT, "duration": 2, "numFrames": 9}, "invalid", ["numFrames"], "not both", None),
    ("text_to_video", {**TEXT, "scheduler": "Euler"}, "invalid", ["scheduler"], "EulerDiscreteScheduler", None),
    ("text_to_video", {**TEXT, "outputFormat": "mp5"}, "literal_error", ["outputFormat"], "webm", "mp4"),
    ("text_to_video", {**TEXT, "optimizeFor": "costs"}, "enum", ["optimizeFor"], "latency", "cost"),
    ("text_to_video", {**TEXT, "audio": True, "model": "shapes"}, "not_taken", ["audio"], "sound", None),
    ("text_to_video", {**TEXT, "promptImage": "x"}, "unsupported", ["promptImage"], "not available", None),
    ("text_to_video", {**TEXT, "priority": 101}, "less_than_equal", ["priority"], "100", None),
    ("text_to_video", {**TEXT, "deadline": -5}, "too_small", ["deadline"], "to come", None),
    ("text_to_video", {**TEXT, "deadline": "tomorrow"}, "invalid_format", ["deadline"], "2030-01-31", None),
    ("text_to_video", {**TEXT, "deadline": "2020-01-01"}, "too_small", ["deadline"], "to come", None),
    ("text_to_video", {**TEXT, "deadline": 1e300}, "too_big", ["deadline"], "to come", None),
    ("text_to_video", {**TEXT, "maxCredits": -1}, "greater_than_equal", ["maxCredits"], "0", None),
    ("text_to_video", {**TEXT, "allowModels": ["tini"]}, "unknown_model", ["allowModels"], "unknown", "tiny"),
    ("text_to_video", {**TEXT, "minQuality": 1.0}, "no_eligible_model", ["minQuality"], "quality", None),
    ("text_to_video", {**TEXT, "webhookUrl": "ftp://x"}, "invalid_format", ["webhookUrl"], "https", None),
    ("image_to_video", TEXT, "required", ["promptImage"], "required", None),
    ("image_to_video", {**TEXT, "promptImage": "https://bad"}, "asset_invalid", ["promptImage"], "not an image", None),
    ("image_to_video", {**TEXT, "promptImage": []}, "too_short", ["promptImage"], "at least 1", None),
    (
        "image_to_video",
        {**TEXT, "promptImage": [{"uri": URL, "position": "last"}]},
        "role",
        ["promptImage", 0, "position"],
        "shapes takes no last_frame",
        None,
    ),
    ("video_to_video", TEXT, "required", ["videoUri"], "promptVideo", None),
    ("video_to_video", {**TEXT, "videoUri": URL, "promptVideo": URL}, "invalid", ["promptVideo"], "not both", None),
    (
        "video_to_video",
        {**TEXT, "model": "tiny", "promptVideo": "https://bad"},
        "asset_invalid",
        ["promptVideo"],
        "not",
        None,
    ),
    ("video_to_video", {**TEXT, "videoUri": URL}, "mode", ["model"], "does not serve video_to_video", None),
    ("uploads", {"filename": "a/b.png"}, "invalid_filename", ["filename"], "without slashes", None),
    ("organization/usage", {"startDate": "x"}, "date_from_datetime_parsing", ["startDate"], "date", None),
    (
        "organization/usage",
        {"startDate": "2026-01-01", "beforeDate": "2026-06-01"},
        "too_big",
        ["beforeDate"],
        "90 days",
        None,
    ),
    (
        "organization/usage",
        {"startDate": "2026-02-01", "beforeDate": "2026-01-01"},
        "invalid",
        ["beforeDate"],
        "after",
        None,
    ),
]


@pytest.mark.parametrize(("path", "body", "code", "place", "message", "suggestion"), REFUSED)
def test_a_wrong_body_is_refused_at_its_place(
    http: httpx.Client,
    served: Endpoint,
    path: str,
    body: dict[str, Any],
    code: str,
    place: list[str | int],
    message: str,
    suggestion: str | None,
) -> None:
    before = served.store.tasks.counts().by_status
    answer = http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400
    told = answer.json()
    assert told["docUrl"].startswith("http")
    assert told["requestId"] == answer.headers["x-request-id"]
    issue = next((one for one in told["issues"] if one["path"] == place), None)
    assert issue is not None, told
    assert issue["code"] == code
    assert message in issue["message"]
    assert issue.get("suggestion") == suggestion or (suggestion is None and code in ("mode",))
    assert served.store.tasks.counts().by_status == before


def test_all_issues_are_told_at_once(http: httpx.Client) -> None:
    told = http.post("/v1/text_to_video", json={"seed": -1, "ratio": "x"}).json()
    assert {issue["path"][0] for issue in told["issues"]} == {"seed", "ratio", "model", "promptText"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b'{"a":' * 3000, b"\xff\xfe", b"NaN"])
def test_what_is_no_object_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/text_to_video", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == []


def test_another_content_type_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/text_to_video", data={"model": "embedded"})
    assert answer.status_code == 400
    assert "application/json" in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer rsh_" + "a" * 43}, 401),
        ({"Authorization": "Basic eDp5"}, 401),
    ],
)
def test_without_a_key_nothing_is_told(served: Endpoint, headers: dict[str, str], status: int) -> None:
    for method, path in (("POST", "/v1/text_to_video"), ("GET", "/v1/tasks/x"), ("GET", "/v1/organization")):
        answer = httpx.request(method, served.url + path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == status
        assert answer.headers["www-authenticate"] == "Bearer"
        assert set(answer.json()) == {"error", "docUrl", "requestId"}


@pytest.mark.parametrize(
    ("method", "path", "part"),
    [
        ("POST", "/v1/text_to_image", "does not serve images"),
        ("GET", "/v1/voices", "does not serve voices"),
        ("POST", "/v1/text_to_vidio", "there is no"),
        ("GET", "/nowhere", "there is no"),
    ],
)
def test_what_is_not_served_says_what_is(http: httpx.Client, method: str, path: str, part: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 404
    assert part in answer.json()["error"]
    assert "/v1/text_to_video" in answer.json()["available"]


def test_a_wrong_method_is_405_in_the_envelope(http: httpx.Client) -> None:
    answer = http.put("/v1/text_to_video", json={})
    assert answer.status_code == 405
    assert answer.json()["error"]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "status=DONE", "cursor=abc", "cursor=-1"])
def test_a_wrong_query_is_refused(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/v1/tasks?{query}")
    assert answer.status_code == 400
    assert answer.json()["issues"][0]["path"] == [query.partition("=")[0]]


def test_the_request_id_is_taken_when_it_is_harmless(http: httpx.Client) -> None:
    answer = http.get("/v1/organization", headers={"X-Request-Id": "my-request-1"})
    assert answer.headers["x-request-id"] == "my-request-1"
    answer = http.get("/v1/organization", headers={"X-Request-Id": "a b<script>"})
    assert answer.headers["x-request-id"] != "a b<script>"


def test_what_breaks_inside_is_logged_and_not_told(
    http: httpx.Client, served: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(served.context.admission, "consider", broken)
    with caplog.at_level(logging.ERROR):
        answer = http.post("/v1/text_to_video", json=TEXT)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert answer.json()["requestId"] == answer.headers["x-request-id"]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "hunter2" in str(record.exc_info[1] if record.exc_info else "")


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("locked /secret/path"), StorageUnavailableError("s3://secret")]
)
def test_a_store_that_is_away_is_503_with_retry_after(
    http: httpx.Client, served: Endpoint, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def away(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(served.store.tasks, "submit", away)
    answer = http.post("/v1/text_to_video", json=TEXT)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "secret" not in answer.text


def test_refusals_are_counted_by_why(http: httpx.Client, served: Endpoint) -> None:
    def counted(why: str) -> float:
        found = [line for line in http.get("/metrics").text.splitlines() if f'why="{why}"' in line and "_total" in line]
        return sum(float(line.split()[-1]) for line in found)

    before = {why: counted(why) for why in ("invalid", "deadline", "limit")}
    http.post("/v1/text_to_video", json={})
    http.post("/v1/generate/video", json={"configId": "x", "input": {}})
    http.post("/v1/text_to_video", json={**TEXT, "deadline": 0.01})
    limited = {"Authorization": f"Bearer {served.another_key(max_daily=1)}"}
    for _ in range(2):
        http.post("/v1/text_to_video", json=TEXT, headers=limited)
    after = {why: counted(why) - count for why, count in before.items()}
    assert after == {"invalid": 2, "deadline": 1, "limit": 1}


def test_large_bodies_are_cut_off(tmp_path: Path) -> None:
    with endpoint(tmp_path, limits=Limits(max_body_bytes=2048, max_header_bytes=2048)) as served:
        headers = {"Authorization": f"Bearer {served.secret}", "Content-Type": "application/json"}
        answer = httpx.post(served.url + "/v1/text_to_video", content=b"x" * 3000, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"] == "the body is larger than 2048 bytes"

        def drips() -> Any:
            for _ in range(100):
                yield b"x" * 100

        for path in ("/v1/text_to_video", "/v1/routers"):  # without a length: counted while it comes
            answer = httpx.post(served.url + path, content=drips(), headers=headers)
            assert answer.status_code == 413
        answer = httpx.get(served.url + "/v1/organization", headers={**headers, "X-Much": "y" * 3000})
        assert answer.status_code == 431
        assert answer.json()["requestId"]
        answer = httpx.get(served.url + "/v1/organization", headers=headers)
        assert answer.status_code == 200


def test_half_a_request_harms_nobody(served: Endpoint, http: httpx.Client) -> None:
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        head = f"POST /v1/text_to_video HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.secret}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{{".encode())
    assert http.get("/v1/organization").status_code == 200


def test_the_document_is_whole(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert http.get("/docs").status_code == 200
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        here: Any = document
        for name in reference.removeprefix("#/").split("/"):
            here = here[name]
    create = document["paths"]["/v1/text_to_video"]["post"]
    assert create["requestBody"]["content"]["application/json"]["example"]["promptText"]


def test_the_document_s_examples_are_true(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    for path in ("/v1/text_to_video", "/v1/image_to_video", "/v1/video_to_video", "/v1/uploads", "/v1/routers"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        answer = http.post(path, json=example)
        assert answer.status_code == 200, (path, answer.text)
        shown = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["example"]
        assert set(shown) <= set(answer.json()), path

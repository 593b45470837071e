"""What a request leaves in the audit log: who asked for what, and why it was refused."""

import httpx

from schemas.audit import AuditFilter, AuditPrompts, AuditSettings, Entry
from serve.audit_log import EndpointAuditLog
from tests.serve.http.endpoint import Endpoint
from tests.serve.http.test_errors import TEXT
from trust.redaction import words_of


def refusals(served: Endpoint, key_id: str | None = None) -> list[Entry]:
    log = EndpointAuditLog(served.context.store, served.context.objects)
    of = AuditFilter(action="task.refused", key_id=key_id or served.key.id)
    return [record.entry for _, record, _ in log.records(of)]


def test_a_request_is_told_of_with_its_key_and_its_quote(http: httpx.Client, served: Endpoint) -> None:
    task_id = http.post("/v1/text_to_video", json=TEXT).json()["id"]
    log = EndpointAuditLog(served.context.store, served.context.objects)
    ((_, record, prompt),) = log.records(AuditFilter(subject=f"task:{task_id}"))
    assert (record.entry.actor, record.entry.details["kind"]) == (f"key:{served.key.id}", "text_to_video")
    assert record.entry.decision
    assert record.entry.reason
    assert prompt is not None
    assert prompt.words == words_of(TEXT["promptText"])


def test_refusals_are_told_of_with_why(http: httpx.Client, served: Endpoint) -> None:
    before = len(refusals(served))
    http.post("/v1/text_to_video", json={"promptText": "a secret wish"})
    http.post("/v1/generate/video", json={"configId": "x", "input": {}})
    http.post("/v1/text_to_video", json={**TEXT, "deadline": 0.01})
    http.post("/v1/batches", json={"tasks": [{"promptText": ""}]})
    http.post("/v1/text_to_video", content=b"{", headers={"Content-Type": "application/json"})
    found = refusals(served)[before:]
    assert [entry.details["path"] for entry in found] == [
        "/v1/text_to_video",
        "/v1/generate/video",
        "/v1/text_to_video",
        "/v1/batches",
        "/v1/text_to_video",
    ]
    assert [entry.details["why"] for entry in found] == ["invalid", "invalid", "deadline", "invalid", "invalid"]
    assert all(entry.reason and entry.decision for entry in found)
    assert found[0].prompt_sha256
    assert not found[4].prompt_sha256
    assert "secret" not in "".join(entry.canonical for entry in found)


def test_what_a_limit_refuses_is_told_of(http: httpx.Client, served: Endpoint) -> None:
    limited = {"Authorization": f"Bearer {served.another_key(max_daily=1)}"}
    for _ in range(2):
        http.post("/v1/text_to_video", json=TEXT, headers=limited)
    key_id = served.context.store.keys.all()[-1].id
    (entry,) = refusals(served, key_id)
    assert (entry.decision, entry.details["model"]) == ("limit", TEXT["model"])
    assert "1 tasks a day" in entry.reason


def test_strangers_leave_nothing(http: httpx.Client, served: Endpoint) -> None:
    """Whoever has no key could fill the log otherwise; they are counted in the metrics."""
    before = len(refusals(served))
    assert http.post("/v1/text_to_video", json=TEXT, headers={"Authorization": "Bearer no"}).status_code == 401
    assert len(refusals(served)) == before


def test_settings_of_the_log_are_read_from_the_endpoints_file() -> None:
    from serve.config import ServeConfig

    config = ServeConfig.model_validate({"audit": {"prompts": "redact", "anchor_s": 60}})
    assert config.audit == AuditSettings(prompts=AuditPrompts.REDACT, anchor_s=60.0)

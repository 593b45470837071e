"""Requests that the OpenAPI document allows, that it does not, and that nobody has documented; none may be a 5xx.

    python -m tests.serve.http.schema_fuzz --requests 10000   # minutes; prints what broke, exits 1 if anything did
    python -m tests.serve.http.schema_fuzz --quick            # what the suite runs

The first two kinds are made by schemathesis; the third takes documented requests apart: other methods, paths, headers,
queries and bodies, by a seed.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from serve.config import Limits
from tests.serve.http.endpoint import Endpoint, catalog_with, endpoint, pool

QUICK = 1200
_STRANGE_SHARE = 0.3

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, -0.0, 10**30, "", " ", "\x00", "\ud83d", "é" * 300, "x" * 5000, [], {}, [[[[]]]],
    {"a": {"b": [None]}}, "data:image/png;base64,AAAA", "https://[::1", "../..", "%2e%2e", "2030-13-45", "NaN",
    [None] * 50, {"": ""}, "rsh_x", "00000000-0000-0000-0000-000000000000",
)  # fmt: skip
_TEXTS = (
    "",
    "0",
    "-1",
    "9" * 400,
    "é",
    "%00",
    "%ff",
    "a&b=c",
    "null",
    "[]",
    "1e5",
    "../../etc/passwd",
    "\t",
    "x" * 3000,
)
_NAMES = ("limit", "cursor", "status", "x", "")
_FIELDS = ("mode", "tasks", "manifestUri", "deadline", "maxCredits", "promptImage", "seed", "x")
_NOT_JSON = (b"{", b"[" * 5000, b"nul", b'"\\ud800"', b"\xff\xfe{}", b"1" * 5000, b"{}{}", b'{"a":1,"a":2}')
_HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Idempotency-Key", ("", "k", "x" * 300, "a\tb", "once")),
    ("Content-Type", ("", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "a/b/c", ";")),
    ("Range", ("bytes=0-", "bytes=9-1", "items=0-1", "bytes=" + "0-1," * 200)),
    ("X-Runway-Version", ("2024-11-06", "x", "9999-99-99", "")),
    ("X-Request-Id", ("abcdefgh", "<script>", "x" * 500)),
    ("Authorization", ("", "Bearer", "Basic eDp5", "Bearer rsh_" + "A" * 43, "Bearer " + "x" * 4000)),
    ("Accept", ("text/html", "*/*;q=x")),
    ("If-None-Match", ("*", '"x"')),
    ("Expect", ("100-continue",)),
    ("Transfer-Encoding", ("chunked",)),
    ("Content-Encoding", ("gzip", "br")),
    ("Origin", ("null", "https://evil.example")),
    ("Host", ("evil.example", "[::1]")),
    ("X-Forwarded-Proto", ("https", "x")),
)


@dataclass
class Report:
    """What was asked and what broke."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    operations: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    def note(self, what: str, status: int, text: str, is_error: bool) -> None:
        self.requests += 1
        self.statuses[status] += 1
        if status >= 500 or not is_error:
            self.broken.append(f"{what:.400} -> {status} {text:.300}")


@contextmanager
def served(folder: Path) -> Iterator[Endpoint]:
    """An endpoint that takes no large batches and waits for no body for long."""
    limits = Limits(body_timeout_s=2.0, max_batch_tasks=50)
    with endpoint(folder, catalog_with({"shapes": 3.6}), limits=limits) as running:
        running.note(pool("shapes"), pool("shapes-turbo"), pool("tiny-random"))
        yield running


def fuzz(running: Endpoint, requests: int, number: int = 0) -> Report:
    """About so many requests, the same for the same number."""
    report = Report()
    document = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    # Streams do not end; and nobody dispatches here, so it is never ready for long.
    operations = [
        operation
        for operation in (found.ok() for found in document.get_all_operations())
        if not operation.path.endswith("events") and operation.path != "/readyz"
    ]
    each = max(1, round(requests * (1 - _STRANGE_SHARE) / (2 * len(operations))))
    headers = {"Authorization": f"Bearer {running.secret}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _documented(operation, mode, each, number, running.url, headers, report)
        _strange(client, running, document.raw_schema, requests - report.requests, number, report)
    return report


def _documented(
    operation: Any, mode: GenerationMode, count: int, number: int, url: str, headers: dict[str, str], report: Report
) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call(base_url=url, headers=headers, timeout=60)
        report.operations.add(operation.label)
        is_envelope = answer.status_code < 400 or "error" in answer.json()
        report.note(f"{operation.label} {case.query} {case.body!r}", answer.status_code, answer.text, is_envelope)

    try:
        ask()
    except Exception as error:
        # Where nothing can be wrong, there is nothing to generate.
        if type(error).__name__ not in ("Unsatisfiable", "InvalidArgument"):
            raise


def _strange(
    client: httpx.Client, running: Endpoint, document: dict[str, Any], count: int, number: int, report: Report
) -> None:
    dice = random.Random(number)
    task = client.post("/v1/text_to_video", json={"model": "shapes", "promptText": "x"}).json()["id"]
    batch = client.post("/v1/batches", json={"tasks": [{"model": "shapes", "promptText": "x"}]}).json()["id"]
    examples = list(_examples(document))
    for _ in range(count):
        method, path, body = dice.choice(examples)
        path = path.replace("{task_id}", task).replace("{batch_id}", batch)
        path = path.replace("{router_id}", dice.choice((task, "x", "%2e%2e", "a%2fb")))
        if dice.random() < 0.2:
            method = dice.choice(_METHODS)
        if dice.random() < 0.15:
            path += dice.choice(("/", "//", "/..", "/%2e%2e/", "?", "%00", "/events/x", "/" + "x" * 3000))
        if dice.random() < 0.4:
            query = "&".join(f"{dice.choice(_NAMES)}={dice.choice(_TEXTS)}" for _ in range(2))
            path += f"?{query}"
        headers = {name: dice.choice(values) for name, values in _HEADERS if dice.random() < 0.08}
        content = _spoiled(dice, body) if method in ("POST", "PUT", "PATCH") or dice.random() < 0.05 else b""
        if content and dice.random() < 0.9:
            headers.setdefault("Content-Type", "application/json")
        if path.partition("?")[0].rstrip("/").endswith("events"):
            continue
        try:
            request = client.build_request(method, path, content=content or None, headers=headers)
            answer = client.send(request)
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError, ValueError):
            continue  # httpx does not send it
        except httpx.RemoteProtocolError as error:
            if "Transfer-Encoding" in headers:
                continue  # a body that is framed twice: the server hangs up
            report.note(f"{method} {path} {headers} {content!r}", 599, repr(error), False)
            continue
        said = f"{method} {path} {headers} {content!r}"
        told = answer.status_code < 400 or method == "HEAD" or b"error" in answer.content or not answer.content
        # uvicorn's own, before we are asked: a request line or a header that is none.
        told = told or answer.text.startswith("Invalid HTTP request")
        if answer.status_code == 503 and path.startswith("/readyz"):
            continue  # nobody dispatches: once the note of that is old, it says so
        report.note(said, answer.status_code, answer.text, told)


def _examples(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            yield method.upper(), path, content.get("example", {})


def _spoiled(dice: random.Random, body: Any) -> bytes:
    """A body with something of it changed, or cut, or not JSON at all."""
    kind = dice.random()
    if kind < 0.1:
        return dice.randbytes(dice.randrange(1, 200))
    if kind < 0.2:
        return dice.choice(
            (b"{", b"[" * 5000, b"nul", b'"\\ud800"', b"\xff\xfe{}", b"1" * 5000, b"{}{}", b'{"a":1,"a":2}')
        )
    changed = json.loads(json.dumps(body))
    if isinstance(changed, dict):
        for _ in range(dice.randrange(1, 4)):
            at = changed
            while isinstance(at, dict) and at and dice.random() < 0.5:
                inner = dice.choice(list(at))
                if not isinstance(at[inner], dict):
                    break
                at = at[inner]
            name = dice.choice(
                [*at, "mode", "tasks", "manifestUri", "deadline", "maxCredits", "promptImage", "seed", "x"]
            )
            at[name] = deepcopy(dice.choice(_VALUES))
    text = json.dumps(changed).encode()
    return text[: dice.randrange(len(text))] if kind < 0.25 else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} requests")
    given_ = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as running:
        report = fuzz(running, QUICK if given_.quick else given_.requests, given_.seed)
    print(f"{report.requests} requests of {len(report.operations)} operations: {dict(sorted(report.statuses.items()))}")
    print(f"{len(report.broken)} broken", *report.broken[:50], sep="\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""API keys against a real store: made once, told apart, forgotten when revoked."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cluster.scheduling.events import TenantShare
from rushes.keys_command import keys as keys_app
from schemas.errors import ConfigError, InvalidRequestError
from serve.config import ServeConfig, Webhooks
from serve.errors import UnauthorizedError
from serve.keys import Keyring, caller, change, create, derived, digest, load_secret, share_of
from serve.observability.redaction import redacted
from serve.store.contract import ApiKey, Store
from serve.store.engine import open_store
from serve.webhooks import webhook_secret


class Counting:
    """The store's keys, and how often somebody looked for one."""

    def __init__(self, store: Store) -> None:
        self._store, self.reads = store, 0
        self.keys = self

    def find(self, of: str) -> ApiKey | None:
        self.reads += 1
        return self._store.keys.find(of)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_stored_as_its_hash_only(store: Store, tmp_path: Path) -> None:
    key, secret = create(store, "laptop", 1.0, max_concurrent=2, max_daily=5, monthly_credits=0)
    assert secret.startswith("rsh_")
    assert len(secret) == 47
    assert store.keys.find(hashlib.sha256(secret.encode()).hexdigest()) == key
    assert (key.max_concurrent, key.max_daily, key.monthly_credits) == (2, 5, 0)
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()
        assert secret[4:].encode() not in file.read_bytes()


def test_no_two_keys_are_alike(store: Store) -> None:
    made = [create(store, "same name", 1.0) for _ in range(20)]
    assert len({secret for _, secret in made}) == len({key.id for key, _ in made}) == 20


@pytest.mark.parametrize("name", ["", "a" * 101, "a\nb", "\x1b[31m"])
def test_a_name_that_would_break_lists_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        create(store, name, 1.0)


@pytest.mark.parametrize("limit", [{"max_concurrent": 0}, {"max_daily": -1}, {"monthly_credits": -1}])
def test_a_limit_that_cannot_be_is_refused(store: Store, limit: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limit))):
        create(store, "a", 1.0, **limit)


def test_a_busy_key_costs_one_read_in_a_while(store: Store) -> None:
    key, secret = create(store, "a", 1.0)
    counting, clock = Counting(store), Clock()

    async def busy() -> None:
        ring = Keyring(counting, cache_s=3.0, clock=clock)  # type: ignore[arg-type]
        found = await asyncio.gather(*(ring.find(f"Bearer {secret}") for _ in range(50)))
        assert set(found) == {key}
        assert counting.reads == 1
        clock.now += 2.9
        await ring.find(f"bearer {secret}")
        assert counting.reads == 1
        clock.now += 0.2
        await ring.find(f"Bearer  {secret}")
        assert counting.reads == 2

    asyncio.run(busy())


def test_a_revoked_key_stops_when_what_was_remembered_is_old(store: Store) -> None:
    key, secret = create(store, "a", 1.0)
    clock = Clock()

    async def calls() -> None:
        ring = Keyring(store, cache_s=3.0, clock=clock)
        await ring.find(f"Bearer {secret}")
        assert store.keys.revoke(key.id, 2.0)
        clock.now += 3.0
        with pytest.raises(UnauthorizedError, match="revoked"):
            await ring.find(f"Bearer {secret}")

    asyncio.run(calls())


def test_a_revoked_key_is_refused_whatever_the_store_returns() -> None:
    revoked = ApiKey(id="key_1", name="a", created_at=0.0, revoked_at=1.0)

    class Returning:
        keys = property(lambda self: self)

        def find(self, of: str) -> ApiKey:
            return revoked

    with pytest.raises(UnauthorizedError, match="revoked"):
        asyncio.run(_find(Returning(), "Bearer rsh_" + "a" * 43))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer rsh_short",
        "Bearer key_0000",
        "Bearer rsh_" + "a" * 44,
        "Bearer rsh_" + "a" * 42 + "é",
        "Bearer rsh_" + "a" * 42 + "\n",
        "Bearer " + "a" * 10_000,
        "rsh_" + "a" * 43,
    ],
)
def test_what_is_no_key_costs_no_read_and_is_not_repeated(store: Store, header: str | None) -> None:
    counting = Counting(store)
    with pytest.raises(UnauthorizedError) as refused:
        asyncio.run(_find(counting, header))
    assert counting.reads == 0
    assert "aaaa" not in str(refused.value)


def test_unknown_keys_are_remembered_but_not_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.keys._MOST_CACHED", 10)
    counting = Counting(store)

    async def guesses() -> None:
        ring = Keyring(counting, clock=Clock())  # type: ignore[arg-type]
        for guess in [f"Bearer rsh_{i:043d}" for i in range(30)] + [f"Bearer rsh_{29:043d}"]:
            with pytest.raises(UnauthorizedError):
                await ring.find(guess)
        assert counting.reads == 30
        assert len(ring._known) == 10

    asyncio.run(guesses())


def test_one_caller_going_away_does_not_fail_the_others(store: Store) -> None:
    key, secret = create(store, "a", 1.0)

    async def calls() -> None:
        ring = Keyring(store)
        leaving, staying = (asyncio.create_task(ring.find(f"Bearer {secret}")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == key

    asyncio.run(calls())


class Held:
    """What `app.state.context` needs for this much."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self.store, self.config = store, config


def _app(store: Store, config: ServeConfig) -> TestClient:
    app = FastAPI()
    app.state.context = Held(store, config)

    @app.get("/who")
    async def who(key: ApiKey = Depends(caller)) -> str:  # noqa: B008
        return key.id

    @app.exception_handler(UnauthorizedError)
    async def unauthorized(request: Request, error: UnauthorizedError):  # type: ignore[no-untyped-def]
        from fastapi.responses import JSONResponse

        return JSONResponse({"error": str(error)}, 401)

    return TestClient(app)


def test_the_dependency_tells_callers_apart(store: Store) -> None:
    (one, first), (two, second) = create(store, "a", 1.0), create(store, "b", 1.0)
    with _app(store, ServeConfig()) as client:
        for key, secret in ((one, first), (two, second)):
            assert client.get("/who", headers={"Authorization": f"Bearer {secret}"}).json() == key.id
        assert client.get("/who").status_code == 401
        wrong = client.get("/who", headers={"Authorization": "Bearer rsh_" + "x" * 43})
        assert wrong.status_code == 401
        assert "xxx" not in wrong.text


def test_without_keys_everybody_is_local(store: Store) -> None:
    with _app(store, ServeConfig(auth=False)) as client:
        assert client.get("/who").json() == "local"
        assert client.get("/who", headers={"Authorization": "Bearer nonsense"}).json() == "local"


def test_a_version_header_is_a_date_and_otherwise_ignored(store: Store) -> None:
    with _app(store, ServeConfig(auth=False)) as client:
        for fine in ("2024-11-06", "1999-01-01"):
            assert client.get("/who", headers={"X-Runway-Version": fine}).status_code == 200
        for wrong in ("latest", "2024-11-06; DROP TABLE", ""):
            with pytest.raises(InvalidRequestError, match="X-Runway-Version"):
                client.get("/who", headers={"X-Runway-Version": wrong})


def test_the_endpoint_keeps_one_secret(store: Store) -> None:
    secret = load_secret(store)
    assert len(secret) == 32
    assert load_secret(store) == secret


def test_a_secret_derived_for_one_purpose_is_of_no_use_for_another() -> None:
    secret = b"s" * 32
    made = {
        derived(secret, "upload", "a", "1"),
        derived(secret, "output", "a", "1"),
        derived(secret, "output", "a1"),
        derived(secret, "output", "a", "2"),
        derived(b"t" * 32, "output", "a", "2"),
    }
    assert len(made) == 5
    with pytest.raises(ConfigError):
        derived(b"", "output", "a")


def test_each_key_has_its_own_webhook_secret_unless_one_is_configured(store: Store) -> None:
    config = ServeConfig()
    one, two = webhook_secret(store, config, "key_1"), webhook_secret(store, config, "key_2")
    assert one.startswith("whsec_")
    assert one != two
    assert one == webhook_secret(store, config, "key_1")
    given = ServeConfig(webhooks=Webhooks(secret="whsec_c2VjcmV0c2VjcmV0c2VjcmV0"))
    assert webhook_secret(store, given, "key_1") == "whsec_c2VjcmV0c2VjcmV0c2VjcmV0"


def test_the_command_makes_lists_and_revokes(tmp_path: Path) -> None:
    run, where = CliRunner(), ["--out", str(tmp_path / "out")]
    made = run.invoke(keys_app, ["create", "laptop", "--max-concurrent", "3", *where])
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert made.stdout.count("rsh_") == 1
    assert "whsec_" in made.stderr
    store = open_store(f"sqlite:///{tmp_path / 'out' / 'tasks.sqlite'}")
    key = store.keys.find(digest(secret))
    assert key is not None
    assert (key.name, key.max_concurrent) == ("laptop", 3)
    store.close()

    listed = run.invoke(keys_app, ["list", *where], env={"COLUMNS": "200"})
    assert key.id in listed.stdout
    assert secret not in listed.output

    signing = run.invoke(keys_app, ["webhook-secret", key.id, *where])
    assert signing.stdout.strip() in made.stderr
    assert run.invoke(keys_app, ["webhook-secret", "key_none", *where]).exit_code == 2

    assert run.invoke(keys_app, ["revoke", key.id, *where]).exit_code == 0
    again = run.invoke(keys_app, ["revoke", key.id, *where])
    assert again.exit_code == 2
    assert "revoked before" in again.stderr
    assert "no such key" in run.invoke(keys_app, ["revoke", "key_none", *where]).stderr


SECRETS = (
    "Authorization: Bearer rsh_SECRET0123456789",
    "{'authorization': 'Bearer SECRETSECRET'}",
    "(b'authorization', b'Basic SECRET')",
    '"Authorization": "rsh_SECRET"',
    "key rsh_SECRET-with_dashes was made",
    "signed by whsec_SECRETSECRET+/=",
    "GET /outputs/clips/a.mp4?expires=1&signature=SECRET 200",
    "https://b.s3.amazonaws.com/k?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET%2F1&X-Amz-Security-Token=SECRET",
    "postgresql://user:SECRET@host/db does not answer",
)


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_taken_out_of_a_text(text: str) -> None:
    assert "SECRET" not in redacted(text)


@pytest.mark.parametrize("text", ["GET /v1/tasks/1?limit=5", "https://example.com/a?b=c", "10 tokens of a prompt", ""])
def test_an_innocent_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


async def _find(counting: object, header: str | None) -> ApiKey:
    return await Keyring(counting).find(header)  # type: ignore[arg-type]


def test_a_key_is_changed_from_the_command_line(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    run = CliRunner().invoke
    assert (
        run(
            keys_app, ["create", "studio", "--weight", "2.5", "--max-priority", "3", "--max-daily", "9", *out]
        ).exit_code
        == 0
    )
    store = open_store(ServeConfig(out=str(tmp_path)).database_url)
    (key,) = store.keys.all()
    assert (key.weight, key.max_priority, key.max_daily) == (2.5, 3, 9)
    assert share_of(key) == TenantShare(key.id, 2.5, 3)
    changed = run(keys_app, ["set", key.id, "--name", "the studio", "--weight", "4", "--clear", "max-daily", *out])
    assert changed.exit_code == 0, changed.output
    (key,) = store.keys.all()
    assert (key.name, key.weight, key.max_priority, key.max_daily) == ("the studio", 4.0, 3, None)
    for wrong in (["--weight", "0"], ["--max-priority", "101"], ["--clear", "size"], [], ["--max-daily", "0"]):
        assert run(keys_app, ["set", key.id, *wrong, *out]).exit_code == 2, wrong
    assert run(keys_app, ["set", "key_nobody", "--weight", "2", *out]).exit_code == 2
    assert store.keys.all() == (key,)
    assert run(keys_app, ["revoke", key.id, *out]).exit_code == 0
    assert run(keys_app, ["set", key.id, "--weight", "2", *out]).exit_code == 2
    store.close()


def test_a_change_is_kept_and_changes_nothing_else(store: Store) -> None:
    key, secret = create(store, "a", 1.0, max_daily=5)
    other, _ = create(store, "b", 1.0)
    assert change(store, key.id, weight=2.0, max_daily=None).max_daily is None
    assert store.keys.find(digest(secret)) == ApiKey(key.id, "a", 1.0, weight=2.0)
    assert store.keys.get(other.id) == other
    with pytest.raises(ConfigError, match="weight: 5000 is not from 0.001 to 1000"):
        change(store, key.id, weight=5000.0)

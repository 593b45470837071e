"""Keys, routers, uploads and notes. Every test runs on both databases."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import InvalidRequestError, PermanentError
from serve.store.contract import ApiKey, RouterConfig, RouterDecision, Store, Upload
from tests.serve.store.samples import NOW


class TestKeys:
    KEY = ApiKey(id="key-a", name="Ann's laptop", created_at=NOW, max_concurrent=2, monthly_credits=500)

    def test_a_key_is_found_by_the_digest_of_its_secret(self, store: Store) -> None:
        store.keys.add(self.KEY, "digest-a")
        assert store.keys.find("digest-a") == self.KEY
        assert store.keys.find("digest-b") is None
        assert store.keys.get("key-a") == self.KEY
        assert store.keys.get("key-b") is None

    def test_a_revoked_key_opens_nothing_and_stays_listed(self, store: Store) -> None:
        store.keys.add(self.KEY, "digest-a")
        store.keys.add(ApiKey("key-b", "CI", NOW + 1), "digest-b")
        assert store.keys.revoke("key-a", NOW + 5)
        assert not store.keys.revoke("key-a", NOW + 6)
        assert not store.keys.revoke("nobody", NOW)
        assert store.keys.find("digest-a") is None
        assert store.keys.all() == (replace(self.KEY, revoked_at=NOW + 5), ApiKey("key-b", "CI", NOW + 1))

    def test_neither_an_id_nor_a_secret_is_given_twice(self, store: Store) -> None:
        store.keys.add(self.KEY, "digest-a")
        for key, digest in ((self.KEY, "digest-b"), (replace(self.KEY, id="key-b"), "digest-a")):
            with pytest.raises(PermanentError, match="refuses"):
                store.keys.add(key, digest)


class TestRouters:
    def router(self, number: int = 1, **other: Any) -> RouterConfig:
        fields: dict[str, Any] = {
            "id": f"r{number}",
            "key_id": "key-a",
            "slug": f"fast-{number}",
            "name": "Fast",
            "description": None,
            "settings": {"prefer": "latency", "allow": ["embedded"]},
            "version": 1,
            "created_at": NOW,
            "updated_at": NOW,
        }
        return RouterConfig(**(fields | other))

    def test_it_is_found_by_id_and_slug_of_its_own_key(self, database_store: Store) -> None:
        router = self.router()
        assert database_store.routers.create(router)
        assert database_store.routers.get("key-a", "r1") == router
        assert database_store.routers.by_slug("key-a", "fast-1") == router
        assert database_store.routers.get("key-b", "r1") is None
        assert database_store.routers.by_slug("key-b", "fast-1") is None

    def test_a_slug_is_taken_once_a_key(self, database_store: Store) -> None:
        assert database_store.routers.create(self.router())
        assert not database_store.routers.create(self.router(2, slug="fast-1"))
        assert database_store.routers.create(self.router(3, slug="fast-1", key_id="key-b"))

    def test_an_update_of_a_version_that_is_past_changes_nothing(self, database_store: Store) -> None:
        database_store.routers.create(self.router())
        database_store.routers.create(self.router(2))
        changed = self.router(name="Faster", version=2, updated_at=NOW + 1, created_at=NOW + 99)
        assert database_store.routers.update(changed, expected_version=1)
        assert database_store.routers.get("key-a", "r1") == replace(changed, created_at=NOW)
        assert not database_store.routers.update(replace(changed, version=3), expected_version=1)
        assert not database_store.routers.update(replace(changed, version=3, slug="fast-2"), expected_version=2)
        assert not database_store.routers.update(replace(changed, key_id="key-b"), expected_version=2)
        assert not database_store.routers.update(self.router(9), expected_version=1)

    def test_lists_are_newest_first_and_go_on_from_a_cursor(self, database_store: Store) -> None:
        for number in range(5):
            database_store.routers.create(self.router(number, created_at=NOW + number // 2))
        database_store.routers.create(self.router(9, key_id="key-b"))
        shown: list[str] = []
        cursor: str | None = None
        for _ in range(3):
            page, cursor = database_store.routers.list("key-a", 2, cursor)
            shown += [router.id for router in page]
        assert shown == ["r4", "r3", "r2", "r1", "r0"]
        assert cursor is None

    @pytest.mark.parametrize("cursor", ["", "x", "bnVsbA", "🦊", "W10", "WyJ4IiwxXQ"])
    def test_a_cursor_that_no_list_gave_is_the_clients_mistake(self, database_store: Store, cursor: str) -> None:
        with pytest.raises(InvalidRequestError, match="cursor"):
            database_store.routers.list("key-a", 2, cursor)

    def test_its_log_goes_with_it(self, database_store: Store) -> None:
        database_store.routers.create(self.router())
        for number in range(3):
            database_store.routers.log(
                RouterDecision(f"d{number}", "r1", NOW + number, {"chosen": "embedded", "n": number})
            )
        page, cursor = database_store.routers.decisions("r1", 2, None)
        assert [(entry.id, entry.body["n"]) for entry in page] == [("d2", 2), ("d1", 1)]
        page, cursor = database_store.routers.decisions("r1", 2, cursor)
        assert ([entry.id for entry in page], cursor) == (["d0"], None)
        assert not database_store.routers.delete("key-b", "r1")
        assert database_store.routers.delete("key-a", "r1")
        assert not database_store.routers.delete("key-a", "r1")
        assert database_store.routers.decisions("r1", 2, None) == ((), None)
        assert database_store.routers.create(self.router())


class TestUploads:
    UPLOAD = Upload("u1", "key-a", "cat.png", "uploads/u1", NOW, NOW + 60)

    def test_an_upload_is_kept_until_it_expires_and_is_removed(self, database_store: Store) -> None:
        database_store.uploads.add(self.UPLOAD)
        database_store.uploads.add(replace(self.UPLOAD, id="u2", expires_at=NOW + 99))
        database_store.uploads.complete("u1", "image/png", 5_000_000_000)
        done = replace(self.UPLOAD, content_type="image/png", upload_bytes=5_000_000_000)
        assert database_store.uploads.get("u1") == done
        assert database_store.uploads.expired(NOW + 59) == ()
        assert database_store.uploads.expired(NOW + 60) == (done,)
        database_store.uploads.remove("u1")
        assert database_store.uploads.get("u1") is None
        assert database_store.uploads.get("u2") is not None


class TestNotes:
    def test_the_last_word_is_kept(self, store: Store) -> None:
        assert store.notes.read("fleet") is None
        for value in ({"pools": [1, None, "🦊"]}, [], None, 1.5):
            store.notes.write("fleet", value)  # type: ignore[arg-type]
            assert store.notes.read("fleet") == value

    def test_of_several_first_writers_one_wins_for_all(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.notes.write_once("secret", n), range(8)))
        kept = store.notes.read("secret")
        store.notes.write_once("secret", 99)
        assert store.notes.read("secret") == kept

    def test_notes_are_found_by_prefix_letter_for_letter(self, store: Store) -> None:
        for name in ("drain/a", "drain/b", "Drain/c", "drain%", "drai"):
            store.notes.write(name, name)
        assert store.notes.read_many("drain/") == {"drain/a": "drain/a", "drain/b": "drain/b"}
        assert store.notes.read_many("%") == {}
        assert len(store.notes.read_many("")) == 5


@pytest.mark.parametrize("asked", ["", "nobody", "a\x00b", "\ud800", "'; DROP TABLE tasks; --", "x" * 10_000])
def test_a_strange_id_finds_nothing(database_store: Store, asked: str) -> None:
    assert database_store.uploads.get(asked) is None
    assert database_store.routers.get("key-a", asked) is None

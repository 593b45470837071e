"""What every object store promises, held against each of them."""

import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from schemas.errors import ConfigError, ObjectMissingError, StorageError
from storage.address import BucketAddress, FolderAddress
from storage.local import LocalStore
from storage.store import ObjectStore, open_store


def test_what_is_put_is_what_is_got(store: ObjectStore) -> None:
    assert store.put("clips/ltx/ab/abcd.mp4", b"frames", "video/mp4")
    assert store.get("clips/ltx/ab/abcd.mp4") == b"frames"


def test_a_file_can_be_put_and_downloaded(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(100_000))
    store.put("big/file.bin", source)
    store.download("big/file.bin", tmp_path / "new" / "copy.bin")
    assert (tmp_path / "new" / "copy.bin").read_bytes() == source.read_bytes()
    assert os.listdir(tmp_path / "new") == ["copy.bin"]


def test_a_later_put_replaces_and_changes_the_etag(store: ObjectStore) -> None:
    store.put("a", b"one")
    first = store.head("a")
    store.put("a", b"two!")
    second = store.head("a")
    assert store.get("a") == b"two!"
    assert first is not None
    assert second is not None
    assert first.etag != second.etag


def test_head_tells_size_type_and_time(store: ObjectStore) -> None:
    store.put("poster.jpg", b"12345", "image/jpeg")
    info = store.head("poster.jpg")
    assert info is not None
    assert (info.key, info.size_bytes, info.content_type) == ("poster.jpg", 5, "image/jpeg")
    assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=1)
    assert store.head("nothing") is None


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert [info.size_bytes for info in store.list()] == [0]


def test_if_absent_keeps_what_is_there(store: ObjectStore) -> None:
    assert store.put("once", b"first", if_absent=True)
    assert not store.put("once", b"second", if_absent=True)
    assert store.get("once") == b"first"


def test_of_many_who_put_if_absent_one_wins(store: ObjectStore, request: pytest.FixtureRequest) -> None:
    if "s3-no-if" in request.node.name:
        pytest.skip("without conditional writes nobody can promise that")
    with ThreadPoolExecutor(12) as threads:
        won = list(threads.map(lambda i: store.put("race", str(i).encode(), if_absent=True), range(12)))
    assert sum(won) == 1
    assert store.get("race") == str(won.index(True)).encode()


def test_a_missing_object_says_its_address(store: ObjectStore, tmp_path: Path) -> None:
    for call in (
        lambda: store.get("no/such"),
        lambda: store.get_range("no/such", 0, 1),
        lambda: store.open("no/such"),
        lambda: store.download("no/such", tmp_path / "copy"),
    ):
        with pytest.raises(ObjectMissingError, match="no/such"):
            call()
    assert not (tmp_path / "copy").exists()


def test_ranges_are_half_open_and_stop_at_the_end(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    assert store.get_range("digits", 2, 5) == b"234"
    assert store.get_range("digits", 8, 100) == b"89"
    assert store.get_range("digits", 5, 5) == b""
    assert store.get_range("digits", 50, 60) == b""


def test_an_open_object_can_be_sought_and_read(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    with store.open("digits") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
        file.seek(1)
        assert file.read(2) == b"12"
        assert file.tell() == 3


def test_listing_takes_a_prefix_and_not_a_folder(store: ObjectStore) -> None:
    for key in ("a/b/c", "a/b2", "a-b/c", "a.txt", "b"):
        store.put(key, b"x")
    assert sorted(info.key for info in store.list()) == ["a-b/c", "a.txt", "a/b/c", "a/b2", "b"]
    assert sorted(info.key for info in store.list("a/b")) == ["a/b/c", "a/b2"]
    assert sorted(info.key for info in store.list("a/")) == ["a/b/c", "a/b2"]
    assert list(store.list("nothing/here")) == []


def test_listing_shows_each_of_many_objects_once(store: ObjectStore) -> None:
    keys = {f"records/{i % 7:02d}/{i:05d}.json" for i in range(1100)}  # More than one page of S3.
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: store.put(key, b"{}"), keys))
    listed = [info.key for info in store.list("records/")]
    assert len(listed) == 1100
    assert set(listed) == keys


def test_a_folder_lists_in_key_order(tmp_path: Path) -> None:
    local = open_store(str(tmp_path))
    for key in ("a/b", "a.txt", "a-b/c", "a0", "B"):
        local.put(key, b"x")
    listed = [info.key for info in local.list()]
    assert listed == sorted(listed)


def test_deleting_what_is_not_there_is_no_error(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.put("b", b"1")
    store.delete(["a", "never/was"])
    store.delete([])
    assert [info.key for info in store.list()] == ["b"]


def test_keys_with_spaces_and_letters_of_the_world_survive(store: ObjectStore) -> None:
    key = "clips/a b+c/größe %20 #1?.mp4"
    store.put(key, b"x")
    assert [info.key for info in store.list("clips/")] == [key]
    assert store.get(key) == b"x"
    store.delete([key])
    assert store.head(key) is None


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b", "a//b", "a/", ".", "a\\b"])
def test_a_key_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    with pytest.raises(StorageError, match="is not a key"):
        store.put(key, b"x")


def test_a_pickled_store_opens_in_another_process(store: ObjectStore) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        processes.submit(_put_from_elsewhere, pickle.dumps(store)).result(timeout=60)
    assert store.get("from/elsewhere") == b"hello"


def test_an_address_opens_the_same_store(store: ObjectStore) -> None:
    store.put("a b", b"x")
    assert open_store(str(store.address)).get("a b") == b"x"


def test_the_check_passes_and_leaves_nothing(store: ObjectStore) -> None:
    store.check()
    assert list(store.list()) == []


@pytest.mark.parametrize("uri", ["gs://bucket/x", "http://host/x", ""])
def test_an_unknown_scheme_names_those_there_are(uri: str) -> None:
    with pytest.raises(ConfigError, match="file://, s3://, a plain path"):
        open_store(uri)


def test_addresses_are_read_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("out/demo").address == FolderAddress(tmp_path / "out" / "demo")
    assert open_store("file:///data/my%20run").address == FolderAddress(Path("/data/my run"))
    assert open_store("s3://b/deep/prefix/").address == BucketAddress("b", "deep/prefix")
    assert str(open_store("s3://b").address) == "s3://b"
    with pytest.raises(ConfigError, match="three slashes"):
        open_store("file://host/data")


def test_a_writer_killed_half_way_leaves_no_object(tmp_path: Path) -> None:
    context = get_context("fork")
    writer = context.Process(target=_die_while_writing, args=(tmp_path,))
    writer.start()
    writer.join()
    assert len(os.listdir(tmp_path / "clips")) == 1  # The temporary file is there,
    assert list(LocalStore(FolderAddress(tmp_path)).list()) == []  # and no listing shows it.


def test_a_folder_that_cannot_be_written_is_a_permanent_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        open_store(str(tmp_path / "file")).put("below/it", b"x")
    with pytest.raises(StorageError, match=r"nothing\.bin"):
        open_store(str(tmp_path)).put("a", tmp_path / "nothing.bin")


def test_writes_that_are_flushed_read_back(tmp_path: Path) -> None:
    local = open_store(str(tmp_path), fsync=True)
    local.put("a/b", b"x")
    assert local.get("a/b") == b"x"


def _put_from_elsewhere(pickled: bytes) -> None:
    pickle.loads(pickled).put("from/elsewhere", b"hello")


def _die_while_writing(folder: Path) -> None:
    os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
    LocalStore(FolderAddress(folder)).put("clips/a.mp4", b"half")

"""Weights reach a machine once, whole, and without code."""

import threading
from pathlib import Path

import pytest

from models.weights import RemoteFile, find_weights, folder_revision
from schemas.errors import StorageUnavailableError, VariantLoadError

URI = "s3://bucket/models/wan"
FILES = {"model_index.json": b"{}", "vae/config.json": b"{}", "vae/model.safetensors": b"x" * 1000}


class MemoryStore:
    """A `WeightsStore` over a dict; `fail_at` names a file whose first fetch fails half way."""

    def __init__(self, files: dict[str, bytes], fail_at: str | None = None) -> None:
        self.files = dict(files)
        self.fail_at = fail_at
        self.fetched: list[str] = []

    def listing(self, uri: str) -> tuple[RemoteFile, ...]:
        assert uri == URI
        return tuple(RemoteFile(path, len(data), str(hash(data))) for path, data in self.files.items())

    def fetch(self, uri: str, file: RemoteFile, destination: Path) -> None:
        assert uri == URI
        self.fetched.append(file.path)
        data = self.files[file.path]
        if file.path == self.fail_at:
            self.fail_at = None
            destination.write_bytes(data[:10])
            raise StorageUnavailableError("the server went away")
        destination.write_bytes(data)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_prefix_is_copied_once_and_then_found(tmp_path: Path) -> None:
    store = MemoryStore(FILES)
    first = find_weights(URI, cache=tmp_path, store=store)
    again = find_weights(URI, cache=tmp_path, store=store)
    assert first == again
    assert sorted(store.fetched) == sorted(FILES)
    assert {p.relative_to(first.folder).as_posix() for p in first.folder.rglob("*") if p.is_file()} == set(FILES)


def test_many_at_once_copy_once(tmp_path: Path) -> None:
    store = MemoryStore(FILES)
    start = threading.Barrier(6)
    found: list[Path] = []

    def look() -> None:
        start.wait()
        found.append(find_weights(URI, cache=tmp_path, store=store).folder)

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 6
    assert sorted(store.fetched) == sorted(FILES)


def test_a_copy_that_breaks_leaves_nothing_and_is_made_again(tmp_path: Path) -> None:
    store = MemoryStore(FILES, fail_at="vae/model.safetensors")
    with pytest.raises(StorageUnavailableError):
        find_weights(URI, cache=tmp_path, store=store)
    assert [p for p in (tmp_path / "weights").iterdir() if p.is_dir()] == []
    assert (find_weights(URI, cache=tmp_path, store=store).folder / "vae/model.safetensors").stat().st_size == 1000


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    target = find_weights(URI, cache=tmp_path, store=MemoryStore(FILES)).folder
    stale = target.with_name(f"{target.name}.killed.part")
    target.rename(stale)
    assert find_weights(URI, cache=tmp_path, store=MemoryStore(FILES)).folder == target
    assert not stale.exists()


def test_new_content_under_an_old_address_is_a_new_folder_and_revision(tmp_path: Path) -> None:
    store = MemoryStore(FILES)
    old = find_weights(URI, cache=tmp_path, store=store)
    store.files["vae/model.safetensors"] = b"y" * 1000
    new = find_weights(URI, cache=tmp_path, store=store)
    assert new.folder != old.folder
    assert new.revision != old.revision
    assert (old.folder / "vae/model.safetensors").read_bytes()[:1] == b"x"


def test_a_revision_that_the_catalog_names_is_the_one_in_the_record(tmp_path: Path) -> None:
    assert find_weights(URI, "v2", cache=tmp_path, store=MemoryStore(FILES)).revision == "v2"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../outside.json", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("unet/pipeline.py", "pipeline.py is code"),
        ("unet/model.bin", "model.bin is a pickle"),
    ],
)
def test_dangerous_objects_are_refused_before_anything_is_fetched(tmp_path: Path, path: str, message: str) -> None:
    store = MemoryStore({**FILES, path: b"?"})
    with pytest.raises(VariantLoadError, match=message):
        find_weights(URI, cache=tmp_path, store=store)
    assert store.fetched == []


def test_pickles_beside_safetensors_stay_where_they_are(tmp_path: Path) -> None:
    store = MemoryStore({**FILES, "vae/model.bin": b"?"})
    assert not (find_weights(URI, cache=tmp_path, store=store).folder / "vae/model.bin").exists()


def test_an_empty_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VariantLoadError, match="nothing is there"):
        find_weights(URI, cache=tmp_path, store=MemoryStore({}))


@pytest.mark.parametrize("name", ["vae/model.bin", "vae/model.ckpt", "motion.pt"])
def test_a_folder_with_only_pickles_is_refused_by_the_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, "model_index.json", "unet/model.safetensors", name)
    with pytest.raises(VariantLoadError, match=f"{name} is a pickle"):
        find_weights(str(tmp_path))


def test_a_folder_with_code_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "model_index.json", "unet/attention.py", "unet/model.safetensors")
    with pytest.raises(VariantLoadError, match=r"unet/attention.py is code"):
        find_weights(str(tmp_path))


def test_a_folders_revision_follows_its_content_and_not_its_place(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "a.json", "b/c.safetensors")
    two = write(tmp_path / "two", "a.json", "b/c.safetensors")
    assert folder_revision(one) == folder_revision(two)
    (two / "b/c.safetensors").write_bytes(b"other content")
    assert folder_revision(one) != folder_revision(two)


def test_a_hub_id_is_downloaded_at_its_revision_and_known_by_its_commit(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = write(tmp_path / commit, "model_index.json")
    asked: list[tuple[str, str | None]] = []

    def download(hub_id: str, revision: str | None) -> str:
        asked.append((hub_id, revision))
        return str(snapshot)

    weights = find_weights("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "main", download=download)
    assert asked == [("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "main")]
    assert weights.revision == commit

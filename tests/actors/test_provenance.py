"""Clips of a real tiny model are signed at publishing, once, whatever happens in between."""

import hashlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from actors.decoder import first_pictures
from actors.encoder import encode, read_metadata
from actors.media_reader import ConfinedMediaReader
from actors.provenance import check_signing, input_ingredient, open_provenance, signature_in
from actors.publisher import Publisher
from actors.renderer import Rendered, Renderer
from models.loaded import LoadedModel
from models.model import TaskMedia
from schemas.clip import Clip, ClipFormat, Status
from schemas.conditions import Condition
from schemas.errors import ConfigError, SigningError
from schemas.inputs import Role
from schemas.task import RenderBatch
from schemas.trust import CredentialsMode, TrustSettings, UnsignedRule
from storage.compaction import compact
from storage.ledger import Ledger
from storage.sorted_file import write_sorted
from storage.store import ObjectStore, open_store
from storage.tables import RECORD_SCHEMA, table_to_records
from tests.actors.fetches import FromFolder
from tests.models.conftest import TinyModel
from tests.models.tiny_variants import I2V, T2V, group_of, task_of
from tests.trust.authorities import identity
from tests.trust.pictures import png, signed_png
from trust.credentials import CredentialsFound, read_credentials
from trust.payload import payload_of
from trust.signers import DEVELOPMENT
from trust.watermark import detect

NOBODY = TrustSettings(signer="kms")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "out"))


@pytest.fixture(scope="module")
def wan(tiny_model: TinyModel) -> LoadedModel:
    return tiny_model("wan")


@pytest.fixture(scope="module")
def done(wan: LoadedModel) -> Rendered:
    group = group_of(wan.variant, T2V)
    (outcome,) = Renderer(wan).render(RenderBatch(group, (task_of(group, "a", 7),)))
    assert isinstance(outcome, Rendered)
    return outcome


def publisher(store: ObjectStore, model: LoadedModel, state: Path, trust: TrustSettings = TrustSettings()) -> Publisher:  # noqa: B008
    provenance = open_provenance(trust, state)
    return Publisher(store, model.variant, "abc", provenance=provenance, now=lambda: datetime.now(UTC))


def path_of(uri: str | None) -> Path:
    assert uri is not None
    return Path(uri.removeprefix("file://"))


def said_by(clip: Clip | None) -> CredentialsFound:
    assert clip is not None
    found = read_credentials(path_of(clip.uri))
    assert found is not None
    return found


def test_a_clip_and_its_poster_are_signed_and_the_record_has_both_digests(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    record = publisher(store, wan, tmp_path).publish(done)
    clip = record.clip
    assert clip is not None
    found = said_by(clip)
    assert (found.state, found.is_development, found.is_ai_generated) == ("valid", True, True)
    assert found.render is not None
    assert found.render["fingerprint"] == done.task.fingerprint
    assert found.render["certificate"].startswith("development")
    assert clip.signed_by == DEVELOPMENT
    data = path_of(clip.uri).read_bytes()
    assert (clip.sha256, clip.clip_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    # The same frames with the same metadata are the same bytes before they are signed.
    again = tmp_path / "again.mp4"
    encode(done.frames, done.group.fps, ClipFormat.MP4, again, read_metadata(path_of(clip.uri)))
    assert clip.unsigned_sha256 == hashlib.sha256(again.read_bytes()).hexdigest() == found.render["unsigned_sha256"]
    poster = read_credentials(path_of(clip.poster_uri))
    assert poster is not None
    assert poster.state == "valid"


def test_a_second_attempt_keeps_the_first_file_and_describes_its_signature(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    first = publisher(store, wan, tmp_path / "one machine").publish(done)
    again = publisher(store, wan, tmp_path / "another").publish(done)
    assert again.clip == first.clip
    assert said_by(again.clip).state == "valid"


def test_a_clip_that_a_killed_process_had_stored_is_found_with_its_signature(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    record = publisher(store, wan, tmp_path).publish(done)
    found = publisher(store, wan, tmp_path / "another").found(done.task, done.group)
    assert found is not None
    assert found.clip == record.clip


def test_a_clip_that_cannot_be_signed_fails_with_the_reason_and_is_not_stored(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    with pytest.raises(SigningError, match="signer: unknown 'kms'"):
        publisher(store, wan, tmp_path, NOBODY).publish(done)
    assert not list(store.list())


def test_or_it_is_published_unsigned_where_that_is_the_rule(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    trust = NOBODY.model_copy(update={"unsigned": UnsignedRule.PUBLISH})
    record = publisher(store, wan, tmp_path, trust).publish(done)
    assert record.clip is not None
    assert (record.clip.signed_by, record.clip.unsigned_sha256) == (None, None)
    assert read_credentials(path_of(record.clip.uri)) is None
    assert check_signing(trust, tmp_path).startswith("clips are published unsigned: signer: unknown 'kms'")


def test_a_mark_is_in_the_frames_and_the_credentials_tell_of_it(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    ramp = np.linspace(20, 220, 256, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (4, 192, 256, 3)).copy()
    trust = TrustSettings(watermark=True)
    record = publisher(store, wan, tmp_path, trust).publish(Rendered(done.task, done.group, frames, 1.0))
    found = said_by(record.clip)
    assert found.actions == ("c2pa.created", "c2pa.watermarked.unbound")
    assert record.clip is not None
    for uri in (record.clip.uri, record.clip.poster_uri):
        mark = detect(first_pictures(path_of(uri), 8))
        assert mark is not None
        assert mark.payload == payload_of(done.task.fingerprint)


def test_frames_without_room_for_a_mark_are_published_without(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    assert done.frames.shape[1] < 112
    record = publisher(store, wan, tmp_path, TrustSettings(watermark=True)).publish(done)
    assert said_by(record.clip).actions == ("c2pa.created",)


def test_a_mark_without_the_extra_is_refused_before_anything_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "reedsolo", None)
    with pytest.raises(ConfigError, match="reedsolo is not installed .* without --watermark"):
        check_signing(TrustSettings(watermark=True, credentials=CredentialsMode.OFF), tmp_path)


def test_a_format_without_a_place_for_credentials_is_published_without(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    group = done.group.model_copy(update={"clip_format": "webm"})
    record = publisher(store, wan, tmp_path).publish(Rendered(done.task, group, done.frames, 1.0))
    assert record.clip is not None
    assert record.clip.signed_by is None
    assert signature_in(path_of(record.clip.uri)).signed_by is None


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ConfinedMediaReader]:
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "photo.png").write_bytes(signed_png(identity("Agency")))
    (folder / "plain.png").write_bytes(png())
    reader = ConfinedMediaReader(FromFolder(folder), 30.0, ingredients=True)
    yield reader
    reader.close()


def test_an_image_that_somebody_signed_is_an_ingredient_of_the_clip(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered, reader: ConfinedMediaReader
) -> None:
    group = group_of(wan.variant, I2V)
    tasks = [task_of(group, "a", 7, media=("photo.png",)), task_of(group, "a", 7, media=("plain.png",))]
    signed, plain = reader.read(group, tasks)
    assert isinstance(signed, TaskMedia)
    assert isinstance(plain, TaskMedia)
    for media, wanted in ((signed, ("valid", "Agency")), (plain, (None, None))):
        ours = Rendered(task_of(group, repr(wanted), 7), group, done.frames, 1.0, ingredients=media.ingredients)
        found = said_by(publisher(store, wan, tmp_path).publish(ours).clip)
        (one,) = found.ingredients
        assert (one.state, one.signed_by) == wanted
        assert one.title.endswith(".png")
        assert (found.state, found.actions) == ("valid", ("c2pa.created",))


def test_every_input_is_an_ingredient_of_its_own(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered, reader: ConfinedMediaReader
) -> None:
    frames = [Condition(role=Role.FIRST_FRAME, medium="image", frame=0)]
    frames.append(Condition(role=Role.LAST_FRAME, medium="image", frame=4))
    group = group_of(wan.variant, I2V, conditions=tuple(frames))
    (media,) = reader.read(group, [task_of(group, "a", 7, media=("photo.png", "plain.png"))])
    assert isinstance(media, TaskMedia)
    ours = Rendered(task_of(group, "both", 7), group, done.frames, 1.0, ingredients=media.ingredients)
    found = said_by(publisher(store, wan, tmp_path).publish(ours).clip)
    assert [(one.state, one.signed_by) for one in found.ingredients] == [("valid", "Agency"), (None, None)]
    assert found.state == "valid"


def test_the_ingredient_comes_through_the_model(wan: LoadedModel) -> None:
    group = group_of(wan.variant, T2V)
    media = [TaskMedia(ingredients=(b"told",))]
    (outcome,) = Renderer(wan).render(RenderBatch(group, (task_of(group, "a", 7),)), media=media)
    assert isinstance(outcome, Rendered)
    assert outcome.ingredients == (b"told",)


@pytest.mark.parametrize(
    "uri", ["https://host/a/photo.png?token=secret#x", "s3://bucket/photo.png", "/home/me/photo.png", "data:,x"]
)
def test_of_an_inputs_address_only_its_name_is_told(uri: str) -> None:
    told = input_ingredient(png(), uri)
    assert told is not None
    assert (b"inline" if uri == "data:,x" else b"photo.png") in told
    for secret in (b"secret", b"host", b"bucket", b"home"):
        assert secret not in told


def test_who_signs_is_said_before_anything_is_rendered(tmp_path: Path) -> None:
    assert "'Rushes development certificate': made on this machine" in check_signing(TrustSettings(), tmp_path)
    assert check_signing(TrustSettings(credentials=CredentialsMode.OFF), tmp_path) == "clips are not signed"
    key, certificates = identity("Studio").write(tmp_path)
    told = check_signing(TrustSettings(signing_key=key, signing_certificates=certificates), tmp_path)
    assert told == "clips are signed by 'Studio'"
    with pytest.raises(ConfigError, match="unknown 'kms'"):
        check_signing(NOBODY, tmp_path)


def test_a_ledger_of_before_there_were_signatures_is_read_and_compacted(
    tmp_path: Path, store: ObjectStore, wan: LoadedModel, done: Rendered
) -> None:
    ledger = Ledger(store)
    record = publisher(store, wan, tmp_path).publish(done)
    ledger.write(record)
    compact(ledger, min_loose=1)
    (key,) = ledger.compacted_keys()
    older = [name for name in RECORD_SCHEMA.names if name not in ("unsigned_sha256", "signed_by")]
    path = tmp_path / "older.parquet"
    pa.parquet.write_table(ledger.load().select(older), path)
    store.put(key, path)
    (read,) = table_to_records(ledger.load())
    assert read.clip is not None
    assert record.clip is not None
    assert read.clip == record.clip.model_copy(update={"unsigned_sha256": None, "signed_by": None})
    write_sorted(store, "ledger/compacted/newer.parquet", [ledger.load()])
    compact(ledger, min_loose=1, max_files=1)
    assert [one.status for one in table_to_records(ledger.load())] == [Status.SUCCEEDED]

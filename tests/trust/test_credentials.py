"""Files are signed and read back; what was changed since is seen; what others signed is read too."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actors.decoder import read_frames
from actors.encoder import encode, read_metadata
from schemas.clip import ClipFormat
from schemas.errors import ConfigError, SigningError
from schemas.trust import CredentialsMode, TrustSettings
from tests.trust.authorities import Identity, identity
from tests.trust.pictures import png, read_by_others, signed_png
from trust import credentials
from trust.claim import AI_GENERATED, Claim, Edit, request_digest
from trust.credentials import ClipSigning, ingredient_of, open_signing, read_credentials, signing_or_reason
from trust.signers import PemSigner
from trust.verification import Verdict, inspect

CLAIM = Claim(
    fingerprint="0123456789abcdef" * 2,
    variant="embedded",
    weights="models/embedded",
    revision="abc",
    mode="text_to_video",
    request_sha256=request_digest({"prompt": "a", "seed": 7}),
    unsigned_sha256="f" * 64,
    made_at="2026-01-02T03:04:05.678+00:00",
    development=False,
)
SIGNED = [ClipFormat.MP4, ClipFormat.GIF, ClipFormat.PNG]


@pytest.fixture(scope="module")
def studio() -> Identity:
    return identity("Studio")


@pytest.fixture(scope="module")
def signing(studio: Identity) -> ClipSigning:
    return ClipSigning(PemSigner("es256", studio.certificates, studio.key))


def clip(folder: Path, clip_format: ClipFormat = ClipFormat.MP4) -> Path:
    path = folder / f"clip.{clip_format.suffix}"
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frames = np.stack([np.roll(np.broadcast_to(ramp, (48, 64)), 4 * k, axis=1) for k in range(6)])
    encode(np.repeat(frames[..., None], 3, axis=3), 8, clip_format, path, {"prompt": "a"})
    return path


@pytest.mark.parametrize("clip_format", SIGNED)
def test_a_clip_says_what_it_is_and_plays_as_before(
    tmp_path: Path, signing: ClipSigning, clip_format: ClipFormat
) -> None:
    path = clip(tmp_path, clip_format)
    before = [np.asarray(frame) for frame in read_frames(path.read_bytes(), clip_format)]
    signing.sign(path, CLAIM)
    found = read_credentials(path)
    assert found is not None
    assert (found.state, found.signed_by, found.problems) == ("valid", "Studio", ())
    assert found.generator.startswith("Rushes ")
    assert found.is_ai_generated
    assert found.actions == ("c2pa.created",)
    assert found.title == f"{CLAIM.fingerprint}.{clip_format.suffix}"
    assert found.render is not None
    assert found.render["request_sha256"] == CLAIM.request_sha256
    assert (found.render["variant"], found.render["revision"]) == ("embedded", "abc")
    assert found.render["unsigned_sha256"] == CLAIM.unsigned_sha256
    after = [np.asarray(frame) for frame in read_frames(path.read_bytes(), clip_format)]
    assert np.array_equal(before, after)
    assert read_metadata(path) == {"prompt": "a"}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_programs_of_others_read_it(tmp_path: Path, signing: ClipSigning) -> None:
    path = clip(tmp_path)
    signing.sign(path, replace(CLAIM, edits=(Edit("c2pa.edited", "upscale", "r2"),), watermark="0123456789abcdef"))
    told = read_by_others(path.read_bytes(), "video/mp4")
    assert told["validation_state"] == "Valid"
    active = told["manifests"][told["active_manifest"]]
    (actions,) = [a["data"]["actions"] for a in active["assertions"] if a["label"] == "c2pa.actions.v2"]
    assert [action["action"] for action in actions] == ["c2pa.created", "c2pa.edited", "c2pa.watermarked.unbound"]
    assert actions[0]["digitalSourceType"] == AI_GENERATED
    assert actions[0]["softwareAgent"] == {"name": "embedded", "version": "abc"}
    assert actions[1]["softwareAgent"] == {"name": "upscale", "version": "r2"}


@pytest.mark.parametrize("clip_format", SIGNED)
def test_what_was_changed_after_it_was_signed_is_seen(
    tmp_path: Path, signing: ClipSigning, clip_format: ClipFormat
) -> None:
    path = clip(tmp_path, clip_format)
    signing.sign(path, CLAIM)
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 40 if clip_format is ClipFormat.MP4 else len(data) // 2] ^= 1
    path.write_bytes(data)
    found = read_credentials(path)
    assert found is not None
    assert found.state == "invalid"
    assert found.problems


def test_whose_authority_is_known_is_trusted(tmp_path: Path, signing: ClipSigning, studio: Identity) -> None:
    path = clip(tmp_path)
    signing.sign(path, CLAIM)
    for anchors, state in ((studio.root, "trusted"), (identity("Another").root, "valid")):
        found = read_credentials(path, anchors)
        assert found is not None
        assert found.state == state


@pytest.mark.parametrize("clip_format", list(ClipFormat))
def test_a_clip_without_credentials_has_none(tmp_path: Path, clip_format: ClipFormat) -> None:
    assert read_credentials(clip(tmp_path, clip_format)) is None


def test_a_file_that_is_no_medium_has_none(tmp_path: Path) -> None:
    for name, data in (("a.txt", b"hello"), ("empty.mp4", b""), ("b.bin", bytes(200))):
        (tmp_path / name).write_bytes(data)
        assert read_credentials(tmp_path / name) is None


def told_of(data: bytes, content_type: str, title: str) -> tuple[bytes, ...]:
    ingredient = ingredient_of(data, content_type, title)
    assert ingredient is not None
    return (ingredient,)


def test_an_input_that_somebody_signed_is_an_ingredient_with_its_credentials(
    tmp_path: Path, signing: ClipSigning
) -> None:
    ingredients = told_of(signed_png(identity("Agency")), "image/png", "photo.png")
    path = clip(tmp_path)
    signing.sign(path, CLAIM, ingredients)
    found = read_credentials(path)
    assert found is not None
    assert found.state == "valid"
    (one,) = found.ingredients
    assert (one.title, one.format, one.relationship) == ("photo.png", "image/png", "inputTo")
    assert (one.state, one.signed_by) == ("valid", "Agency")
    told = read_by_others(path.read_bytes(), "video/mp4")
    assert len(told["manifests"]) == 2


def test_an_input_that_was_changed_after_it_was_signed_is_told_of_as_such(tmp_path: Path, signing: ClipSigning) -> None:
    data = bytearray(signed_png(identity("Agency")))
    data[data.rindex(b"IDAT") + 20] ^= 1
    path = clip(tmp_path)
    signing.sign(path, CLAIM, told_of(bytes(data), "image/png", "photo.png"))
    found = read_credentials(path)
    assert found is not None
    assert [one.state for one in found.ingredients] == ["invalid"]
    assert found.state == "valid", "the clip itself is as it was signed"


@pytest.mark.parametrize(
    ("data", "content_type"),
    [(png(), "image/png"), (b"nobody knows what", "image/png"), (b"nor this", "video/webm"), (b"BM12", "odd")],
)
def test_an_input_without_credentials_is_an_ingredient_by_its_hash(
    tmp_path: Path, signing: ClipSigning, data: bytes, content_type: str
) -> None:
    path = clip(tmp_path)
    signing.sign(path, CLAIM, told_of(data, content_type, "input"))
    found = read_credentials(path)
    assert found is not None
    assert [(one.title, one.state, one.signed_by) for one in found.ingredients] == [("input", None, None)]
    assert found.state == "valid"


class Kms:
    """Signs elsewhere; `fails` of its calls do not come back."""

    algorithm = "es256"

    def __init__(self, who: Identity, fails: int = 0) -> None:
        self.certificates, self.calls, self._fails = who.certificates, 0, fails
        self._key = load_pem_private_key(who.key.encode(), None)

    def sign(self, data: bytes) -> bytes:
        self.calls += 1
        if self.calls <= self._fails:
            raise ConnectionError("503")
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


def test_a_signer_of_ones_own_signs(tmp_path: Path, studio: Identity) -> None:
    path = clip(tmp_path)
    ClipSigning(Kms(studio)).sign(path, CLAIM)
    found = read_credentials(path)
    assert found is not None
    assert (found.state, found.signed_by) == ("valid", "Studio")


def test_a_signer_that_does_not_answer_is_asked_again(
    tmp_path: Path, studio: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_FIRST_PAUSE_S", 0.0)
    path, kms = clip(tmp_path), Kms(studio, fails=2)
    ClipSigning(kms).sign(path, CLAIM)
    assert kms.calls == 3
    found = read_credentials(path)
    assert found is not None
    assert found.state == "valid"


def test_a_signer_that_never_answers_leaves_the_file_as_it_was(
    tmp_path: Path, studio: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_FIRST_PAUSE_S", 0.0)
    path = clip(tmp_path)
    before = path.read_bytes()
    with pytest.raises(SigningError, match=r"0123.*mp4: it cannot be signed by 'Studio'"):
        ClipSigning(Kms(studio, fails=99)).sign(path, CLAIM)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("answer", [b"short", b"\1" * 64, b"\1" * 20_000])
def test_a_signer_that_answers_with_no_signature_of_it_signs_nothing(
    tmp_path: Path, studio: Identity, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(credentials, "_FIRST_PAUSE_S", 0.0)
    kms = Kms(studio)
    monkeypatch.setattr(kms, "sign", lambda data: answer)
    path = clip(tmp_path)
    before = path.read_bytes()
    signing = ClipSigning(kms)
    with pytest.raises(SigningError, match="what 'Studio' signs does not hold|cannot be signed"):
        signing.sign(path, CLAIM)
    assert path.read_bytes() == before
    with pytest.raises(SigningError):
        signing.try_out()


def test_a_certificate_that_has_expired_is_found_out_before_a_clip_is_made() -> None:
    expired = identity("Studio", days=-1)
    with pytest.raises(SigningError, match="the certificate was not valid at time of signing"):
        ClipSigning(PemSigner("es256", expired.certificates, expired.key)).try_out()


def test_a_clip_whose_certificate_has_expired_since_was_not_changed(tmp_path: Path, signing: ClipSigning) -> None:
    signing.sign(path := clip(tmp_path), CLAIM)
    told = read_by_others(path.read_bytes(), "video/mp4")
    # As the library says it then; a day cannot be waited for.
    expired = {"code": "signingCredential.expired", "explanation": "certificate expired"}
    told["validation_state"] = "Invalid"
    told["validation_results"]["activeManifest"]["failure"] = [expired]
    found = credentials._found(told)
    assert (found.state, found.signed_by) == ("expired", "Studio")
    assert found.problems == ("signingCredential.expired: certificate expired",)
    told["validation_results"]["activeManifest"]["failure"].append({"code": "assertion.bmffHash.mismatch"})
    assert credentials._found(told).state == "invalid"


def test_a_damaged_file_that_never_had_credentials_is_not_called_changed(tmp_path: Path) -> None:
    for name, data in {"a.png": b"\x89PNG\r\n\x1a\n", "a.jpg": b"\xff\xd8\xff", "a.mp4": b"\0\0\0\x18ftypisom"}.items():
        path = tmp_path / name
        path.write_bytes(data + b"\xff" * 100)
        found = read_credentials(path)
        assert found is not None
        assert (found.state, bool(found.problems)) == ("unread", True)
        assert inspect(path, name).verdict is Verdict.UNSIGNED


def test_what_is_left_of_a_file_with_credentials_is_changed(tmp_path: Path, signing: ClipSigning) -> None:
    signing.sign(path := clip(tmp_path), CLAIM)
    data = path.read_bytes()
    for left in (len(data) - 1, len(data) // 2, 400):
        path.write_bytes(data[:left])
        assert inspect(path, path.name).verdict is Verdict.CHANGED, left


def test_many_threads_sign_with_one_key(tmp_path: Path, signing: ClipSigning) -> None:
    paths = []
    for k in range(8):
        (tmp_path / str(k)).mkdir()
        paths.append(clip(tmp_path / str(k)))
    threads = [threading.Thread(target=signing.sign, args=(path, CLAIM)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [found.state for path in paths if (found := read_credentials(path)) is not None]
    assert states == ["valid"] * 8


def test_without_the_extra_clips_are_not_signed_unless_they_have_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setattr(credentials, "is_installed", lambda *names: False)
    assert open_signing(TrustSettings(), tmp_path) is None
    with pytest.raises(ConfigError, match=r"c2pa-python is not installed .* pip install 'rushes\[trust\]'"):
        open_signing(TrustSettings(credentials=CredentialsMode.ON), tmp_path)
    assert ingredient_of(png(), "image/png", "a.png") is None


def test_where_nobody_can_sign_each_clip_says_why(tmp_path: Path) -> None:
    nobody = signing_or_reason(TrustSettings(signer="kms"), tmp_path)
    assert nobody is not None
    with pytest.raises(SigningError, match="signer: unknown 'kms'"):
        nobody.sign(clip(tmp_path), CLAIM)


def test_credentials_that_are_off_are_not_made(tmp_path: Path) -> None:
    assert open_signing(TrustSettings(credentials=CredentialsMode.OFF), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_digest_of_a_request_depends_on_all_of_it_and_not_on_its_order() -> None:
    assert request_digest({"prompt": "a", "seed": 7}) == request_digest({"seed": 7, "prompt": "a"})
    assert request_digest({"prompt": "a", "seed": 8}) != request_digest({"prompt": "a", "seed": 7})

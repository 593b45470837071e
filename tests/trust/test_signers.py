"""Who signs, and what is said when nobody can."""

import stat
import threading
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from schemas import entry_points
from schemas.errors import ConfigError
from schemas.trust import TrustSettings
from tests.trust.authorities import identity
from trust import signers
from trust.signers import DEVELOPMENT, PemSigner, development_signer, find_signer, subject_of


def settings(folder: Path, **given: Any) -> TrustSettings:
    key, certificates = identity("Studio").write(folder)
    return TrustSettings(**{"signing_key": key, "signing_certificates": certificates, **given})


def test_a_development_certificate_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = development_signer(tmp_path / "state")
    (path,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.development
    assert subject_of(first.certificates) == DEVELOPMENT
    assert development_signer(tmp_path / "state") == first


def test_of_many_that_make_one_at_once_all_use_the_first(tmp_path: Path) -> None:
    made: list[PemSigner] = []
    threads = [threading.Thread(target=lambda: made.append(development_signer(tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_one_that_is_about_to_expire_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers, "_VALID_DAYS", 31)
    short = development_signer(tmp_path)
    assert development_signer(tmp_path) == short
    monkeypatch.setattr(signers, "_VALID_DAYS", 365)
    monkeypatch.setattr(signers, "_RENEWED_DAYS", 32)
    longer = development_signer(tmp_path)
    assert longer != short
    assert development_signer(tmp_path) == longer


def test_a_place_where_nothing_can_be_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"development-signer.pem: .*"):
        development_signer(tmp_path / "file")


def test_a_file_that_is_no_certificate_of_ours_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "development-signer.pem").write_text("something else")
    assert development_signer(tmp_path).development


@pytest.mark.parametrize(("curve", "algorithm"), [(ec.SECP256R1(), "es256"), (ec.SECP384R1(), "es384")])
def test_a_key_of_ones_own_says_its_algorithm(tmp_path: Path, curve: ec.EllipticCurve, algorithm: str) -> None:
    key, certificates = identity("Studio", curve).write(tmp_path)
    found = find_signer(TrustSettings(signing_key=key, signing_certificates=certificates), tmp_path)
    assert found.algorithm == algorithm
    assert subject_of(found.certificates) == "Studio"
    assert not list(tmp_path.glob("development*"))
    assert found.certificates.strip() in certificates.read_text()
    assert "PRIVATE" not in repr(found)


def test_a_key_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    told = settings(tmp_path)
    (tmp_path / "certificates.pem").write_text(identity("Another").certificates)
    with pytest.raises(ConfigError, match=r"certificates.pem: its first certificate is not of the key .*key.pem"):
        find_signer(told, tmp_path)


def test_a_file_that_is_not_there_or_no_key_is_named(tmp_path: Path) -> None:
    told = settings(tmp_path)
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ConfigError, match=r"key.pem: not a private key in PEM without a password"):
        find_signer(told, tmp_path)
    (tmp_path / "key.pem").unlink()
    with pytest.raises(ConfigError, match=r"signing_key, signing_certificates: .*key.pem"):
        find_signer(told, tmp_path)


def test_a_key_without_certificates_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        TrustSettings(signing_key=tmp_path / "key.pem")
    with pytest.raises(ValueError, match="either signer"):
        settings(tmp_path, signer="kms")


class Kms:
    """A signer of a package that is installed beside Rushes."""

    algorithm, certificates = "es256", ""

    def sign(self, data: bytes) -> bytes:
        return b""


class Odd(Kms):
    algorithm = "md5"


class Away:
    """Whoever asks what it is has to ask somebody else."""

    @property
    def algorithm(self) -> str:
        raise ConnectionError("503")


class Unable:
    algorithm, certificates = "es256", ""


class Hangs(Kms):
    def sign(self, data: bytes) -> bytes:
        threading.Event().wait()
        return b""


class Quits(Kms):
    def sign(self, data: bytes) -> bytes:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("name", "said"), [("Away", "signer 'Away': ConnectionError: 503"), ("Unable", "signer 'Unable': AttributeError")]
)
def test_one_that_cannot_say_what_it_is_is_an_error_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, said: str
) -> None:
    points = EntryPoints([EntryPoint(name, f"{__name__}:{name}", signers.GROUP)])
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points.select(group=group))
    with pytest.raises(ConfigError, match=said):
        find_signer(TrustSettings(signer=name), tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("Hangs", TimeoutError, "no answer within 0.05 s"),
        ("Quits", RuntimeError, "SystemExit: 3"),
        ("Kms", TypeError, "not the bytes of a signature"),
    ],
)
def test_nobody_waits_for_one_without_end_nor_goes_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, kind: type[Exception], said: str
) -> None:
    points = EntryPoints([EntryPoint(name, f"{__name__}:{name}", signers.GROUP)])
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points.select(group=group))
    monkeypatch.setattr(signers, "ANSWER_S", 0.05)
    found = find_signer(TrustSettings(signer=name), tmp_path)
    assert not isinstance(found, signers.PemSigner)
    with pytest.raises(kind, match=said):
        found.sign(b"data")


def test_a_signer_by_entry_point_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = EntryPoints(EntryPoint(name, f"{__name__}:{name}", signers.GROUP) for name in ("Kms", "Odd", "Gone"))
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points.select(group=group))
    found = find_signer(TrustSettings(signer="Kms"), tmp_path)
    assert (found.algorithm, found.certificates) == ("es256", "")
    with pytest.raises(ConfigError, match="signer: unknown 'other'; available: Gone, Kms, Odd"):
        find_signer(TrustSettings(signer="other"), tmp_path)
    with pytest.raises(ConfigError, match="unknown algorithm 'md5'; available: es256"):
        find_signer(TrustSettings(signer="Odd"), tmp_path)
    with pytest.raises(ConfigError, match="signer 'Gone': AttributeError"):
        find_signer(TrustSettings(signer="Gone"), tmp_path)


def test_where_there_are_no_signers_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown 'kms'; available: none: .* rushes.signers"):
        find_signer(TrustSettings(signer="kms"), tmp_path)

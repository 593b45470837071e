"""Anchors: who signed them, and whether what they say is what was signed."""

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from schemas.audit import Head
from schemas.trust import CredentialsMode, TrustSettings
from tests.trust.authorities import identity
from trust.audit_anchor import Anchor, anchor_signer, anchored, signed_by, trouble
from trust.signers import PemSigner

HEAD = Head("ab" * 32, 7, "cd" * 32)
AT = "2026-11-26T12:00:00.000Z"


def now() -> str:
    from time import time

    from schemas.audit import instant

    return instant(time())


@pytest.mark.parametrize(
    ("algorithm", "curve"), [("es256", ec.SECP256R1()), ("es384", ec.SECP384R1()), ("es512", ec.SECP521R1())]
)
def test_a_signature_holds_and_any_other_content_does_not(algorithm: str, curve: ec.EllipticCurve) -> None:
    studio = identity("Studio", curve)
    anchor = anchored(HEAD, now(), PemSigner(algorithm, studio.certificates, studio.key))
    assert (signed_by(anchor), trouble(anchor)) == ("Studio", None)
    for change in ({"position": 8}, {"hash": "ce" * 32}, {"log": "ac" * 32}, {"at": AT}):
        assert trouble(anchor.model_copy(update=change)) == "its signature is not of what it says"
    assert Anchor.model_validate_json(anchor.model_dump_json()) == anchor


def test_authorities_vouch_for_their_own_alone() -> None:
    studio, other = identity("Studio"), identity("Other")
    anchor = anchored(HEAD, now(), PemSigner("es256", studio.certificates, studio.key))
    assert trouble(anchor, studio.root) is None
    assert trouble(anchor, other.root) == "no authority that was given vouches for 'Studio'"
    assert trouble(anchor.model_copy(update={"certificates": other.certificates})) is not None
    expired = anchored(HEAD, "1999-01-01T00:00:00.000Z", PemSigner("es256", studio.certificates, studio.key))
    assert trouble(expired, studio.root) is not None, "its certificate was not in force then"


def test_one_without_a_signature_is_believed_unless_signers_are_asked_for() -> None:
    anchor = anchored(HEAD, AT)
    assert (signed_by(anchor), trouble(anchor)) == ("", None)
    assert trouble(anchor, identity("Studio").root) == "it is not signed"


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ed25519", ed25519.Ed25519PrivateKey.generate()),
        ("ps256", rsa.generate_private_key(65537, 2048)),
    ],
)
def test_keys_of_other_kinds_sign_what_their_public_keys_verify(
    algorithm: str, key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
) -> None:
    from trust.audit_anchor import _signature, _verify

    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    _verify(key.public_key(), algorithm, _signature(PemSigner(algorithm, "", pem), b"said"), b"said")
    with pytest.raises(ValueError, match="unknown algorithm"):
        _verify(key.public_key(), "rot13", b"", b"said")


@pytest.mark.parametrize("damage", [{"signature": "%%%"}, {"certificates": "none"}, {"algorithm": "rot13"}])
def test_what_cannot_be_checked_is_not_believed(damage: dict[str, str]) -> None:
    studio = identity("Studio")
    anchor = anchored(HEAD, now(), PemSigner("es256", studio.certificates, studio.key)).model_copy(update=damage)
    assert trouble(anchor)


@pytest.mark.parametrize("at", ["", "yesterday", "2026-11-26T12:00:00", "9" * 40])
def test_one_that_somebody_signed_at_no_instant_is_not_vouched_for(at: str) -> None:
    studio = identity("Studio")
    anchor = anchored(HEAD, at, PemSigner("es256", studio.certificates, studio.key))
    assert trouble(anchor, studio.root)


def test_a_certificate_of_a_key_that_nobody_knows_is_not_believed() -> None:
    studio = identity("Studio")
    anchor = anchored(HEAD, now(), PemSigner("es256", studio.certificates, studio.key))
    own = x509.load_pem_x509_certificate(studio.certificates.encode()).public_bytes(serialization.Encoding.DER)
    known = bytes.fromhex("06072a8648ce3d0201")  # the object identifier of keys on elliptic curves
    assert known in own
    odd = base64.encodebytes(own.replace(known, bytes.fromhex("06072a8648ce222201"))).decode()
    certificates = f"-----BEGIN CERTIFICATE-----\n{odd}-----END CERTIFICATE-----\n"
    assert "cannot be checked" in str(trouble(anchor.model_copy(update={"certificates": certificates})))


def test_whoever_signs_clips_signs_anchors(tmp_path: Path) -> None:
    key, certificates = identity("Studio").write(tmp_path)
    signer = anchor_signer(TrustSettings(signing_key=key, signing_certificates=certificates), tmp_path)
    assert signer is not None
    assert signed_by(anchored(HEAD, AT, signer)) == "Studio"
    assert anchor_signer(TrustSettings(credentials=CredentialsMode.OFF), tmp_path) is None
    assert anchor_signer(TrustSettings(signer="nobody"), tmp_path) is None, "unsigned rather than no anchor"

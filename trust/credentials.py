"""Content credentials in files: signing a clip, and what a file's own credentials say (C2PA, by `c2pa-python`).

| format | signed |
| --- | --- |
| MP4, GIF, JPEG (posters), PNGs in a zip | inside the file |
| WebM | no: C2PA has no place in Matroska |
"""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from schemas.errors import ConfigError, RushesError, SigningError
from schemas.trust import CredentialsMode, TrustSettings
from trust.claim import AI_SOURCES, RENDER_LABEL, Claim, manifest
from trust.extra import is_installed, library
from trust.formats import HEAD_BYTES, content_type_of
from trust.signers import DEVELOPMENT, PemSigner, Signer, find_signer, subject_of

SIGNED_SUFFIXES = frozenset({"mp4", "gif", "zip", "jpg"})
_INGREDIENT = "input"
_TRIES, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 3, 0.2, 2.0
# Nothing is fetched while a file is made or read, no picture is put into its credentials, and what was just signed is
# not read back.
_SETTINGS: dict[str, Any] = {
    "version": 1,
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "verify_trust": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}
_UNTRUSTED, _EXPIRED = "signingCredential.untrusted", "signingCredential.expired"
# How the credentials of any format begin; where a file without these bytes cannot be read, it never had any.
_MARK = b"c2pa"
_READ_AT_ONCE = 1 << 20
# The smallest picture that can be signed: a grey pixel.
_TRIAL_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


class ClipSigning:
    """Signs files for one process. Thread-safe."""

    def __init__(self, signer: Signer | PemSigner, timestamp_url: str | None = None) -> None:
        c2pa = library("c2pa")
        self._is_proven = False
        self.signed_by = subject_of(signer.certificates)
        self.is_development = isinstance(signer, PemSigner) and signer.development
        # What others are asked for over a network is asked for again: a lost signature would cost a rendered clip.
        self._tries = 1 if isinstance(signer, PemSigner) and timestamp_url is None else _TRIES
        try:
            if isinstance(signer, PemSigner):
                url = timestamp_url.encode() if timestamp_url else None
                key, chain = signer.private_key.encode(), signer.certificates.encode()
                made = c2pa.Signer.from_info(c2pa.C2paSignerInfo(signer.algorithm.encode(), chain, key, url))
            else:
                algorithm = c2pa.C2paSigningAlg[signer.algorithm.upper()]
                made = c2pa.Signer.from_callback(signer.sign, algorithm, signer.certificates, timestamp_url)
            self._context = c2pa.Context.from_dict(_SETTINGS, made)
        except c2pa.C2paError as error:
            raise ConfigError(f"the certificate of {self.signed_by!r} cannot sign credentials: {error}") from error

    def sign(self, path: Path, claim: Claim, ingredients: Sequence[bytes] = ()) -> None:
        """Sign the file in its place; it is as before when this raises. `ingredients` are from `ingredient_of`.

        Raises SigningError.
        """
        signed = path.with_name(f"{path.name}.signed")
        try:
            with path.open("rb") as source, signed.open("w+b") as target:
                self._sign(source, target, path, claim, ingredients)
            os.replace(signed, path)
        finally:
            with suppress(FileNotFoundError):
                signed.unlink()

    def signed(self, data: bytes, suffix: str, claim: Claim, ingredients: Sequence[bytes] = ()) -> bytes:
        """The same over bytes."""
        target = io.BytesIO()
        self._sign(io.BytesIO(data), target, Path(f"{claim.fingerprint}.{suffix}"), claim, ingredients)
        return target.getvalue()

    def try_out(self) -> None:
        """Sign what nobody keeps. Raises SigningError where clips could not be signed: by a certificate that has
        expired, say, or is of a kind that C2PA does not take."""
        self.signed(_TRIAL_PIXEL, "gif", _TRIAL)

    def _sign(self, source: Any, target: Any, path: Path, claim: Claim, ingredients: Sequence[bytes]) -> None:
        c2pa = library("c2pa")
        suffix = path.suffix.removeprefix(".")
        title = f"{claim.fingerprint}.{suffix}"
        definition = manifest(claim, title, tuple(_ingredient_id(number) for number in range(len(ingredients))))
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(c2pa.C2paError),
                stop=stop_after_attempt(self._tries),
                wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
                reraise=True,
            ):
                with attempt, c2pa.Builder(definition, self._context) as builder:
                    source.seek(0)
                    target.seek(0)
                    target.truncate()
                    for ingredient in ingredients:
                        builder.add_ingredient_from_archive(io.BytesIO(ingredient))
                    builder.sign(suffix, source, target)
            if not self._is_proven:
                self._prove(target, title)
        except c2pa.C2paError as error:
            raise SigningError(f"{title}: it cannot be signed by {self.signed_by!r}: {error}") from error

    def _prove(self, target: Any, title: str) -> None:
        """Read back the first file that this process signs: whether a signature holds is looked at nowhere else."""
        target.seek(0)
        kind = content_type_of(target.read(HEAD_BYTES))
        target.seek(0)
        with library("c2pa").Reader(kind, target, context=_reading_context()) as reader:
            found = _found(json.loads(reader.json()))
        if found.state != "valid":
            why = "; ".join(found.problems)
            raise SigningError(f"{title}: what {self.signed_by!r} signs does not hold: {why}")
        self._is_proven = True


_TRIAL = Claim("trial", "", "", "", "", "", "", "", development=True)


class UnableToSign:
    """Stands for a signer that cannot be had: each clip that would be signed fails with the reason."""

    signed_by = ""
    is_development = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def try_out(self) -> None:
        raise SigningError(self.reason)

    def sign(self, path: Path, claim: Claim, ingredients: Sequence[bytes] = ()) -> None:  # noqa: ARG002
        raise SigningError(self.reason)

    def signed(self, data: bytes, suffix: str, claim: Claim, ingredients: Sequence[bytes] = ()) -> bytes:  # noqa: ARG002
        raise SigningError(self.reason)


def is_signing(settings: TrustSettings) -> bool:
    """Whether clips are to be signed, here."""
    if settings.credentials is CredentialsMode.AUTO:
        return is_installed("c2pa", "cryptography")
    return settings.credentials is CredentialsMode.ON


def open_signing(settings: TrustSettings, state_dir: Path) -> ClipSigning | None:
    """Who signs clips; None where they are not signed. Raises ConfigError with the reason when it cannot be had."""
    if not is_signing(settings):
        return None
    return ClipSigning(find_signer(settings, state_dir), settings.timestamp_url)


def signing_or_reason(settings: TrustSettings, state_dir: Path) -> ClipSigning | UnableToSign | None:
    """As `open_signing`, for whoever goes on without: what cannot be had becomes every clip's SigningError."""
    try:
        return open_signing(settings, state_dir)
    except RushesError as error:
        return UnableToSign(str(error))


def _ingredient_id(number: int) -> str:
    return f"{_INGREDIENT}{number or ''}"


def ingredient_of(data: bytes, content_type: str, title: str, number: int = 0) -> bytes | None:
    """The `number`th input image or video of a clip, from 0, as an ingredient: its hash, and its own credentials
    where it carries some. A few kB that travel in place of the file; None without the `trust` extra.

    Reads what strangers sent: call it where a decoder may die. What cannot be read as `content_type` is still hashed.
    """
    if not is_installed("c2pa"):
        return None
    c2pa = library("c2pa")
    own_id = _ingredient_id(number)
    told = {"title": title, "relationship": "inputTo", "label": own_id, "instance_id": own_id}
    for kind in (content_type, "application/octet-stream"):
        archive = io.BytesIO()
        try:
            builder = c2pa.Builder({"claim_generator_info": [{"name": "Rushes"}]}, _reading_context())
            builder.add_ingredient(told, kind, io.BytesIO(data))
            builder.write_ingredient_archive(own_id, archive)
        except c2pa.C2paError:
            continue
        return archive.getvalue()
    return None


@dataclass(frozen=True)
class IngredientFound:
    """What a file says that it was made from. `state` and `signed_by` are None where that had no credentials."""

    title: str
    format: str
    relationship: str
    state: str | None = None
    signed_by: str | None = None


@dataclass(frozen=True)
class CredentialsFound:
    """What a file's credentials say. `state`: `trusted` (by an anchor that was given), `valid` (unchanged since it was
    signed, by whoever it was), `expired` (the same, but the certificate is in force no more and no authority says when
    it was used), `invalid`, with `problems` that say why, or `unread`: none are in it that can be read, with why."""

    state: str
    signed_by: str
    issuer: str
    generator: str
    title: str
    actions: tuple[str, ...]
    is_ai_generated: bool
    is_development: bool
    ingredients: tuple[IngredientFound, ...] = ()
    render: Mapping[str, Any] | None = None  # what Rushes adds
    problems: tuple[str, ...] = ()


def read_credentials(path: Path, trust_anchors: str | None = None) -> CredentialsFound | None:
    """The file's credentials; None where it has none, or is of a kind that cannot have any. Fetches nothing.

    `trust_anchors` are certificates in PEM whose signatures count as `trusted`. Raises ConfigError without the extra.
    """
    c2pa = library("c2pa")
    try:
        with path.open("rb") as file:
            kind = content_type_of(file.read(HEAD_BYTES))
            file.seek(0)
            with c2pa.Reader(kind, file, context=_reading_context(trust_anchors)) as reader:
                told = json.loads(reader.json())
    except c2pa.C2paError as error:
        # Its classes are attributes of C2paError alone.
        if isinstance(error, c2pa.C2paError.ManifestNotFound | c2pa.C2paError.NotSupported):
            return None
        is_elsewhere = isinstance(error, c2pa.C2paError.RemoteManifest)
        state = "unread" if is_elsewhere or not _has(path, _MARK) else "invalid"
        return CredentialsFound(state, "", "", "", "", (), False, False, problems=(str(error),))
    return _found(told)


def _has(path: Path, mark: bytes) -> bool:
    """Whether these bytes are somewhere in the file."""
    kept = b""
    with path.open("rb") as file:
        while data := file.read(_READ_AT_ONCE):
            if mark in kept + data:
                return True
            kept = data[1 - len(mark) :]
    return False


def _found(told: Mapping[str, Any]) -> CredentialsFound:
    manifests = told.get("manifests", {})
    active = manifests.get(told.get("active_manifest"), {})
    assertions = {one["label"]: one.get("data") or {} for one in active.get("assertions", ())}
    actions = [a for label, data in assertions.items() if label.startswith("c2pa.actions") for a in data["actions"]]
    generator: Mapping[str, Any] = next(iter(active.get("claim_generator_info") or ()), {})
    subject = _subject(active)
    state, problems = str(told.get("validation_state", "Invalid")).lower(), _problems(told)
    if state == "invalid" and problems and all(one.startswith(f"{_EXPIRED}:") for one in problems):
        state = "expired"
    return CredentialsFound(
        state=state,
        signed_by=subject,
        issuer=(active.get("signature_info") or {}).get("issuer") or "",
        generator=" ".join(filter(None, (generator.get("name"), generator.get("version")))),
        title=active.get("title") or "",
        actions=tuple(str(action.get("action")) for action in actions),
        is_ai_generated=any(action.get("digitalSourceType") in AI_SOURCES for action in actions),
        is_development=subject == DEVELOPMENT,
        ingredients=tuple(_ingredient(one, manifests) for one in active.get("ingredients", ())),
        render=assertions.get(RENDER_LABEL),
        problems=problems if state in ("invalid", "expired") else (),
    )


def _ingredient(told: Mapping[str, Any], manifests: Mapping[str, Any]) -> IngredientFound:
    carried = manifests.get(told.get("active_manifest") or "")
    state = signed_by = None
    if carried is not None:
        signed_by = _subject(carried)
        problems = _problems(told)
        is_expired = all(one.startswith(f"{_EXPIRED}:") for one in problems)
        state = "valid" if not problems else "expired" if is_expired else "invalid"
    return IngredientFound(
        told.get("title") or "", told.get("format") or "", told.get("relationship") or "", state, signed_by
    )


def _subject(manifest_told: Mapping[str, Any]) -> str:
    """Whose certificate signed a manifest."""
    signature = manifest_told.get("signature_info") or {}
    return str(signature.get("common_name") or signature.get("issuer") or "")


def _problems(told: Mapping[str, Any]) -> tuple[str, ...]:
    """What validation found wrong; that nobody vouches for the signer is none."""
    failures = (told.get("validation_results") or {}).get("activeManifest", {}).get("failure", ())
    return tuple(f"{one['code']}: {one.get('explanation', '')}" for one in failures if one["code"] != _UNTRUSTED)


def _reading_context(trust_anchors: str | None = None) -> Any:
    return _context(trust_anchors, os.getpid())


@cache
def _context(trust_anchors: str | None, _process: int) -> Any:  # none of the library's may pass a fork
    settings = dict(_SETTINGS)
    if trust_anchors is not None:
        settings |= {
            "verify": {**_SETTINGS["verify"], "verify_trust": True},
            "trust": {"user_anchors": trust_anchors},
        }
    return library("c2pa").Context.from_dict(settings)

"""How a publisher has a clip tell where it comes from: the mark in its frames, the credentials in its file."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.model import Frames
from schemas.errors import ConfigError, RushesError, SigningError
from schemas.finish import FinishStage, Operation
from schemas.task import Group, Task
from schemas.trust import CredentialsMode, TrustSettings, UnsignedRule
from trust.claim import Claim, Edit, request_digest
from trust.credentials import (
    SIGNED_SUFFIXES,
    ClipSigning,
    UnableToSign,
    ingredient_of,
    is_signing,
    read_credentials,
    signing_or_reason,
)
from trust.extra import library
from trust.formats import HEAD_BYTES, content_type_of
from trust.payload import payload_of
from trust.watermark import embed, has_room

log = logging.getLogger(__name__)

_TITLE_CHARS = 80


@dataclass(frozen=True)
class Signature:
    """What is kept of a signed file: the digest that it had before, and whose certificate signed it."""

    unsigned_sha256: str | None = None
    signed_by: str | None = None


@dataclass(frozen=True)
class Provenance:
    """How one process marks and signs. The default does neither."""

    signing: ClipSigning | UnableToSign | None = None
    unsigned: UnsignedRule = UnsignedRule.FAIL
    watermark: bool = False

    @property
    def has_ingredients(self) -> bool:
        """Whether inputs are to be read as ingredients: where clips are signed."""
        return self.signing is not None

    def marked(self, frames: Frames, fingerprint: str) -> tuple[Frames, str | None]:
        """The frames with the mark in them, and its payload, where clips are marked and there is room for it."""
        if not self.watermark or not has_room(frames):
            return frames, None
        payload = payload_of(fingerprint)
        return embed(frames, payload), payload.hex()

    def sign(self, path: Path, claim: "ClaimInputs", ingredients: Sequence[bytes]) -> Signature:
        """Sign the clip in its place, where its format can be. Raises SigningError, unless unsigned clips are to be
        published."""
        suffix = path.suffix.removeprefix(".")
        if self.signing is None or suffix not in SIGNED_SUFFIXES:
            return Signature()
        with path.open("rb") as file:
            unsigned = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self.signing.sign(path, claim.of(unsigned, self.signing.is_development), ingredients)
        except SigningError as error:
            self._refused(error)
            return Signature()
        return Signature(unsigned, self.signing.signed_by)

    def signed_poster(self, image: bytes, claim: "ClaimInputs", ingredients: Sequence[bytes]) -> bytes:
        """The JPEG with credentials of its own: it is shown without its clip."""
        if self.signing is None:
            return image
        unsigned = hashlib.sha256(image).hexdigest()
        try:
            return self.signing.signed(image, "jpg", claim.of(unsigned, self.signing.is_development), ingredients)
        except SigningError as error:
            self._refused(error)
            return image

    def _refused(self, error: SigningError) -> None:
        if self.unsigned is UnsignedRule.FAIL:
            raise error
        log.warning("published unsigned: %s", error)


@dataclass(frozen=True)
class ClaimInputs:
    """What the credentials of a task's files say, before the files are there."""

    task: Task
    group: Group
    weights: str
    revision: str
    inputs: Mapping[str, Any]
    made_at: str
    watermark: str | None = None
    edits: tuple[Edit, ...] = ()

    def of(self, unsigned_sha256: str, development: bool) -> Claim:
        return Claim(
            fingerprint=self.task.fingerprint,
            variant=self.group.variant,
            weights=self.weights,
            revision=self.revision,
            mode=self.group.mode.value,
            request_sha256=request_digest(self.inputs),
            unsigned_sha256=unsigned_sha256,
            made_at=self.made_at,
            development=development,
            watermark=self.watermark,
            edits=self.edits,
        )


def stage_edits(stage: FinishStage) -> tuple[Edit, ...]:
    """What a finishing stage did, in C2PA's words."""
    if stage.operation is Operation.INTERPOLATE:
        return (Edit("c2pa.edited", stage.told, stage.digest),)
    if stage.operation is Operation.REFRAME:
        return (Edit("c2pa.cropped", stage.told, stage.digest),)
    resized = Edit("c2pa.resized", stage.told, stage.digest)
    return (resized, Edit("c2pa.cropped", stage.told, stage.digest)) if stage.fit == "crop" else (resized,)


def open_provenance(settings: TrustSettings, state_dir: Path) -> Provenance:
    """By these settings. Raises nothing for a signer that cannot be had: each clip's signing says why."""
    return Provenance(signing_or_reason(settings, state_dir), settings.unsigned, settings.watermark)


def signature_in(path: Path) -> Signature:
    """Of a clip that was stored before, by whichever process."""
    try:
        found = read_credentials(path)
    except (ConfigError, OSError):
        return Signature()
    if found is None or found.state in ("invalid", "unread"):
        return Signature()
    return Signature((found.render or {}).get("unsigned_sha256"), found.signed_by)


def input_ingredient(data: bytes, uri: str, number: int = 0) -> bytes | None:
    """An image or video of a task as the `number`th ingredient of its clip, from 0. None where that cannot be: a clip
    never fails by it.

    Of the address only the file's name is told, as the rest may hold what is nobody's business.
    """
    name = "inline" if uri.startswith("data:") else urlsplit(uri).path.rstrip("/").rpartition("/")[2]
    try:
        return ingredient_of(data, content_type_of(data[:HEAD_BYTES]), name[-_TITLE_CHARS:] or "input", number)
    except (RushesError, ValueError, OSError) as error:
        log.warning("%s: not told of as an ingredient: %s", name, error)
        return None


def check_signing(settings: TrustSettings, state_dir: Path) -> str:
    """By whom clips are signed, in a sentence for people. Raises ConfigError where what has to be done cannot be."""
    if settings.watermark:
        library("reedsolo")
    if not is_signing(settings):
        extra = settings.credentials is CredentialsMode.AUTO
        return f"clips are not signed{': the trust extra is not installed' if extra else ''}"
    signing = signing_or_reason(settings, state_dir)
    assert signing is not None
    try:
        signing.try_out()
    except SigningError as error:
        if settings.unsigned is UnsignedRule.FAIL:
            raise ConfigError(str(error)) from error
        return f"clips are published unsigned: {error}"
    made_here = ": made on this machine for development, so nobody else trusts it" if signing.is_development else ""
    return f"clips are signed by {signing.signed_by!r}{made_here}"

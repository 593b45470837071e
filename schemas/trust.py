"""How clips say where they come from: credentials that are signed, and a mark within the picture."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class CredentialsMode(StrEnum):
    """Whether clips are signed."""

    AUTO = "auto"  # where the `trust` extra is installed
    ON = "on"
    OFF = "off"


class UnsignedRule(StrEnum):
    """What becomes of a clip that cannot be signed."""

    FAIL = "fail"
    PUBLISH = "publish"


class TrustSettings(BaseModel):
    """Credentials and watermark of the clips that are rendered from now on. Clips that are done stay as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    credentials: CredentialsMode = Field(
        default=CredentialsMode.AUTO, description="sign clips; auto: where the `trust` extra is installed"
    )
    signing_key: Path | None = Field(default=None, description="PEM, on every machine that renders")
    signing_certificates: Path | None = Field(
        default=None, description="PEM, of the key: its own certificate first, then up to the root"
    )
    signer: str | None = Field(
        default=None, description="an entry point of the group `rushes.signers`, instead of a key in a file"
    )
    timestamp_url: str | None = Field(default=None, description="RFC 3161: asked for each clip when set")
    unsigned: UnsignedRule = Field(
        default=UnsignedRule.FAIL, description="a clip that cannot be signed fails its task, or is published unsigned"
    )
    watermark: bool = Field(default=False, description="put 64 bits of the fingerprint into the picture, invisibly")

    @model_validator(mode="after")
    def _one_key(self) -> "TrustSettings":
        if (self.signing_key is None) != (self.signing_certificates is None):
            raise ValueError("signing_key and signing_certificates go together")
        if self.signer is not None and self.signing_key is not None:
            raise ValueError(f"either signer ({self.signer!r}) or signing_key ({str(self.signing_key)!r}), not both")
        return self

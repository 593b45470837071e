"""Pictures that third parties signed, by the C2PA library alone."""

import io
import json
from typing import Any

import c2pa
from PIL import Image

from tests.trust.authorities import Identity

CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def png(width: int = 96, height: int = 64) -> bytes:
    """A picture without credentials."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def signed_png(by: Identity, title: str = "photo.png") -> bytes:
    """A picture that somebody else's program signed."""
    created = {"action": "c2pa.created", "digitalSourceType": CAPTURE}
    definition = {
        "claim_generator_info": [{"name": "A camera", "version": "1"}],
        "title": title,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
    info = c2pa.C2paSignerInfo(b"es256", by.certificates.encode(), by.key.encode(), None)
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(definition) as builder:
        builder.sign(signer, "image/png", io.BytesIO(png()), out)
    return out.getvalue()


def read_by_others(data: bytes, content_type: str) -> dict[str, Any]:
    """What a program that knows nothing of Rushes reads: the library's own settings, its own report."""
    with c2pa.Reader(content_type, io.BytesIO(data)) as reader:
        told: dict[str, Any] = json.loads(reader.json())
        return told

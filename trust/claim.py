"""What the credentials of a clip say, as the C2PA specification 2.x has it. Pure: values in, a manifest out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

GENERATOR = "Rushes"
RENDER_LABEL = "org.rushes.render"
_SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
AI_GENERATED = f"{_SOURCES}trainedAlgorithmicMedia"
# Sources of which a model made at least a part.
AI_SOURCES = frozenset({AI_GENERATED, f"{_SOURCES}compositeWithTrainedAlgorithmicMedia"})


@dataclass(frozen=True)
class Edit:
    """A finishing stage: `action` is of C2PA's vocabulary (`c2pa.edited`, `c2pa.resized` …), `name` is the stage's."""

    action: str
    name: str
    revision: str = ""


@dataclass(frozen=True)
class Claim:
    """What is said of one clip."""

    fingerprint: str
    variant: str
    weights: str
    revision: str
    mode: str
    request_sha256: str
    unsigned_sha256: str
    made_at: str
    development: bool
    watermark: str | None = None  # its payload
    edits: tuple[Edit, ...] = ()


def request_digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 over everything that a task is rendered from, prompt included: who has the request can show that it is
    the clip's, and who has the clip learns nothing of it."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def manifest(claim: Claim, title: str, ingredient_ids: tuple[str, ...] = ()) -> dict[str, Any]:
    """The definition that a C2PA builder takes. `ingredient_ids` are what the clip was made from."""
    created: dict[str, Any] = {
        "action": "c2pa.created",
        "when": claim.made_at,
        "digitalSourceType": AI_GENERATED,
        "softwareAgent": {"name": claim.variant, "version": claim.revision or "unknown"},
    }
    if ingredient_ids:
        created["parameters"] = {"ingredientIds": list(ingredient_ids)}
    actions = [created, *map(_edited, claim.edits)]
    if claim.watermark is not None:
        actions.append({"action": "c2pa.watermarked.unbound", "parameters": {"name": "rushes", "id": claim.watermark}})
    render = {
        "fingerprint": claim.fingerprint,
        "mode": claim.mode,
        "variant": claim.variant,
        "weights": claim.weights,
        "revision": claim.revision,
        "request_sha256": claim.request_sha256,
        "unsigned_sha256": claim.unsigned_sha256,
    }
    if claim.development:
        render["certificate"] = "development: it shows that nothing was changed, not who signed"
    return {
        "claim_generator_info": [{"name": GENERATOR, "version": _version()}],
        "title": title,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": RENDER_LABEL, "data": render},
        ],
    }


def _edited(edit: Edit) -> dict[str, Any]:
    agent = {"name": edit.name, **({"version": edit.revision} if edit.revision else {})}
    return {"action": edit.action, "softwareAgent": agent}


def _version() -> str:
    try:
        return version("rushes")
    except PackageNotFoundError:
        return "unknown"

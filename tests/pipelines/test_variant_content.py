"""A variant is what its files are, not what they are called."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.weights import EMBEDDED
from pipelines.plan import PlanRules, plan_rows
from pipelines.rows import Rows
from pipelines.variant_content import VariantContents
from schemas.catalog import Adapter, Variant
from schemas.extract import Extractor
from schemas.inputs import Kind
from schemas.parts import ControlNet, IpAdapter, MotionLora, MotionLoras
from storage.store import open_store
from tests.pipelines.catalogs import directed, two_variants
from tests.s3_server import S3Server


def content(variant: Variant, cache: Path) -> str:
    return VariantContents({variant.name: variant}, cache).content(variant.name)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED / "tiny-random", tmp_path / "weights"))


def test_weights_that_change_in_place_are_other_tasks(tmp_path: Path, weights: Path) -> None:
    small = two_variants()["small"].model_copy(update={"weights": str(weights)})
    before = content(small, tmp_path)
    assert content(small, tmp_path) == before
    moved = small.model_copy(update={"weights": str(shutil.move(weights, tmp_path / "moved"))})
    assert content(moved, tmp_path) == before, "the same files in another folder are the same weights"
    (tmp_path / "moved" / "model_index.json").write_text("{}")
    assert content(moved, tmp_path) != before


def test_a_lora_that_changes_in_place_is_another_task(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "lora.safetensors").write_bytes(b"one")
    small = two_variants()["small"].model_copy(update={"loras": (Adapter(source=str(tmp_path / "lora")),)})
    before = content(small, tmp_path)
    (tmp_path / "lora" / "lora.safetensors").write_bytes(b"two")
    assert content(small, tmp_path) != before


def test_a_controlnet_that_changes_in_place_is_another_task(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "net.safetensors").write_bytes(b"one")
    net = ControlNet(source=str(tmp_path / "net"), kind=Kind.EDGES)
    small = two_variants()["small"].model_copy(update={"controlnet": net})
    before = content(small, tmp_path)
    (tmp_path / "net" / "net.safetensors").write_bytes(b"two")
    assert content(small, tmp_path) != before


def test_an_ip_adapter_that_changes_in_place_is_another_task(tmp_path: Path) -> None:
    (tmp_path / "ip").mkdir()
    (tmp_path / "ip" / "ip.safetensors").write_bytes(b"one")
    part = IpAdapter(source=str(tmp_path / "ip"), weight_file="ip.safetensors")
    small = two_variants()["small"].model_copy(update={"ip_adapter": part})
    before = content(small, tmp_path)
    (tmp_path / "ip" / "ip.safetensors").write_bytes(b"two")
    assert content(small, tmp_path) != before


def test_a_motion_lora_that_changes_in_place_is_another_task(tmp_path: Path) -> None:
    for way in ("left", "right"):
        (tmp_path / way).mkdir()
        (tmp_path / way / "lora.safetensors").write_bytes(b"one")
    part = MotionLoras(**{f"pan_{way}": MotionLora(source=str(tmp_path / way)) for way in ("left", "right")})
    small = two_variants()["small"].model_copy(update={"motion_loras": part})
    before = content(small, tmp_path)
    (tmp_path / "right" / "lora.safetensors").write_bytes(b"two")
    assert content(small, tmp_path) != before


def test_the_weights_of_an_extractor_are_in_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "model.safetensors").write_bytes(b"one")
    how = Extractor(name="far", method="depth", weights=str(tmp_path / "depth"))
    catalog = directed().model_copy(update={"extractors": {"far": how}})
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)

    def fingerprint(**fields: Any) -> str:
        contents = VariantContents(catalog.variants, tmp_path)
        given = {"role": "structure", "kind": "depth", "image": str(picture), **fields}
        columns = {"prompt": ["x"], "variant": ["vace"], "seed": [1], "inputs": [[given]]}
        rules = PlanRules(catalog, lambda v, g: 0.0, lambda v: True, content=contents.content)
        planned = plan_rows(Rows(uri="m.jsonl", lines=[1], columns=columns), rules)
        assert not planned.rejects, planned.rejects
        return planned.fingerprints[0]

    before = fingerprint(extract=True)
    assert fingerprint(extract="far") == before != fingerprint()
    (tmp_path / "depth" / "model.safetensors").write_bytes(b"two")
    assert fingerprint(extract=True) != before


@pytest.mark.s3
def test_weights_in_a_bucket_are_told_apart_by_their_etags(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket("contents")
    store = open_store(f"s3://contents/{tmp_path.name}")
    store.put("model_index.json", b"{}")
    small = two_variants()["small"].model_copy(update={"weights": str(store.address)})
    before = content(small, tmp_path)
    store.put("model_index.json", b"[]")
    assert content(small, tmp_path) != before


def test_a_branch_of_the_hub_is_the_commit_that_the_cache_has_when_the_hub_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub = two_variants()["small"].model_copy(update={"weights": "owner/name"})
    unknown = content(hub, tmp_path)
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    cached = content(hub, tmp_path)
    assert cached != unknown
    assert content(hub.model_copy(update={"revision": "a" * 40}), tmp_path) == cached


def test_a_folder_that_is_not_there_counts_by_its_name(tmp_path: Path) -> None:
    small = two_variants()["small"].model_copy(update={"weights": "/no/such/folder"})
    assert content(small, tmp_path) == content(small, tmp_path)


def test_the_contents_are_in_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(found: str) -> str:
        rows = Rows("m.jsonl", [1], {"prompt": ["x"], "seed": [1], "variant": ["small"]})
        rules = PlanRules(two_variants(), rank=lambda v, g: 0.0, may_run=lambda v: True, content=lambda name: found)
        return plan_rows(rows, rules).fingerprints[0]

    assert fingerprint("one") == fingerprint("one") != fingerprint("two")

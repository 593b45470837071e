"""A manifest's row and a request to the endpoint with the same inputs are the same clip, byte for byte."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.encoder import encode
from actors.media_reader import ConfinedMediaReader
from actors.media_source import MediaSource
from actors.renderer import Rendered, Renderer
from models.loaded import LoadedModel
from models.loader import load
from models.model import Frames
from pipelines.plan import PlanRules, plan_rows
from pipelines.read import find_chunks, read_chunk
from schemas.catalog import Catalog, Variant
from schemas.clip import ClipFormat
from schemas.conditions import implied_mode
from schemas.config import read_config
from schemas.inputs import Role
from schemas.parts import IpAdapter
from schemas.request import Mode
from schemas.task import Group, RenderBatch, Task
from serve.admission.admission import Admission
from serve.admission.submission import submission_of
from serve.config import Pools, ServeConfig
from serve.context import Context
from serve.dispatch.jobs import as_rendered
from serve.media.intake import Intake
from serve.store.contract import ApiKey, Store
from serve.store.engine import open_store as open_tasks
from storage.store import open_store
from tests.models import controlled, obedient
from tests.models.tiny_adapters import FILE, ip_adapter
from tests.models.tiny_variants import tiny_variant
from tests.pipelines.catalogs import directed
from training.tiny import build

NOW = 1_000_000.0
KEY = ApiKey("key-a", "a", NOW)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("weights")
    vace, ends = obedient.vace(root / "vace", mean_share=4.0), obedient.image_to_video(root / "ends")
    found = directed(str(vace), str(build("ltx", root / "frames")), str(ends))
    own = {name: drawn(name, controlled.plain(root / "plain"), net) for name, net in _nets(root).items()}
    return Catalog(variants={**found.variants, **own, "style": styled(root)})


def _nets(root: Path) -> dict[str, dict[str, Any]]:
    edges, scribble = controlled.controlnet(root / "net"), controlled.sparse_controlnet(root / "sparse")
    return {
        "edges": {"controlnet": {"source": str(edges), "kind": "edges"}, "pipeline": "AnimateDiffControlNetPipeline"},
        "scribble": {
            "controlnet": {"source": str(scribble), "kind": "scribble"},
            "pipeline": "AnimateDiffSparseControlNetPipeline",
            "modes": ("text_to_video", "image_to_video"),
        },
    }


def styled(root: Path) -> Variant:
    """A tiny AnimateDiff with an IP-Adapter."""
    folder = build("animatediff", root / "animatediff")
    plain = drawn("style", folder, {"pipeline": "AnimateDiffPipeline", "shape": SMALL})
    adapter = ip_adapter(root / "adapter", load(plain, device="cpu").pipes[Mode.TEXT_TO_VIDEO].unet)
    return plain.model_copy(update={"ip_adapter": IpAdapter(source=str(adapter), weight_file=FILE)})


def drawn(name: str, folder: Path, part: dict[str, Any]) -> Variant:
    shape = {"divisor": 8, "max_frames": 32, "max_pixels": 65536, "native": [(32, 32, 9)]}
    entry = {"name": name, "pipelines": {}, "modes": ("text_to_video",), "shape": shape, **part}
    return tiny_variant("animatediff", folder, **entry)


@pytest.fixture(scope="module")
def model(catalog: Catalog) -> LoadedModel:
    return load(catalog["vace"], device="cpu")


@pytest.fixture(scope="module")
def reader() -> Iterator[ConfinedMediaReader]:
    opened = ConfinedMediaReader(MediaSource(read_config({})), 60.0)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_tasks(f"sqlite:///{tmp_path / 'tasks.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures and a video, of other sizes than the clip."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / name)
    moving = rng.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    encode(moving, 8, ClipFormat.MP4, folder / "v.mp4")
    return folder


def in_bulk(catalog: Catalog, media: Path, row: dict[str, Any]) -> tuple[Group, Task]:
    manifest = media / "m.jsonl"
    manifest.write_text(json.dumps(row) + "\n")
    (chunk,) = find_chunks(str(manifest))
    planned = plan_rows(read_chunk(chunk), PlanRules(catalog, lambda variant, group: 0.0, lambda variant: True))
    assert not planned.rejects
    task = Task(planned.fingerprints[0], row["prompt"], "", planned.seeds[0], planned.media[0])
    return planned.groups[planned.group_of[0]], task


def at_the_endpoint(catalog: Catalog, store: Store, out: Path, body: dict[str, Any]) -> tuple[Group, Task]:
    config = ServeConfig(out=str(out), pools=Pools(variants=("vace", "frames", "ends", "edges", "scribble", "style")))
    objects = open_store(config.out)
    admission = Admission(config, catalog, None, lambda: NOW)
    intake: Any = Intake(config, store, objects, now=lambda: NOW)
    context = Context(config, catalog, store, objects, admission, intake, now=lambda: NOW)
    submission = asyncio.run(submission_of(body, context, KEY).with_media_taken(context.intake))
    (task,) = store.tasks.submit(submission.decide(context, "text_to_video"), NOW).tasks
    assert all(uri.startswith(objects.uri("inputs")) for uri in as_rendered(task).media), "our checked copies"
    return task.group, as_rendered(task)


def rendered(model: LoadedModel, reader: ConfinedMediaReader, group: Group, task: Task) -> Frames:
    media = reader.read(group, [task])
    (outcome,) = Renderer(model).render(RenderBatch(group, (task,)), media=media)
    assert isinstance(outcome, Rendered), outcome
    return outcome.frames


def mp4(frames: Frames, path: Path) -> bytes:
    encode(frames, 8, ClipFormat.MP4, path)
    return path.read_bytes()


SMALL = {"divisor": 16, "max_frames": 32, "max_pixels": 65536, "native": [(32, 32, 4)]}
SCRIBBLES: list[tuple[str, str, dict[str, Any]]] = [("first_frame", "a.png", {}), ("keyframe", "b.png", {"at_s": 1.0})]
CASES: list[tuple[str, list[dict[str, Any]]]] = [
    ("edges", [{"role": "structure", "kind": "edges", "video": "v.mp4", "strength": 0.5, "extract": True}]),
    ("style", [{"role": "style", "image": "a.png", "strength": 0.5}, {"role": "style", "image": "b.png"}]),
    (
        "scribble",
        [{"role": role, "kind": "scribble", "image": image, **place} for role, image, place in SCRIBBLES],
    ),
    ("ends", [{"role": "first_frame", "image": "a.png"}, {"role": "last_frame", "image": "b.png"}]),
    ("frames", [{"role": "keyframe", "image": "a.png", "at_s": 1.0, "strength": 0.75}]),
    (
        "vace",
        [
            {"role": "source", "video": "v.mp4"},
            {"role": "mask", "image": "a.png"},
            {"role": "structure", "kind": "edges", "image": "b.png", "strength": 0.5},
            {"role": "reference", "image": "c.png"},
        ],
    ),
]


@pytest.mark.parametrize(("variant", "inputs"), CASES)
def test_bulk_and_endpoint_give_the_same_bytes(
    catalog: Catalog,
    media: Path,
    store: Store,
    tmp_path: Path,
    reader: ConfinedMediaReader,
    variant: str,
    inputs: list[dict[str, Any]],
) -> None:
    row = {"prompt": "it moves", "variant": variant, "seed": 5, "ratio": "32:32", "inputs": inputs}
    body = {"promptText": "it moves", "model": variant, "seed": 5, "ratio": "32:32", "mode": _mode(inputs)}
    body["inputs"] = [_as_client(one, media) for one in inputs]
    bulk, ours = in_bulk(catalog, media, row)
    served, theirs = at_the_endpoint(catalog, store, tmp_path / "out", body)
    assert bulk == served
    model = load(catalog[variant], device="cpu")
    clips = [rendered(model, reader, bulk, ours), rendered(model, reader, served, theirs)]
    without = rendered(model, reader, *_without_the_last(bulk, ours))
    assert mp4(clips[0], tmp_path / "bulk.mp4") == mp4(clips[1], tmp_path / "served.mp4")
    assert (clips[0] != without).any(), "and the last input shows"


PATHS = [{"label": "fox", "box": [0, 0, 0.5, 0.5], "keys": [{"at_s": 1.0, "x": 0.75, "ease": "in-out"}]}]
MOTIONS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([{"role": "first_frame", "image": "a.png"}], {"camera": [{"at_s": 1.0, "truck": 0.25}]}),
    ([{"role": "reference", "image": "c.png"}], {"paths": PATHS}),
    ([{"role": "source", "video": "v.mp4", "start": 0.5}], {"edit": {"speed": 0.5, "region": [0, 0, 0.5, 1]}}),
    ([{"role": "source", "video": "v.mp4", "end": 2.0}], {"edit": {"reverse": True}}),
]


@pytest.mark.parametrize(("inputs", "motion"), MOTIONS)
def test_motion_and_edits_are_the_same_bytes_and_show(
    catalog: Catalog,
    media: Path,
    store: Store,
    tmp_path: Path,
    reader: ConfinedMediaReader,
    model: LoadedModel,
    inputs: list[dict[str, Any]],
    motion: dict[str, Any],
) -> None:
    row = {"prompt": "it moves", "variant": "vace", "seed": 5, "ratio": "32:32", "inputs": inputs, **motion}
    body = {"promptText": "it moves", "model": "vace", "seed": 5, "ratio": "32:32", "mode": _mode(inputs)}
    body |= {"inputs": [_as_client(one, media) for one in inputs], **_in_camel_case(motion)}
    bulk, ours = in_bulk(catalog, media, row)
    served, theirs = at_the_endpoint(catalog, store, tmp_path / "out", body)
    assert bulk == served
    clips = [rendered(model, reader, bulk, ours), rendered(model, reader, served, theirs)]
    assert mp4(clips[0], tmp_path / "bulk.mp4") == mp4(clips[1], tmp_path / "served.mp4")
    still = rendered(model, reader, bulk.model_copy(update={"camera": (), "paths": (), "edit": None}), ours)
    assert (clips[0] != still).any(), "and the motion shows"


def _in_camel_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {"atSeconds" if name == "at_s" else name: _in_camel_case(one) for name, one in value.items()}
    return [_in_camel_case(one) for one in value] if isinstance(value, list) else value


def _mode(inputs: list[dict[str, Any]]) -> str:
    return implied_mode(Role(one["role"]) for one in inputs)


def _as_client(one: dict[str, Any], media: Path) -> dict[str, Any]:
    medium = "image" if "image" in one else "video"
    kind = "image/png" if medium == "image" else "video/mp4"
    data = base64.b64encode((media / one[medium]).read_bytes()).decode()
    named = {("atSeconds" if name == "at_s" else name): value for name, value in one.items()}
    return {**named, medium: f"data:{kind};base64,{data}"}


def _without_the_last(group: Group, task: Task) -> tuple[Group, Task]:
    if len(group.conditions) == 1:
        other = group.conditions[0].model_copy(update={"strength": 0.1})
        return group.model_copy(update={"conditions": (other,)}), task
    less = group.model_copy(update={"conditions": group.conditions[:-1]})
    return less, Task(task.fingerprint, task.prompt, "", task.seed, task.media[:-1])

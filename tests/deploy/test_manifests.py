"""What is deployed is what the code understands: keys, import paths, variants, and the same endpoint in both files."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from schemas.catalog import load_catalog
from serve.config import ServeConfig

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SERVICE = yaml.safe_load((DEPLOY / "kubernetes" / "rayservice.yaml").read_text())
JOB = yaml.safe_load((DEPLOY / "kubernetes" / "rayjob.yaml").read_text())
CONFIGS = {
    "serve.yaml": yaml.safe_load((DEPLOY / "serve.yaml").read_text()),
    "rayservice.yaml": yaml.safe_load(SERVICE["spec"]["serveConfigV2"]),
}


def application(name: str) -> dict[str, Any]:
    (found,) = CONFIGS[name]["applications"]
    return dict(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_serve_takes_the_config(name: str) -> None:
    read = ServeDeploySchema.model_validate(CONFIGS[name])
    assert read.applications[0].external_scaler_enabled, "without it the dispatcher cannot size pools"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_arguments_are_those_of_an_endpoint(name: str) -> None:
    config = ServeConfig.model_validate(application(name)["args"])
    catalog = load_catalog(ROOT / "rushes" / "catalog.toml")
    named = {*config.pools.variants, *config.pools.min_replicas, *config.pools.max_replicas}
    assert not [variant for variant in named if catalog.find(variant) is None]
    assert config.database_url.startswith("postgresql://")
    assert "@" in config.database_url
    assert ":" not in config.database_url.removeprefix("postgresql://").partition("@")[0], "a password in a manifest"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_import_path_leads_to_a_builder(name: str) -> None:
    module, _, attribute = application(name)["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_both_deploy_the_same_endpoint() -> None:
    assert application("serve.yaml")["args"] == application("rayservice.yaml")["args"]
    assert {**CONFIGS["serve.yaml"], "applications": 0} == {**CONFIGS["rayservice.yaml"], "applications": 0}


@pytest.mark.parametrize(
    ("manifest", "cluster"),
    [(SERVICE, SERVICE["spec"]["rayClusterConfig"]), (JOB, JOB["spec"]["rayClusterSpec"])],
    ids=["rayservice", "rayjob"],
)
def test_a_cluster_has_a_quiet_head_and_a_group_for_each_gpu_and_market(
    manifest: dict[str, Any], cluster: dict[str, Any]
) -> None:
    import ray

    assert manifest["apiVersion"] == "ray.io/v1"
    assert cluster["rayVersion"] == ray.__version__
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["labels"]["ray.io/market-type"] == "on-demand"
    seen = set()
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        labels = group["labels"]
        place = labels.get("ray.io/accelerator-type"), labels["ray.io/market-type"]
        assert place not in seen
        seen.add(place)
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (place[0] is not None)
    images = {group["template"]["spec"]["containers"][0]["image"] for group in (head, *cluster["workerGroupSpecs"])}
    assert len(images) == 1


def test_the_service_grows_by_itself_and_the_job_waits_for_its_queue() -> None:
    cluster = SERVICE["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert JOB["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert JOB["spec"]["suspend"] is True
    assert JOB["spec"]["shutdownAfterJobFinishes"] is True


def test_the_job_runs_a_command_that_there_is() -> None:
    import click
    import typer.main

    from rushes.cli import app

    words = JOB["spec"]["entrypoint"].split()
    commands = typer.main.get_command(app)
    command = commands.get_command(click.Context(commands), words[1])  # type: ignore[attr-defined]
    assert command is not None
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_image_has_every_room_and_this_ray() -> None:
    import ray

    text = (DEPLOY / "Dockerfile").read_text()
    assert f"rayproject/ray:{ray.__version__}-" in text
    for room in ("schemas", "storage", "models", "training", "cluster", "actors", "pipelines", "serve", "rushes"):
        assert f" {room} {room}\n" in text

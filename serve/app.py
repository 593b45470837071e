"""The application as Serve deploys it: one ingress, one dispatcher, one pool a variant.

serve deploy deploy/serve.yaml        import_path: serve.app:build_app, args: as `ServeConfig`
rushes serve                          the same, on a laptop
"""

from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import ray
from ray import serve as ray_serve
from ray.serve import Application
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, DeploymentStatus

from schemas.catalog import Catalog, Variant, load_catalog, shipped_catalog
from schemas.errors import ConfigError, RushesError
from serve.admission.names import served_catalog
from serve.bulk import BulkLauncher
from serve.bulk_launchers import JobLauncher
from serve.config import ServeConfig, read_serve_config
from serve.dispatch.dispatcher import Dispatcher
from serve.dispatch.pools import limits_of
from serve.dispatch.replica import DISPATCHER, Replica, Wrap
from serve.dispatch.scaler import pool_name
from serve.ingress import INGRESS, ingress_app

APP = "rushes"
_LOOK_S = 0.2


def build_app(args: dict[str, Any]) -> Application:
    """For `serve deploy`: `args` are the fields of `ServeConfig`, and `config_file` may name a TOML file of them."""
    table = dict(args)
    path = table.pop("config_file", None)
    config = read_serve_config(Path(str(path)) if path else None, **table)
    return application(config, open_serve_catalog(config), bulk=JobLauncher())


def open_serve_catalog(config: ServeConfig) -> Catalog:
    """The catalog of the config, or the one that ships. ConfigError when a served variant is not in it."""
    catalog = load_catalog(Path(config.catalog)) if config.catalog is not None else shipped_catalog()
    for name in (*config.pools.variants, *config.pools.min_replicas, *config.pools.max_replicas):
        if catalog.find(name) is None:
            raise ConfigError(f"pools: unknown variant {name!r}; available: {', '.join(catalog.names[1:])}")
    return catalog


def is_up() -> bool:
    """Whether Serve runs on the cluster; its controller's name is there until somebody shuts it down."""
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def start(app: Application, alive: Callable[[], bool] = lambda: True) -> None:
    """Deploy, and wait for what takes requests and keeps the queue. Pools come up by themselves: one whose variant
    cannot be loaded keeps nobody else from work. RushesError with the cause where it cannot be; `alive` False ends the
    wait."""
    target = ray_serve.RunTarget(app, APP, "/", external_scaler_enabled=True)
    ray_serve.run_many([target], wait_for_applications_running=False)
    while alive():
        found = _get_global_client().get_serve_status(APP)
        pools = {one.name: one for one in found.deployment_statuses}
        core = [pools[name] for name in (DISPATCHER, INGRESS) if name in pools]
        if len(core) == 2 and all(one.status == DeploymentStatus.HEALTHY for one in core):
            return
        for one in core:
            if one.status == DeploymentStatus.DEPLOY_FAILED:
                raise RushesError(f"the endpoint did not start: {one.name}: {one.message.strip().splitlines()[-1]}")
        sleep(_LOOK_S)


def state() -> tuple[str, str] | None:
    """Serve's own view of the endpoint, RUNNING for instance, and a message; None where there is no endpoint.

    Not by `ray.serve.status()`, which refuses what its controller takes: a pool of no replicas that sleeps.
    """
    if not is_up():
        return None
    found = _get_global_client().get_serve_status(APP).app_status
    return None if found.status == ApplicationStatus.NOT_STARTED else (found.status.value, found.message)


def application(
    config: ServeConfig, catalog: Catalog, *, bulk: BulkLauncher | None = None, wrap: Wrap | None = None
) -> Application:
    """The bound application. `bulk` runs large batches; `wrap` scripts faults in tests."""
    if config.catalog is not None:
        # Where it is read now; the processes of bulk runs read it again, from folders of their own.
        config = config.model_copy(update={"catalog": str(Path(config.catalog).absolute())})
    if config.templates is not None:
        config = config.model_copy(update={"templates": str(Path(config.templates).expanduser().absolute())})
    config = config.model_copy(update={"moderation": config.moderation.absolute()})
    served = served_catalog(config, catalog)
    pools = [
        _pool(variant, config, served).bind(variant, config, wrap, served.finishers)
        for variant in served.variants.values()
    ]
    # SQLite belongs to the node whose disk it is on.
    at_home = {"node:__internal_head__": 0.001} if config.database_url.startswith("sqlite") else {}
    dispatcher = (
        ray_serve.deployment(Dispatcher)
        .options(
            name=DISPATCHER,
            num_replicas=1,
            # Every replica's long poll, heartbeat and results; every ingress's calls.
            max_ongoing_requests=10_000,
            ray_actor_options={"num_cpus": 0, "resources": at_home},
            graceful_shutdown_timeout_s=5.0,
            **_common(config),
        )
        .bind(config, served)
    )

    def in_replica() -> Any:
        return ingress_app(config, catalog, bulk)

    ingress = ray_serve.deployment(ray_serve.ingress(in_replica)()).options(
        name=INGRESS,
        num_replicas=config.ingress_replicas,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0, "resources": at_home},
        graceful_shutdown_timeout_s=10.0,
        **_common(config),
    )
    # Binding makes them parts of the application; they find each other by name.
    return ingress.bind(dispatcher, *pools)


def _common(config: ServeConfig) -> dict[str, Any]:
    """Options of every deployment."""
    return {
        # A dead process is started anew about when its leases have run out, not much later.
        "health_check_period_s": min(5.0, config.queue.lease_s / 2),
        "health_check_timeout_s": 20.0,
        "graceful_shutdown_wait_loop_s": 0.2,
        # A line for each heartbeat and request costs more than some of them; /metrics counts them.
        "logging_config": {"enable_access_log": False},
    }


def _pool(variant: Variant, config: ServeConfig, served: Catalog) -> Any:
    least, _ = limits_of(config, served, variant.name)
    needs = variant.needs
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus}
    if needs.accelerator_type:
        options["accelerator_type"] = needs.accelerator_type
    if needs.memory_gib:
        options["memory"] = int(needs.memory_gib * 2**30)
    pool = ray_serve.deployment(Replica).options(
        name=pool_name(variant.name),
        num_replicas=max(1, least),
        max_ongoing_requests=4,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=config.queue.drain_s + 5.0,
        **_common(config),
    )
    # `options` refuses 0, the controller does not: what nobody asks for yet is not loaded, and cannot fail to.
    pool._deployment_config.num_replicas = least
    return pool

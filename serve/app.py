"""The application as Serve deploys it: one ingress, one dispatcher, one pool a variant.

serve deploy deploy/serve.yaml        import_path: serve.app:build_app, args: as `ServeConfig`
rushes serve                          the same, on a laptop
"""

from pathlib import Path
from typing import Any

from ray import serve as ray_serve
from ray.serve import Application

from schemas.catalog import Catalog, Variant, load_catalog, shipped_catalog
from schemas.errors import ConfigError
from serve.bulk import BulkRunner
from serve.config import ServeConfig, read_serve_config
from serve.dispatcher import Dispatcher
from serve.ingress import INGRESS, ingress_app
from serve.kinds import limits_of
from serve.names import served_catalog
from serve.replica import DISPATCHER, Replica, Wrap
from serve.scaler import pool_name

APP = "rushes"


def build_app(args: dict[str, Any]) -> Application:
    """For `serve deploy`: `args` are the fields of `ServeConfig`, and `config_file` may name a TOML file of them."""
    table = dict(args)
    path = table.pop("config_file", None)
    config = read_serve_config(Path(str(path)) if path else None, **table)
    return application(config, open_serve_catalog(config))


def open_serve_catalog(config: ServeConfig) -> Catalog:
    """The catalog of the config, or the one that ships. ConfigError when a served variant is not in it."""
    catalog = load_catalog(Path(config.catalog)) if config.catalog is not None else shipped_catalog()
    for name in (*config.pools.variants, *config.pools.min_replicas, *config.pools.max_replicas):
        if catalog.find(name) is None:
            raise ConfigError(f"pools: unknown variant {name!r}; available: {', '.join(catalog.names[1:])}")
    return catalog


def application(
    config: ServeConfig, catalog: Catalog, *, bulk: BulkRunner | None = None, wrap: Wrap | None = None
) -> Application:
    """The bound application. `bulk` runs large batches; `wrap` scripts faults in tests."""
    served = served_catalog(config, catalog)
    pools = [_pool(variant, config, served).bind(variant, config, wrap) for variant in served.variants.values()]
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

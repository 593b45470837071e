"""Replica counts, as decided by `cluster/scheduling/sizing.py`, applied to Serve's pools.

Through Serve's external scaling API, which the application must be deployed with (`external_scaler_enabled`): its own
autoscaler counts requests, and ours are pulled.
"""

import logging

import ray
from ray.serve._private.common import DeploymentID
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

log = logging.getLogger(__name__)


def pool_name(variant: str) -> str:
    """The deployment that holds a variant."""
    return f"Pool-{variant}"


class Scaler:
    """Of one application."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._applied: dict[str, int] = {}

    def apply(self, sizes: dict[str, int]) -> None:
        """Tell Serve about the counts that changed. Raises what the controller raises; then nothing is remembered."""
        changed = {name: count for name, count in sizes.items() if self._applied.get(name) != count}
        if not changed:
            return
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        for name, count in changed.items():
            ray.get(controller.update_deployment_replicas.remote(DeploymentID(pool_name(name), self._app), count))
            log.info("pool %s: %d replicas", name, count)
            self._applied[name] = count

"""Tasks as an ingress would accept them, decided once and copied: a run needs many, and they need not differ much."""

import uuid
from functools import cache
from random import Random
from typing import Self

from schemas.catalog import Catalog, parse_catalog
from schemas.request import Request
from serve.admission.admission import Admission
from serve.admission.names import served_catalog
from serve.config import Pools, ServeConfig
from serve.tasks import Constraints, NewTask
from tests.serve.dispatch.endpoint import CATALOG, START

LORAS = ("owner/",)
_KINDS: tuple[tuple[dict[str, object], Constraints], ...] = (
    ({"variant": "small"}, Constraints()),
    ({"variant": "small", "num_frames": 9}, Constraints(fall_back=False)),
    ({"variant": "small", "width": 96, "height": 64}, Constraints()),
    ({"variant": "swift"}, Constraints()),
    ({"variant": "auto"}, Constraints()),
    ({"variant": "auto", "num_frames": 9}, Constraints(skip_busy=True)),
    ({"variant": "small", "priority": 5}, Constraints()),
    ({"variant": "small", "loras": [{"source": "owner/ink"}]}, Constraints()),
    ({"variant": "auto", "loras": [{"source": "owner/ink"}, {"source": "owner/clay"}]}, Constraints()),
)


class Templates:
    """One decided task of each kind."""

    def __init__(self) -> None:
        pools = Pools(variants=("small", "swift"), max_replicas={"small": 2})
        config = ServeConfig(out="memory", pools=pools, loras=LORAS)
        self.served: Catalog = served_catalog(config, parse_catalog(CATALOG, "simulation.toml"))
        admission = Admission(config, self.served, None, lambda: START)
        self._tasks = [
            admission.consider(
                Request.model_validate({"prompt": "a thing that moves"} | given), constraints, key_id="key"
            ).as_task(key_id="key", kind="text_to_video", model=str(given["variant"]))
            for given, constraints in _KINDS
        ]

    @classmethod
    @cache
    def shared(cls) -> Self:
        """They never change."""
        return cls()

    def task(self, random: Random) -> NewTask:
        """A task of a random kind and tenant."""
        one = random.choice(self._tasks)
        task_id = str(uuid.UUID(int=random.getrandbits(128), version=4))
        return one.model_copy(update={"id": task_id, "key_id": random.choice(("key-a", "key-b", "key-c"))})

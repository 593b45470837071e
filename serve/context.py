"""What every route of the endpoint works with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING

from prompts.templates import Templates
from schemas.catalog import Catalog
from serve.config import ServeConfig
from serve.store.contract import Store
from storage.objects import ObjectStore

if TYPE_CHECKING:
    from actors.moderator import Moderates
    from serve.admission.admission import Admission
    from serve.media.intake import Intake


@dataclass(frozen=True)
class Context:
    """One ingress process. `wake` tells the dispatcher that there is work: it returns at once and never raises."""

    config: ServeConfig
    catalog: Catalog
    store: Store
    objects: ObjectStore
    admission: "Admission"
    intake: "Intake"
    moderator: "Moderates | None" = None  # of prompts
    templates: Templates = field(default_factory=Templates)  # of prompts
    wake: Callable[[], None] = lambda: None
    now: Callable[[], float] = time
    secret: bytes = field(default=b"", repr=False)  # signs URLs of a local object store

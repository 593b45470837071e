"""From a durable task to what routing is asked: the group it falls into on each variant, and its terms.

Admission asks the same of a request that is not a task yet; here what was promised holds, whatever estimates say now.
"""

import math

from cluster.calibration import Calibrator
from cluster.cost import best_batch
from cluster.terms import Terms, Wanted
from schemas.catalog import Catalog, Variant
from schemas.clip import ClipFormat
from schemas.task import Group
from serve.fits import Fits
from serve.tasks import StoredTask


def groups_of(task: StoredTask, served: Catalog, fits: Fits) -> dict[str, Group]:
    """The group of the task on each variant it may go to; its own where that is still what it was offered."""
    groups, _ = fits.of(task.request, ClipFormat(task.group.clip_format))
    found = {name: groups[name] for name in _chain(task, served) if name in groups}
    own = task.group
    if own.variant in found and served[own.variant].digest == own.variant_digest:
        found[own.variant] = own
    return found


def _chain(task: StoredTask, served: Catalog) -> tuple[str, ...]:
    """Variants by the request's own words: any for auto, else the named one and its fallbacks."""
    request, limits = task.request, task.constraints
    if request.variant == "auto":
        # A variant that is allowed by name needs no `auto` in the catalog.
        names = [n for n, v in served.variants.items() if v.auto or limits.allow is not None or n == task.offer.variant]
    else:
        first = served.find(request.variant) or served[task.offer.variant]
        names = [first.name, *(served[name].name for name in first.fallbacks if limits.fall_back)]
    allowed = served.variants.keys() if limits.allow is None else set(limits.allow)
    return tuple(name for name in dict.fromkeys(names) if name in allowed and name not in limits.deny)


def wanted_of(task: StoredTask, groups: dict[str, Group]) -> Wanted:
    """What routing is asked. A price limit that the offer kept is kept."""
    request, limits = task.request, task.constraints
    terms = Terms(
        mode=task.group.mode,
        variant=request.variant if request.variant == "auto" else next(iter(groups)),
        steps=request.num_inference_steps,
        guidance=request.guidance_scale,
        has_image=request.image is not None,
        has_video=request.video is not None,
        # Shapes are resolved already: whoever has a group has a shape.
        allow=tuple(sorted(groups)),
        min_quality=limits.min_quality,
        fall_back=limits.fall_back,
        prefer=limits.prefer,
        skip_busy=limits.skip_busy,
    )
    max_usd = max(limits.max_usd, task.offer.usd * 1.001) if limits.max_usd < math.inf else math.inf
    return Wanted(terms, max_usd=max_usd, deadline_s=limits.deadline_at, task=task.seq)


def willing(served: Catalog) -> tuple[Variant, ...]:
    """The variants as the dispatcher's policy sees them: whether `auto` may choose one is settled by `groups_of`."""
    return tuple(variant.model_copy(update={"auto": True}) for variant in served.variants.values())


def seconds_of(calibrator: Calibrator, variant: Variant, accelerator: str, group: Group, ready: int = 1) -> float:
    """Predicted accelerator seconds of one task, in the batch that `ready` waiting tasks of its group would make."""
    batch = batch_of(variant, accelerator, group, ready)
    cost = calibrator.predict(variant.name, accelerator, group.shape, group.steps, group.guidance, batch)
    return cost.per_clip_s


def batch_of(variant: Variant, accelerator: str, group: Group, ready: int) -> int:
    """How many of `ready` tasks of a group go into one model call."""
    if ready <= 1 or variant.max_batch <= 1:
        return 1
    best = best_batch(variant, group.shape, accelerator=accelerator, steps=group.steps, guidance=group.guidance)
    return min(ready, best)

"""From a durable task to what the scheduler knows of it: the group it falls into on each variant, and its terms.

Admission asks the same of a request that is not a task yet; here what was promised holds, whatever estimates say now.
"""

import math
from collections.abc import Mapping

from cachetools import LRUCache

from cluster.cost.calibration import cost_key
from cluster.cost.model import Load, call_shape, predict
from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling.eta import Eta
from cluster.scheduling.job import Call, Job
from schemas.catalog import Catalog, Variant
from schemas.clip import ClipFormat
from schemas.finish import finish_s
from schemas.loras import brought
from schemas.request import Request
from schemas.task import Group, Task
from serve.admission.fits import Fits
from serve.tasks import Constraints, Offer, StoredTask

_MOST_CALLS = 20_000


class Jobs:
    """Jobs over one served catalog. Groups and calls are remembered: many tasks have the same."""

    def __init__(self, served: Catalog, fits: Fits | None = None) -> None:
        self._served = served
        self._fits = fits or Fits(served)
        self._calls: LRUCache[str, Call] = LRUCache(_MOST_CALLS)

    def groups(self, task: StoredTask) -> dict[str, Group]:
        """The group of the task on each variant it may go to; its own where that is still what it was offered."""
        fitting, _ = self._fits.of(task.request, ClipFormat(task.group.clip_format))
        found = {name: fitting[name] for name in self._chain(task) if name in fitting}
        own = task.group
        # Groups of an earlier rushes know of no conditions.
        is_whole = len(own.conditions) == len(task.request.all_inputs)
        if own.variant in found and is_whole and self._served[own.variant].digest == own.variant_digest:
            found[own.variant] = own
        return found

    def job(self, task: StoredTask) -> Job:
        """A waiting task. One that no served variant can render has no calls."""
        groups = self.groups(task)
        return Job(
            seq=task.seq,
            id=task.id,
            request=self._request(task, groups),
            calls=self.calls(groups),
            variant=task.offer.variant,
            tenant=task.key_id,
            priority=task.priority,
            accepted_at=task.created_at,
            eta=eta_of(task.offer, task.created_at),
            attempts=task.attempts,
            epoch=task.epoch,
            not_before=task.not_before,
        )

    def calls(self, groups: Mapping[str, Group]) -> dict[str, Call]:
        """What a task would be on each variant."""
        return {name: self._call(self._served[name], group) for name, group in groups.items()}

    def _call(self, variant: Variant, group: Group) -> Call:
        call = self._calls.get(group.key)
        if call is None:
            shape = call_shape(variant, group)
            key = cost_key(variant, "", shape, group.steps, group.guidance)
            cost = predict(variant, "", shape, group.steps, group.guidance, load=Load.NONE)
            finishing_s, _ = finish_s(group.finish, self._served.finishers)
            call = self._calls[group.key] = Call(group.key, key.configuration, cost.encode_s + finishing_s)
        return call

    def _chain(self, task: StoredTask) -> tuple[str, ...]:
        """Variants by the request's own words: any for auto, else the named one and its fallbacks. One that is served
        no more is left out."""
        return chain(task.request, task.constraints, task.offer.variant, self._served)

    def _request(self, task: StoredTask, groups: Mapping[str, Group]) -> RoutingRequest:
        """What routing is asked. A price limit that the offer kept is kept."""
        request, limits = task.request, task.constraints
        terms = Terms(
            mode=task.group.mode,
            variant="auto" if request.variant == "auto" or not groups else next(iter(groups)),
            steps=request.num_inference_steps,
            guidance=request.guidance_scale,
            roles=tuple(dict.fromkeys(spec.role for spec in request.input_specs)),
            # Shapes are resolved already: whoever has a group has a shape.
            allow=tuple(sorted(groups)),
            min_quality=limits.min_quality,
            fall_back=limits.fall_back,
            prefer=limits.prefer,
            skip_busy=limits.skip_busy,
        )
        max_usd = max(limits.max_usd, task.offer.usd * 1.001) if limits.max_usd < math.inf else math.inf
        return RoutingRequest(terms, max_usd, limits.deadline_at, task.seq, brought(request.loras))


def chain(request: Request, limits: Constraints, offered: str, served: Catalog) -> tuple[str, ...]:
    """The served variants that a request may go to, in its order of preference."""
    if request.variant == "auto":
        # A variant that is allowed by name needs no `auto` in the catalog.
        names = [n for n, v in served.variants.items() if v.auto or limits.allow is not None or n == offered]
    else:
        first = served.find(request.variant) or served.find(offered)
        names = [] if first is None else [first.name]
        if first is not None and limits.fall_back:
            names += [served[name].name for name in first.fallbacks]
    allowed = served.variants.keys() if limits.allow is None else set(limits.allow)
    return tuple(name for name in dict.fromkeys(names) if name in allowed and name not in limits.deny)


def eta_of(offer: Offer, accepted_at: float) -> Eta | None:
    """What was promised; None where nothing was."""
    if offer.raw_s <= 0:
        return None
    return Eta(
        offer.eta_at - accepted_at,
        offer.eta_p90_at - accepted_at,
        offer.regime,
        offer.raw_s,
        offer.scale,
        offer.own_s,
        offer.warming_up,
    )


def as_rendered(task: StoredTask) -> Task:
    """As a Renderer takes it: its fingerprint is the task's id, so that two equal requests have two clips."""
    request = task.request
    media = tuple(one.uri for one, _ in request.all_inputs)
    figures = task.constraints.public_figures
    first, *later = request.told.texts
    return Task(task.id, first, request.negative_prompt, task.seed, media, figures, later=tuple(later))

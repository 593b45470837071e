"""Whether a request is taken, by which variant, for how much and until when: decided before it is stored.

    request + constraints → names → shape → route → quote → ETA → a NewTask, or a refusal that says what would do

`Admission.consider` decides and changes nothing; `Admission.accepted` is told of what was stored, so that a burst
between two notes of the dispatcher is not quoted as if the queue were empty. Both are quick (well below a
millisecond), thread-safe, and read the store at most every `REFRESH_S`.
"""

import math
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any

from cluster.calibration import CalibrationState, Calibrator
from cluster.cost import Cost
from cluster.eta import Eta, EtaBook, regime_of
from cluster.quote import quote
from cluster.routing import Choice
from cluster.story import Reason, Story
from cluster.terms import PoolView, Terms, Wanted
from schemas.catalog import Catalog
from schemas.clip import ClipFormat
from schemas.errors import InvalidRequestError, Issue
from schemas.request import Request
from schemas.task import Group
from serve.config import ServeConfig
from serve.decision import Decision, NoCapacityError, RefusedError
from serve.fits import Fits
from serve.fleet import CALIBRATION, NOTE, FleetReport
from serve.fleet_view import FleetView
from serve.names import Names, implied_mode
from serve.store.contract import Store
from serve.tasks import Constraints, NewTask, Offer
from serve.wire.instants import iso

REFRESH_S = 0.5
CALIBRATED_S = 10.0
_MOST_STORIES = 4096
_SLACK_S = 2.0  # between a refusal and the client's next try


class Admission:
    """The decisions of one ingress."""

    def __init__(self, config: ServeConfig, catalog: Catalog, store: Store | None, now: Callable[[], float]) -> None:
        """`store` gives the dispatcher's notes; without one the fleet is what `config` says it will be."""
        self.names = Names(config, catalog)
        self.served = self.names.served
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._view = FleetView(config, self.served, self._estimate)
        self._read_at = -math.inf
        self._groups: dict[str, Group] = {}
        self._fits = Fits(self.served)
        self._stories: dict[Hashable, tuple[str, Any]] = {}
        self._prior = EtaBook()
        self._calibrator = Calibrator(self.served.variants.values())
        self._calibrated_at = -math.inf
        self.kept_fresh = False  # somebody calls `refresh` all the time: decisions need not

    # -- the fleet -----------------------------------------------------------------------------------------------

    def fleet(self) -> FleetReport:
        """The dispatcher's last note, no older than `REFRESH_S` unless it has stopped writing them."""
        with self._lock:
            self._refresh(self._now())
            return self._view.report

    def pools(self) -> tuple[PoolView, ...]:
        """As routing sees them now."""
        with self._lock:
            self._refresh(self._now())
            return self._view.pools

    def accepted(self, tasks: Iterable[NewTask]) -> None:
        """These were stored: until the dispatcher's next note their work counts as waiting."""
        with self._lock:
            now = self._now()
            for task in tasks:
                self._view.add(task.offer.pool, task.offer.gpu_s, now)

    def refresh(self) -> None:
        """Read the dispatcher's notes now. Blocking; whoever decides meanwhile goes by the last ones."""
        notes = self._read_notes(self._now())
        with self._lock:
            self._take_notes(*notes)

    def _refresh(self, now: float) -> None:
        if not self.kept_fresh and not 0 <= now - self._read_at < REFRESH_S:
            self._take_notes(*self._read_notes(now))

    def _read_notes(self, now: float) -> tuple[FleetReport | None, Calibrator | None]:
        if self._store is None:
            return None, None
        note = self._store.notes.read(NOTE)
        self._read_at = now
        learnt = None
        if now - self._calibrated_at >= CALIBRATED_S:
            self._calibrated_at = now
            learnt = self._store.notes.read(CALIBRATION)
        return (
            None if note is None else FleetReport.model_validate(note),
            None
            if learnt is None
            else Calibrator(self.served.variants.values(), CalibrationState.model_validate(learnt)),
        )

    def _take_notes(self, report: FleetReport | None, calibrator: Calibrator | None) -> None:
        if report is not None:
            self._view.update(report)
        if calibrator is not None:
            self._calibrator = calibrator

    # -- decisions -----------------------------------------------------------------------------------------------

    def decide(
        self,
        request: Request,
        constraints: Constraints,
        *,
        key_id: str,
        kind: str,
        model: str | None = None,
        clip_format: ClipFormat = ClipFormat.MP4,
        batch_id: str | None = None,
        router_id: str | None = None,
        webhook_url: str | None = None,
    ) -> NewTask:
        """As `consider`, as the task to store."""
        return self.consider(request, constraints, clip_format).as_task(
            key_id=key_id,
            kind=kind,
            model=model or request.variant,
            batch_id=batch_id,
            router_id=router_id,
            webhook_url=webhook_url,
        )

    def consider(
        self, request: Request, constraints: Constraints, clip_format: ClipFormat = ClipFormat.MP4
    ) -> Decision:
        """Decide; nothing changes.

        Raises InvalidRequestError (RefusedError where routing refused), whose paths are fields of `Request`, or
        `max_credits`, `deadline`, `allow`, `deny`; NoCapacityError when all that could render it is down.
        """
        constraints = self.names.in_constraints(constraints)
        has_image, has_video = request.image is not None, request.video is not None
        mode = implied_mode(request, has_image, has_video)
        named = self.names.named(request, mode)
        groups, issues = self._fits.of(request, clip_format)
        if named is not None and named not in groups and named in issues:
            raise InvalidRequestError(self.names.with_able(issues[named], mode))
        if named is None and not groups:
            raise InvalidRequestError(self.names.with_able(next(iter(issues.values())), mode))
        terms = Terms(
            mode=mode,
            variant=named or "auto",
            steps=request.num_inference_steps,
            guidance=request.guidance_scale,
            has_image=has_image,
            has_video=has_video,
            allow=constraints.allow,
            deny=(*constraints.deny, *issues),
            min_quality=constraints.min_quality,
            fall_back=constraints.fall_back,
            fallbacks=self.names.fallbacks(named),
            prefer=constraints.prefer,
            skip_busy=constraints.skip_busy,
        )
        with self._lock:
            now = self._now()
            self._refresh(now)
            self._groups = groups
            choice, eta, cost = self._choose(Wanted(terms, constraints.max_usd, constraints.deadline_at), now)
            pool = self._view.pool(choice.pool or "")
            price = pool.price_usd_per_hour
            position = self._view.queued(pool.name, now)
        assert choice.variant is not None
        reason, entries = self._told(choice)
        said = quote(cost, price)
        offer = Offer.model_construct(
            variant=choice.variant,
            pool=pool.name,
            usd=said.usd,
            gpu_s=said.gpu_s,
            wait_s=choice.start_s - now,
            eta_at=now + eta.estimate_s,
            eta_p90_at=now + eta.p90_s,
            position=position,
            regime=eta.regime,
            raw_s=eta.raw_s,
            reason=reason,
            sentence=choice.sentence,
            story=entries,
        )
        return Decision(request, constraints, groups[choice.variant], offer, choice)

    def exact(self, request: Request) -> tuple[str, ...]:
        """The served variants that have, or nearly have, the very shape that is asked for."""
        return self._fits.exact(request)

    def _estimate(self, pool: PoolView, wanted: Wanted) -> float:  # noqa: ARG002  (the groups are those of `wanted`)
        return self._cost(pool.variant.name, pool.accelerator).execution_s

    def _cost(self, name: str, accelerator: str) -> Cost:
        group = self._groups[name]
        return self._calibrator.predict(name, accelerator, group.shape, group.steps, group.guidance)

    # -- routing -------------------------------------------------------------------------------------------------

    def _choose(self, wanted: Wanted, now: float) -> tuple[Choice, Eta, Cost]:
        """The choice whose p90 keeps the deadline. Raises where there is none."""
        router = self._view.router(wanted.terms)
        aimed = wanted
        for _ in range(4):
            choice = router.choose(aimed, now)
            if not choice.routed:
                break
            eta, cost = self._eta(choice, now)
            if now + eta.p90_s <= wanted.deadline_s:
                return choice if aimed is wanted else replace(choice, wanted=wanted), eta, cost
            # Routing counts in raw seconds; what this choice would need is so many times longer.
            aimed = aimed._replace(deadline_s=now + (wanted.deadline_s - now) * min(0.99, eta.raw_s / eta.p90_s))
        else:
            choice = router.choose(aimed._replace(deadline_s=now), now)
        raise self._refusal(replace(choice, wanted=wanted), router.choose(wanted._replace(deadline_s=math.inf), now))

    def _told(self, choice: Choice) -> tuple[str, Any]:
        """(reason, entries of the log) of a choice. Most choices are made for the same reasons: they are told once."""
        wanted, now = choice.wanted, choice.now_s
        seen = tuple(
            (one.pool, one.usd <= wanted.max_usd, one.start_s <= now, one.start_s < math.inf,
             one.completion_s <= wanted.deadline_s)
            for one in choice.candidates
        )  # fmt: skip
        key = wanted.terms, wanted.deadline_s < math.inf, choice.filters, choice.pool, choice.reason, seen
        told = self._stories.get(key)
        if told is None:
            story = choice.story
            reason = story.reason if wanted.terms.variant == "auto" else choice.reason
            if len(self._stories) > _MOST_STORIES:
                self._stories.clear()
            told = self._stories[key] = reason.value, tuple(story.as_log())
        return told

    def _eta(self, choice: Choice, now: float) -> tuple[Eta, Cost]:
        assert choice.variant is not None
        pool = self._view.pool(choice.pool or "")
        cost = self._cost(choice.variant, pool.accelerator)
        own_s = cost.execution_s + cost.encode_s
        raw_s = max(choice.start_s - now + own_s, 1e-3)
        regime = regime_of(raw_s, own_s)
        ratios = self._view.report.ratios
        if regime < len(ratios) and min(ratios[regime]) > 0:
            median, bound = ratios[regime]
            return Eta(raw_s * median, raw_s * max(median, bound), regime, raw_s), cost
        return self._prior.admit(raw_s, own_s, self._calibrator.sigma(choice.variant, pool.accelerator)), cost

    def _refusal(self, choice: Choice, anytime: Choice) -> RefusedError | NoCapacityError:
        """`anytime`: what would be chosen without a deadline."""
        wanted, now = choice.wanted, choice.now_s
        if anytime.routed:
            eta, _ = self._eta(anytime, now)
            at = now + eta.p90_s + max(_SLACK_S, 0.05 * eta.p90_s)
            earliest = iso(math.ceil(at)) or ""
            text = f"cannot be kept: the earliest that nine of ten times is kept is {earliest}"
            late = Issue("deadline", text, "deadline_cannot_be_kept", (earliest,))
            return RefusedError((late,), replace(choice, reason=Reason.TOO_LATE, earliest_s=at))
        if anytime.reason is Reason.NO_CAPACITY:
            return NoCapacityError(f"{anytime.sentence}; try again later", anytime)
        dear = [candidate.usd for candidate in anytime.candidates if candidate.usd > wanted.max_usd]
        if dear:
            least = math.ceil(min(dear) * 100 - 1e-9)
            text = f"no model renders this for so little: the least is {least} credits"
            return RefusedError((Issue("max_credits", text, "price", (str(least),)),), anytime)
        path = _emptied_path(anytime.story)
        names = self.names.able(wanted.terms.mode)
        return RefusedError((Issue(path, anytime.sentence, "no_eligible_model", names),), anytime)


def _emptied_path(story: Story) -> str:
    emptied = story.emptied_by
    if "allow_deny" in emptied[:1]:
        return "allow"
    return "min_quality" if "quality" in emptied[:1] else "variant"

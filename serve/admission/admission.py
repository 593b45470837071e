"""Whether a request is taken, by which variant, for how much and until when: decided before it is stored.

    request + constraints → names → shape → Scheduler.offer over the dispatcher's last snapshot → a NewTask, or a
    refusal that says what would do

`Admission.consider` decides and changes nothing; `Admission.accepted` is told of what was stored, so that a burst
between two notes of the dispatcher is not quoted as if the queue were empty. Both are quick (well below a
millisecond), thread-safe, and read the store at most every `REFRESH_S`.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import count
from typing import Any

from cluster.cost.quote import charge
from cluster.cost.service_times_state import ServiceTimesState
from cluster.routing.decision_trace import DecisionTrace, Reason
from cluster.routing.router import Choice
from cluster.routing.terms import RoutingRequest, Terms
from cluster.scheduling import events
from cluster.scheduling.job import Job
from cluster.scheduling.offer import Offer as Promise
from cluster.scheduling.offer import Refusal
from schemas.catalog import Catalog
from schemas.clip import ClipFormat, Status
from schemas.conditions import implied_mode
from schemas.errors import InvalidRequestError, Issue
from schemas.finish import finish_s
from schemas.loras import brought
from schemas.request import Mode, Request
from schemas.task import Group
from serve.admission.fits import Fits, is_near
from serve.admission.names import Names
from serve.admission.offer import Decision, NoCapacityError, RefusedError
from serve.config import ServeConfig
from serve.dispatch.fleet import CALIBRATION, NOTE, FleetReport
from serve.dispatch.jobs import Jobs
from serve.dispatch.pools import make_follower
from serve.store.contract import Store
from serve.tasks import Constraints, Offer, StoredTask
from serve.wire.instants import iso

REFRESH_S, LEAST_REFRESH_S = 0.5, 0.1
CALIBRATED_S = 1.0
_MOST_TRACES = 4096


class Admission:
    """The decisions of one ingress."""

    def __init__(self, config: ServeConfig, catalog: Catalog, store: Store | None, now: Callable[[], float]) -> None:
        """`store` gives the dispatcher's notes; without one the fleet is what `config` says it will be."""
        self.names = Names(config, catalog)
        self.served = self.names.served
        self._config, self._store, self._now = config, store, now
        self._lock = threading.Lock()
        self._fits = Fits(self.served, config.fit_sizes, config.loras)
        self._jobs = Jobs(self.served, self._fits)
        self._numbers = count(1)
        self._auto_modes = {mode for v in self.served.variants.values() if v.auto for mode in v.modes}
        self._not_auto = tuple(name for name, variant in self.served.variants.items() if not variant.auto)
        self._report = FleetReport()
        self._learnt: ServiceTimesState | None = None
        self._scheduler = make_follower(config, self.served, {}, None, now())
        self._scheduler.record(events.Tick(), now())
        self._accepted: list[tuple[int, Job]] = []  # with the store's numbers, since the last note
        self._accepted_of = Counter[str]()  # … by variant
        self._read_at = self._calibrated_at = -math.inf
        self._told: dict[Hashable, tuple[str, Any]] = {}
        self.kept_fresh = False  # somebody calls `refresh` all the time: decisions need not

    # -- the fleet -----------------------------------------------------------------------------------------------

    def fleet(self) -> FleetReport:
        """The dispatcher's last note, no older than `REFRESH_S` unless it has stopped writing them."""
        with self._lock:
            self._refresh(self._now())
            return self._report

    def starts_in_s(self) -> Mapping[str, float]:
        """By pool, the seconds until a task that is accepted now would start; infinite for never."""
        with self._lock:
            now = self._now()
            self._refresh(now)
            planner = self._scheduler.planner
            return {
                name: planner.start_s(pool.variant.name, pool.accelerator, now) - now
                for name, pool in planner.pools.items()
            }

    def accepted(self, tasks: Iterable[StoredTask]) -> None:
        """These were stored: until the dispatcher's note has them they wait here."""
        with self._lock:
            now = self._now()
            for task in tasks:
                if task.seq <= self._report.last_seq or task.status is not Status.PENDING:
                    continue
                seq = next(self._numbers)
                terms = Terms(mode=task.group.mode, variant=task.offer.variant, fall_back=False)
                job = Job(
                    seq=seq,
                    id=task.id,
                    request=RoutingRequest(terms, task=seq, brings=brought(task.request.loras)),
                    calls=self._jobs.calls({task.offer.variant: task.group}),
                    variant=task.offer.variant,
                    tenant=task.key_id,
                    priority=task.priority,
                    accepted_at=now,
                )
                self._accepted.append((task.seq, job))
                self._accepted_of[job.variant] += 1
                self._scheduler.record(events.Submitted((job,)), now)

    def refresh(self) -> None:
        """Read the dispatcher's notes now. Blocking; whoever decides meanwhile goes by the last ones."""
        notes = self._read_notes(self._now())
        with self._lock:
            self._take_notes(*notes)

    def _refresh(self, now: float) -> None:
        if not self.kept_fresh and not 0 <= now - self._read_at < REFRESH_S:
            self._take_notes(*self._read_notes(now))

    def _read_notes(self, now: float) -> tuple[FleetReport | None, ServiceTimesState | None]:
        if self._store is None:
            return None, None
        note = self._store.notes.read(NOTE)
        self._read_at = now
        learnt: ServiceTimesState | None = None
        if now - self._calibrated_at >= CALIBRATED_S:
            self._calibrated_at = now
            learnt = ServiceTimesState.read(self._store.notes.read(CALIBRATION))
        return FleetReport.read(note), learnt

    def _take_notes(self, report: FleetReport | None, learnt: ServiceTimesState | None) -> None:
        newer = report is not None and report.at > self._report.at
        if report is not None and newer:
            self._report = report
        if learnt is not None:
            self._learnt = learnt
        if not newer and learnt is None:
            return
        report, now = self._report, self._now()
        accelerators = {pool.variant: pool.accelerator for pool in report.pools}
        self._scheduler = make_follower(self._config, self.served, accelerators, self._learnt, now)
        if report.plan is None:
            self._scheduler.record(events.Tick(), now)
        else:
            self._scheduler.follow(report.plan, report.eta, report.after_s)
        self._accepted = [(seq, job) for seq, job in self._accepted if seq > report.last_seq]
        self._accepted_of = Counter(job.variant for _, job in self._accepted)
        self._scheduler.record(events.Submitted(tuple(job for _, job in self._accepted)), now)

    # -- decisions -----------------------------------------------------------------------------------------------

    def consider(
        self,
        request: Request,
        constraints: Constraints,
        clip_format: ClipFormat = ClipFormat.MP4,
        *,
        key_id: str = "",
        share: events.TenantShare | None = None,
    ) -> Decision:
        """Decide; nothing changes. The request's turn is that of the key's next task, given the key's `share`.

        Raises InvalidRequestError (RefusedError where routing refused), whose paths are fields of `Request`, or
        `max_credits`, `deadline`, `allow`, `deny`; NoCapacityError when all that could render it is down.
        """
        constraints = self.names.in_constraints(constraints)
        inputs = request.input_specs
        mode = request.mode or implied_mode(spec.role for spec in inputs)
        named = self.names.named(request, mode)
        groups, issues = self._fits.of(request, clip_format)
        if named is not None and named not in groups and named in issues:
            raise InvalidRequestError(self.names.with_able(issues[named], mode, inputs))
        if named is None and not groups:
            raise InvalidRequestError(self.names.with_able(_of_the_nearest(issues), mode, inputs))
        terms = self._terms(request, constraints, mode, named, tuple(issues))
        with self._lock:
            now = self._now()
            self._refresh(now)
            if share is not None:  # the dispatcher's note may be from before it was given
                self._scheduler.record(share, now)
            seq = next(self._numbers)
            job = Job(
                seq=seq,
                id="",
                request=RoutingRequest(
                    terms, constraints.max_usd, constraints.deadline_at, seq, brought(request.loras)
                ),
                calls=self._jobs.calls(groups),
                variant=named or "",
                tenant=key_id,
                priority=request.priority,
                accepted_at=now,
            )
            self._scheduler.play(now)
            found = self._scheduler.offer(job, now)
            if isinstance(found, Refusal):
                raise self._refused(found)
            offer = self._offer(found, now, groups)
        if offer.usd > constraints.max_usd:  # what routing compared is without what is done to the clip
            least = math.ceil(offer.usd * 100 - 1e-9)
            text = f"with what is done to the clip it costs {least} credits"
            raise RefusedError((Issue("max_credits", text, "price", (str(least),)),), found.choice)
        return Decision(request, constraints, groups[offer.variant], offer, found.choice)

    def able(self, request: Request, clip_format: ClipFormat = ClipFormat.MP4) -> Mapping[str, bool]:
        """The served variants that can render it, each with whether it has, or nearly has, the very shape."""
        groups, _ = self._fits.of(request, clip_format)
        return {name: is_near(request, group) for name, group in groups.items()}

    def _terms(
        self, request: Request, constraints: Constraints, mode: Mode, named: str | None, unable: tuple[str, ...]
    ) -> Terms:
        # Auto takes any where models are listed, or none of its own does it.
        is_open = named is not None or constraints.allow is not None or mode not in self._auto_modes
        return Terms(
            mode=mode,
            variant=named or "auto",
            steps=request.num_inference_steps,
            guidance=request.guidance_scale,
            roles=tuple(dict.fromkeys(spec.role for spec in request.input_specs)),
            allow=constraints.allow,
            deny=(*constraints.deny, *unable, *(() if is_open else self._not_auto)),
            min_quality=constraints.min_quality,
            fall_back=constraints.fall_back,
            fallbacks=self.names.fallbacks(named),
            prefer=constraints.prefer,
            skip_busy=constraints.skip_busy,
        )

    def _offer(self, found: Promise, now: float, groups: Mapping[str, Group]) -> Offer:
        choice, eta = found.choice, found.eta
        assert choice.variant is not None
        assert choice.pool is not None
        pool = self._scheduler.planner.pools[choice.pool]
        held_s = choice.completion_s - choice.start_s
        said = charge(held_s, pool.price_usd_per_hour, gpus=pool.variant.needs.gpus)
        _, finish_usd = finish_s(groups[choice.variant].finish, self.served.finishers)
        reason, entries = self._trace(choice)
        return Offer.model_construct(
            variant=choice.variant,
            pool=choice.pool,
            usd=said.usd + finish_usd,
            gpu_s=said.gpu_s,
            wait_s=choice.start_s - now,
            eta_at=now + eta.estimate_s,
            eta_p90_at=now + eta.p90_s,
            position=self._position(choice.pool, choice.variant),
            regime=eta.regime,
            raw_s=eta.raw_s,
            scale=eta.scale,
            own_s=eta.own_s,
            warming_up=eta.warming_up,
            reason=reason,
            sentence=choice.sentence,
            story=entries,
        )

    def _position(self, pool: str, variant: str) -> int:
        """Tasks that wait for the variant."""
        queued = next((one.queued for one in self._report.pools if one.name == pool), 0)
        return queued + self._accepted_of[variant]

    def _trace(self, choice: Choice) -> tuple[str, Any]:
        """(reason, entries of the log) of a choice. Most choices are made for the same reasons: they are told once."""
        wanted, now = choice.wanted, choice.now_s
        seen = tuple(
            (one.pool, one.usd <= wanted.max_usd, one.start_s <= now, one.start_s < math.inf,
             one.completion_s <= wanted.deadline_s)
            for one in choice.candidates
        )  # fmt: skip
        key = wanted.terms, wanted.deadline_s < math.inf, choice.filters, choice.pool, choice.reason, seen
        told = self._told.get(key)
        if told is None:
            story = choice.story
            reason = story.reason if wanted.terms.variant == "auto" else choice.reason
            if len(self._told) > _MOST_TRACES:
                self._told.clear()
            told = self._told[key] = reason.value, tuple(story.as_log())
        return told

    def _refused(self, refusal: Refusal) -> RefusedError | NoCapacityError:
        choice = refusal.choice
        if choice.reason is Reason.TOO_LATE:
            earliest = iso(math.ceil(choice.earliest_s)) or ""
            text = f"cannot be kept: the earliest that nine of ten times is kept is {earliest}"
            return RefusedError((Issue("deadline", text, "deadline_cannot_be_kept", (earliest,)),), choice)
        if choice.reason is Reason.NO_CAPACITY:
            return NoCapacityError(f"{choice.sentence}; try again later", choice)
        if refusal.least_usd is not None:
            least = math.ceil(refusal.least_usd * 100 - 1e-9)
            text = f"no model renders this for so little: the least is {least} credits"
            return RefusedError((Issue("max_credits", text, "price", (str(least),)),), choice)
        names = self.names.able(choice.wanted.terms.mode)
        issue = Issue(_emptied_path(choice.story), choice.sentence, "no_eligible_model", names)
        return RefusedError((issue,), choice)


def _of_the_nearest(issues: Mapping[str, tuple[Issue, ...]]) -> tuple[Issue, ...]:
    """Why the variant that came nearest cannot render a request: of those that do the mode, the least is wrong."""
    return min(issues.values(), key=lambda found: (any(issue.path == "mode" for issue in found), len(found)))


def _emptied_path(story: DecisionTrace) -> str:
    emptied = story.emptied_by
    if "allow_deny" in emptied[:1]:
        return "allow"
    return "min_quality" if "quality" in emptied[:1] else "variant"

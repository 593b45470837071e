"""What an endpoint counts, by prometheus-client: `docs/operations.md` explains, `deploy/grafana/rushes.json` draws it.

Two registries: one in the dispatcher, which knows tasks, and one in each ingress, which knows HTTP. Labels have few
values by construction: variants and pools come from the catalog, routes are templates, and what comes from elsewhere
(reasons, shapes) is counted as 'other' once there are many.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from schemas.moderation import Moderation, ModerationOutcome
from serve.dispatch.fleet import FleetReport

__all__ = ["CONTENT_TYPE_LATEST", "DispatchMetrics", "IngressMetrics"]

OTHER, _ERROR = "other", "error"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2, 4)
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class _Few:
    """The first `limit` values of a label; every later one is 'other'."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()
        self._lock = Lock()

    def __call__(self, value: str) -> str:
        value = value[:80]
        with self._lock:
            if value not in self._seen:
                if len(self._seen) >= self._limit:
                    return OTHER
                self._seen.add(value)
        return value


class DispatchMetrics:
    """What the dispatcher counts. Every method is quick, thread-safe and never raises over a label."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._shape, self._reason, self._cause, self._category = _Few(50), _Few(20), _Few(20), _Few(30)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self._queue = gauge("rushes_queue_tasks", "Tasks that wait, by the variant they are planned onto", "variant")
        self._throttled = gauge("rushes_throttled_tasks", "Tasks that wait because their key is over its limit")
        self._wait = histogram("rushes_wait_seconds", "From acceptance to the first model call", "variant")
        self._render = histogram("rushes_render_seconds", "One model call", "variant", "shape")
        self._batch = histogram("rushes_batch_tasks", "Tasks in one model call", "variant", buckets=_BATCHES)
        self._finished = counter("rushes_tasks_finished_total", "Tasks that ended", "variant", "status")
        self._fallbacks = counter("rushes_fallbacks_total", "Tasks that went to another variant", "reason")
        self._moderated = counter(
            "rushes_moderated_tasks_total",
            "Findings of moderation in input media and rendered frames",
            "part",
            "outcome",
            "category",
        )
        self._retries = counter("rushes_retries_total", "Attempts that failed and were worth another", "cause")
        self._eta = histogram(
            "rushes_eta_ratio", "What a task took from acceptance, over what it was told", buckets=_RATIOS
        )
        self._bound = counter("rushes_eta_bound_total", "Tasks that kept their p90 bound, and that did not", "kept")
        self._quote = histogram("rushes_quote_ratio", "What a task was billed, over its quote", buckets=_RATIOS)
        self._busy = counter("rushes_accelerator_busy_seconds_total", "Seconds in which replicas rendered", "pool")
        self._share = gauge("rushes_accelerator_busy_share", "Share of a pool's replicas that render now", "pool")
        self._replicas = gauge("rushes_replicas", "Replicas of a pool: up, starting or busy", "pool", "state")
        self._backlog = gauge("rushes_backlog_seconds", "Predicted seconds until a task queued now would start", "pool")
        self._webhooks = gauge("rushes_webhooks", "Webhook messages: waiting, delivered, given_up", "state")
        self._dead = gauge("rushes_dead_letters", "Tasks that were given up after several attempts")
        self._pools: set[str] = set()
        self._variants: set[str] = set()
        for kept in ("yes", "no"):
            self._bound.labels(kept)

    def fleet(self, report: FleetReport) -> None:
        """Every pool and its queue as the report has them."""
        self.queued({pool.variant: pool.queued for pool in report.pools})
        self.forget_pools({pool.name for pool in report.pools})
        for pool in report.pools:
            self.replicas(pool.name, up=pool.replicas, starting=pool.starting, busy=pool.busy, backlog_s=pool.backlog_s)

    def queued(self, depth: Mapping[str, int]) -> None:
        """The queue as it is now, by variant. A variant that is no longer named has nothing waiting."""
        self._variants |= depth.keys()
        for variant in self._variants:
            self._queue.labels(variant).set(depth.get(variant, 0))

    def throttled(self, count: int) -> None:
        """Tasks whose key is over its limit."""
        self._throttled.set(count)

    def started(self, variant: str, wait_s: float) -> None:
        """A task began its first attempt, `wait_s` after it was accepted."""
        self._wait.labels(variant).observe(max(0.0, wait_s))

    def rendered(self, variant: str, shape: object, render_s: float, tasks: int, *, pool: str = "") -> None:
        """One model call is over. `shape` is written with `str`; `pool` gets its busy seconds when given."""
        self._render.labels(variant, self._shape(str(shape))).observe(max(0.0, render_s))
        self._batch.labels(variant).observe(tasks)
        if pool:
            self.busy(pool, render_s)

    def finished(self, variant: str, status: str) -> None:
        """A task ended for good. `status` of `schemas.clip.Status`."""
        self._finished.labels(variant, str(status)).inc()

    def moderated(self, moderation: Moderation) -> None:
        """What was found of a task's media and frames, one for each finding; where a scorer failed the category is
        'error'."""
        for one in moderation.findings:
            category = self._category(one.category or _ERROR)
            self._moderated.labels(one.part.value, one.outcome.value, category).inc()

    def fell_back(self, reason: str) -> None:
        """A task went to another variant than it was offered. `reason`: a few words, without numbers."""
        self._fallbacks.labels(self._reason(reason)).inc()

    def retried(self, cause: str) -> None:
        """An attempt failed and the task waits for another. `cause`: the error's class."""
        self._retries.labels(self._cause(cause)).inc()

    def eta_error(self, actual_s: float, promised_s: float, bound_s: float | None = None) -> None:
        """A task succeeded `actual_s` after acceptance; it had been told `promised_s`, nine of ten within `bound_s`."""
        if promised_s > 0:
            self._eta.observe(actual_s / promised_s)
        if bound_s is not None:
            self._bound.labels("yes" if actual_s <= bound_s else "no").inc()

    def quote_error(self, billed_usd: float, quoted_usd: float) -> None:
        """A task was billed. One that was quoted nothing has no ratio."""
        if quoted_usd > 0:
            self._quote.observe(billed_usd / quoted_usd)

    def busy(self, pool: str, seconds: float) -> None:
        """Replicas of `pool` rendered for so many seconds."""
        self._busy.labels(pool).inc(max(0.0, seconds))

    def replicas(self, pool: str, *, up: int, starting: int = 0, busy: int = 0, backlog_s: float = 0.0) -> None:
        """A pool as it is now."""
        self._pools.add(pool)
        for state, count in (("up", up), ("starting", starting), ("busy", busy)):
            self._replicas.labels(pool, state).set(count)
        self._share.labels(pool).set(min(1.0, busy / up) if up else 0.0)
        self._backlog.labels(pool).set(backlog_s)

    def forget_pools(self, kept: set[str]) -> None:
        """Pools that are no longer there: their gauges go, so that nobody takes their last values for today's."""
        for pool in self._pools - kept:
            for state in ("up", "starting", "busy"):
                self._replicas.remove(pool, state)
            self._share.remove(pool)
            self._backlog.remove(pool)
        self._pools &= kept

    def webhooks(self, counts: Mapping[str, int]) -> None:
        """As `DeliveryStore.counts` gives them."""
        for state, count in counts.items():
            self._webhooks.labels(state).set(count)

    def dead_letters(self, count: int) -> None:
        """As `Counts.dead` gives it."""
        self._dead.set(count)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class IngressMetrics:
    """What one ingress process counts. `ingress` names the process: each keeps its own series, to be summed."""

    def __init__(self, ingress: str | None = None) -> None:
        ingress = ingress or f"{platform.node()[:60]}-{os.getpid()}"
        self.registry = registry = CollectorRegistry()
        self._ingress = ingress
        self._kind, self._route, self._category = _Few(20), _Few(80), _Few(30)
        self._accepts = Counter(
            "rushes_accepted_tasks_total", "Tasks stored and answered, by route", ("ingress", "kind"), registry=registry
        )
        self._refused = Counter(
            "rushes_refused_total", "Requests that made no task, by why", ("ingress", "why"), registry=registry
        )
        self._moderated = Counter(
            "rushes_moderated_prompts_total",
            "Prompts that moderation looked at, by the worst that it found",
            ("ingress", "outcome", "category"),
            registry=registry,
        )
        self._requests = Counter(
            "rushes_http_requests_total", "Answers", ("ingress", "method", "route", "status"), registry=registry
        )
        self._latency = Histogram(
            "rushes_http_seconds",
            "From a request to the end of its answer, event streams left out",
            ("ingress", "method", "route"),
            registry=registry,
            buckets=_HTTP_SECONDS,
        )
        self._streams = Gauge(
            "rushes_event_streams", "Open streams of server-sent events", ("ingress",), registry=registry
        )
        self._dispatcher = Gauge(
            "rushes_dispatcher_up", "1 when the dispatcher gave its own figures below", ("ingress",), registry=registry
        )
        self._streams.labels(ingress).set(0)
        self._dispatcher.labels(ingress).set(0)

    def accepted(self, kind: str, tasks: int = 1) -> None:
        """Tasks were stored. `kind` as in `NewTask.kind`."""
        self._accepts.labels(self._ingress, self._kind(kind)).inc(tasks)

    def refused(self, why: str) -> None:
        """A create made no task: 'invalid', 'limit', 'price', 'deadline', 'unavailable'."""
        self._refused.labels(self._ingress, self._kind(why)).inc()

    def moderated(self, moderation: Moderation) -> None:
        """A prompt was looked at. Of one that is allowed there is no category; where a scorer failed it is 'error'."""
        worst = max(moderation.findings, key=lambda one: (one.outcome.strictness, one.score), default=None)
        outcome, category = ModerationOutcome.ALLOW, ""
        if worst is not None:
            outcome, category = worst.outcome, self._category(worst.category or _ERROR)
        self._moderated.labels(self._ingress, outcome.value, category).inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the template, never the path: an id in it would make a series for each task."""
        method = method if method in _METHODS else OTHER
        route = self._route(route)
        self._requests.labels(self._ingress, method, route, str(status)).inc()
        if not route.endswith("/events"):  # how long somebody listened says nothing
            self._latency.labels(self._ingress, method, route).observe(seconds)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A stream of server-sent events is open."""
        gauge = self._streams.labels(self._ingress)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def dispatcher_up(self, up: bool) -> None:
        self._dispatcher.labels(self._ingress).set(up)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})

"""Does the endpoint keep what it promises? It runs on the real clock, and its answers are held against what came.

    python -m benchmarks.live_promises [--quick] [--rates 4,14,4] [--load 0.6] [--seconds 40] [--json FILE]

One endpoint with a replica of each embedded variant, its real HTTP API, store, dispatcher and models:

1. idle     the same calls one after the other, several kinds in turn: what repeating scatters by itself, the baseline
2. burst    tasks at once: their pace is what this machine can do, and the estimators have seen a busy machine
3. load     tasks come at random (Poisson) at each of --rates for --seconds: promises of these are judged
4. idle     again; both idle parts together are the baseline, so that a machine that changed meanwhile shows

--rates are tasks a second, scaled so that their mean is --load of the pace found in 2 (4,14,4 at 0.6: 0.33, 1.15 and
0.33 of it, so that the queue grows and drains); with --load 0 they are taken as they are. Tasks, arrivals, shapes,
steps and tenants come from --seed: SYNTHETIC traffic, real calls. What answers promised (eta, etaP90, gpuSeconds,
usd, wait) is compared with what the task route tells at the end (finishedAt, bill). Goals:

    coverage 90 ± 2 %    of the tasks that ended before their etaP90
    worst quartile       no quarter of the tasks, by promised wait over own seconds, is kept less than .87
    bound/estimate       at most 1.5: a bound that is never missed says nothing
    estimate error       at most 1.2 × the idle scatter, at p50 and p90, relative to what the task took

Everything shares this machine's cores, the client too (it says how late it was). On a busy machine goals say little:
the load average at the begin stands beside them.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.promise_records import (
    PromiseRecord,
    billed_by_kind,
    claims,
    judge,
    scatter,
    took_by_kind,
)
from benchmarks.report import write_report
from benchmarks.serve_endpoint import Endpoint, endpoint, wait_until
from schemas.clip import Status
from serve import keys

VARIANTS = ("embedded", "embedded-turbo")
TENANTS = {"large": 0.6, "middling": 0.3, "small": 0.1}
WORDS = ("a red circle moving left", "a blue square moving up", "a yellow star", "a green ring moving right")
_DRAIN_S = 300.0
_SENDERS = 32
_FEW = 100  # a share of 90 % of so many is known within 6 %
_IDLE = -1  # the phase of what is not under load


@dataclass(frozen=True)
class Kind:
    """What repeats: everything that a call's time depends on."""

    model: str
    ratio: str
    frames: int
    steps: int
    share: float

    def __str__(self) -> str:
        return f"{self.model} {self.ratio} × {self.frames}, {self.steps} steps"

    def body(self, number: int) -> dict[str, object]:
        return {
            "model": self.model,
            "promptText": f"{WORDS[number % len(WORDS)]}, take {number}",
            "ratio": self.ratio,
            "numFrames": self.frames,
            "numInferenceSteps": self.steps,
            "seed": number,
        }


KINDS = (
    Kind("embedded", "64:64", 17, 16, 0.3),
    Kind("embedded", "96:64", 17, 8, 0.2),
    Kind("embedded-turbo", "64:64", 17, 4, 0.3),
    Kind("embedded-turbo", "64:96", 25, 4, 0.15),
    Kind("embedded", "64:64", 33, 16, 0.05),
)


@dataclass(frozen=True)
class Arrival:
    at_s: float
    phase: int
    kind: Kind
    tenant: str


@dataclass(frozen=True)
class Sent:
    """An answer, with what was asked; `late_s`: after its time had come, the client's own fault."""

    kind: Kind
    tenant: str
    phase: int
    answer: dict[str, Any] | None
    refusal: str = ""
    late_s: float = 0.0


def arrivals(rates: Sequence[float], seconds: float, random: np.random.Generator) -> Iterator[Arrival]:
    """Poisson at each rate in turn, each task drawn by itself. Rates are tasks a second."""
    for phase, rate in enumerate(rates):
        at_s = float(random.exponential(1 / rate))
        while at_s < seconds:
            yield Arrival(phase * seconds + at_s, phase, _drawn(random), str(_tenant(random)))
            at_s += float(random.exponential(1 / rate))


def _drawn(random: np.random.Generator) -> Kind:
    return KINDS[int(random.choice(len(KINDS), p=[kind.share for kind in KINDS]))]


def _tenant(random: np.random.Generator) -> str:
    return str(random.choice(list(TENANTS), p=list(TENANTS.values())))


class Traffic:
    """The tenants of one endpoint, and what they have sent."""

    def __init__(self, served: Endpoint) -> None:
        self._served = served
        self._tenants: dict[str, Endpoint] = {}
        self._number = 0
        for name in TENANTS:
            key, secret = keys.create(served.store, name, time.time())
            headers = {**served.headers, "Authorization": f"Bearer {secret}"}
            self._tenants[name] = replace(served, headers=headers, key_id=key.id)

    def send(self, kind: Kind, tenant: str, phase: int, body: dict[str, object], due: float) -> Sent:
        """One task; a refusal is a result too."""
        late_s = max(0.0, time.monotonic() - due)
        try:
            answer = self._tenants[tenant].call("POST", "/v1/text_to_video", body)
        except RuntimeError as error:
            return Sent(kind, tenant, phase, None, str(error), late_s)
        return Sent(kind, tenant, phase, answer, late_s=late_s)

    def body(self, kind: Kind) -> dict[str, object]:
        self._number += 1
        return kind.body(self._number)

    def idle(self, repeats: int) -> list[Sent]:
        """Every kind in turn, each call after the end of the one before."""
        sent = []
        for _ in range(repeats):
            for kind in KINDS:
                sent.append(self.send(kind, "large", _IDLE, self.body(kind), time.monotonic()))
                self.until_ended(sent[-1:])
        return sent

    def burst(self, tasks: int, random: np.random.Generator) -> list[Sent]:
        """So many at once; when it returns they have ended."""
        sent = []
        for _ in range(tasks):
            kind = _drawn(random)
            sent.append(self.send(kind, _tenant(random), _IDLE, self.body(kind), time.monotonic()))
        self.until_ended(sent)
        return sent

    def load(self, planned: Sequence[Arrival]) -> list[Sent]:
        """Each at its time, whatever became of the ones before."""
        begin = time.monotonic()
        waiting: list[Future[Sent]] = []
        with ThreadPoolExecutor(_SENDERS) as senders:
            for one in planned:
                due = begin + one.at_s
                time.sleep(max(0.0, due - time.monotonic()))
                waiting.append(senders.submit(self.send, one.kind, one.tenant, one.phase, self.body(one.kind), due))
        return [future.result() for future in waiting]

    def until_ended(self, sent: Sequence[Sent]) -> None:
        """RuntimeError when they have not after five minutes."""
        ids = [one.answer["id"] for one in sent if one.answer is not None]

        def have_ended() -> bool:
            return all(task.finished_at is not None for task in self._served.store.tasks.get_many(ids))

        wait_until(
            have_ended, f"{len(ids)} tasks have ended", every_s=0.05 if len(ids) == 1 else 0.5, within_s=_DRAIN_S
        )

    def record(self, sent: Sent) -> PromiseRecord:
        """The promise of the answer beside the end of the task route."""
        assert sent.answer is not None
        quote = sent.answer["quote"]
        task = self._tenants[sent.tenant].call("GET", f"/v1/tasks/{sent.answer['id']}")
        bill = task.get("bill", {})
        ended = task.get("finishedAt")
        return PromiseRecord(
            kind=str(sent.kind),
            tenant=sent.tenant,
            phase=sent.phase,
            created_at=_instant(task["createdAt"]),
            eta_at=_instant(quote["eta"]),
            eta_p90_at=_instant(quote["etaP90"]),
            wait_s=quote["waitSeconds"],
            quoted_gpu_s=quote["gpuSeconds"],
            quoted_usd=quote["usd"],
            finished_at=None if ended is None else _instant(ended),
            succeeded=task["status"] == Status.SUCCEEDED.value,
            billed_gpu_s=bill.get("gpuSeconds", 0.0),
            billed_usd=bill.get("usd", 0.0),
        )

    def records(self, sent: Sequence[Sent]) -> list[PromiseRecord]:
        return [self.record(one) for one in sent if one.answer is not None]


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The four parts, on one endpoint."""
    random = np.random.default_rng(arguments.seed)
    repeats, burst = (2, 12) if arguments.quick else (8, 40)
    seconds = arguments.seconds or (15.0 if arguments.quick else 40.0)
    first, *more = VARIANTS
    busy = os.getloadavg()[0]
    with endpoint(folder / "endpoint", first, arguments.database, 1, *more) as served:
        traffic = Traffic(served)
        traffic.idle(1)  # models' first calls take longer
        idle = traffic.idle(repeats)
        begin = time.monotonic()
        at_once = traffic.burst(burst, random)
        pace = sum(one.answer is not None for one in at_once) / (time.monotonic() - begin)
        factor = arguments.load * pace / float(np.mean(arguments.rates)) if arguments.load else 1.0
        rates = [rate * factor for rate in arguments.rates]
        planned = list(arrivals(rates, seconds, random))
        print(f"pace {pace:.2f} tasks/s; {len(planned)} tasks at {_listed(rates)} a second", flush=True)
        if not planned:
            raise RuntimeError(f"no task comes in {len(rates)} × {seconds:g} s: give more --seconds or higher --rates")
        sent = traffic.load(planned)
        traffic.until_ended(sent)
        idle += traffic.idle(repeats)
        under_load, alone = traffic.records(sent), traffic.records(idle)
    refusals = [one.refusal for one in sent if one.answer is None]
    judged, by_itself = judge(under_load, seed=arguments.seed), scatter(took_by_kind(alone))
    return {
        "synthetic": "arrivals, shapes, steps and tenants are drawn from the seed; calls are real",
        "quick": arguments.quick,
        "seed": arguments.seed,
        "load_average_at_begin": busy,
        "pace_per_s": pace,
        "rates_per_s": rates,
        "seconds": seconds,
        "refused": len(refusals),
        "first_refusal": refusals[0] if refusals else "",
        "client_late_p99_s": float(np.quantile([one.late_s for one in sent], 0.99)),
        "judged": asdict(judged),
        "idle": asdict(by_itself),
        "idle_bill": asdict(scatter(billed_by_kind(alone))),
        "idle_promises": asdict(judge(alone, seed=arguments.seed)),
        "goals": [asdict(claim) for claim in claims(judged, by_itself)],
        "lines": [str(claim) for claim in claims(judged, by_itself)],
        "records": [asdict(one) for one in (*under_load, *alone)],
    }


def _listed(values: Sequence[float], digits: int = 2) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def tables(figures: dict[str, Any]) -> Table:
    """Under load beside the same calls alone."""
    table = Table(
        "", "under load", "one at a time, idle", "repeating scatters, idle", title="SYNTHETIC traffic, real calls"
    )
    load, alone = figures["judged"], figures["idle_promises"]
    for what, field, beside in (
        ("estimate error p50", "error_p50", figures["idle"]["p50"]),
        ("estimate error p90", "error_p90", figures["idle"]["p90"]),
        ("quote against bill p50", "quote_p50", figures["idle_bill"]["p50"]),
        ("quote against bill p90", "quote_p90", figures["idle_bill"]["p90"]),
        ("median log(took / estimate)", "bias", None),
        ("coverage", "coverage", None),
        ("bound/estimate", "bound_over_estimate", None),
    ):
        table.add_row(what, f"{load[field]:.3f}", f"{alone[field]:.3f}", "" if beside is None else f"{beside:.3f}")
    for what, field in (
        ("coverage by quartile of load", "coverage_by_quartile"),
        ("  wait / own seconds there", "load_by_quartile"),
        ("coverage by phase", "coverage_by_phase"),
    ):
        table.add_row(what, _listed(load[field], 3), "", "")
    told = " / ".join(str(load[field]) for field in ("tasks", "failed", "unfinished"))
    table.add_row("tasks / failed / unfinished", told, str(alone["tasks"]), str(figures["idle"]["calls"]))
    return table


def draw(figures: dict[str, Any], path: Path) -> None:
    """Promised against taken, with the bound; coverage by quartile."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [one for one in figures["records"] if one["phase"] != _IDLE and one["succeeded"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(2, 1))
    took_s = [one["finished_at"] - one["created_at"] for one in rows]
    for field, colour, label in (("eta_at", "#c8502f", "estimate"), ("eta_p90_at", "#b9b6ad", "90 % bound")):
        promised_s = [one[field] - one["created_at"] for one in rows]
        left.plot(took_s, promised_s, ".", color=colour, markersize=4, label=label)
    left.plot([min(took_s), max(took_s)], [min(took_s), max(took_s)], color="#333333", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="took, s", ylabel="promised, s")
    left.legend()
    shares = figures["judged"]["coverage_by_quartile"]
    right.bar(range(1, len(shares) + 1), shares, color="#c8502f")
    right.axhline(0.9, color="#333333", linewidth=0.8)
    right.set(ylim=(0.0, 1.0), xlabel="quartile of load", ylabel="kept", xticks=range(1, len(shares) + 1))
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def _rates(text: str) -> list[float]:
    rates = [float(part) for part in text.split(",")]
    if not all(0 < rate < float("inf") for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r}: give rates above 0 such as 4,14,4")
    return rates


def main() -> None:
    """Print a table and the goals, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="15 s a rate, few repetitions: about two minutes")
    parser.add_argument("--rates", type=_rates, default=[4.0, 14.0, 4.0], help="tasks a second, in turn")
    parser.add_argument("--load", type=float, default=0.6, help="mean of the rates over the pace; 0: rates as they are")
    parser.add_argument("--seconds", type=float, help="of each rate (40; 15 with --quick)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", help="postgresql://…; SQLite when not given")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rushes-promises-") as folder:
        figures = measure(arguments, Path(folder))
    Console().print(tables(figures))
    busy, cores = figures["load_average_at_begin"], os.cpu_count() or 1
    if busy > cores / 2:
        print(f"BUSY machine: load average {busy:.1f} on {cores} cores at the begin; read goals with care")
    if figures["judged"]["tasks"] < _FEW:
        print(f"FEW tasks ({figures['judged']['tasks']}): shares of so few say little; give more --seconds")
    print(f"refused {figures['refused']}; the client was late by {figures['client_late_p99_s']:.3f} s (p99)")
    print("\n".join(figures.pop("lines")))
    path = write_report("live_promises", figures, arguments.json)
    draw(figures, path.with_suffix(".png"))
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()

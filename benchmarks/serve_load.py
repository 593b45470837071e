"""What does the endpoint cost? Its accepts and status reads against a bare FastAPI no-op on the same Serve.

    python -m benchmarks.serve_load [--quick] [--parts a,b,c,d] [--database URL] [--json FILE]

a  durable accepts and status reads a second, p50 and p99, at 1, 10 and 32 at once, with the no-op between them in each
   round: accepts against a POST of the same body that it reads and forgets, status reads against a GET
b  from accept to the first denoising step, on an endpoint with nothing else to do
c  clips a second with requests kept waiting, against the bulk path on the same prompts and as many actors
d  accepts and status reads with nothing queued and with 10,000 tasks queued

Real keys, real store, real proxy; the no-op is an application of its own behind that proxy, deployed as the endpoint's
ingress is. Its GET never waits for anything, so Serve asks the proxy for no body: the cheapest request there is. In a
and d the dispatcher is drained, so that nothing renders: on a machine where models run on the CPUs they would be
measured instead. The client is a process of its own, whose requests cost it 30 to 50 µs: it says how many it makes of a
server that answers ready bytes, and how much of a core it used. Everything shares this machine's cores.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.batch_overhead import through_rushes
from benchmarks.load_client import Call, Client, Load, ceiling, joined
from benchmarks.report import write_report
from benchmarks.serve_endpoint import Endpoint, endpoint, report, wait_until
from schemas.clip import Status
from serve.tasks import StoredTask

GOALS = {"accept": 0.5, "status": 0.7, "p99_ms": 50.0, "first_step_ms": 100.0, "throughput": 0.95, "queued": 0.2}
AT_ONCE = (1, 10, 32)
QUEUED = 10_000
_A_BATCH = 1000


def _body(variant: str, number: int = 0) -> dict[str, object]:
    return {"model": variant, "promptText": f"a red circle moving left, take {number}"}


LOOK = Call("GET", "/bare/")
CALLS = ("no-op", "no-op POST", "accept", "status")


def _calls(variant: str, ids: tuple[str, ...]) -> dict[str, Call]:
    """`CALLS`: the no-op as it is asked for a status, the no-op as it is sent a task, and both in earnest."""
    body = json.dumps(_body(variant)).encode()
    accept, status = Call("POST", "/v1/text_to_video", body), Call("GET", "/v1/tasks/{}", ids=ids)
    return dict(zip(CALLS, (LOOK, Call("POST", "/bare/", body), accept, status), strict=True))


def _rounds(client: Client, variant: str, at_once: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """All four in turn, round after round; a status read is of the tasks that were made just before."""
    loads: dict[str, list[Load]] = {name: [] for name in CALLS}
    ids: tuple[str, ...] = ()
    for number in range(rounds + 1):
        for name in CALLS:
            load = client.closed_loop(_calls(variant, ids)[name], at_once, seconds if number else seconds / 4)
            ids = load.ids or ids
            if number:  # the first round warms up
                loads[name].append(load)
    found = {name: _figures(joined(some)) for name, some in loads.items()}
    for name, against in (("accept", "no-op POST"), ("status", "no-op")):
        found[name]["ratio"] = found[name]["per_s"] / found[against]["per_s"]
        found[name]["of_get"] = found[name]["per_s"] / found["no-op"]["per_s"]
    return found


def _figures(load: Load) -> dict[str, float]:
    return {
        "requests": len(load.latencies_s),
        "per_s": load.per_s,
        "p50_ms": load.quantile_ms(0.5),
        "p99_ms": load.quantile_ms(0.99),
        "client_cores": load.client_cpu_s / load.wall_s,
    }


def first_steps(served: Endpoint, variant: str, count: int) -> dict[str, Any]:
    """(b): one task after the other. A step's begin is taken as far before its end as the next one took."""
    called, began = [], []
    for number in range(count):
        accepted = served.call("POST", "/v1/text_to_video", _body(variant, number))["id"]
        at = time.time()
        task = _ended(served, accepted)
        if task.status is not Status.SUCCEEDED:
            raise RuntimeError(f"task {accepted}: {task.status} {task.last_error}")
        lines = [json.loads(line) for line in served.stamps.read_text().splitlines()]
        (stamp,) = [line for line in lines if accepted in line["ids"]]
        first, second = stamp["steps"]
        called.append(1000 * (stamp["called"] - at))
        began.append(1000 * (first - (second - first) - at))
        time.sleep(0.3)  # its results are told, and the replica asks again
    return {
        "tasks": count,
        "model_called_ms": statistics.median(called),
        "first_step_ms": statistics.median(began),
        "first_step_ms_worst": max(began),
        "each_ms": began,
    }


def _ended(served: Endpoint, task_id: str) -> StoredTask:
    found: list[StoredTask] = []

    def is_over() -> bool:
        found[:] = served.store.tasks.get_many([task_id])
        return bool(found[0].finished_at)

    wait_until(is_over, f"task {task_id} has ended")
    return found[0]


def endpoint_throughput(served: Endpoint, variant: str, clips: int, outstanding: int, skip: int) -> float:
    """(c): a next request as soon as a clip is there. Clips a second after the first `skip`."""
    sent = 0

    def over() -> int:
        counts = served.store.tasks.counts(served.key_id).by_status
        return counts[Status.SUCCEEDED] + counts[Status.FAILED]

    before = over()
    while (done := over() - before) < clips:
        while sent < min(clips, done + outstanding):
            served.call("POST", "/v1/text_to_video", _body(variant, sent))
            sent += 1
        time.sleep(0.05)
    tasks = served.store.tasks.recent(clips, key_id=served.key_id)
    failed = [task.last_error or task.status for task in tasks if task.status is not Status.SUCCEEDED]
    if failed:
        raise RuntimeError(f"{len(failed)} of {clips} did not succeed: {failed[0]}")
    ends = sorted(task.finished_at or 0.0 for task in tasks)
    return (clips - skip) / (ends[-1] - ends[skip - 1])


def queued(served: Endpoint, client: Client, variant: str, seconds: float, rounds: int) -> dict[str, Any]:
    """(d): the same before and after 10,000 tasks were queued; the no-op beside it says what else has changed."""

    served.forget_queue()
    time.sleep(1.0)
    empty = _rounds(client, variant, 1, rounds, seconds)
    waiting = served.store.tasks.counts().by_status[Status.PENDING]
    while waiting < QUEUED:
        rows = [_body(variant, number) for number in range(min(_A_BATCH, QUEUED - waiting))]
        served.call("POST", "/v1/batches", {"tasks": rows})
        waiting = served.store.tasks.counts().by_status[Status.PENDING]
    wait_until(
        lambda: sum(pool["queued"] for pool in report()["pools"]) >= QUEUED * 0.9, "the dispatcher has read them"
    )
    full = _rounds(client, variant, 1, rounds, seconds)
    ratios = {name: full[name]["p50_ms"] / empty[name]["p50_ms"] for name in full}
    return {"queued": waiting, "empty": empty, "full": full, "ratios": ratios}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All the parts that were asked for, each endpoint after the other."""
    parts, quick, variant = arguments.parts.split(","), arguments.quick, arguments.variant
    seconds, rounds = (2.0, 2) if quick else (4.0, 4)
    figures: dict[str, Any] = {"quick": quick, "variant": variant, "goals": GOALS}
    if {"a", "d"} & set(parts):
        figures["client"] = {str(n): _figures(ceiling(n, seconds)) for n in AT_ONCE}
        with endpoint(folder / "drained", variant, arguments.database) as served:
            served.drain()
            client = served.client()
            if "a" in parts:
                figures["a"] = [{"at_once": n, **_rounds(client, variant, n, rounds, seconds)} for n in AT_ONCE]
            if "d" in parts:
                figures["d"] = queued(served, client, variant, seconds, rounds)
            client.close()
    if "b" in parts:
        with endpoint(folder / "idle", variant, arguments.database) as served:
            first_steps(served, variant, 2)
            figures["b"] = first_steps(served, variant, 8 if quick else 30)
    if "c" in parts:
        figures["c"] = throughput(folder, variant, arguments.database, 96 if quick else 240, 1 if quick else 3)
    return figures


def throughput(folder: Path, variant: str, database: str | None, clips: int, rounds: int) -> dict[str, Any]:
    """(c): bulk and endpoint in turn, with the actors that bulk chose."""
    bulk, ours = [], []
    for number in range(rounds):
        manifest = folder / f"m{number}.jsonl"
        rows = [{"id": f"c{i}", "prompt": _body(variant, i)["promptText"], "variant": variant} for i in range(clips)]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        there = through_rushes(manifest, folder / f"bulk{number}", no_op=False)
        bulk.append(there["clips_per_s"])
        actors, size = there["actors"], there["batch_size"]
        with endpoint(folder / f"busy{number}", variant, database, actors) as served:
            ours.append(endpoint_throughput(served, variant, clips, 2 * actors * max(8, size), actors * size))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, bulk, strict=True))
    return {"clips": clips, "actors": actors, "bulk_per_s": bulk, "endpoint_per_s": ours, "ratio": ratio}


def shown(figures: Mapping[str, Any]) -> Iterator[str]:
    """A line a claim, with whether its goal was met."""

    def claim(what: str, value: str, met: bool, goal: str) -> str:
        return f"{'met   ' if met else 'MISSED'} {what}: {value} (goal {goal})"

    for row in figures.get("a", ()):
        for name in ("accept", "status"):
            against = row["no-op POST" if name == "accept" else "no-op"]
            of = f"{row[name]['per_s']:.0f}/s against {against['per_s']:.0f}/s; {row[name]['of_get']:.2f} × a GET"
            ratio = row[name]["ratio"]
            yield claim(f"{name} × {row['at_once']}", f"{ratio:.2f} × ({of})", ratio >= GOALS[name], f"≥ {GOALS[name]}")
        if row["at_once"] == 10:
            p99, control = row["accept"]["p99_ms"], row["no-op POST"]["p99_ms"]
            value = f"{p99:.0f} ms (the no-op's of the same body {control:.0f} ms)"
            yield claim("accept × 10, p99", value, p99 <= GOALS["p99_ms"], f"≤ {GOALS['p99_ms']:.0f} ms")
    if "b" in figures:
        first = figures["b"]["first_step_ms"]
        yield claim("accept → first step", f"{first:.0f} ms", first <= GOALS["first_step_ms"], "≤ 100 ms")
    if "c" in figures:
        ratio = figures["c"]["ratio"]
        of = f"{statistics.median(figures['c']['endpoint_per_s']):.2f} clips/s"
        against = f"{statistics.median(figures['c']['bulk_per_s']):.2f} in bulk"
        yield claim("throughput", f"{ratio:.2f} × ({of} against {against})", ratio >= GOALS["throughput"], "≥ 0.95")
    for name in ("accept", "status") if "d" in figures else ():
        ratio, control = figures["d"]["ratios"][name], figures["d"]["ratios"]["no-op"]
        value = f"{ratio:.2f} × its p50 with none (the no-op meanwhile {control:.2f} ×)"
        yield claim(f"{name} with {figures['d']['queued']:,} queued", value, ratio <= 1 + GOALS["queued"], "≤ 1.2")


def main() -> None:
    """Print tables and claims, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--parts", default="a,b,c,d")
    parser.add_argument("--variant", default="embedded")
    parser.add_argument("--database", help="postgresql://…; SQLite when not given")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rushes-load-") as folder:
        figures = measure(arguments, Path(folder))
    table = Table("at once", "what", "a second", "p50 ms", "p99 ms", "of the no-op", "client, cores")
    for row in figures.get("a", ()):
        for name in CALLS:
            got = row[name]
            numbers = (f"{got['per_s']:.0f}", f"{got['p50_ms']:.1f}", f"{got['p99_ms']:.1f}")
            table.add_row(
                str(row["at_once"]), name, *numbers, f"{got.get('ratio', 1):.2f}", f"{got['client_cores']:.2f}"
            )
    if table.rows:
        Console().print(table)
        most = ", ".join(f"{load['per_s']:.0f}/s at {n}" for n, load in figures["client"].items())
        print(f"the client alone, against ready bytes: {most}")
    for line in shown(figures):
        print(line)
    path = write_report("serve_load", figures, arguments.json)
    from benchmarks.serve_load_plot import draw

    draw(figures, path.with_suffix(".png"))
    print(f"figures: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()

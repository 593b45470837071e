"""The house stands: who may import whom, which libraries stay in which room, what is made in one place only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Every room may import itself and these.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "schemas": frozenset(),
    "storage": frozenset({"schemas"}),
    "models": frozenset({"schemas"}),
    "training": frozenset({"schemas", "models"}),
    "cluster": frozenset({"schemas"}),
    "trust": frozenset({"schemas"}),
    "evaluation": frozenset({"schemas", "training"}),
    "prompts": frozenset({"schemas", "models"}),
    "actors": frozenset({"schemas", "storage", "models", "cluster", "trust"}),
    "pipelines": frozenset({"schemas", "storage", "models", "cluster", "trust", "evaluation", "prompts", "actors"}),
    "serve": frozenset({"schemas", "storage", "models", "cluster", "trust", "prompts", "actors"}),
}
# Those at the top may import all that stand before them.
MAY_IMPORT["rushes"] = frozenset(MAY_IMPORT)
MAY_IMPORT["benchmarks"] = frozenset(MAY_IMPORT)
ONLY_IN: dict[str, frozenset[str]] = {
    "torch": frozenset({"models", "training", "benchmarks"}),
    "diffusers": frozenset({"models", "training"}),
    "transformers": frozenset({"models", "training"}),
    "peft": frozenset({"models", "training"}),
    "fastapi": frozenset({"serve", "benchmarks"}),
    "starlette": frozenset({"serve", "benchmarks"}),
    "uvicorn": frozenset({"serve", "benchmarks"}),
    "sqlalchemy": frozenset({"serve"}),
    "alembic": frozenset({"serve"}),
    "boto3": frozenset({"storage"}),
    "botocore": frozenset({"storage"}),
    "c2pa": frozenset({"trust"}),
    "cryptography": frozenset({"trust"}),
    "reedsolo": frozenset({"trust"}),
}
# What decides, predicts and promises is made here and nowhere else: whoever needs it asks the one that there is.
MADE_ONLY_IN: dict[str, frozenset[str]] = {
    "cluster.scheduling.scheduler.Scheduler": frozenset(
        {"serve/dispatch/pools.py", "cluster/scheduling/follower.py", "cluster/simulation/scheduler_policy.py"}
    ),
    "cluster.scheduling.planner.Planner": frozenset(
        {"cluster/scheduling/scheduler.py", "cluster/scheduling/snapshot.py", "benchmarks/decision_latency.py"}
    ),
    "cluster.scheduling.timelines.Timelines": frozenset({"cluster/scheduling/planner.py"}),
    "cluster.scheduling.fairness.FairShares": frozenset({"cluster/scheduling/planner.py"}),
    "cluster.scheduling.attempts.Attempts": frozenset({"cluster/scheduling/scheduler.py"}),
    "cluster.scheduling.offer.offer": frozenset({"cluster/scheduling/scheduler.py"}),
    "cluster.routing.router.Router": frozenset({"cluster/scheduling/planner.py", "cluster/routing/router.py"}),
    # The dispatcher's has the state of the one before; the simulator's promises for baselines that make none.
    "cluster.scheduling.eta.EtaEstimator": frozenset(
        {"cluster/scheduling/scheduler.py", "serve/dispatch/driver.py", "cluster/simulation/promises.py"}
    ),
    "cluster.scheduling.eta.Eta": frozenset({"cluster/scheduling/eta.py", "serve/dispatch/jobs.py"}),
    # A prior and what was observed: for the endpoint, for a trace, for the catalog of bulk runs.
    "cluster.cost.service_times.ServiceTimes": frozenset(
        {"serve/dispatch/pools.py", "cluster/simulation/policy_context.py", "cluster/cost/calibration.py"}
    ),
    "cluster.cost.calibration.Calibrator": frozenset({"pipelines/calibration.py"}),
}
CALLED_ONLY_IN: dict[str, frozenset[str]] = {
    "promise": frozenset(
        {"cluster/scheduling/scheduler.py", "cluster/scheduling/eta.py", "cluster/simulation/promises.py"}
    ),
    "preview": frozenset({"cluster/scheduling/scheduler.py", "benchmarks/decision_latency.py"}),
    "choose": frozenset({"cluster/scheduling/planner.py", "cluster/routing/router.py"}),
}
MOST_LINES = 700  # a guard against dumping grounds: nothing is cut only for its length

FILES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def uses_of(path: Path, module: str) -> tuple[set[str], set[str]]:
    """(qualified names that a file calls or inherits from, names of the methods that it calls)."""
    tree = ast.parse(path.read_text())
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            known.setdefault(node.name, f"{module}.{node.name}")
    used: set[str] = set()
    methods: set[str] = set()
    for node in ast.walk(tree):
        called = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
        for one in called:
            said = ast.unparse(one)
            first, _, rest = said.rpartition(".")
            if said in known:
                used.add(known[said])
            elif first in known:
                used.add(f"{known[first]}.{rest}")
            if isinstance(node, ast.Call) and isinstance(one, ast.Attribute):
                methods.add(one.attr)
    return used, methods


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    reached = imports_of(path) & MAY_IMPORT.keys() - {room}
    assert reached <= MAY_IMPORT[room], f"{shown(path)} imports {sorted(reached - MAY_IMPORT[room])}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_a_heavy_library_stays_in_its_room(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    strays = {name for name in imports_of(path) & ONLY_IN.keys() if room not in ONLY_IN[name]}
    assert not strays, f"{shown(path)} imports {sorted(strays)}, which belong to {[sorted(ONLY_IN[s]) for s in strays]}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_no_file_has_grown_past_what_one_noun_needs(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{shown(path)} has {lines} lines: it is more than one noun"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_what_decides_predicts_and_promises_is_made_in_one_place(path: Path) -> None:
    used, methods = uses_of(path, module_of(path))
    for name in used & MADE_ONLY_IN.keys():
        allowed = sorted(MADE_ONLY_IN[name])
        assert shown(path) in allowed, f"{shown(path)} makes a {name}, which is for {allowed}"
    for name in methods & CALLED_ONLY_IN.keys():
        allowed = sorted(CALLED_ONLY_IN[name])
        assert shown(path) in allowed, f"{shown(path)} calls .{name}(), which is for {allowed}"


@pytest.mark.parametrize("name", MADE_ONLY_IN)
def test_what_is_made_in_one_place_is_made_there(name: str) -> None:
    """A rule about a class that was renamed would hold for ever."""
    for file in MADE_ONLY_IN[name]:
        assert name in uses_of(ROOT / file, module_of(ROOT / file))[0], f"{file} makes no {name}"


def test_the_rule_sees_a_second_planner(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import cluster.scheduling.eta as eta\n"
        "from cluster.cost import service_times\n"
        "from cluster.routing.router import Router as Chooser\n"
        "from cluster.scheduling.planner import Planner\n"
        "class Mine(Planner): ...\n"
        "def late(plan):\n"
        "    Chooser(()), eta.EtaEstimator(), service_times.ServiceTimes(None)\n"
        "    return plan.terms.promise(1.0, 1.0)\n"
    )
    used, methods = uses_of(wrong, "wrong")
    assert used & MADE_ONLY_IN.keys() == {
        "cluster.scheduling.planner.Planner",
        "cluster.routing.router.Router",
        "cluster.scheduling.eta.EtaEstimator",
        "cluster.cost.service_times.ServiceTimes",
    }
    assert methods & CALLED_ONLY_IN.keys() == {"promise"}


def test_the_rule_sees_a_violation(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def late():\n    from pipelines.run import render\n    import torch\n")
    assert imports_of(wrong) == {"pipelines", "torch"}


def test_no_file_is_named_after_nothing() -> None:
    empty_names = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [shown(path) for path in FILES if path.name in empty_names]

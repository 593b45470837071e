"""Every prompt of a manifest, resolved as a run would, with what looks like a mistake in it. Nothing is rendered."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from cluster.topology import imagined_topology
from pipelines.catalogs import check_variant, open_catalog
from pipelines.estimate import this_machine
from pipelines.plan import PlanRules, plan_rows
from pipelines.plan_stage import rank_by_price
from pipelines.planner import can_run
from pipelines.read import find_chunks, read_rows
from prompts.diagnosis import Finding, asked_of, diagnose_all
from prompts.templates import read_templates
from schemas.config import read_config
from schemas.run import RunOptions


@dataclass(frozen=True)
class CheckedRow:
    """One row. Rejected ones have their issues as findings, of the code `rejected`."""

    uri: str
    line: int
    id: str
    variant: str
    findings: tuple[Finding, ...]


def check_prompts(
    manifest: str,
    catalog: str | None = None,
    *,
    variant: str | None = None,
    limit: int | None = None,
    encoding: str | None = None,
    templates: str | None = None,
) -> Iterator[CheckedRow]:
    """The rows of a manifest in their order. Raises ConfigError as planning does."""
    config = read_config()
    known = open_catalog(catalog, config)
    check_variant(variant, known)
    options = RunOptions(manifest=manifest, out="")
    # Without a cluster to ask, a machine with GPUs is taken for one that has what any variant needs.
    machine = this_machine(options) or imagined_topology("H200", 8)
    rules = PlanRules(
        catalog=known,
        rank=partial(rank_by_price, machine.accelerator, "auto"),
        may_run=partial(can_run, machine, "auto"),
        variant=variant,
        snap=True,
        templates=read_templates(templates),
    )
    for rows in read_rows(find_chunks(manifest, limit, encoding=encoding), limit):
        planned = plan_rows(rows, rules)
        asked = [asked_of(group, known[group.variant]) for group in planned.groups]
        rejects = {reject.position: reject for reject in planned.rejects}
        prompts, negatives = planned.column("prompt"), planned.column("negative_prompt")
        for position, line in enumerate(rows.lines):
            number = planned.group_of[position]
            if number < 0:
                issues = rejects[position].issues
                found = tuple(Finding("rejected", one.path, one.message, _choices(one.choices)) for one in issues)
                yield CheckedRow(rows.uri, line, planned.ids[position], "", found)
                continue
            chosen = known[planned.groups[number].variant]
            texts = (prompts[position] or "", *planned.later(position))
            found = diagnose_all(texts, negatives[position] or "", asked[number], chosen)
            yield CheckedRow(rows.uri, line, planned.ids[position], chosen.name, found)


def _choices(choices: tuple[str, ...]) -> str:
    return f"available: {', '.join(choices[:8])}" if choices else "the row would be rejected"

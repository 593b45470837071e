"""`rushes diagnose` and `rushes templates`: prompts before anything is rendered."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rushes import console
from rushes.exits import Exit, fail
from rushes.run_options import AsJson, CatalogFile, Encoding, Limit, Manifest, TemplatesFile, Variant
from schemas.errors import RushesError

if TYPE_CHECKING:
    from prompts.templates import Templates


def diagnose(
    manifest: Manifest,
    catalog: CatalogFile = None,
    variant: Variant = None,
    limit: Limit = None,
    encoding: Encoding = None,
    templates: TemplatesFile = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 where anything was found.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what looks like a mistake in the prompts of MANIFEST, row by row, each with a suggestion: too long for the
    text encoder, words that the variant does not know, at odds with size, length or frame rate, negative prompts in
    the wrong place. Nothing is rendered or written, and no Ray is started."""
    from pipelines.prompt_check import check_prompts

    try:
        rows = check_prompts(manifest, catalog, variant=variant, limit=limit, encoding=encoding, templates=templates)
        counted = found = 0
        for row in rows:
            counted += 1
            for one in row.findings:
                found += 1
                if as_json:
                    told = {"file": row.uri, "line": row.line, "id": row.id, "variant": row.variant, **one._asdict()}
                    print(json.dumps(told, ensure_ascii=False))
                else:
                    console.out().print(f"{row.uri}:{row.line}: {one}", markup=False, highlight=False, soft_wrap=True)
    except RushesError as error:
        fail(error)
    said = f"{counted} row{'s' if counted != 1 else ''}, {found or 'no'} finding{'s' if found != 1 else ''}"
    console.err().print(said, markup=False)
    raise typer.Exit(Exit.INCOMPLETE if strict and found else Exit.OK)


def templates(
    name: Annotated[str | None, typer.Argument(help="One of them: its slots, and what an example makes.")] = None,
    slots: Annotated[list[str] | None, typer.Argument(help="SLOT=VALUE …: the prompt that they make.")] = None,
    templates: TemplatesFile = None,
    as_json: AsJson = False,
) -> None:
    """List the prompt templates; show one; or fill it: rushes templates product subject="a teapot".

    In a manifest a row says {"template": "product", "slots": {"subject": "a teapot"}} in place of its prompt."""
    from prompts.templates import read_templates

    try:
        found = read_templates(templates)
        if name is None:
            told = {key: one.model_dump(mode="json") for key, one in found.templates.items()}
            print(json.dumps(told, indent=1, ensure_ascii=False)) if as_json else console.out().print(_table(found))
            return
        given = _pairs(slots or [])
        if not slots and name in found.templates:
            given = found.templates[name].example
            if not as_json:
                console.out().print(_slots(name, found))
        made = found.filled(name, given, "NAME", "SLOT")
    except RushesError as error:
        fail(error)
    if as_json:
        print(json.dumps(made._asdict(), ensure_ascii=False))
        return
    console.out().print(f"prompt: {made.prompt}", markup=False, highlight=False, soft_wrap=True)
    if made.negative_prompt:
        console.out().print(f"negative prompt: {made.negative_prompt}", markup=False, highlight=False, soft_wrap=True)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not separator:
            raise typer.BadParameter(f"{one!r} is not SLOT=VALUE", param_hint="SLOTS")
        pairs[name] = value
    return pairs


def _table(found: "Templates") -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("template", "use", "slots"):
        table.add_column(heading, overflow="fold")
    for name, template in found.templates.items():
        slots = ", ".join(f"{slot}*" if slot in template.required else slot for slot in template.slots)
        table.add_row(name, template.use, slots)
    table.caption = "* has to be given"
    table.caption_justify = "left"
    return table


def _slots(name: str, found: "Templates") -> Table:
    template = found.templates[name]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=template.title, title_justify="left")
    for heading in ("slot", "what", "values", "default"):
        table.add_column(heading, overflow="fold")
    for slot, told in template.slots.items():
        what = told.description + (" (has to be given)" if slot in template.required else "")
        table.add_row(slot, what, ", ".join(told.choices) or "text", told.default or "")
    return table

"""The `rushes` command: which commands there are. Each is imported when it is called: none waits for another."""

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

_LISTING = "rushes.listing"


@dataclass(frozen=True)
class Place:
    """Where a command is, and what the list of commands says of it."""

    module: str
    name: str
    help: str


COMMANDS = {
    "render": Place("rushes.render_command", "render", "Render every row of MANIFEST."),
    "estimate": Place("rushes.estimate_command", "estimate", "Say what MANIFEST would take: time, price, by group."),
    "guide": Place("rushes.guide_command", "guide", "Show what a model would be shown of MANIFEST's rows."),
    "diagnose": Place("rushes.prompt_commands", "diagnose", "Say what looks like a mistake in prompts."),
    "templates": Place("rushes.prompt_commands", "templates", "List the prompt templates; fill one."),
    "catalog": Place("rushes.catalog_command", "catalog", "List the variants; check a catalog file."),
    "simulate": Place("rushes.fleet_commands", "simulate", "Run a trace of arrivals through a fleet under a policy."),
    "calibrate": Place("rushes.fleet_commands", "calibrate", "Measure what a variant takes on this machine."),
    "finetune": Place("rushes.finetune_command", "finetune", "Train a LoRA of VARIANT on captioned clips."),
    "import-hotshot": Place(
        "rushes.hotshot_command", "import_hotshot", "Convert a checkpoint of Hotshot-XL into weights for the catalog."
    ),
    "evaluate": Place("rushes.evaluate_command", "evaluate", "Compare the clips of a run by an attribute."),
    "verify": Place("rushes.verify_command", "verify", "Check where TARGET, a file or a run, comes from."),
    "audit": Place("rushes.audit_command", "audit", "Who asked for what, and which clip came of it: the audit log."),
    "serve": Place("rushes.serve_command", "serve", "The endpoint: start, status, drain, down."),
    "keys": Place("rushes.keys_command", "keys", "API keys of an endpoint."),
}


class Commands(TyperGroup):
    """The commands by name. To list them, none is imported."""

    # Typed by what they do: whose click typer stands on is its own business.

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        if ctx.meta.get(_LISTING):
            return TyperCommand(cmd_name, help=place.help)
        return loaded(cmd_name, place)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta[_LISTING] = True
        super().format_help(ctx, formatter)


def loaded(name: str, place: Place) -> Any:
    """The command itself."""
    found = getattr(importlib.import_module(place.module), place.name)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False, add_completion=False)
        alone.command(name)(found)
        found = alone
    command = typer.main.get_command(found)
    command.name = name
    _with_debug(command)
    return command


def _heed_debug(wanted: bool) -> None:
    if wanted:
        from rushes.exits import Debug

        Debug.wanted = True


def _debug_option() -> Any:
    """As typer makes it of a function's argument; it is the only way that is the same in every version."""

    def donor(
        debug: Annotated[  # noqa: ARG001
            bool,
            typer.Option(
                "--debug",
                callback=_heed_debug,
                is_eager=True,
                expose_value=False,
                help="Show where an error came from.",
            ),
        ] = False,
    ) -> None:
        raise AssertionError("only its option is wanted")

    alone = typer.Typer(add_completion=False)
    alone.command()(donor)
    return next(option for option in typer.main.get_command(alone).params if option.name == "debug")


def _with_debug(command: Any) -> None:
    """`--debug`, on a command and on all below it."""
    command.params.append(_debug_option())
    for below in getattr(command, "commands", {}).values():
        _with_debug(below)


app = typer.Typer(
    name="rushes",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from rushes import __version__

        print(f"rushes {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Render video in bulk on a Ray cluster.

    A manifest of prompts goes in; clips and a results table come out.
    """


def main() -> None:
    """The console script."""
    from rushes.exits import Exit, fail_unforeseen

    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None
    except Exception as error:
        fail_unforeseen(error)


if __name__ == "__main__":
    main()

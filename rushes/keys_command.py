"""`rushes keys`: API keys of an endpoint, made, listed and revoked in its store."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from rushes import console
from rushes.exits import fail
from schemas.errors import ConfigError, RushesError

if TYPE_CHECKING:
    from serve.config import ServeConfig
    from serve.store.contract import Store

keys = typer.Typer(name="keys", help="API keys of an endpoint.", no_args_is_help=True, add_completion=False)
_out = console.out()
_err = console.err()

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The endpoint's TOML file.")]
Out = Annotated[str | None, typer.Option("--out", help="As given to `rushes serve`.")]
Database = Annotated[str | None, typer.Option("--database", help="As given to `rushes serve`: a SQLAlchemy URL.")]
MaxConcurrent = Annotated[
    int | None, typer.Option("--max-concurrent", help="Unfinished tasks; more wait as THROTTLED.")
]
MaxDaily = Annotated[int | None, typer.Option("--max-daily", help="Tasks a UTC day; then 429.")]
MonthlyCredits = Annotated[
    int | None, typer.Option("--monthly-credits", help="A UTC month's spending; then 429. 1 credit is a cent.")
]
Weight = Annotated[
    float | None, typer.Option("--weight", help="Its share of a busy fleet beside other keys'; 1 unless given.")
]
MaxPriority = Annotated[
    int | None,
    typer.Option(
        "--max-priority", help="Levels of priority by which its tasks may go ahead of other keys'; 0 unless given."
    ),
]
KeyId = Annotated[str, typer.Argument(help="The key's id: key_…", show_default=False)]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, for your lists.", show_default=False)],
    max_concurrent: MaxConcurrent = None,
    max_daily: MaxDaily = None,
    monthly_credits: MonthlyCredits = None,
    weight: Weight = None,
    max_priority: MaxPriority = None,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
) -> None:
    """Make a key and print its secret on stdout. **It is shown once**: only its hash is kept."""
    from serve import keys as api_keys
    from serve.webhooks import webhook_secret

    with _store(config, out, database) as (store, settings):
        key, secret = api_keys.create(
            store,
            name,
            time(),
            max_concurrent=max_concurrent,
            max_daily=max_daily,
            monthly_credits=monthly_credits,
            weight=weight,
            max_priority=max_priority,
        )
        signing = webhook_secret(store, settings, key.id)
    _err.print(f"key {key.id} ({key.name}); this is the only time that its secret is shown:", markup=False)
    print(secret)
    _err.print(f"webhooks are signed with {signing}", markup=False, highlight=False, soft_wrap=True)


@keys.command("set")
def set_limits(
    key_id: KeyId,
    name: Annotated[str | None, typer.Option("--name", help="Whose it is, for your lists.")] = None,
    max_concurrent: MaxConcurrent = None,
    max_daily: MaxDaily = None,
    monthly_credits: MonthlyCredits = None,
    weight: Weight = None,
    max_priority: MaxPriority = None,
    clear: Annotated[
        list[str] | None, typer.Option("--clear", help="A limit that is the endpoint's own again; may be repeated.")
    ] = None,
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
) -> None:
    """Change a key's name or limits. Running endpoints heed it within seconds; what waits stays where it is."""
    from serve import keys as api_keys

    given = {
        "name": name,
        "max_concurrent": max_concurrent,
        "max_daily": max_daily,
        "monthly_credits": monthly_credits,
        "weight": weight,
        "max_priority": max_priority,
    }
    changes: dict[str, str | float | None] = {field: value for field, value in given.items() if value is not None}
    for option in clear or ():
        field = option.removeprefix("--").replace("-", "_")
        if field not in given or field == "name":
            choices = ", ".join(one.replace("_", "-") for one in given if one != "name")
            fail(ConfigError(f"--clear: unknown limit {option!r}; available: {choices}"))
        changes[field] = None
    if not changes:
        fail(ConfigError("nothing to change: give a limit, or --clear"))
    with _store(config, out, database) as (store, _):
        key = api_keys.change(store, key_id, **changes)
    _err.print(f"changed {key.id} ({key.name})", markup=False)


@keys.command("list")
def list_keys(
    config: ConfigFile = None,
    out: Out = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")] = False,
) -> None:
    """List the keys: id, name, limits, whether they were revoked. No secrets: nobody has them."""
    with _store(config, out, database) as (store, _):
        found = store.keys.all()
    if as_json:
        limits = ("max_concurrent", "max_daily", "monthly_credits", "weight", "max_priority")
        names = ("id", "name", "created_at", *limits, "revoked_at")
        print(json.dumps([{name: getattr(key, name) for name in names} for key in found], indent=1))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("id", no_wrap=True)
    table.add_column("name", overflow="fold")
    for name in ("created", "concurrent", "a day", "credits", "weight", "ahead", "revoked"):
        table.add_column(name, overflow="fold")
    for key in found:
        own = (key.max_concurrent, key.max_daily, key.monthly_credits, key.weight, key.max_priority)
        shown = ["–" if limit is None else str(limit) for limit in own]
        table.add_row(key.id, key.name, _instant(key.created_at), *shown, _instant(key.revoked_at))
    _out.print(table)


@keys.command()
def revoke(key_id: KeyId, config: ConfigFile = None, out: Out = None, database: Database = None) -> None:
    """Take a key back. Running endpoints refuse it within seconds; its tasks stay."""
    with _store(config, out, database) as (store, _):
        if not store.keys.revoke(key_id, time()):
            known = store.keys.get(key_id)
            fail(ConfigError(f"{key_id}: {'was revoked before' if known else 'no such key; see `rushes keys list`'}"))
    _err.print(f"revoked {key_id}", markup=False)


@keys.command("webhook-secret")
def webhook_secret_of(key_id: KeyId, config: ConfigFile = None, out: Out = None, database: Database = None) -> None:
    """Print what the receiver of a key's webhooks verifies them with."""
    from serve.webhooks import webhook_secret

    with _store(config, out, database) as (store, settings):
        if key_id != "local" and store.keys.get(key_id) is None:
            fail(ConfigError(f"{key_id}: no such key; see `rushes keys list`"))
        print(webhook_secret(store, settings, key_id))


@contextmanager
def _store(config: Path | None, out: str | None, database: str | None) -> Iterator[tuple["Store", "ServeConfig"]]:
    """The endpoint's store, as its own configuration says; errors end the command."""
    from serve.config import read_serve_config
    from serve.store.engine import open_store

    try:
        settings = read_serve_config(config, out=out, database=database)
        store = open_store(settings.database_url)
        try:
            yield store, settings
        finally:
            store.close()
    except RushesError as error:
        fail(error)


def _instant(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")

"""What `rushes render` and `rushes estimate` have in common on the command line."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from rushes import console
from rushes.exits import Exit, fail
from schemas.audit import AuditPrompts
from schemas.clip import ClipFormat
from schemas.errors import ConfigError
from schemas.finish import FitMode
from schemas.moderation import ModerationSettings
from schemas.run import RunOptions
from schemas.trust import CredentialsMode, UnsignedRule

Manifest = Annotated[
    str,
    typer.Argument(
        help="JSONL, CSV or Parquet (.gz, .zst): a file, a folder or a glob; local or s3://.", show_default=False
    ),
]
CatalogFile = Annotated[
    str | None, typer.Option("--catalog", help="A catalog file (TOML); without it, the one that ships.")
]
Variant = Annotated[str | None, typer.Option("--variant", help="For rows that name none: a catalog name, or 'auto'.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N rows.")]
Fit = Annotated[
    FitMode | None,
    typer.Option("--fit", help="Bring clips to a size that the variant lacks: pad, crop or stretch."),
]
Snap = Annotated[bool, typer.Option("--snap", help="Change a shape that breaks a rule to the nearest valid one.")]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="Of a text manifest, such as cp1252; without it, what each file shows."),
]
TemplatesFile = Annotated[
    str | None,
    typer.Option("--templates", help="A TOML file of prompt templates, over those that ship (rushes templates)."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse columns that are no fields; else kept as metadata.")]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RUSHES_ADDRESS", help="A Ray cluster, e.g. 'auto'; without it, one starts here."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Format = Annotated[ClipFormat, typer.Option("--format", help="mp4 (H.264), webm (VP9), gif, or png (frames in a zip).")]


Credentials = Annotated[
    CredentialsMode,
    typer.Option("--credentials", help="Sign clips (C2PA): on, off, or auto: where the extra `trust` is installed."),
]
SigningKey = Annotated[
    str | None, typer.Option("--signing-key", help="A private key in PEM; without it, a certificate for development.")
]
SigningCertificates = Annotated[
    str | None, typer.Option("--signing-certificates", help="Its certificates in PEM, its own first.")
]
Signer = Annotated[
    str | None, typer.Option("--signer", help="An entry point of `rushes.signers`, in place of a key in a file.")
]
TimestampUrl = Annotated[
    str | None, typer.Option("--timestamp-url", help="A timestamp authority (RFC 3161), asked for each clip.")
]
Watermark = Annotated[
    bool | None, typer.Option("--watermark", help="Put 64 bits of the fingerprint into the picture, invisibly.")
]
Prompts = Annotated[
    AuditPrompts,
    typer.Option("--audit-prompts", help="What the audit log has of prompts: their words, or only a salted hash."),
]
Unsigned = Annotated[
    UnsignedRule, typer.Option("--unsigned", help="What becomes of a clip that cannot be signed: fail, or publish.")
]


ModerationFile = Annotated[
    Path | None,
    typer.Option("--moderation", help="A TOML file whose table [moderation] says who moderates, and how strictly."),
]


def moderation_settings(path: Path | None) -> ModerationSettings:
    """The table `[moderation]` of a file, which may be an endpoint's. Raises ConfigError with file, field and value."""
    if path is None:
        return ModerationSettings()
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--moderation: {path}: {error}") from error
    if "moderation" not in table:
        raise ConfigError(f"--moderation: {path}: no table [moderation] in it")
    try:
        return ModerationSettings.model_validate(table["moderation"]).absolute()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, ("moderation", *first["loc"])))
        raise ConfigError(f"--moderation: {path}: {field}: {first['msg']} (got {first['input']!r})") from error


def moderation_option(path: Path | None) -> ModerationSettings:
    """The same; what is wrong with it ends the command."""
    try:
        return moderation_settings(path)
    except ConfigError as error:
        fail(error)


def trust_options(**given: object) -> dict[str, object]:
    """The options of trust that were given."""
    return {name: value for name, value in given.items() if value is not None}


def run_options(**given: object) -> RunOptions:
    """The options as a value. An option that cannot be ends the command."""
    try:
        return RunOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = first["loc"][1:] if first["loc"][:1] == ("trust",) else first["loc"]
        name = "-".join(map(str, where or ("signing-key",))).replace("_", "-")
        console.err().print(f"--{name}: {first['msg']} (got {first['input']!r})", markup=False)
        raise typer.Exit(Exit.USAGE) from None

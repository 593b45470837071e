"""`rushes render`: a manifest in, clips and a results table out."""

import shlex
import sys
from typing import Annotated

import typer

from rushes.exits import Exit, fail
from rushes.run_options import (
    Address,
    AsJson,
    CatalogFile,
    Credentials,
    Device,
    Encoding,
    Fit,
    Format,
    Limit,
    Manifest,
    ModerationFile,
    Prompts,
    Signer,
    SigningCertificates,
    SigningKey,
    Snap,
    Strict,
    TemplatesFile,
    TimestampUrl,
    Unsigned,
    Variant,
    Watermark,
    moderation_option,
    run_options,
    trust_options,
)
from rushes.run_screen import RunLines, RunScreen
from schemas.audit import AuditPrompts
from schemas.clip import ClipFormat
from schemas.errors import RushesError
from schemas.trust import CredentialsMode, UnsignedRule


def render(
    manifest: Manifest,
    out: Annotated[str, typer.Option("--out", help="Where clips and results go: a folder or s3://bucket/prefix.")],
    catalog: CatalogFile = None,
    variant: Variant = None,
    limit: Limit = None,
    snap: Snap = False,
    fit: Fit = None,
    encoding: Encoding = None,
    strict: Strict = False,
    templates: TemplatesFile = None,
    clip_format: Format = ClipFormat.MP4,
    address: Address = None,
    device: Device = "auto",
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try tasks again that killed their process twice.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read and hash the clips that are done, rather than only look for them.")
    ] = False,
    stall_timeout_s: Annotated[
        float, typer.Option("--stall-timeout", help="Seconds without a denoising step after which a batch is killed.")
    ] = 1800.0,
    max_concurrent: Annotated[
        int | None, typer.Option("--max-concurrent", min=1, help="Tasks rendered at once; without it, what fits.")
    ] = None,
    credentials: Credentials = CredentialsMode.AUTO,
    signing_key: SigningKey = None,
    signing_certificates: SigningCertificates = None,
    signer: Signer = None,
    timestamp_url: TimestampUrl = None,
    watermark: Watermark = None,
    unsigned: Unsigned = UnsignedRule.FAIL,
    audit_prompts: Prompts = AuditPrompts.KEEP,
    moderation: ModerationFile = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask after the quote.")] = False,
    as_json: AsJson = False,
) -> None:
    """Render every row of MANIFEST.

    Prints the quote first, then renders. Killed or interrupted, **the same command goes on where it stopped**: a clip
    that is stored is never rendered again. A run that has a price is asked about, or needs `--yes`.

    Exit codes: 0 every row has its clip, 3 some rows failed or were rejected, 2 usage, 1 the run broke.
    """
    options = run_options(
        manifest=manifest,
        out=out,
        catalog=catalog,
        variant=variant,
        limit=limit,
        snap=snap,
        fit=fit,
        encoding=encoding,
        strict=strict,
        templates=templates,
        clip_format=clip_format,
        address=address,
        device=device,
        retry_quarantined=retry_quarantined,
        verify=verify,
        stall_timeout_s=stall_timeout_s,
        max_concurrent=max_concurrent,
        trust=trust_options(
            credentials=credentials,
            signing_key=signing_key,
            signing_certificates=signing_certificates,
            signer=signer,
            timestamp_url=timestamp_url,
            watermark=watermark,
            unsigned=unsigned,
        ),
        audit={"prompts": audit_prompts},
        moderation=moderation_option(moderation),
    )
    shown = RunScreen(yes) if sys.stderr.isatty() else RunLines(yes)
    shown.say("reading the manifest …")
    from pipelines import run as bulk
    from pipelines.report import summary_table
    from pipelines.watcher import Watcher

    watcher = Watcher(
        said=shown.say, planning=shown.planning, quoted=shown.quoted, confirm=shown.confirm, rendering=shown.rendering
    )
    try:
        with shown:
            summary = bulk.render(options, watcher)
    except KeyboardInterrupt:
        again = "rushes " + shlex.join(sys.argv[1:])
        shown.err.print(f"\nStopped. What is stored is kept; to go on:\n  {again}", markup=False, soft_wrap=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    except bulk.DeclinedError as error:
        shown.err.print(str(error), markup=False)
        raise typer.Exit(Exit.OK) from None
    except RushesError as error:
        fail(error)
    if as_json:
        print(summary.model_dump_json(indent=1))
    else:
        shown.err.print(summary_table(summary))
    raise typer.Exit(summary.exit_code)

"""What a run tells the audit log of itself: who asked for it, what it was, what came of it. One chain an attempt."""

import hashlib
from collections.abc import Mapping, Sequence
from time import time
from urllib.parse import urlsplit

from actors.audit_trail import RunAudit, Trail, fold_chains, put_anchor, untold_heads
from pipelines.chunk import Chunk
from pipelines.run_plan import RunPlan
from schemas.audit import Action, Entry, Told, canonical, details, instant, money
from schemas.catalog import Catalog
from schemas.config import Config
from schemas.run import RunOptions, RunStatus
from storage import keys
from storage.address import FolderAddress, split_object_uri
from storage.file_digests import FileDigests
from storage.store import ObjectStore
from storage.uris import head_uri
from trust.actor import os_user
from trust.audit_anchor import Anchor, anchor_signer

_MOST_FILES = 200  # of a manifest, that are told one by one; the digest is of all


class RunLog:
    """The driver's own chain. `actor` is who asked for the run: this process's user unless given."""

    def __init__(self, store: ObjectStore, options: RunOptions, config: Config, actor: str | None = None) -> None:
        self._store, self._options, self._config = store, options, config
        self._actor = actor or os_user()
        self._trail = Trail(store)

    def started(self, plan: RunPlan, catalog: Catalog, chunks: Sequence[Chunk], attempt: str = "") -> RunAudit:
        """The run is about to render. Durable when this returns."""
        self._trail.tell([self._started(plan, catalog, chunks, attempt), *self._rejected()])
        return RunAudit(self._options.run_id, self._actor, self._options.audit.prompts, self._trail.head)

    def ended(self, status: RunStatus, counts: Mapping[str, int], billed_usd: float | None, reason: str = "") -> Anchor:
        """The run is over, for now or for good: how far every chain went by then, and the anchor of it all."""
        told = {name: count for name, count in counts.items() if count}
        usd = None if billed_usd is None else money(billed_usd)
        heads = untold_heads(self._store)
        entry = self._entry(Action.RUN_ENDED, status.value, reason, billed_usd=usd, heads=heads, **told)
        self._trail.tell([Told(entry)])
        signer = anchor_signer(self._options.trust, self._config.state_dir)
        anchor = put_anchor(self._store, self._trail.head, time(), signer)
        fold_chains(self._store)
        return anchor

    def _started(self, plan: RunPlan, catalog: Catalog, chunks: Sequence[Chunk], attempt: str) -> Told:
        options, quote = self._options, plan.quote
        marks = {uri: self._mark(uri) for uri in dict.fromkeys(chunk.file.uri for chunk in chunks)}
        variants = {name: variant.digest for name, variant in catalog.variants.items()}
        used = sorted({quoted.group.variant for quoted in quote.groups})
        entry = self._entry(
            Action.RUN_STARTED,
            heads=untold_heads(self._store),
            attempt=attempt,
            manifest=_without_secrets(options.manifest),
            manifest_sha256=_together(list(marks.values())),
            files=[f"{_without_secrets(uri)} {mark}" for uri, mark in list(marks.items())[:_MOST_FILES]],
            catalog=options.catalog or "shipped",
            catalog_sha256=_sha256(canonical(variants)),
            variants=[f"{name}={catalog[name].digest}" for name in used],
            variant=options.variant,
            limit=options.limit,
            snap=options.snap,
            strict=options.strict,
            clip_format=options.clip_format.value,
            device=options.device,
            credentials=options.trust.credentials.value,
            watermark=options.trust.watermark,
            prompts=options.audit.prompts.value,
            moderation=options.moderation.model_dump_json(exclude_defaults=True) if options.moderation.is_on else None,
            rows=quote.rows,
            to_render=quote.to_render,
            already_done=quote.already_done,
            duplicates=quote.duplicates,
            rejected=quote.rejected,
            quoted_usd=money(quote.usd),
        )
        return Told(entry)

    def _rejected(self) -> list[Told]:
        """The rows that cannot be rendered: by the digests of the files that name them, with every reason."""
        told = []
        for info in self._store.list(keys.rejects_prefix(self._options.run_id)):
            body = self._store.get(info.key)
            issues = body.count(b"\n")
            sha256 = hashlib.sha256(body).hexdigest()
            told.append(Told(self._entry(Action.ROWS_REJECTED, file=info.key, sha256=sha256, issues=issues)))
        return told

    def _entry(self, action: Action, decision: str = "", reason: str = "", **more: object) -> Entry:
        return Entry(
            at=instant(time()),
            actor=self._actor,
            action=action,
            subject=f"run:{self._options.run_id}",
            decision=decision,
            reason=reason,
            details=details(**more),
        )

    def _mark(self, uri: str) -> str:
        """What stands for the content of a file of the manifest: SHA-256 here, the store's own mark elsewhere."""
        address, key = split_object_uri(uri)
        if isinstance(address, FolderAddress):
            return f"sha256={FileDigests(self._config.cache_dir).sha256(address.folder / key)}"
        found = head_uri(uri)
        return f"etag={found.etag if found else 'gone'}"


def _together(marks: Sequence[str]) -> str:
    """One file's own SHA-256 where it is known; else of all marks in their order."""
    alone = marks[0].removeprefix("sha256=") if len(marks) == 1 else ""
    return alone if len(alone) == 64 else _sha256(canonical(list(marks)))


def _without_secrets(uri: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return uri
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

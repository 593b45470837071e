"""What models would be shown of a manifest's rows: guides as videos, to be looked at before anything is rendered."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from actors.encoder import encode
from actors.guides import guide_for, side_by_side
from actors.media_reader import ConfinedMediaReader
from actors.media_source import MediaSource
from actors.weights import StoredWeights
from models.extraction import Extractors
from pipelines.catalogs import open_catalog
from pipelines.plan import Planned, PlanRules, plan_rows
from pipelines.plan_stage import rank_by_price
from pipelines.read import find_chunks, read_rows
from pipelines.row_media import RowMedia
from prompts.templates import read_templates
from schemas.catalog import Catalog, Variant
from schemas.clip import ClipFormat
from schemas.config import Config, read_config
from schemas.errors import RushesError
from schemas.run import RunOptions
from schemas.task import Task


class GuideFile(NamedTuple):
    """The guide of one row: where it is, or why there is none."""

    id: str
    path: Path | None
    error: str = ""


def guides(options: RunOptions) -> Iterator[GuideFile]:
    """Write the guide of each of the manifest's rows into the folder `options.out` as `<fingerprint>.mp4`.

    What is shown is on the left; on the right it is white where it is made anew. Rows that bring nothing to show have
    none. Loads no model.

    Raises ConfigError for a manifest or a catalog that cannot be read.
    """
    config = read_config()
    catalog = open_catalog(options.catalog, config)
    chunks = find_chunks(options.manifest, options.limit, encoding=options.encoding, out=options.out)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    extractors = Extractors(config.cache_dir, StoredWeights())
    reader = ConfinedMediaReader(MediaSource(config), config.media_timeout_s, extractors=extractors)
    try:
        for rows in read_rows(chunks, options.limit):
            yield from _of_chunk(plan_rows(rows, _rules(options, catalog, config)), catalog, reader, out)
    finally:
        reader.close()


def _rules(options: RunOptions, catalog: Catalog, config: Config) -> PlanRules:
    # Where it would run does not matter to what is shown.
    return PlanRules(
        catalog,
        partial(rank_by_price, "", options.device),
        _any,
        variant=options.variant,
        snap=options.snap,
        media=RowMedia(config),
        templates=read_templates(options.templates),
    )


def _any(_: Variant) -> bool:
    return True


def _of_chunk(planned: Planned, catalog: Catalog, reader: ConfinedMediaReader, out: Path) -> Iterator[GuideFile]:
    rejected = {reject.position: reject for reject in planned.rejects}
    for position, number in enumerate(planned.group_of):
        row_id = planned.ids[position]
        if position in rejected:
            yield GuideFile(row_id, None, rejected[position].said(planned.rows.uri))
            continue
        fingerprint = planned.fingerprints[position]
        task = Task(fingerprint, "", "", planned.seeds[position], planned.media[position])
        group = planned.groups[number]
        try:
            guide = guide_for(catalog[group.variant], group, task, reader)
        except RushesError as error:
            yield GuideFile(row_id, None, str(error))
            continue
        if guide is None:
            yield GuideFile(row_id, None)
            continue
        path = out / f"{fingerprint}.mp4"
        encode(side_by_side(guide), group.fps, ClipFormat.MP4, path)
        yield GuideFile(row_id, path)

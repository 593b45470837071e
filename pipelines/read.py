"""Find a manifest's files, cut them into chunks, and read a chunk as columns.

Every row keeps its file and its line, so that whatever is wrong with it can be pointed at; and every row of the file
is in exactly one chunk, readable or not, so that none is lost.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipelines.chunk import CHUNK_BYTES, Chunk, Cut
from pipelines.manifest_file import SUFFIXES, ManifestFile, manifest_file
from pipelines.read_csv import csv_cuts, read_csv
from pipelines.read_jsonl import jsonl_cuts, read_jsonl
from pipelines.read_parquet import parquet_cuts, read_parquet
from pipelines.rows import Rows
from schemas.errors import ConfigError, ObjectMissingError
from storage import keys
from storage.address import FolderAddress, parse_address
from storage.uris import FoundFile, list_uris


def find_chunks(
    manifest: str,
    limit: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    *,
    encoding: str | None = None,
    out: str | None = None,
) -> list[Chunk]:
    """The chunks of a file, a folder or a glob (local or s3://), in file order.

    `encoding` overrules what text files look like. What runs have written is passed over: that into `out`, and that of
    other runs below a folder. With `limit`, stops at the chunk that holds the last wanted row.

    Raises ConfigError when nothing is there, a file cannot be read or its format is unknown.
    """
    chunks: list[Chunk] = []
    left = limit
    try:
        files = list_uris(manifest, SUFFIXES)
    except ObjectMissingError as error:
        raise ConfigError(str(error)) from error
    if len(files) > 1 or files[0].uri != manifest:
        files = without_outputs(files, out)
    for found in files:
        file, cuts = _cuts(manifest_file(found, encoding), chunk_bytes, left)
        for cut in cuts:
            chunks.append(Chunk(len(chunks), file, cut))
        if left is not None:
            left -= sum(cut.rows for cut in cuts)
            if left <= 0:
                break
    if not any(chunk.cut.rows for chunk in chunks):
        raise ConfigError(f"{manifest}: the manifest is empty")
    return chunks


def read_chunk(chunk: Chunk) -> Rows:
    """Read one chunk. What is no field goes to `metadata`; a row that cannot be read becomes a `broken` one."""
    readers = {"jsonl": read_jsonl, "csv": read_csv, "parquet": read_parquet}
    return readers[chunk.file.format](chunk)


def read_rows(chunks: Iterable[Chunk], limit: int | None = None) -> Iterator[Rows]:
    """The rows of chunks, one after the other, up to `limit` rows."""
    left = limit
    for chunk in chunks:
        if left == 0:
            return
        rows = read_chunk(chunk)
        if left is not None:
            rows.cut(left)
            left -= len(rows)
        yield rows


def without_outputs(files: list[FoundFile], out: str | None) -> list[FoundFile]:
    """The files that no run has written: a run's folder is known by its `run.json` and what lies beside it."""
    folders = {f.uri.removesuffix(f"/{keys.RUN}") for f in files if f.uri.endswith(f"/{keys.RUN}")}
    roots = {folder for folder in folders if any(keys.is_output(_below(f.uri, folder) or "") for f in files)}
    if out:
        address = parse_address(out)
        roots.add(str(address.folder) if isinstance(address, FolderAddress) else str(address))

    def written(uri: str) -> bool:
        inside = [_below(uri, root) for root in roots]
        return any(key == keys.RUN or keys.is_output(key) for key in inside if key)

    return [file for file in files if not written(file.uri)]


def _below(uri: str, folder: str) -> str | None:
    return uri.removeprefix(f"{folder}/") if uri.startswith(f"{folder}/") else None


def _cuts(file: ManifestFile, chunk_bytes: int, limit: int | None) -> tuple[ManifestFile, list[Cut]]:
    """The cuts of one file, and the file with the encoding that its lines showed."""
    if file.format == "parquet":
        return file, parquet_cuts(file, limit)
    cut = csv_cuts if file.format == "csv" else jsonl_cuts
    encoding, cuts = cut(file, chunk_bytes, limit)
    if encoding != file.encoding:
        file = replace(file, encoding=encoding)
        _, cuts = cut(file, chunk_bytes, limit)
    return file, cuts

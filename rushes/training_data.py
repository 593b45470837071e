"""Training clips from wherever they are: what lies in a bucket is fetched, as `models/` reads files only.

`data` is a folder of captioned clips, a manifest, or a results table of our own run (one file, or the folder
`OUT/results/RUN` with its parts), each of them on this machine or in a bucket. A table here may name clips in a bucket.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from schemas.errors import MediaError
from storage.uris import list_uris, read_uri
from training.finetune.clips import TABLES, VIDEOS, find_examples, finished

_REMOTE = "s3://"


def on_this_machine(data: str, scratch: Path) -> Path:
    """`data` itself, or a copy of it in `scratch` (an empty folder) with every clip that it names."""
    far = data.startswith(_REMOTE)
    path = _fetched(data, scratch / "data") if far else Path(data.removeprefix("file://"))
    tables = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    tables = [table for table in tables if table.suffix.lower() in TABLES and table.is_file()]
    named = {table: list(finished(table)) for table in tables}
    far = any(place.startswith(_REMOTE) for rows in named.values() for _, _, place in rows)
    if not far and (path.is_file() or not named):
        return path
    clips = scratch / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    table = scratch / "clips.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in _near(named, clips)))
    return table


def check_examples(data: str, clips: Path) -> None:
    """Say what is wrong with training data before a model is loaded for it. Raises MediaError naming file or row."""
    examples = find_examples(clips)
    if not examples:
        raise MediaError(f"{data}: no captioned clip in it")
    for example in examples:
        if not example.path.stat().st_size:
            raise MediaError(f"{example.path}: empty")


def _near(tables: dict[Path, list[tuple[int, str, str]]], clips: Path) -> Iterator[dict[str, str]]:
    """Rows that name files of this machine; clips in a bucket are fetched."""
    for table, rows in tables.items():
        for number, prompt, place in rows:
            if place.startswith(_REMOTE):
                path = clips / f"{table.stem}-{number:06d}{PurePosixPath(place).suffix}"
                path.write_bytes(read_uri(place))
            else:
                path = Path(place.removeprefix("file://"))
                path = path if path.is_absolute() else table.parent / path
            yield {"prompt": prompt, "path": str(path.absolute())}


def _fetched(uri: str, folder: Path) -> Path:
    """A table, or a folder with its clips, captions and tables, copied from a bucket."""
    found = list_uris(uri, (*VIDEOS, *TABLES, ".txt"))
    folder.mkdir(parents=True, exist_ok=True)
    if len(found) == 1 and found[0].uri == uri:
        path = folder / PurePosixPath(uri).name
        path.write_bytes(read_uri(uri))
        return path
    for file in found:
        name = file.uri.removeprefix(uri.rstrip("/") + "/")
        if ".." in PurePosixPath(name).parts:
            raise MediaError(f"{file.uri}: a name that leads out of its folder")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_uri(file.uri))
    return folder

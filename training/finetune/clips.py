"""Captioned clips from a folder, a manifest, or a results table of our own runs.

| `data` | what is read |
| --- | --- |
| a folder with `metadata.jsonl`, `.csv` or `.parquet` | that table; paths are relative to the folder |
| any other folder | every video with a `.txt` of the same name beside it |
| a `.jsonl`, `.csv` or `.parquet` file | a row a clip: its `prompt` or `caption`, and its `uri`, `clip_uri` or `path` |

Rows whose `status` is not SUCCEEDED are passed over. Only files of this machine are read; `rushes finetune` fetches
what lies in a bucket first (`rushes/training_data.py`).
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import MediaError

VIDEOS = (".mp4", ".webm", ".gif", ".mov", ".mkv", ".avi")
TABLES = (".jsonl", ".csv", ".parquet")
_PROMPTS = ("prompt", "caption", "text")
_PATHS = ("uri", "clip_uri", "clip", "path", "file_name", "video")


@dataclass(frozen=True)
class Example:
    """One captioned clip, not yet read."""

    prompt: str
    path: Path


def find_examples(data: Path) -> list[Example]:
    """Everything that `data` names, in order. Raises MediaError saying which file or row is wrong."""
    if data.is_dir():
        for suffix in TABLES:
            if (data / f"metadata{suffix}").is_file():
                return _from_table(data / f"metadata{suffix}")
        found = [
            Example(path.with_suffix(".txt").read_text().strip(), path)
            for path in sorted(data.iterdir())
            if path.suffix.lower() in VIDEOS and path.with_suffix(".txt").is_file()
        ]
        if not found:
            raise MediaError(
                f"{data}: no captioned clips; wanted: {', '.join(VIDEOS)} with a .txt beside each, or metadata.jsonl"
            )
        return found
    if data.suffix.lower() in TABLES and data.is_file():
        return _from_table(data)
    raise MediaError(f"{data}: neither a folder nor a table; available: {', '.join(TABLES)}")


def rows_of(table: Path) -> Iterable[Mapping[str, object]]:
    """The rows of a JSONL, CSV or Parquet file."""
    if table.suffix == ".csv":
        with table.open(newline="") as file:
            yield from csv.DictReader(file)
    elif table.suffix == ".jsonl":
        for line in table.read_text().splitlines():
            if line.strip():
                yield json.loads(line)
    else:
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(table).to_pylist()


def finished(table: Path) -> Iterable[tuple[int, str, str]]:
    """Number, prompt and place of every row with a finished clip. Raises MediaError for a row that lacks either."""
    for number, row in enumerate(rows_of(table), start=1):
        if str(row.get("status") or "SUCCEEDED") != "SUCCEEDED":
            continue
        prompt = next((str(row[name]) for name in _PROMPTS if row.get(name)), None)
        place = next((str(row[name]) for name in _PATHS if row.get(name)), None)
        if prompt is None or place is None:
            wanted = "a prompt" if prompt is None else "a clip"
            choices = ", ".join(_PROMPTS if prompt is None else _PATHS)
            raise MediaError(f"{table.name}:{number}: {wanted} is missing; available columns for it: {choices}")
        yield number, prompt, place


def _from_table(table: Path) -> list[Example]:
    found = []
    for number, prompt, place in finished(table):
        path = Path(place.removeprefix("file://"))
        path = path if path.is_absolute() else table.parent / path
        if not path.is_file():
            raise MediaError(f"{table.name}:{number}: no such clip on this machine: {place}")
        found.append(Example(prompt, path))
    if not found:
        raise MediaError(f"{table}: no rows with a finished clip")
    return found


def read_clip(path: Path, width: int, height: int, frames: int) -> NDArray[np.uint8]:
    """(frames, height, width, 3): evenly picked frames, scaled to cover the shape and cut to it around the centre.

    A clip that is too short repeats its last frame. Raises MediaError when the file holds no video.
    """
    try:
        with av.open(str(path)) as container:
            decoded = [frame.to_image() for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{path}: not a readable video: {error}") from error
    if not decoded:
        raise MediaError(f"{path}: the video has no frames")
    if len(decoded) > frames:
        decoded = [decoded[i] for i in np.linspace(0, len(decoded) - 1, frames).round().astype(int)]
    decoded += [decoded[-1]] * (frames - len(decoded))
    return np.stack([np.asarray(_fitted(image, width, height)) for image in decoded])


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image.convert("RGB")
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    scaled = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return scaled.crop((left, top, left + width, top + height))

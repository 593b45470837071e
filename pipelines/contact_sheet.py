"""A picture of the first clips of a run: a strip of frames each, with its prompt."""

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_STRIP_WIDTH = 448
_THUMB_HEIGHT = 112
"""About: a strip holds as many frames as come nearest to it, within the bounds below."""
_FEWEST_FRAMES, _MOST_FRAMES = 4, 8
_GAP = 10
_BETWEEN = 3
_CAPTION_LINES = 3
_LINE_HEIGHT = 15
_INK, _PAPER, _FAINT = (28, 28, 30), (250, 249, 246), (120, 118, 112)


@dataclass(frozen=True)
class SheetEntry:
    """One clip of the sheet: frames in order (evenly taken are shown), and what to write below."""

    frames: Sequence[Image.Image]
    title: str
    caption: str


def title(row: Mapping[str, Any]) -> str:
    """What a row of the results asked for: 'a red ball, from 1.5 s: a blue cat'."""
    first, *later = json.loads(row.get("prompts") or "[]") or [{"text": row["prompt"] or ""}]
    return ", ".join([first["text"], *(f"from {turn['from_s']:g} s: {turn['text']}" for turn in later)])


def contact_sheet(entries: Sequence[SheetEntry], columns: int = 3) -> bytes:
    """A PNG with every entry. Raises ValueError without entries."""
    if not entries:
        raise ValueError("a contact sheet needs at least one clip")
    columns = min(columns, len(entries))
    strips = [_strip(entry.frames) for entry in entries]
    lines = (_CAPTION_LINES + 1) * _LINE_HEIGHT + 6
    rows = [strips[at : at + columns] for at in range(0, len(strips), columns)]
    heights = [max(strip.height for strip in row) + lines + _GAP for row in rows]
    sheet = Image.new("RGB", (columns * (_STRIP_WIDTH + _GAP) + _GAP, sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    for number, (entry, strip) in enumerate(zip(entries, strips, strict=True)):
        left = _GAP + (number % columns) * (_STRIP_WIDTH + _GAP)
        top = _GAP + sum(heights[: number // columns])
        sheet.paste(strip, (left, top))
        below = top + strip.height + 3
        for line in textwrap.wrap(entry.title, 62)[:_CAPTION_LINES]:
            draw.text((left, below), line, _INK, font)
            below += _LINE_HEIGHT
        draw.text((left, below), entry.caption, _FAINT, small)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _strip(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames side by side over the whole width: few wide ones, more tall ones, evenly taken from first to last."""
    width, height = frames[0].size
    fitting = round(_STRIP_WIDTH / (_THUMB_HEIGHT * width / height))
    count = min(max(fitting, _FEWEST_FRAMES), _MOST_FRAMES, len(frames))
    edges = [round(i * (_STRIP_WIDTH + _BETWEEN) / count) for i in range(count + 1)]
    thumb_height = max(1, round((edges[1] - _BETWEEN) * height / width))
    strip = Image.new("RGB", (_STRIP_WIDTH, thumb_height), _PAPER)
    for i, (left, right) in enumerate(pairwise(edges)):
        frame = frames[round(i * (len(frames) - 1) / max(1, count - 1))]
        smaller = frame.width > right - left
        how = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
        strip.paste(frame.resize((right - left - _BETWEEN, thumb_height), how), (left, 0))
    return strip

"""A picture of the first clips of a run: a strip of frames each, with its prompt."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_STRIP_FRAMES = 4
_THUMB_SIDE = 112
_GAP = 10
_CAPTION_LINES = 3
_LINE_HEIGHT = 15
_INK, _PAPER, _FAINT = (28, 28, 30), (250, 249, 246), (120, 118, 112)


@dataclass(frozen=True)
class SheetEntry:
    """One clip of the sheet: frames in order (evenly taken are shown), and what to write below."""

    frames: Sequence[Image.Image]
    title: str
    caption: str


def contact_sheet(entries: Sequence[SheetEntry], columns: int = 3) -> bytes:
    """A PNG with every entry. Raises ValueError without entries."""
    if not entries:
        raise ValueError("a contact sheet needs at least one clip")
    columns = min(columns, len(entries))
    cell_width = _STRIP_FRAMES * _THUMB_SIDE
    cell_height = _THUMB_SIDE + (_CAPTION_LINES + 1) * _LINE_HEIGHT + 6
    rows = -(-len(entries) // columns)
    sheet = Image.new("RGB", (columns * (cell_width + _GAP) + _GAP, rows * (cell_height + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    for number, entry in enumerate(entries):
        left = _GAP + (number % columns) * (cell_width + _GAP)
        top = _GAP + (number // columns) * (cell_height + _GAP)
        for place, frame in enumerate(_strip(entry.frames)):
            thumb = frame.copy()
            thumb.thumbnail((_THUMB_SIDE - 3, _THUMB_SIDE), Image.Resampling.LANCZOS)
            if max(thumb.size) < _THUMB_SIDE - 3:  # small clips are enlarged, pixels kept square
                scale = (_THUMB_SIDE - 3) / max(thumb.size)
                size = (round(thumb.width * scale), round(thumb.height * scale))
                thumb = thumb.resize(size, Image.Resampling.BICUBIC)
            sheet.paste(thumb, (left + place * _THUMB_SIDE, top + (_THUMB_SIDE - thumb.height) // 2))
        below = top + _THUMB_SIDE + 3
        for line in textwrap.wrap(entry.title, 62)[:_CAPTION_LINES]:
            draw.text((left, below), line, _INK, font)
            below += _LINE_HEIGHT
        draw.text((left, below), entry.caption, _FAINT, small)
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _strip(frames: Sequence[Image.Image]) -> list[Image.Image]:
    if len(frames) <= _STRIP_FRAMES:
        return list(frames)
    last = len(frames) - 1
    return [frames[round(i * last / (_STRIP_FRAMES - 1))] for i in range(_STRIP_FRAMES)]

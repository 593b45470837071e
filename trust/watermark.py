"""An invisible mark in every frame: 64 bits, by spread-transform dither modulation.

The frame is a grid of 64×64 cells, whatever its size, so that scaling moves nothing. Sixteen cells make a block; their
mean brightnesses, with signs that follow from a key, add up to the block's *projection*. The embedder changes the
cells, by as little as will do, so that the projection lies on a lattice of step Δ that the key shifts: by nothing more
for a 0, by Δ/2 more for a 1. Every fourth block is for finding the mark (*sync*), the others carry the payload with its
error correction twice, in places far apart. As the embedder knows the frame, its content does not disturb the mark;
only what is done to the clip afterwards does.

The detector looks where each projection lies between lattice points, as an angle θ. Its score is S²/M, for the sum S of
cos θ over the M sync blocks that a crop left. The shifts were drawn by chance, so in a clip without a mark
P(S²/M ≥ t) ≤ exp(−t), whatever is on it: E exp(λ·cos θ) = I₀(λ) ≤ exp(λ²/4) for a uniform angle, and an average over
frames, R·cos with R ≤ 1, is no worse. Where N places may be looked at, t = ln(N / P) keeps false alarms below P. Half
of P is for the whole frame, half for all crops.

The key is the same everywhere: whoever has this program can find the mark, and can take it away.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trust.payload import PAYLOAD_BYTES, SYMBOLS, read_symbols, symbols_of

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

FALSE_ALARMS = 1e-6
PSNR_DB = 42.5
_SPARSE, _MOST_CUT_OFF = 8, 0.1
_SHARES = tuple(np.float32(share) for share in (1.0, 0.75, 0.5, 0.25, 0.0))
_MOST_ERROR = 255.0**2 / 10 ** (42.0 / 10)  # the mean square of what is added, at the least PSNR of a frame: 42 dB
GRID = 64
_KEY = b"rushes watermark 1"
_BLOCK = 4  # cells along a block's side
_BLOCKS = GRID // _BLOCK
_CELLS = _BLOCK * _BLOCK
# The lattice's step, in units of brightness: as much as the PSNR leaves, see `embed`.
_STEP = 16.6
_ROUNDS = 6
_LEAST_SIDE = 112  # below, the encoder that publishes a clip takes the mark away
_FRAMES_SEARCHED, _FRAMES_READ = 3, 16
# Of a cropped picture: samples a cell, what a crop may take of each side in cells, and how far apart the tries are.
_FINE = 13
_MOST_CUT, _CUT_STEP, _NEAREST = 6.6, 0.3, 0.1
_NEAR = (-2 * _NEAREST, -_NEAREST, _NEAREST, 2 * _NEAREST)
_LIKELIEST = 12


@dataclass(frozen=True)
class Keys:
    """What follows from the key, by block in rows: the signs of its cells, and how far its lattice is shifted, in
    steps. `sync` are the blocks for finding the mark; `bits` the two blocks of each bit."""

    signs: Floats
    shifts: Floats
    sync: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Watermark:
    """A mark that was found. `payload` is None where it is there and cannot be read. `false_alarms` bounds the
    probability of such a score in a clip without a mark. `cut`: cells that a crop took left, right, above, below."""

    score: float
    threshold: float
    false_alarms: float
    payload: bytes | None
    cut: tuple[float, float, float, float]


@cache
def keys() -> Keys:
    """The same in every version of Python and numpy: from SHAKE-256, not from a generator of random numbers."""
    blocks = _BLOCKS * _BLOCKS
    # Half of a block's signs are positive: its projection is blind to its mean.
    ranks = np.argsort(_numbers(b"signs", blocks * _CELLS).reshape(blocks, _CELLS), axis=1, kind="stable")
    signs = np.where(ranks % 2 == 0, 1.0, -1.0).astype(np.float32)
    shifts = (_numbers(b"shifts", blocks) / 2.0**64).astype(np.float32)
    rows, columns = np.divmod(np.arange(blocks), _BLOCKS)
    is_sync = (rows % 2 == 0) & (columns % 2 == 0)
    half = _BLOCKS // 2
    # The second copy is half a frame away: whatever a crop takes, one is left.
    first = np.flatnonzero(~is_sync & (rows < half))
    second = (rows[first] + half) * _BLOCKS + (columns[first] + half) % _BLOCKS
    order = np.argsort(_numbers(b"order", len(first)), kind="stable")
    return Keys(signs, shifts, np.flatnonzero(is_sync), np.stack([first, second], axis=1)[order])


def _numbers(name: bytes, count: int) -> npt.NDArray[np.uint64]:
    data = hashlib.shake_256(_KEY + b"/" + name).digest(8 * count)
    return np.frombuffer(data, "<u8").astype(np.uint64)


def embed(frames: Pixels, payload: bytes) -> Pixels:
    """A clip, (frames, height, width, 3), with the mark in every frame: some PSNR_DB from what it was. Frames below 112
    pixels are returned as they are: they have no room for it."""
    height, width = frames.shape[1:3]
    if not has_room(frames):
        return frames
    known = keys()
    wanted = known.shifts.copy()
    bits = np.unpackbits(np.frombuffer(symbols_of(payload), np.uint8))
    wanted[known.bits] += bits[:, None] / 2
    marked = np.empty_like(frames)
    for at, frame in enumerate(frames):
        added = _resized(_field(_cells(frame)[0], wanted), (width, height))
        # Before anything is cut off at black and white, the same in all colours: no less than what comes of it.
        error = float(np.mean(np.square(np.rint(added))))
        if error > _MOST_ERROR:
            added = added * np.float32(math.sqrt(_MOST_ERROR / error))
        _add(frame, added, marked[at])
        if _cut_off(frame, added) > _MOST_CUT_OFF:
            # Black, white and pure colours hold no more than half of it: what is missing goes where there is room.
            left = _resized(_field(_cells(marked[at])[0], wanted), (width, height))
            for share in _SHARES:
                _add(frame, added + share * left, marked[at])
                if float(np.mean(np.square(marked[at].astype(np.float32) - frame))) <= _MOST_ERROR:
                    break
    return marked


def _add(frame: Pixels, added: Floats, out: Pixels) -> None:
    """Add to all three colours, and to `out`."""
    np.clip(frame + np.rint(added).astype(np.int16)[..., None], 0, 255, out=out, casting="unsafe")


def _cut_off(frame: Pixels, added: Floats) -> float:
    """Of some values of a frame, the share that has no room for what is added."""
    some = frame[::_SPARSE, ::_SPARSE] + added[::_SPARSE, ::_SPARSE, None]
    return float(np.mean((some < -0.5) | (some > 255.5)))


def has_room(frames: Pixels) -> bool:
    """Whether cells are large enough to survive being published."""
    return min(frames.shape[1:3]) >= _LEAST_SIDE


def _field(cells: Floats, wanted: Floats) -> Floats:
    """What is added to the cells so that every projection lies on its lattice."""
    signs = keys().signs
    at = _projections(cells) / _STEP
    missing = (wanted - at - np.rint(wanted - at)) * _STEP
    left, field = missing, np.zeros((GRID, GRID), np.float32)
    for _ in range(_ROUNDS):
        amounts = (left / (_gain() * math.sqrt(_CELLS))).astype(np.float32)
        field += _unblocked(signs * amounts[:, None])
        left = missing - _projections(_spread(field))
    return field


def detect(frames: Sequence[Any] | Pixels, false_alarms: float = FALSE_ALARMS) -> Watermark | None:
    """The mark of a clip, given as pictures or as an array of frames; None where there is none.

    A clip that never had one is taken for a marked one with a probability of `false_alarms` at most.
    """
    some = [np.asarray(frame) for frame in _some(frames, _FRAMES_READ)]
    if not some or min(some[0].shape[:2]) < 16:
        return None
    whole, cropped = (math.log(2 * places / false_alarms) for places in (_FRAMES_READ + 1, _places()))
    cosines = np.stack([_cosines(_projections(_cells(frame)[0])) for frame in some])
    seen = np.ones(_BLOCKS * _BLOCKS, bool)
    score = _score(cosines, seen)
    if score >= whole:
        return Watermark(score, whole, false_alarms * math.exp(whole - score), _payload(cosines, seen), _WHOLE)
    few = list(_some(some, _FRAMES_SEARCHED))
    score, cut = max(_refined(few, near) for near in _searched(few))
    if score < cropped:
        return None
    cosines, seen = _looked(some, cut)
    return Watermark(score, cropped, false_alarms * math.exp(cropped - score), _payload(cosines, seen), cut)


def _scores(cosines: Floats, seen: npt.NDArray[np.bool_]) -> Floats:
    """Of each frame, (frames, blocks) given."""
    sync = keys().sync[seen[keys().sync]]
    totals = np.maximum(0.0, np.sum(cosines[:, sync], axis=1))
    return np.asarray(totals**2 / max(1, len(sync)), np.float32)


def _score(cosines: Floats, seen: npt.NDArray[np.bool_]) -> float:
    """The best of the frames together and of each alone: encoders keep some frames better than others."""
    together = np.mean(cosines, axis=0, keepdims=True)
    return float(np.max(_scores(np.concatenate([together, cosines]), seen)))


def _payload(cosines: Floats, seen: npt.NDArray[np.bool_]) -> bytes | None:
    bits = keys().bits
    # A frame counts as much as its sync blocks are right.
    weighted = _scores(cosines, seen) @ cosines
    soft = np.sum(weighted[bits] * seen[bits], axis=1).reshape(SYMBOLS, 8)
    return read_symbols(np.packbits(soft < 0).tobytes(), [float(np.min(np.abs(symbol))) for symbol in soft])


# -- cells, blocks, projections ----------------------------------------------------------------------------------------


_Cut = tuple[float, float, float, float]
_WHOLE: _Cut = (0.0, 0.0, 0.0, 0.0)


def _cells(frame: Pixels, cut: _Cut = _WHOLE) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Mean brightness around each cell's centre, of a picture that so many cells were cut off from; and which blocks
    are there whole. The mean is weighted by a triangle, two cells wide, whose place may be any fraction of a pixel."""
    image = _luma(frame)
    spans = []
    for (low, high), size in zip((cut[:2], cut[2:]), image.size, strict=True):
        first, last = math.ceil(low), math.floor(GRID - high)
        pixels = size / (GRID - low - high)
        spans.append((first, last, (first - low) * pixels, min(size, (last - low) * pixels)))
    (left, right, x0, x1), (top, bottom, y0, y1) = spans
    seen = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
    cells = np.zeros((GRID, GRID), np.float32)
    cells[top:bottom, left:right] = np.asarray(seen, np.float32)
    return cells, np.outer(_whole(cut[2:]), _whole(cut[:2])).reshape(-1)


def _whole(cut: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Which blocks along a side are there, with what is averaged around their cells."""
    first = np.arange(_BLOCKS) * _BLOCK
    low, high = (value + 0.5 if value else 0.0 for value in cut)
    return (first >= low) & (first + _BLOCK <= GRID - high)


def _luma(frame: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(frame)).convert("L").convert("F")


def _blocked(cells: Floats) -> Floats:
    """Cells by block, (blocks, 16)."""
    return cells.reshape(_BLOCKS, _BLOCK, _BLOCKS, _BLOCK).swapaxes(1, 2).reshape(-1, _CELLS)


def _unblocked(blocks: Floats) -> Floats:
    return blocks.reshape(_BLOCKS, _BLOCKS, _BLOCK, _BLOCK).swapaxes(1, 2).reshape(GRID, GRID)


def _projections(values: Floats) -> Floats:
    return np.sum(_blocked(values) * keys().signs, axis=1) / math.sqrt(_CELLS)


def _cosines(projections: Floats) -> Floats:
    """Where each lies between lattice points: 1 is a 0, −1 a 1."""
    return np.asarray(np.cos(2 * np.pi * (projections / _STEP - keys().shifts)), np.float32)


def _spread(field: Floats) -> Floats:
    """What the cells' means change by when a field is interpolated between their centres."""
    for axis in (0, 1):
        edge = np.pad(field, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        before, after = (edge[:-2], edge[2:]) if axis == 0 else (edge[:, :-2], edge[:, 2:])
        field = ((4 * field + before + after) / 6).astype(np.float32)
    return field


@cache
def _gain() -> float:
    """How much of what is added to a block's cells comes to its projection, on the average."""
    signs = keys().signs
    return float(np.mean(_projections(_spread(_unblocked(signs))))) / math.sqrt(_CELLS)


def _resized(field: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(Image.fromarray(field, "F").resize(size, Image.Resampling.BILINEAR), np.float32)


def _some(frames: Sequence[Any] | Pixels, most: int) -> Sequence[Any] | Pixels:
    return frames[:: -(-len(frames) // most)] if len(frames) else frames


# -- crops -------------------------------------------------------------------------------------------------------------


@cache
def _cuts() -> tuple[tuple[float, float], ...]:
    """What may have been cut off at both ends of a side, in cells."""
    steps = [k * _CUT_STEP for k in range(int(_MOST_CUT / _CUT_STEP) + 1)]
    return tuple((low, high) for low in steps for high in steps if low + high <= _MOST_CUT + 1e-6)


@cache
def _places() -> int:
    """How many crops might be looked at, by each of a few frames and by all of them together: all that the steps of
    `_refined` may come to, as which of them it takes depends on the clip."""
    steps = round(_MOST_CUT / _NEAREST)
    return ((steps + 1) * (steps + 2) // 2) ** 2 * (_FRAMES_SEARCHED + 1)


def _centres(cut: tuple[float, float], size: int) -> npt.NDArray[np.int64]:
    """The samples at the cells' centres, along a side that so many cells were cut off from."""
    at = (np.arange(GRID) + 0.5 - cut[0]) * size / (GRID - sum(cut))
    return np.clip(np.rint(at - 0.5).astype(np.int64), 0, size - 1)


def _fine(frame: Pixels) -> Floats:
    """The means around every place, at about `_FINE` samples a cell of a picture that lost half of what it may have."""
    from scipy.ndimage import uniform_filter  # late: only crops need it

    side = round(_FINE * (GRID - _MOST_CUT / 2))
    picture = np.asarray(_luma(frame).resize((side, side), Image.Resampling.BILINEAR), np.float32)
    return uniform_filter(uniform_filter(picture, _FINE, mode="nearest"), _FINE, mode="nearest")


def _searched(frames: Sequence[Pixels]) -> list[_Cut]:
    """The likeliest crops, by the sync blocks of a few frames, looked at as if of a middling crop."""
    known = keys()
    fine = [_fine(frame) for frame in frames]
    height, width = fine[0].shape
    # Sync blocks stand in every second row and column of blocks.
    wanted = np.flatnonzero(np.arange(GRID) // _BLOCK % 2 == 0)
    signs = _unblocked(known.signs)[np.ix_(wanted, wanted)]
    shifts = known.shifts[known.sync].reshape(_BLOCKS // 2, _BLOCKS // 2)
    across = np.stack([_centres(cut, width)[wanted] for cut in _cuts()])
    whole_across = np.stack([_whole(cut)[::2] for cut in _cuts()])
    found: list[tuple[float, _Cut]] = []
    for above_below in _cuts():
        at = _centres(above_below, height)
        whole = _whole(above_below)[::2]
        cosines = np.zeros((len(fine), len(_cuts()), *shifts.shape), np.float32)
        for frame, picture in enumerate(fine):
            seen = picture[at[wanted]][:, across] * signs[:, None, :]  # (rows, cuts, columns)
            blocks = seen.reshape(_BLOCKS // 2, _BLOCK, len(_cuts()), _BLOCKS // 2, _BLOCK).sum(axis=(1, 4))
            projections = blocks.swapaxes(0, 1) / math.sqrt(_CELLS)
            cosines[frame] = np.cos(2 * np.pi * (projections / _STEP - shifts))
        both = whole[None, :, None] & whole_across[:, None, :]
        totals = np.sum(cosines * both, axis=(2, 3))
        totals = np.concatenate([totals, totals.mean(axis=0, keepdims=True)]).max(axis=0)
        scores = np.where(totals > 0, totals**2 / np.maximum(1, both.sum(axis=(1, 2))), 0.0)
        top = int(np.argmax(scores))
        found.append((float(scores[top]), (*_cuts()[top], *above_below)))
    return [cut for _, cut in sorted(found, reverse=True)[:_LIKELIEST]]


def _refined(frames: Sequence[Pixels], cut: _Cut) -> tuple[float, _Cut]:
    """The best crop near by, looked at as what it is, one side after another; and its score."""
    best = _score(*_looked(frames, cut)), cut
    for side in (0, 1, 2, 3) * 2:
        for by in _NEAR:
            moved = [value + by if k == side else value for k, value in enumerate(best[1])]
            if moved[side] >= 0.0 and max(moved[0] + moved[1], moved[2] + moved[3]) <= _MOST_CUT + 1e-6:
                near: _Cut = (moved[0], moved[1], moved[2], moved[3])
                best = max(best, (_score(*_looked(frames, near)), near))
    return best


def _looked(frames: Sequence[Pixels], cut: _Cut) -> tuple[Floats, npt.NDArray[np.bool_]]:
    looks = [_cells(frame, cut) for frame in frames]
    return np.stack([_cosines(_projections(cells)) for cells, _ in looks]), looks[0][1]


__all__ = ["FALSE_ALARMS", "PAYLOAD_BYTES", "PSNR_DB", "Watermark", "detect", "embed", "has_room", "keys"]

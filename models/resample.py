"""The floor of finishing: clips made larger, smoother or of another size by FFmpeg's filters. No torch, no weights.

Clips are uint8 (frames, height, width, 3). The same clip gives the same bytes on any machine with the same FFmpeg:
filters run exactly rounded and in one thread.
"""

from fractions import Fraction

import numpy as np

from models.model import Frames
from schemas.finish import FitMode

# Planes of colour, so that scaling mixes none of them; whole-number rounding that no vector code changes.
_SCALE = "lanczos+accurate_rnd+full_chroma_int+bitexact"
_FRAMES_AT_ONCE = 16


def scaled(frames: Frames, width: int, height: int) -> Frames:
    """Every frame at width × height pixels, by Lanczos."""
    if frames.shape[1:3] == (height, width):
        return frames
    filters = (("format", "gbrp"), ("scale", f"{width}:{height}:flags={_SCALE}"), ("format", "rgb24"))
    return _filtered(frames, Fraction(25), filters, len(frames))


def fitted(frames: Frames, width: int, height: int, mode: FitMode) -> Frames:
    """Every frame at exactly width × height: in bars (`pad`), cut at its edges (`crop`), or out of proportion."""
    own_height, own_width = frames.shape[1:3]
    if mode == "stretch":
        return scaled(frames, width, height)
    ratios = (width / own_width, height / own_height)
    scale = max(ratios) if mode == "crop" else min(ratios)
    inner_width, inner_height = max(1, round(own_width * scale)), max(1, round(own_height * scale))
    if mode == "crop":
        inner_width, inner_height = max(width, inner_width), max(height, inner_height)
        inner = scaled(frames, inner_width, inner_height)
        left, top = (inner_width - width) // 2, (inner_height - height) // 2
        return np.ascontiguousarray(inner[:, top : top + height, left : left + width])
    inner_width, inner_height = min(width, inner_width), min(height, inner_height)
    inner = scaled(frames, inner_width, inner_height)
    out = np.zeros((len(frames), height, width, 3), np.uint8)
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    out[:, top : top + inner_height, left : left + inner_width] = inner
    return out


def blended(frames: Frames, fps: float, to_fps: float, count: int) -> Frames:
    """`count` frames at `to_fps`, each mixed of the two that are on screen before and after its instant. The last
    frame is held, so that the clip stays as long as it was."""
    out = np.empty((count, *frames.shape[1:]), np.uint8)
    places = np.minimum(np.arange(count) * (fps / to_fps), len(frames) - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(frames) - 1)
    share = (places - before).astype(np.float32)[:, None, None, None]
    for start in range(0, count, _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        mixed = frames[before[part]] * (1 - share[part]) + frames[after[part]] * share[part]
        out[part] = np.rint(mixed).astype(np.uint8)
    return out


def moved(frames: Frames, fps: float, to_fps: float, count: int) -> Frames:
    """`count` frames at `to_fps`, along the motion that FFmpeg's `minterpolate` estimates. The last frame is held."""
    rate, wanted = Fraction(fps).limit_denominator(1001), Fraction(to_fps).limit_denominator(1001)
    # It looks ahead, and keeps back what it has no frames after.
    held = np.concatenate([frames, np.repeat(frames[-1:], 4, axis=0)])
    how = f"fps={wanted}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"
    filters = (("format", "yuv444p"), ("minterpolate", how), ("format", "rgb24"))
    return _filtered(held, rate, filters, count)


def _filtered(frames: Frames, rate: Fraction, filters: tuple[tuple[str, str], ...], count: int) -> Frames:
    """The first `count` frames that come out of a chain of FFmpeg's filters; the last is repeated where they are
    fewer."""
    import av
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    height, width = frames.shape[1:3]
    last = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / rate)
    first = last
    for name, told in filters:
        node = graph.add(name, told)
        last.link_to(node)
        last = node
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    out: list[Frames] = []

    def take() -> None:
        while len(out) < count:
            try:
                pulled = sink.pull()
                assert isinstance(pulled, av.VideoFrame)
                out.append(pulled.to_ndarray(format="rgb24"))
            except (av.BlockingIOError, av.EOFError):
                return

    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = number, 1 / rate
        first.push(frame)
        take()
    first.push(None)
    take()
    return np.stack(out + [out[-1]] * (count - len(out)))

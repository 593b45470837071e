"""Frames into files: H.264 MP4, WebM, GIF, or PNGs in a zip; a poster; and what was rendered, inside each file.

The same frames with the same metadata give the same bytes, on any machine with the same FFmpeg: the number of
encoder threads is fixed, nothing writes a date, and x264 does without its macroblock tree. Encoding
runs on the CPU: a GPU second costs far more.
"""

import io
import itertools
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.model import Frames, Sound
from schemas.clip import ClipFormat
from schemas.errors import BadOutputError, MediaError

# BT.709, limited range: what players assume of HD video, said in the file so that none has to assume.
_BT709 = 1
_OPUS_HZ = 48_000
_LAYOUTS = {1: "mono", 2: "stereo"}  # of sound, by its channels
_LIMITED = 1
_TITLE_CHARS = 200
_METADATA_FILE = "metadata.json"
# libx264 165 reads memory that it never wrote in the vector code of its macroblock tree, where a clip's width is not
# a multiple of 128: the same frames then give other bytes, with one thread too. Without the tree, files of equal
# PSNR are some 15 % larger, at a `crf` that is higher by two.
_X264_PARAMS = "mbtree=0"


@dataclass(frozen=True)
class EncoderSettings:
    """Lower `crf` is better and larger: 20 looks lossless in H.264, 25 is half the bytes."""

    crf: int = 20
    preset: str = "fast"
    webm_crf: int = 30
    threads: int = 2


def encode(
    frames: Frames,
    fps: float,
    clip_format: ClipFormat,
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    settings: EncoderSettings = EncoderSettings(),
    sound: Sound | None = None,
) -> None:
    """Write `frames`, (frames, height, width, 3) in 0…255, to `path`. `read_metadata(path)` gives `metadata` back.

    `sound` is made as long as the frames, and is AAC in an MP4, Opus in WebM; other formats hold none.

    H.264 and VP9 hold colour for each 2×2 pixels, so an odd side is padded by its own last row or column.
    Raises BadOutputError for an array that is no clip.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise BadOutputError(f"not a clip: {frames.dtype} {frames.shape}; a clip is uint8 (frames, height, width, 3)")
    text = json.dumps(dict(metadata or {}), sort_keys=True, ensure_ascii=False)
    title = str((metadata or {}).get("prompt", ""))[:_TITLE_CHARS]
    if clip_format is ClipFormat.GIF:
        _write_gif(frames, fps, path, text)
    elif clip_format is ClipFormat.PNG:
        _write_pngs(frames, path, text)
    else:
        heard = sound.of_length(len(frames) / fps) if sound is not None else None
        _write_video(_even(frames), fps, clip_format, path, {"title": title, "comment": text}, settings, heard)


def poster(frames: Frames, quality: int = 88) -> bytes:
    """The middle frame as JPEG: first frames are often still forming, or are the very image that came in."""
    out = io.BytesIO()
    Image.fromarray(frames[len(frames) // 2]).save(out, "JPEG", quality=quality)
    return out.getvalue()


def read_metadata(path: Path) -> dict[str, Any]:
    """What `encode` was given. Raises MediaError when the file cannot be read or holds nothing of ours."""
    import av

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                text = archive.read(_METADATA_FILE).decode()
        elif path.suffix == ".gif":
            with Image.open(path) as image:
                text = bytes(image.info.get("comment", b"")).decode()
        else:
            with av.open(str(path)) as container:
                tags = {key.lower(): value for key, value in container.metadata.items()}
            text = tags.get("comment", "")
        found = json.loads(text)
    except (OSError, KeyError, ValueError) as error:
        raise MediaError(f"{path}: holds no metadata of a clip: {error}") from error
    if not isinstance(found, dict):
        raise MediaError(f"{path}: its comment is not a clip's metadata")
    return found


def _write_video(
    frames: Frames,
    fps: float,
    clip_format: ClipFormat,
    path: Path,
    tags: Mapping[str, str],
    settings: EncoderSettings,
    sound: Sound | None = None,
) -> None:
    import av

    mp4 = clip_format is ClipFormat.MP4
    # The index goes to the front, so that a browser plays before it has the whole file.
    options = {"movflags": "+faststart"} if mp4 else {}
    codec_options = (
        {"crf": str(settings.crf), "preset": settings.preset, "x264-params": _X264_PARAMS}
        if mp4
        else {"crf": str(settings.webm_crf), "b:v": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
    )
    # bitexact leaves out the random numbers with which Matroska names a file and its tracks.
    with av.open(str(path), "w", format=clip_format.value, options={**options, "fflags": "+bitexact"}) as container:
        container.metadata.update(tags)
        stream: Any = container.add_stream("libx264" if mp4 else "libvpx-vp9", rate=frame_rate(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = codec_options
        stream.thread_count = settings.threads
        context = stream.codec_context
        context.color_range, context.colorspace = _LIMITED, _BT709
        context.color_primaries, context.color_trc = _BT709, _BT709
        track = _sound_track(container, mp4, sound) if sound is not None else None
        for pixels in frames:
            rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.color_primaries = frame.color_trc = _BT709
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _write_sound(container, track, sound)


def _sound_track(container: Any, mp4: bool, sound: Sound) -> Any:
    # Opus knows a few rates only; it is resampled to its own.
    track = container.add_stream("aac" if mp4 else "libopus", rate=sound.rate_hz if mp4 else _OPUS_HZ)
    track.layout = _LAYOUTS[sound.samples.shape[0]]
    return track


def _write_sound(container: Any, track: Any, sound: Sound) -> None:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.samples), "fltp", _LAYOUTS[sound.samples.shape[0]])
    frame.sample_rate = sound.rate_hz
    frame.pts = 0
    wanted = track.codec_context
    resampler = av.AudioResampler(wanted.format, wanted.layout, wanted.sample_rate, wanted.frame_size or None)
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(track.encode(piece))
    container.mux(track.encode(None))


def _write_gif(frames: Frames, fps: float, path: Path, comment: str) -> None:
    # A GIF's clock ticks hundredths: rounding the instants rather than the durations keeps the clip's length.
    instants = [round(100 * k / fps) for k in range(len(frames) + 1)]
    durations_ms = [10 * max(2, after - before) for before, after in itertools.pairwise(instants)]
    first, *rest = (Image.fromarray(pixels) for pixels in frames)
    first.save(path, "GIF", save_all=True, append_images=rest, duration=durations_ms, loop=0, comment=comment.encode())


def _write_pngs(frames: Frames, path: Path, text: str) -> None:
    # Stored, not deflated: PNG is already. Dates are fixed, as zip cannot leave them out.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index, pixels in enumerate(frames, start=1):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            archive.writestr(zipfile.ZipInfo(f"frame-{index:05d}.png"), png.getvalue())
        archive.writestr(zipfile.ZipInfo(_METADATA_FILE), text)


def frame_rate(fps: float) -> Fraction:
    """A decimal frame rate as the fraction that it means: 23.976 is 24000/1001, 7.5 is 15/2."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    if ntsc and abs(float(ntsc) - fps) < 0.002 and not float(fps).is_integer():
        return ntsc
    return Fraction(fps).limit_denominator(1000)


def _even(frames: Frames) -> Frames:
    height, width = frames.shape[1:3]
    if height % 2 == 0 and width % 2 == 0:
        return frames
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")

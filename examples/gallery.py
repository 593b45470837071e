"""Write a manifest with one row a capability, and the drawn images and videos that its rows bring.

    python examples/gallery.py FOLDER        then: rushes render FOLDER/gallery.jsonl --out OUT

`make gallery` does both. Everything is drawn here, with PIL, in the way that the embedded model `directed` was taught:
outlines in white on black, masks in white. The row's `id` names what it shows.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

SIDE, FRAMES, FPS = 128, 17, 8
RED, ORANGE, GREEN, PURPLE = (224, 32, 40), (240, 140, 30), (40, 176, 60), (140, 50, 210)
WHITE, BLACK, BEIGE, NAVY = (240, 240, 240), (15, 15, 15), (225, 210, 170), (20, 30, 90)
Draw = Callable[[ImageDraw.ImageDraw, float], None]


def picture(ground: tuple[int, int, int], draw: Draw, share: float = 0.0) -> Image.Image:
    """One frame: what `draw` puts on a plain ground at a share of the clip, 0 to 1. Drawn large, so that edges are
    smooth."""
    large = Image.new("RGB", (4 * SIDE, 4 * SIDE), ground)
    draw(ImageDraw.Draw(large), share)
    return large.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def video(path: Path, ground: tuple[int, int, int], draw: Draw) -> None:
    """The frames of a clip, as an MP4 without visible loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv444p"
        for number in range(FRAMES):
            frame = picture(ground, draw, number / (FRAMES - 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        container.mux(stream.encode())


def disc(colour: tuple[int, int, int], way: Sequence[tuple[float, float]], radius: float = 0.16) -> Draw:
    """A disc that goes from the first to the last of two points, in shares of the picture."""

    def draw(pen: ImageDraw.ImageDraw, share: float) -> None:
        x, y = (4 * SIDE * (a + (b - a) * share) for a, b in zip(way[0], way[-1], strict=True))
        r = 4 * SIDE * radius
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    return draw


def box(way: Sequence[tuple[float, float]], half: float, fill: bool = False) -> Draw:
    """A square on its way, as a white outline or filled with white."""

    def draw(pen: ImageDraw.ImageDraw, share: float) -> None:
        x, y = (4 * SIDE * (a + (b - a) * share) for a, b in zip(way[0], way[-1], strict=True))
        r = 4 * SIDE * half
        pen.rectangle((x - r, y - r, x + r, y + r), outline="white", width=8, fill="white" if fill else None)

    return draw


def triangle(way: Sequence[tuple[float, float]]) -> Draw:
    """The white outline of a triangle on its way."""

    def draw(pen: ImageDraw.ImageDraw, share: float) -> None:
        x, y = (4 * SIDE * (a + (b - a) * share) for a, b in zip(way[0], way[-1], strict=True))
        r = 4 * SIDE * 0.2
        corners = [(x + r * np.sin(turn), y - r * np.cos(turn)) for turn in (0.0, 2.0944, 4.1888)]
        pen.polygon(corners, outline="white", width=8)

    return draw


def rows(media: Path) -> list[dict[str, Any]]:
    """The rows, their media drawn into `media`."""
    media.mkdir(parents=True, exist_ok=True)
    left_to_right = ((0.3, 0.5), (0.7, 0.5))
    picture(BEIGE, disc(ORANGE, ((0.3, 0.5), (0.3, 0.5)))).save(media / "first.png")
    picture(NAVY, disc(GREEN, ((0.7, 0.5), (0.7, 0.5)))).save(media / "last.png")
    picture(WHITE, disc(PURPLE, ((0.5, 0.5), (0.5, 0.5)), 0.3)).save(media / "style.png")
    picture(BLACK, box(((0.3, 0.5), (0.3, 0.5)), 0.34, fill=True)).save(media / "mask.png")
    video(media / "source.mp4", WHITE, disc(RED, ((0.3, 0.35), (0.3, 0.65))))
    video(media / "edges.mp4", BLACK, triangle(left_to_right))
    video(media / "boxes.mp4", BLACK, box(left_to_right, 0.2))

    def asks(name: str, prompt: str, variant: str = "directed", **more: Any) -> dict[str, Any]:
        return {"id": name, "prompt": prompt, "variant": variant, **more}

    def given(role: str, file: str, **more: Any) -> dict[str, Any]:
        return {"role": role, "image" if file.endswith(".png") else "video": file, **more}

    return [
        asks("text", "a red triangle moving up on a white background"),
        asks("text, wide", "a purple square moving right on a black background", width=160, height=96),
        asks("text, tall", "a yellow circle moving down on a navy background", width=96, height=160),
        asks("two shapes", "a red circle moving left and a blue square moving right on a white background"),
        asks("camera in words", "a green circle on a beige background, the camera zooms in"),
        asks("first frame", "an orange circle moving right", inputs=[given("first_frame", "first.png")]),
        asks("last frame", "a green circle moving right", inputs=[given("last_frame", "last.png")]),
        asks("structure: edges", "a blue triangle on a black background",
             inputs=[given("structure", "edges.mp4", kind="edges")]),
        asks("structure: edges that are found", "a yellow circle on a navy background",
             inputs=[given("structure", "source.mp4", kind="edges", extract=True)]),
        asks("structure: boxes", "a green square on a white background",
             inputs=[given("structure", "boxes.mp4", kind="boxes")]),
        asks("path", "a red circle following the path on a navy background", paths=[
            {"label": "red circle", "box": [0.1, 0.1, 0.36, 0.36],
             "keys": [{"at_s": 1, "x": 0.65, "y": 0.3}, {"at_s": 2, "x": 0.5, "y": 0.75}]}]),
        asks("mask", "a blue square standing still on a white background",
             inputs=[given("source", "source.mp4"), given("mask", "mask.png")]),
        asks("edit: region of a source, reversed", "a green triangle standing still on a white background",
             inputs=[given("source", "source.mp4")], edit={"reverse": True, "region": [0.05, 0.12, 0.55, 0.88]}),
        asks("six seconds, three prompts", "a red circle", duration_s=6, prompts=[
            {"from_s": 0, "text": "moving right on a white background"},
            {"from_s": 2, "text": "moving down on a white background"},
            {"from_s": 4, "text": "moving left on a white background"}]),
        asks("style", "a triangle moving left in the style of the reference", inputs=[given("style", "style.png")]),
        asks("finish: interpolate, upscale", "a cyan star moving down on a black background", "embedded-turbo",
             finish=[{"interpolate": 24}, {"upscale": 2}]),
        asks("finish: fit", "a blue circle moving right on a beige background", "embedded-turbo",
             finish=[{"fit": "pad", "size": "192:108"}]),
        asks("finish: reframe", "a red square standing still on a white background",
             finish=[{"reframe": [{"at_s": 2, "pan": 8, "zoom": 1.3, "ease": "in-out"}]}]),
        asks("samples", "a pink star spinning on a navy background", "embedded-turbo", samples=2),
        {"id": "template", "template": "motion", "variant": "embedded-turbo",
         "slots": {"subject": "a purple square", "direction": "up", "background": "a white background"}},
    ]  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    told = rows(folder)
    manifest = folder / "gallery.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    print(f"{len(told)} rows in {manifest}")


if __name__ == "__main__":
    main()

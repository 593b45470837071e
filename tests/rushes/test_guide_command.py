"""`rushes guide`: what a model would be shown, as a video, without a model."""

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image
from typer.testing import CliRunner

from rushes.cli import app
from rushes.exits import Exit

CATALOG = """
[variants.vace]
pipeline = "WanVACEPipeline"
weights = "nobody/loads-it"
modes = ["text_to_video", "image_to_video", "video_to_video"]
steps = 2
fps = 8
shape = { divisor = 16, frame_step = 4, frame_offset = 1, max_frames = 33, max_pixels = 65536, native = [[64, 32, 9]] }
latent = { channels = 16, spatial = 8, temporal = 4 }
"""


def test_the_guide_of_each_row_is_a_video_of_what_is_shown_and_its_mask(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 32), (30, 230, 30))
    picture.paste((230, 30, 30), (32, 0, 48, 32))
    picture.save(tmp_path / "a.png")
    (tmp_path / "c.toml").write_text(CATALOG)
    rows = [
        {"id": "pans", "prompt": "x", "image": "a.png", "camera": [{"at_s": 1, "truck": 0.25}]},
        {"id": "text", "template": "motion", "slots": {"subject": "x"}},
        {"id": "wrong", "prompt": "x", "camera": [{"at_s": 1, "yaw": 3}]},
        {"id": "left out", "prompt": "x"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"variant": "vace", **row}) + "\n" for row in rows))
    words = ["guide", str(tmp_path / "m.jsonl"), "--catalog", str(tmp_path / "c.toml"), "--limit", "3"]
    told = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert told.exit_code == Exit.INCOMPLETE, told.output
    name, path = told.stdout.strip().split("\t")
    assert name == "pans"
    assert "text: nothing is shown to the model but its text" in told.stderr
    assert "m.jsonl:3: camera.0.yaw: no field is called 'yaw'; available: at_s" in told.stderr
    assert "left out" not in told.output
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(frames) == 9
    assert frames[0].shape == (32, 128, 3)
    red = [np.nonzero(frame[16, :64, 0] > 150)[0].mean() for frame in (frames[0], frames[-1])]
    assert abs(red[0] - red[1] - 16) < 1.5
    assert frames[-1][16, 64:108].max() < 40, "kept"
    assert frames[-1][16, 116:].min() > 215, "made anew"

"""Structures found in plain pictures: where they are, kept by content, and what is told when they cannot be found."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from transformers import (
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)

from models.extraction import Extractors
from models.pose import Keypoint, drawn
from schemas.errors import ConfigError, VariantLoadError
from schemas.extract import Extraction, Extractor

SIDE, FRAMES = 32, 3
CANNY = Extraction(method="canny")


def pixels(picture: Any) -> npt.NDArray[np.uint8]:
    assert isinstance(picture, Image.Image)
    return np.asarray(picture)


def square(left: int = 8) -> Image.Image:
    """Gray on black, 12 pixels wide."""
    image = Image.new("RGB", (SIDE, SIDE))
    image.paste((130, 130, 130), (left, 8, left + 12, 20))
    return image


def test_edges_are_where_a_shape_ends_and_nowhere_else() -> None:
    found = pixels(Extractors()(CANNY, square()))
    assert found.shape == (SIDE, SIDE, 3)
    assert set(np.unique(found)) == {0, 255}
    rows, columns = np.nonzero(found[..., 0])
    near = lambda at, ends: np.abs(np.asarray(at)[:, None] - ends).min(axis=1)  # noqa: E731
    assert (np.minimum(near(rows, (8, 20)), near(columns, (8, 20))) <= 1).all()
    assert len(rows) >= 4 * 10


def test_every_frame_of_a_video_has_its_own_edges() -> None:
    found = Extractors()(CANNY, tuple(square(left) for left in (2, 8, 14)))
    assert isinstance(found, tuple)
    means = [np.nonzero(pixels(frame)[..., 0])[1].mean() for frame in found]
    assert np.allclose(np.diff(means), 6, atol=0.5)


def test_thresholds_decide_what_is_an_edge() -> None:
    strict = Extraction(method="canny", low=900, high=1000)
    assert pixels(Extractors()(strict, square())).max() == 0
    assert pixels(Extractors()(CANNY, square())).max() == 255


def test_what_was_found_is_kept_by_content_and_by_how(tmp_path: Path) -> None:
    one, other = Extractors(tmp_path), Extractors(tmp_path)
    first = pixels(one(CANNY, square()))
    assert (pixels(other(CANNY, square())) == first).all()
    assert (one.found, other.found) == (1, 0), "a second process takes it from the cache"
    other(CANNY, square(9))
    other(Extraction(method="canny", high=300), square())
    assert other.found == 2, "another picture, and other thresholds"
    (kept, *_) = sorted((tmp_path / "structures").iterdir())
    for file in (tmp_path / "structures").iterdir():
        file.write_bytes(b"damaged")
    assert (pixels(Extractors(tmp_path)(CANNY, square())) == first).all(), "a damaged file is made again"
    assert kept.suffix == ".npz"


def test_without_opencv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"edges are found by OpenCV: pip install 'rushes\[structure\]'"):
        Extractors()(CANNY, square())


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DPT: real classes, random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("depth")
    sizes: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 32, "patch_size": 8, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8],
        "fusion_hidden_size": 8, "is_hybrid": False, "reassemble_factors": [4, 2, 1, 0.5],
    }  # fmt: skip
    DPTForDepthEstimation(DPTConfig(**sizes)).save_pretrained(folder)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_depth_is_what_the_named_model_says_from_black_to_white_over_the_whole_video(depth: Path) -> None:
    video = tuple(square(left) for left in (2, 8, 14))
    found = Extractors()(Extraction(method="depth", weights=str(depth)), video)
    assert isinstance(found, tuple)
    shown = np.stack([pixels(frame) for frame in found])
    assert shown.shape == (FRAMES, SIDE, SIDE, 3)
    assert (shown.min(), shown.max()) == (0, 255)
    model, processor = DPTForDepthEstimation.from_pretrained(depth), DPTImageProcessor.from_pretrained(depth)
    with torch.inference_mode():
        maps = model(**processor(images=list(video), return_tensors="pt")).predicted_depth[:, None]
    said = torch.nn.functional.interpolate(maps, (SIDE, SIDE), mode="bicubic", align_corners=False)[:, 0].numpy()
    expected = (said - said.min()) / (said.max() - said.min()) * 255
    assert np.abs(shown[..., 0] - expected).max() <= 1


HIDDEN, GRID, PATCH = 32, (8, 6), 16  # rows and columns of patches, pixels of one
# Patches of a figure that stands: by COCO's numbers, (row, column). Its left is our right.
STANDING = {0: (1, 2), 5: (2, 4), 6: (2, 1), 11: (4, 4), 12: (4, 1)}
COLOURS = {0: (255, 0, 0), 11: (0, 85, 255), 12: (0, 255, 170)}  # OpenPose's, of nose and hips


def pose_model(folder: Path, keypoints: int = 17) -> Path:
    """A real ViTPose whose weights are set by hand: it sees keypoints of `STANDING` in every picture, and no others."""
    backbone = VitPoseBackboneConfig(
        image_size=[PATCH * side for side in GRID],
        patch_size=[PATCH, PATCH],
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=1,
        out_indices=[1],
    )
    model = VitPoseForPoseEstimation(
        VitPoseConfig(backbone_config=backbone, num_labels=keypoints, scale_factor=4)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.backbone.layernorm.weight.fill_(1.0)
        places = model.backbone.embeddings.position_embeddings[0]
        for number, (row, column) in STANDING.items():
            places[1 + row * GRID[1] + column, number] = 1.0
        heads = range(min(keypoints, HIDDEN))
        model.head.conv.weight[heads, heads, 1, 1] = 1.0
    model.save_pretrained(folder)
    VitPoseImageProcessor(size={"height": PATCH * GRID[0], "width": PATCH * GRID[1]}).save_pretrained(folder)
    return folder


def test_a_pose_is_drawn_where_the_named_model_sees_it(tmp_path: Path) -> None:
    height, width = (PATCH * side for side in GRID)
    how = Extraction(method="pose", weights=str(pose_model(tmp_path)))
    found = Extractors()(how, (Image.new("RGB", (width, height)),) * 9)
    assert isinstance(found, tuple)
    shown = pixels(found[8])
    assert (len(found), shown.shape) == (9, (height, width, 3))
    assert all((pixels(one) == shown).all() for one in found)
    for number, colour in COLOURS.items():
        at = np.argwhere((shown == colour).all(axis=2))
        # The picture is looked at with a margin: a patch is 1.25 times as large in it.
        middles = ((place + 0.5) * PATCH for place in STANDING[number])
        expected = [side / 2 + 1.25 * (one - side / 2) for one, side in zip(middles, (height, width), strict=True)]
        assert len(at), number
        assert np.abs(at - expected).max() < 8, (number, at, expected)


def test_a_limb_joins_the_keypoints_that_are_seen() -> None:
    unseen = Keypoint(0, 0, 0.1)
    points = [unseen] * 17
    points[5], points[7] = Keypoint(20, 10, 0.9), Keypoint(20, 50, 0.9)
    found = np.asarray(drawn([points], 64, 64))
    assert found[30, 20].max() > 0, "between shoulder and elbow"
    assert found[:, :15].max() == 0
    assert found[:, 26:].max() == 0, "the other shoulder is not seen, so there is no neck"
    assert np.asarray(drawn([[unseen] * 17], 64, 64)).max() == 0
    assert np.asarray(drawn([], 64, 64)).max() == 0


def test_a_model_of_other_keypoints_is_refused(tmp_path: Path) -> None:
    how = Extraction(method="pose", weights=str(pose_model(tmp_path, keypoints=21)))
    with pytest.raises(VariantLoadError, match="it finds 21 keypoints; available: models of COCO's 17"):
        Extractors()(how, square())


def test_a_model_is_loaded_once(depth: Path) -> None:
    extractors = Extractors()
    how = Extraction(method="depth", weights=str(depth))
    extractors(how, square())
    (loaded,) = extractors._loaded.values()
    extractors(how, square(3))
    assert list(extractors._loaded.values()) == [loaded]


def test_weights_that_are_not_there_or_of_something_else_are_told(tmp_path: Path) -> None:
    with pytest.raises(VariantLoadError, match="gone: no such folder on this machine"):
        Extractors()(Extraction(method="depth", weights=str(tmp_path / "gone")), square())
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(VariantLoadError, match=f"depth of {tmp_path}"):
        Extractors()(Extraction(method="depth", weights=str(tmp_path)), square())
    (tmp_path / "model.bin").write_bytes(b"pickle")
    with pytest.raises(VariantLoadError, match=r"model.bin is a pickle"):
        Extractors()(Extraction(method="depth", weights=str(tmp_path)), square())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "depth"}, "depth needs weights"),
        ({"method": "canny", "weights": "a/b"}, "canny takes no weights"),
        ({"method": "canny", "low": 300}, r"low \(300\) is above high \(200\)"),
        ({"method": "depth", "weights": "a/b", "low": 3}, "depth takes no low and high"),
        ({"method": "sobel"}, "'canny'"),
    ],
)
def test_an_extractor_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Extractor(name="one", **fields)

"""Examples of the catalog: what the form of the page cannot hold, or the variant not do, is refused with its place."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from schemas.catalog import parse_catalog, shipped_catalog
from schemas.errors import CatalogError
from schemas.examples import MAX_MEDIUM_CHARS

VARIANT = """
[variants.small]
pipeline = "WanVACEPipeline"
weights = "./weights"
modes = ["text_to_video", "image_to_video"]
conditions = ["first_frame"]
steps = 8
fps = 8
shape = { divisor = 16, frame_step = 4, frame_offset = 1, max_frames = 33, max_pixels = 16384, native = [[64, 64, 17]] }
latent = { channels = 8, spatial = 8, temporal = 4 }
"""
EXAMPLE = """
[[variants.small.examples]]
title = "A first frame"
request.promptText = "it moves"
request.ratio = "64:64"
request.inputs = [{ role = "first_frame", image = "data:image/png;base64,AAAA" }]
"""


def test_an_example_stands_in_its_variant_as_it_was_written() -> None:
    (example,) = parse_catalog(VARIANT + EXAMPLE, "cat.toml")["small"].examples
    assert (example.title, example.request["ratio"], example.roles) == ("A first frame", "64:64", ("first_frame",))


def test_examples_change_no_clip_of_their_variant() -> None:
    with_them, without = (parse_catalog(text, "cat.toml")["small"] for text in (VARIANT + EXAMPLE, VARIANT))
    assert with_them.digest == without.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("request.ratio", "request.size"), r"variants\.small\.examples\.0\.request: size: .* available: promptText, "),
        (('"first_frame"', '"last_frame", role2 = 1'), r"inputs\.0\.role2: an example has no such field"),
        (('role = "first_frame"', 'role = "last_frame"'), "examples.0: small takes no last_frame; available: first_"),
        (('role = "first_frame"', 'role = "hat"'), "inputs.0.role: 'hat' is none; available: first_frame"),
        (("data:image/png;base64,AAAA", "https://example.com/a.png"), r"inputs\.0: needs one of image, as a data: URI"),
        (("AAAA", "A" * MAX_MEDIUM_CHARS), f"inputs.0: a data: URI of {MAX_MEDIUM_CHARS + 22} characters; at most"),
        (('request.promptText = "it moves"', ""), "has a promptText or prompts"),
        (("64:64", "64:96"), "examples.0: ratio '64:96' is no native size; available: 64:64"),
        (("request.ratio", "request.camera = [{ atSeconds = 1, zoom = 2 }]\nrequest.ratio"), "follows no camera"),
        (("request.ratio", 'request.prompts = [{ fromSeconds = 0, text = "x" }]\nrequest.ratio'), "follows one prompt"),
    ],
)
def test_an_example_that_could_not_be_asked_for_names_its_place(change: tuple[str, str], said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        parse_catalog(VARIANT + EXAMPLE.replace(*change, 1), "cat.toml")


def test_a_mask_that_ships_is_black_and_white() -> None:
    inputs = [one for example in shipped_catalog()["directed"].examples for one in example.request.get("inputs", [])]  # type: ignore[union-attr]
    (mask,) = [one["image"] for one in inputs if one["role"] == "mask"]  # type: ignore[index,call-overload]
    picture = Image.open(io.BytesIO(base64.b64decode(str(mask).partition(",")[2])))
    assert set(np.unique(np.asarray(picture.convert("L")))) == {0, 255}, "grey makes nothing anew"

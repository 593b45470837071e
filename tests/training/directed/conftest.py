"""A codec fitted to a few clips: the same for all tests here."""

import pytest
from diffusers import AutoencoderKLWan

from training.directed.__main__ import make_codec
from training.directed.codec import CodecConfig

SMALL = CodecConfig()


@pytest.fixture(scope="session")
def codec() -> AutoencoderKLWan:
    return make_codec(SMALL, 16)

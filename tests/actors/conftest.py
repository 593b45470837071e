"""The tiny Wan of the models' tests, for renderers and publishers."""

from tests.models.conftest import _one_thread, tiny_folder, tiny_model

__all__ = ["_one_thread", "tiny_folder", "tiny_model"]

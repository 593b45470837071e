"""What is trained is tried on the same tiny pipelines that the models' tests render with."""

from tests.models.conftest import _one_thread, tiny_folder, tiny_model

__all__ = ["_one_thread", "tiny_folder", "tiny_model"]
